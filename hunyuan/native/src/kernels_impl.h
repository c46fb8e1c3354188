// The kernels themselves, once, over a small vector type. A file per instruction set defines
// `namespace hy { namespace HY_ISA { struct I, F and their operations } }` and includes this.
//
//   kLanes        lanes of 32 bits in a register; divides 16
//   I, F          a register of integers (or of 4 * kLanes bytes), and of floats
//   kSignedBytes  dot() of bytes stored as q + 128 already subtracts the 128

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels.h"

namespace hy {
namespace HY_ISA {

constexpr int kHalves = kRows / kLanes;

// ------------------------------------------------------------------ quantised products

// The eight vectors of a group of 32 columns, lanes [half * kLanes, ...) of the 16 rows.
template <int Bits>
inline void load_quants(const uint8_t *q, int half, I w[8]) {
  const uint8_t *at = q + half * 4 * kLanes;
  if constexpr (Bits == 8) {
    for (int j = 0; j < 8; j++) w[j] = load_bytes(at + 64 * j);
  } else {
    for (int i = 0; i < 4; i++) {
      const I both = load_bytes(at + 64 * i);
      w[2 * i] = mask_bytes<15>(both);
      w[2 * i + 1] = mask_bytes<15>(shift_right<4>(both));
    }
    if constexpr (Bits == 5) {
      const I top = load_bytes(at + 256);
      w[0] = merge_bytes<16>(w[0], shift_left<4>(top));
      w[1] = merge_bytes<16>(w[1], shift_left<3>(top));
      w[2] = merge_bytes<16>(w[2], shift_left<2>(top));
      w[3] = merge_bytes<16>(w[3], shift_left<1>(top));
      w[4] = merge_bytes<16>(w[4], top);
      w[5] = merge_bytes<16>(w[5], shift_right<1>(top));
      w[6] = merge_bytes<16>(w[6], shift_right<2>(top));
      w[7] = merge_bytes<16>(w[7], shift_right<3>(top));
    }
    if constexpr (Bits == 6) {
      for (int h = 0; h < 2; h++) {
        const I top = load_bytes(at + 256 + 64 * h);
        w[4 * h] = merge_bytes<48>(w[4 * h], shift_left<4>(top));
        w[4 * h + 1] = merge_bytes<48>(w[4 * h + 1], shift_left<2>(top));
        w[4 * h + 2] = merge_bytes<48>(w[4 * h + 2], top);
        w[4 * h + 3] = merge_bytes<48>(w[4 * h + 3], shift_right<2>(top));
      }
    }
  }
}

constexpr int log2_of(int power) { return power > 1 ? 1 + log2_of(power / 2) : 0; }

// Adds to each of N tokens from `first` on what 32 columns of whole numbers give.
template <int Index, int N, class Numbers>
inline void add_products(const I *w, const F *scale, const Numbers &x, int first, F *acc) {
  constexpr Format f = kFormats[Index];
  constexpr bool by_sixteen = f.bits == 6;
  constexpr int centre = f.bits == 8 && kSignedBytes ? 0 : f.centre;
#pragma GCC unroll 16
  for (int n = 0; n < N; n++) {
    const int at = first + n;
    const int8_t *q = x.q[at];
    I a = set_int(0), b = set_int(0);
    if constexpr (by_sixteen) {
      a = shift_left_int<log2_of(centre)>(set_int(x.minus_sum[0][at]));
      b = shift_left_int<log2_of(centre)>(set_int(x.minus_sum[1][at]));
    } else if constexpr (centre != 0) {
      a = shift_left_int<log2_of(centre)>(set_int(x.minus_sum[2][at]));
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      a = dot<f.bits>(a, w[j], q + 4 * j);
      b = dot<f.bits>(b, w[4 + j], q + 16 + 4 * j);
    }
    const F xs = set(x.scale[at]);
    if constexpr (by_sixteen) {
      acc[n] = fma(to_float(a), mul(scale[0], xs), acc[n]);
      acc[n] = fma(to_float(b), mul(scale[1], xs), acc[n]);
    } else {
      acc[n] = fma(to_float(add_int(a, b)), mul(scale[0], xs), acc[n]);
    }
  }
}

// One group of 32 columns, with the scales at hand.
template <int Index, int N>
inline void add_group(const uint8_t *quants, int half, const F *scale, F minimum, const Tile &in,
                      int64_t g, int first, F *acc) {
  constexpr Format f = kFormats[Index];
  if constexpr (N <= 2) {
    // A lone token waits for memory: ask for the quants some groups ahead.
    constexpr int lines = (f.bits == 8 ? 512 : 320) / 64 + 1;
    for (int i = 0; i < lines; i++) __builtin_prefetch(quants + 2048 + 64 * i);
  }
  I w[8];
  load_quants<f.bits>(quants, half, w);
  const GroupTile &x = in.groups[g];
  add_products<Index, N>(w, scale, x, first, acc);
  if (in.has_fine[g]) add_products<Index, N>(w, scale, in.fines[g], first, acc);
  if constexpr (f.minimum) {
#pragma GCC unroll 16
    for (int n = 0; n < N; n++) acc[n] = fma(minimum, set(x.sum[first + n]), acc[n]);
  }
}

template <int Index, int N>
void quantised_product(const uint8_t *block, const Tile &in, int first, float *out) {
  constexpr Format f = kFormats[Index];
  constexpr int bytes = f.bits == 8 ? 512 : f.bits == 6 ? 384 : f.bits == 5 ? 320 : 256;
  const int64_t groups = in.columns / kGroup;
  for (int half = 0; half < kHalves; half++) {
    const int lane = half * kLanes;
    F acc[N];
    for (int n = 0; n < N; n++) acc[n] = set(0);
    const uint8_t *unit = block;
    for (int64_t g = 0; g < groups; unit += f.unit_bytes) {
      if constexpr (!f.super) {
        const F scale = load_f16(unit + bytes + 2 * lane);
        F minimum = scale;
        if constexpr (f.minimum) minimum = load_f16(unit + bytes + 32 + 2 * lane);
        add_group<Index, N>(unit, half, &scale, minimum, in, g++, first, acc);
      } else {
        const F d = load_f16(unit + 2 * lane);
        F dmin = d;
        if constexpr (f.minimum) dmin = sub(set(0), load_f16(unit + 32 + 2 * lane));
        const uint8_t *part = unit + (f.minimum ? 64 : 32);
        for (int i = 0; i < 8; i++, part += 32 + bytes) {
          F scale[2], minimum = d;
          if constexpr (f.minimum) {
            scale[0] = mul(d, load_u8(part + lane));
            minimum = mul(dmin, load_u8(part + 16 + lane));
          } else {
            scale[0] = mul(d, load_i8(part + lane));
            scale[1] = mul(d, load_i8(part + 16 + lane));
          }
          add_group<Index, N>(part + 32, half, scale, minimum, in, g++, first, acc);
        }
      }
    }
    for (int n = 0; n < N; n++) store(out + n * kRows + lane, acc[n]);
  }
}

// ------------------------------------------------------------------ float products

template <int Type>
inline F load_weights(const uint8_t *from) {
  if constexpr (Type == HY_F32) return load(reinterpret_cast<const float *>(from));
  if constexpr (Type == HY_F16) return load_f16(from);
  return load_bf16(from);
}

// Two sums per token, over even and odd columns, hide the latency of the additions.
template <int Index, int N>
void float_product(const uint8_t *block, const Tile &in, int first, float *out) {
  constexpr Format f = kFormats[Index];
  constexpr int size = f.block_bytes;
  for (int half = 0; half < kHalves; half++) {
    F even[N], odd[N];
    for (int n = 0; n < N; n++) even[n] = odd[n] = set(0);
    const uint8_t *at = block + half * kLanes * size;
    const float *x = in.floats + first;
    int64_t c = 0;
    for (; c + 1 < in.columns; c += 2, at += 2 * f.unit_bytes, x += 2 * kTile) {
      const F w0 = load_weights<f.type>(at), w1 = load_weights<f.type>(at + f.unit_bytes);
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) {
        even[n] = fma(w0, set(x[n]), even[n]);
        odd[n] = fma(w1, set(x[kTile + n]), odd[n]);
      }
    }
    for (int n = 0; n < N; n++) {
      if (c < in.columns) even[n] = fma(load_weights<f.type>(at), set(x[n]), even[n]);
      store(out + n * kRows + half * kLanes, add(even[n], odd[n]));
    }
  }
}

// N tokens from `first` on.
template <int Index, int N>
inline void product_of(const uint8_t *block, const Tile &in, int first, float *out) {
  if constexpr (kFormats[Index].bits == 0) {
    float_product<Index, N>(block, in, first, out + first * kRows);
  } else {
    quantised_product<Index, N>(block, in, first, out + first * kRows);
  }
}

template <int Index>
void product(const uint8_t *block, const Tile &in, int n, float *out) {
  int done = 0;
  if constexpr (kFormats[Index].bits != 0) {
    if (n == 16) return product_of<Index, 16>(block, in, 0, out);
  }
  for (; n - done >= 8; done += 8) product_of<Index, 8>(block, in, done, out);
  if (n - done >= 4) {
    product_of<Index, 4>(block, in, done, out);
    done += 4;
  }
  if (n - done >= 2) {
    product_of<Index, 2>(block, in, done, out);
    done += 2;
  }
  if (n - done) product_of<Index, 1>(block, in, done, out);
}

// ------------------------------------------------------------------ many tokens

template <int Index>
void widen(const uint8_t *block, int64_t columns, int at, WideGroup *out) {
  constexpr Format f = kFormats[Index];
  constexpr int bytes = f.bits == 8 ? 512 : f.bits == 6 ? 384 : f.bits == 5 ? 320 : 256;
  const auto put = [&](const uint8_t *quants, int half, WideGroup &to) {
    I w[8];
    load_quants<f.bits>(quants, half, w);
    for (int j = 0; j < 8; j++) store_whole(to.q[at][j] + half * 4 * kLanes, w[j]);
  };
  for (int half = 0; half < kHalves; half++) {
    const int lane = half * kLanes;
    const uint8_t *unit = block;
    for (int64_t g = 0; g < columns / kGroup; unit += f.unit_bytes) {
      if constexpr (!f.super) {
        WideGroup &to = out[g++];
        put(unit, half, to);
        store(to.scale[at][0] + lane, load_f16(unit + bytes + 2 * lane));
        if constexpr (f.minimum)
          store(to.minimum[at] + lane, load_f16(unit + bytes + 32 + 2 * lane));
      } else {
        const F d = load_f16(unit + 2 * lane);
        const uint8_t *part = unit + (f.minimum ? 64 : 32);
        for (int i = 0; i < 8; i++, part += 32 + bytes) {
          WideGroup &to = out[g++];
          put(part + 32, half, to);
          if constexpr (f.minimum) {
            const F dmin = sub(set(0), load_f16(unit + 32 + 2 * lane));
            store(to.scale[at][0] + lane, mul(d, load_u8(part + lane)));
            store(to.minimum[at] + lane, mul(dmin, load_u8(part + 16 + lane)));
          } else {
            store(to.scale[at][0] + lane, mul(d, load_i8(part + lane)));
            store(to.scale[at][1] + lane, mul(d, load_i8(part + 16 + lane)));
          }
        }
      }
    }
  }
}

constexpr int kQuad = 4;  // tokens that share a load of weights

// Four tokens from `first` on, R of the four blocks from `block` on: one load of an input serves
// R products, one load of weights four. `sums` adds the minimum, which comes last.
template <int Index, int R, class Numbers>
inline void add_quad(const WideGroup &w, int block, int lane, const Numbers &x, int first,
                     const float *sums, float *acc) {
  constexpr Format f = kFormats[Index];
  constexpr bool by_sixteen = f.bits == 6;
  constexpr int centre = f.bits == 8 && kSignedBytes ? 0 : f.centre;
  constexpr int parts = by_sixteen ? 2 : 1;
#pragma GCC unroll 2
  for (int part = 0; part < parts; part++) {
    I sum[R][kQuad];
#pragma GCC unroll 4
    for (int n = 0; n < kQuad; n++) {
      const int32_t minus = centre ? x.minus_sum[by_sixteen ? part : 2][first + n] : 0;
      const I start = shift_left_int<log2_of(centre)>(set_int(minus));
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) sum[r][n] = start;
    }
#pragma GCC unroll 8
    for (int j = part * 4; j < (by_sixteen ? part * 4 + 4 : 8); j++) {
      I weights[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) weights[r] = load_bytes(w.q[block + r][j] + 4 * lane);
#pragma GCC unroll 4
      for (int n = 0; n < kQuad; n++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
          sum[r][n] = dot<f.bits>(sum[r][n], weights[r], x.q[first + n] + 4 * j);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const F scale = load(w.scale[block + r][part] + lane);
#pragma GCC unroll 4
      for (int n = 0; n < kQuad; n++) {
        float *to = acc + ((block + r) * kTile + first + n) * kRows + lane;
        F y = fma(to_float(sum[r][n]), mul(scale, set(x.scale[first + n])), load(to));
        if constexpr (f.minimum) {
          if (sums) y = fma(load(w.minimum[block + r] + lane), set(sums[first + n]), y);
        }
        store(to, y);
      }
    }
  }
}

template <int Index>
void wide_product(const WideGroup *weights, const Tile &in, int n, float *out) {
  constexpr int R = kLanes == 16 ? 4 : kLanes == 8 ? 2 : 1;
  std::memset(out, 0, sizeof(float) * kWide * kTile * kRows);
  for (int64_t g = 0; g < in.columns / kGroup; g++) {
    const WideGroup &w = weights[g];
    const GroupTile &x = in.groups[g];
    for (int lane = 0; lane < kRows; lane += kLanes)
      for (int first = 0; first < n; first += kQuad)
        for (int block = 0; block < kWide; block += R) {
          if (in.has_fine[g]) {
            add_quad<Index, R>(w, block, lane, x, first, nullptr, out);
            add_quad<Index, R>(w, block, lane, in.fines[g], first, x.sum, out);
          } else {
            add_quad<Index, R>(w, block, lane, x, first, x.sum, out);
          }
        }
  }
}

template <int Index>
constexpr auto widener() -> void (*)(const uint8_t *, int64_t, int, WideGroup *) {
  if constexpr (kFormats[Index].bits == 0) return nullptr;
  else return widen<Index>;
}

template <int Index>
constexpr auto wide_producer() -> void (*)(const WideGroup *, const Tile &, int, float *) {
  if constexpr (kFormats[Index].bits == 0) return nullptr;
  else return wide_product<Index>;
}

// ------------------------------------------------------------------ element-wise

// Whole numbers of kGroup floats times `inverse`, with the sums that centred weights need.
template <class Numbers>
inline int32_t round_into(Numbers &to, int at, const F *x, float inverse) {
  int32_t sums[2] = {0, 0};
  for (int i = 0; i < kGroup / kLanes; i++) {
    const I q = to_int(mul(x[i], set(inverse)));
    store_bytes(to.q[at] + i * kLanes, q);
    sums[i * kLanes / 16] += reduce_add_int(q);
  }
  to.minus_sum[0][at] = -sums[0];
  to.minus_sum[1][at] = -sums[1];
  to.minus_sum[2][at] = -(sums[0] + sums[1]);
  return sums[0] + sums[1];
}

bool quantize(const float *from, float limit, GroupTile &to, FineTile &fine, int at) {
  constexpr int vectors = kGroup / kLanes;
  F x[vectors], largest = set(0);
  for (int i = 0; i < vectors; i++) {
    x[i] = load(from + i * kLanes);
    largest = max(largest, max(x[i], sub(set(0), x[i])));
  }
  const float most = reduce_max(largest), scale = most / 127.0f;
  const int32_t sum = round_into(to, at, x, most > 0 ? 127.0f / most : 0.0f);
  to.scale[at] = scale;
  to.sum[at] = scale * static_cast<float>(sum);
  if (most <= limit) {
    std::memset(fine.q[at], 0, kGroup);
    for (auto &sums : fine.minus_sum) sums[at] = 0;
    fine.scale[at] = 0;
    return false;
  }
  const float fine_scale = scale / 254.0f;
  for (int i = 0; i < vectors; i++) {
    const F whole = load_i8(reinterpret_cast<const uint8_t *>(to.q[at]) + i * kLanes);
    x[i] = sub(x[i], mul(whole, set(scale)));
  }
  const int32_t fine_sum = round_into(fine, at, x, 1.0f / fine_scale);
  fine.scale[at] = fine_scale;
  to.sum[at] += fine_scale * static_cast<float>(fine_sum);
  return true;
}

// Channel i turns with channel i + n.
void rotate(float *x, const float *cosine, const float *sine, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {  // n is a multiple of 8
    if (i + kLanes > n) {
      for (; i < n; i++) {
        const float a = x[i], b = x[i + n];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + n] = b * cosine[i] + a * sine[i];
      }
      return;
    }
    const F a = load(x + i), b = load(x + i + n), c = load(cosine + i), s = load(sine + i);
    store(x + i, sub(mul(a, c), mul(b, s)));
    store(x + i + n, add(mul(b, c), mul(a, s)));
  }
}

