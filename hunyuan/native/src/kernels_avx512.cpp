// AVX-512 with VNNI: x86 processors since 2019 (Intel Ice Lake) and 2022 (AMD Zen 4).
#include "kernels.h"
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__) && defined(__AVX512DQ__)
#include <immintrin.h>
#define HY_ISA avx512

namespace hy {
namespace HY_ISA {

constexpr int kLanes = 16;
constexpr bool kSignedBytes = false;
using I = __m512i;
using F = __m512;

inline F set(float x) { return _mm512_set1_ps(x); }
inline F load(const float *p) { return _mm512_loadu_ps(p); }
inline void store(float *p, F x) { _mm512_storeu_ps(p, x); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F divide(F a, F b) { return _mm512_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }
inline F round_nearest(F x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline F scale_by_power(F x, F n) { return _mm512_scalef_ps(x, n); }
inline float reduce_add(F x) { return _mm512_reduce_add_ps(x); }
inline float reduce_max(F x) { return _mm512_reduce_max_ps(x); }
// Lanes from n on become `other`.
inline F first_lanes(F x, int n, float other) {
  const __mmask16 keep = n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1;
  return _mm512_mask_blend_ps(keep, set(other), x);
}
inline F load_f16(const uint8_t *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
inline F load_bf16(const uint8_t *p) {
  const I wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
// Round to nearest, ties to even.
inline void store_bf16(uint16_t *p, F x) {
  const I bits = _mm512_castps_si512(x);
  const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const I up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
}
inline F load_u8(const uint8_t *p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
}
inline F load_i8(const uint8_t *p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
}

inline I load_bytes(const uint8_t *p) { return _mm512_loadu_si512(p); }
inline void store_whole(uint8_t *p, I x) { _mm512_storeu_si512(p, x); }
inline I set_int(int32_t x) { return _mm512_set1_epi32(x); }
inline I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
inline F to_float(I x) { return _mm512_cvtepi32_ps(x); }
inline int32_t reduce_add_int(I x) { return _mm512_reduce_add_epi32(x); }
inline I to_int(F x) { return _mm512_cvtps_epi32(x); }
inline void store_bytes(int8_t *p, I x) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtepi32_epi8(x));
}
template <int Mask>
inline I mask_bytes(I x) { return _mm512_and_si512(x, _mm512_set1_epi8(Mask)); }
// a | (b & Mask)
template <int Mask>
inline I merge_bytes(I a, I b) {
  return _mm512_ternarylogic_epi64(a, b, _mm512_set1_epi8(Mask), 0xf8);
}
template <int N>
inline I shift_right(I x) { return _mm512_srli_epi16(x, N); }
template <int N>
inline I shift_left(I x) { return _mm512_slli_epi16(x, N); }
template <int N>
inline I shift_left_int(I x) { return _mm512_slli_epi32(x, N); }
// Adds to every lane the products of its four unsigned bytes with four signed ones at `q`.
template <int Bits>
inline I dot(I acc, I w, const int8_t *q) {
  return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(load_as<int32_t>(q)));
}

}  // namespace HY_ISA
}  // namespace hy

#include "kernels_impl.h"

const hy::Kernels *hy::avx512_kernels() {
  static constexpr Kernels kernels = HY_ISA::table("avx512");
  return &kernels;
}
#else
const hy::Kernels *hy::avx512_kernels() { return nullptr; }
#endif
