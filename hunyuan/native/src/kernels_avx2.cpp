// AVX2 with FMA and F16C: x86 processors since 2013 (Intel Haswell) and 2017 (AMD Zen).
#include "kernels.h"
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#define HY_ISA avx2

namespace hy {
namespace HY_ISA {

constexpr int kLanes = 8;
constexpr bool kSignedBytes = true;
using I = __m256i;
using F = __m256;

inline F set(float x) { return _mm256_set1_ps(x); }
inline F load(const float *p) { return _mm256_loadu_ps(p); }
inline void store(float *p, F x) { _mm256_storeu_ps(p, x); }
inline F add(F a, F b) { return _mm256_add_ps(a, b); }
inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F divide(F a, F b) { return _mm256_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F min(F a, F b) { return _mm256_min_ps(a, b); }
inline F max(F a, F b) { return _mm256_max_ps(a, b); }
inline F round_nearest(F x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// x times 2^n for whole n from -126 to 127.
inline F scale_by_power(F x, F n) {
  const I exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
inline float reduce_add(F x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_shuffle_ps(y, y, 1)));
}
inline float reduce_max(F x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_shuffle_ps(y, y, 1)));
}
// Lanes from n on become `other`.
inline F first_lanes(F x, int n, float other) {
  const I lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const I keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
  return _mm256_blendv_ps(set(other), x, _mm256_castsi256_ps(keep));
}
inline F load_f16(const uint8_t *p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
inline F load_bf16(const uint8_t *p) {
  const I wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
// Round to nearest, ties to even.
inline void store_bf16(uint16_t *p, F x) {
  const I bits = _mm256_castps_si256(x);
  const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const I up = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p),
                   _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1)));
}
inline F load_u8(const uint8_t *p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
}
inline F load_i8(const uint8_t *p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
}

inline I load_bytes(const uint8_t *p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
}
inline void store_whole(uint8_t *p, I x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), x);
}
inline I set_int(int32_t x) { return _mm256_set1_epi32(x); }
inline I add_int(I a, I b) { return _mm256_add_epi32(a, b); }
inline F to_float(I x) { return _mm256_cvtepi32_ps(x); }
inline int32_t reduce_add_int(I x) {
  __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 0xb1)));
}
inline I to_int(F x) { return _mm256_cvtps_epi32(x); }
inline void store_bytes(int8_t *p, I x) {
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packs_epi16(words, words));
}
template <int Mask>
inline I mask_bytes(I x) { return _mm256_and_si256(x, _mm256_set1_epi8(Mask)); }
// a | (b & Mask)
template <int Mask>
inline I merge_bytes(I a, I b) { return _mm256_or_si256(a, mask_bytes<Mask>(b)); }
template <int N>
inline I shift_right(I x) { return _mm256_srli_epi16(x, N); }
template <int N>
inline I shift_left(I x) { return _mm256_slli_epi16(x, N); }
template <int N>
inline I shift_left_int(I x) { return _mm256_slli_epi32(x, N); }
// Adds to every lane the products of its four bytes with four signed ones at `q`. The pairwise sums
// are 16 bits wide: whole bytes would overflow them, so their sign moves to the other factor.
template <int Bits>
inline I dot(I acc, I w, const int8_t *q) {
  I x = _mm256_set1_epi32(load_as<int32_t>(q));
  if constexpr (Bits == 8) {
    w = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
    x = _mm256_sign_epi8(x, w);
    w = _mm256_abs_epi8(w);
  }
  const I pairs = _mm256_maddubs_epi16(w, x);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

}  // namespace HY_ISA
}  // namespace hy

#include "kernels_impl.h"

const hy::Kernels *hy::avx2_kernels() {
  static constexpr Kernels kernels = HY_ISA::table("avx2");
  return &kernels;
}
#else
const hy::Kernels *hy::avx2_kernels() { return nullptr; }
#endif