void rms_norm(const float *x, const float *gain, float eps, int64_t n, float *out) {
  float parts[16] = {0};  // sixteen sums, so that the compiler may use any register width
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) parts[j] += x[i + j] * x[i + j];
  for (int j = 0; i < n; i++, j++) parts[j] += x[i] * x[i];
  float total = 0;
  for (float part : parts) total += part;
  const float scale = 1.0f / std::sqrt(total / static_cast<float>(n) + eps);
  for (i = 0; i < n; i++) out[i] = x[i] * scale * (gain ? gain[i] : 1.0f);
}

// e^x to two units in the last place, 0 below -87: 2^n times a polynomial on half an octave.
inline F exponential(F x) {
  x = max(x, set(-87.3f));
  const F n = round_nearest(mul(x, set(1.44269504088896341f)));
  F r = fma(n, set(-0.693359375f), x);
  r = fma(n, set(2.12194440e-4f), r);
  F p = set(1.9875691500e-4f);
  p = fma(p, r, set(1.3981999507e-3f));
  p = fma(p, r, set(8.3334519073e-3f));
  p = fma(p, r, set(4.1665795894e-2f));
  p = fma(p, r, set(1.6666665459e-1f));
  p = fma(p, r, set(5.0000001201e-1f));
  p = add(fma(mul(p, r), r, r), set(1.0f));
  return scale_by_power(p, n);
}

