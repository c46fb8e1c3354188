// Plain C++ over the compiler's own vectors of 16 bytes: any processor (SSE2 on x86, NEON on ARM).
#include <cmath>

#include "kernels.h"
#define HY_ISA generic

namespace hy {
namespace HY_ISA {

constexpr int kLanes = 4;
constexpr bool kSignedBytes = false;
typedef int32_t I __attribute__((vector_size(16)));
typedef uint32_t U __attribute__((vector_size(16)));
typedef float F __attribute__((vector_size(16)));

inline F set(float x) { return F{x, x, x, x}; }
inline F load(const float *p) { return load_as<F>(p); }
inline void store(float *p, F x) { std::memcpy(p, &x, sizeof x); }
inline F add(F a, F b) { return a + b; }
inline F sub(F a, F b) { return a - b; }
inline F mul(F a, F b) { return a * b; }
inline F divide(F a, F b) { return a / b; }
inline F fma(F a, F b, F c) { return a * b + c; }
inline F min(F a, F b) { return a < b ? a : b; }
inline F max(F a, F b) { return a > b ? a : b; }
template <class Each>
inline F each_lane(const Each &each) { return F{each(0), each(1), each(2), each(3)}; }
inline F round_nearest(F x) { return each_lane([&](int i) { return std::nearbyint(x[i]); }); }
inline F scale_by_power(F x, F n) {
  const I exponent = (__builtin_convertvector(n, I) + 127) << 23;
  return x * reinterpret_cast<F>(exponent);
}
inline float reduce_add(F x) { return (x[0] + x[1]) + (x[2] + x[3]); }
inline float reduce_max(F x) { return std::fmax(std::fmax(x[0], x[1]), std::fmax(x[2], x[3])); }
// Lanes from n on become `other`.
inline F first_lanes(F x, int n, float other) {
  return each_lane([&](int i) { return i < n ? x[i] : other; });
}
inline F load_f16(const uint8_t *p) {
  return each_lane([&](int i) { return from_f16(load_as<uint16_t>(p + 2 * i)); });
}
inline F load_bf16(const uint8_t *p) {
  return each_lane([&](int i) { return from_bf16(load_as<uint16_t>(p + 2 * i)); });
}
// Round to nearest, ties to even.
inline void store_bf16(uint16_t *p, F x) {
  const U bits = reinterpret_cast<U>(x);
  const U up = (bits + ((bits >> 16) & 1) + 0x7fff) >> 16;
  for (int i = 0; i < 4; i++) p[i] = static_cast<uint16_t>(up[i]);
}
inline F load_u8(const uint8_t *p) {
  return each_lane([&](int i) { return static_cast<float>(p[i]); });
}
inline F load_i8(const uint8_t *p) {
  return each_lane([&](int i) { return static_cast<float>(static_cast<int8_t>(p[i])); });
}

inline I load_bytes(const uint8_t *p) { return load_as<I>(p); }
inline void store_whole(uint8_t *p, I x) { std::memcpy(p, &x, sizeof x); }
inline I set_int(int32_t x) { return I{x, x, x, x}; }
inline I add_int(I a, I b) { return a + b; }
inline F to_float(I x) { return __builtin_convertvector(x, F); }
inline int32_t reduce_add_int(I x) { return x[0] + x[1] + x[2] + x[3]; }
inline I to_int(F x) { return __builtin_convertvector(round_nearest(x), I); }
inline void store_bytes(int8_t *p, I x) {
  for (int i = 0; i < 4; i++) p[i] = static_cast<int8_t>(x[i]);
}
template <int Mask>
inline I mask_bytes(I x) { return x & set_int(Mask * 0x01010101); }
// a | (b & Mask)
template <int Mask>
inline I merge_bytes(I a, I b) { return a | mask_bytes<Mask>(b); }
template <int N>
inline I shift_right(I x) { return reinterpret_cast<I>(reinterpret_cast<U>(x) >> N); }
template <int N>
inline I shift_left(I x) { return x << N; }
template <int N>
inline I shift_left_int(I x) { return x << N; }
// Adds to every lane the products of its four unsigned bytes with four signed ones at `q`.
template <int Bits>
inline I dot(I acc, I w, const int8_t *q) {
  const U bytes = reinterpret_cast<U>(w);
  for (int i = 0; i < 4; i++) acc += reinterpret_cast<I>((bytes >> (8 * i)) & 255) * q[i];
  return acc;
}

}  // namespace HY_ISA
}  // namespace hy

#include "kernels_impl.h"

const hy::Kernels *hy::generic_kernels() {
  static constexpr Kernels kernels = HY_ISA::table("generic");
  return &kernels;
}