void silu_mul(const float *gate, const float *up, int64_t n, float *out) {
  for (int64_t i = 0; i < n; i += kLanes) {  // n is a multiple of 16
    const F g = load(gate + i);
    // A gate so negative that e^-g overflows gives g / inf = -0, as it should.
    const F e = exponential(min(sub(set(0), g), set(88.0f)));
    store(out + i, mul(divide(g, add(set(1.0f), e)), load(up + i)));
  }
}

// ------------------------------------------------------------------ attention

constexpr int kKeyVectors = HY_BLOCK / kLanes;
constexpr int kQueryRows = kLanes == 16 ? 4 : kLanes == 8 ? 2 : 1;

template <int Type>
inline F load_cached(const char *from, int64_t at) {
  if constexpr (Type == HY_KV_F32) return load(reinterpret_cast<const float *>(from) + at);
  if constexpr (Type == HY_KV_BF16) return load_bf16(reinterpret_cast<const uint8_t *>(from) + 2 * at);
  return load_i8(reinterpret_cast<const uint8_t *>(from) + at);
}

// out[row + r, from...] += sum over the first `keys` keys of weight (R, 32) times their values.
template <int Type, int R, int Vectors>
inline void add_values(const Span &s, int row, const char *v, int from, const float *weight,
                       int keys) {
  const int64_t c = s.head_dim;
  F acc[R][Vectors];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; j++) acc[r][j] = load(s.out + (row + r) * c + from + j * kLanes);
  for (int t = 0; t < keys; t++) {
    F value[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; j++)
      value[j] = load_cached<Type>(v, t * c + from + j * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const F w = set(weight[r * HY_BLOCK + t]);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; j++) acc[r][j] = fma(w, value[j], acc[r][j]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; j++) store(s.out + (row + r) * c + from + j * kLanes, acc[r][j]);
}

// Rows [row, row + R) over the keys of one block that starts at position `start`.
template <int Type, int R>
void attend_block(const Span &s, int row, int block, int start) {
  const int c = s.head_dim;
  const char *k = s.k + block * s.stride, *v = s.v + block * s.stride;
  int most = 0;
  for (int r = 0; r < R; r++) most = std::max(most, s.limit[row + r] - start);
  if (most <= 0) return;
  most = std::min(most, HY_BLOCK);

  // Two sums per score, over even and odd channels, hide the latency of the additions.
  F score[R][kKeyVectors], odd[R][kKeyVectors];
  for (int r = 0; r < R; r++)
    for (int j = 0; j < kKeyVectors; j++) score[r][j] = odd[r][j] = set(0);
  const float *q = s.q + static_cast<int64_t>(row) * c;
  for (int i = 0; i < c; i += 2) {
    F key[2][kKeyVectors];
    for (int j = 0; j < kKeyVectors; j++) {
      key[0][j] = load_cached<Type>(k, i * HY_BLOCK + j * kLanes);
      key[1][j] = load_cached<Type>(k, (i + 1) * HY_BLOCK + j * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const F even_q = set(q[r * c + i]), odd_q = set(q[r * c + i + 1]);
#pragma GCC unroll 8
      for (int j = 0; j < kKeyVectors; j++) {
        score[r][j] = fma(even_q, key[0][j], score[r][j]);
        odd[r][j] = fma(odd_q, key[1][j], odd[r][j]);
      }
    }
  }
  for (int r = 0; r < R; r++)
    for (int j = 0; j < kKeyVectors; j++) score[r][j] = add(score[r][j], odd[r][j]);

  alignas(64) float weight[R][HY_BLOCK];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    const int seen = std::min(s.limit[row + r] - start, HY_BLOCK);
    float *w = weight[r];
    if (seen <= 0) {
      for (int j = 0; j < kKeyVectors; j++) store(w + j * kLanes, set(0));
      continue;
    }
    F most_of = set(-std::numeric_limits<float>::infinity());
#pragma GCC unroll 8
    for (int j = 0; j < kKeyVectors; j++) {
      if constexpr (Type == HY_KV_I8) {
        score[r][j] = mul(score[r][j], load(s.k_scale + block * s.scale_stride + j * kLanes));
      }
      // What lies beyond the last key is whatever was in memory.
      score[r][j] = first_lanes(score[r][j], seen - j * kLanes,
                                -std::numeric_limits<float>::infinity());
      most_of = max(most_of, score[r][j]);
    }
    const float largest = reduce_max(most_of);
    float &maximum = s.maximum[row + r], &total = s.total[row + r];
    if (largest > maximum) {
      const float shrink = std::exp(maximum - largest);  // 0 from minus infinity
      float *out = s.out + static_cast<int64_t>(row + r) * c;
      for (int i = 0; i < c; i += kLanes) store(out + i, mul(load(out + i), set(shrink)));
      total *= shrink;
      maximum = largest;
    }
    F sum = set(0);
#pragma GCC unroll 8
    for (int j = 0; j < kKeyVectors; j++) {
      const F e = first_lanes(exponential(sub(score[r][j], set(maximum))), seen - j * kLanes, 0);
      sum = add(sum, e);
      store(w + j * kLanes, e);
    }
    total += reduce_add(sum);
    if constexpr (Type == HY_KV_I8) {
      const float *scale = s.v_scale + block * s.scale_stride;
      for (int t = 0; t < seen; t++) w[t] *= scale[t];
    }
  }

  int from = 0;
  for (; from + 4 * kLanes <= c; from += 4 * kLanes)
    add_values<Type, R, 4>(s, row, v, from, weight[0], most);
  for (; from < c; from += kLanes) add_values<Type, R, 1>(s, row, v, from, weight[0], most);
}

template <int Type>
void attend_typed(const Span &s) {
  for (int i = s.first; i < s.last; i++) {
    const int block = s.table[i], start = i * HY_BLOCK;
    int row = 0;
    for (; row + kQueryRows <= s.rows; row += kQueryRows)
      attend_block<Type, kQueryRows>(s, row, block, start);
    const int left = s.rows - row;
    if (kQueryRows > 3 && left == 3) {
      attend_block<Type, (kQueryRows > 3 ? 3 : 1)>(s, row, block, start);
    } else if (kQueryRows > 2 && left == 2) {
      attend_block<Type, (kQueryRows > 2 ? 2 : 1)>(s, row, block, start);
    } else if (left) {
      attend_block<Type, 1>(s, row, block, start);
    }
  }
}

void attend(const Span &s) {
  if (s.type == HY_KV_F32) return attend_typed<HY_KV_F32>(s);
  if (s.type == HY_KV_BF16) return attend_typed<HY_KV_BF16>(s);
  attend_typed<HY_KV_I8>(s);
}

}  // namespace HY_ISA
}  // namespace hy

#include "training_impl.h"

namespace hy {
namespace HY_ISA {

template <int... Index>
constexpr Kernels table(const char *name, std::integer_sequence<int, Index...>) {
  return {name,
          {product<Index>...},
          {widener<Index>()...},
          {wide_producer<Index>()...},
          quantize, rms_norm, rotate, silu_mul, attend, training_rows()};
}

constexpr Kernels table(const char *name) {
  return table(name, std::make_integer_sequence<int, kFormatCount>());
}

}  // namespace HY_ISA
}  // namespace hy
