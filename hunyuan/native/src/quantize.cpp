// Floats to ggml's blocks. Rounding to nearest under a scale taken from the largest weight is easy;
// here the scales themselves are searched for the least squared error, weighted by column.
//
// Every group of 32 (16 for Q6_K) weights x is approximated by d * q, or d * q + m. For many pairs
// (d, m) - ranges that clip the extremes a little, or leave the ends of the scale unused - the
// nearest q are taken, and the least squares solution for these q gives a better pair and its
// error. The best pair is improved likewise until it stays. Two-level types then need all scales of
// 256 weights to be six- or eight-bit multiples of one: several such are tried, multiples next to
// the nearest as well, and the one scale is fitted to all 256 weights given the rest.
//
// A matrix that already is of the type comes back as it was (if some group uses its whole range).
//
// Four groups are searched side by side, one per vector lane, in the vectors that every processor
// of the architecture has. On a server core of 2023, 30 ns a weight for blocks of 32 and 80 for Q4_K.
#include <cmath>
#include <new>

#include "layout.h"

namespace hy {
namespace {

typedef float V __attribute__((vector_size(16)));  // the same quantity of four groups
constexpr int kLanes = 4;

inline V all(float x) { return V{x, x, x, x}; }
inline V least(V a, V b) { return a < b ? a : b; }
inline V most(V a, V b) { return a > b ? a : b; }
inline V clamp(V x, float low, float high) { return least(most(x, all(low)), all(high)); }
// To the nearest whole number: above 2^23 a float has no fraction. For |x| below 2^22.
inline V rounded(V x) { return (x + 12582912.0f) - 12582912.0f; }
inline V ratio(V a, V b) { return b != all(0) ? a / b : all(0); }

// IEEE half precision, to nearest even; overflow becomes infinite.
uint16_t to_f16(float x) {
  const uint32_t bits = load_as<uint32_t>(&x), sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // subnormal: whole multiples of 2^-24
    return static_cast<uint16_t>(sign | std::lrint(std::fabs(x) * 16777216.0f));
  }
  const uint32_t even = magnitude + 0xfffu + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((even - 0x38000000u) >> 13));
}

inline float half(float x) { return from_f16(to_f16(x)); }

// Four groups of G weights, weight i of group l in x[i][l], and how much their errors count.
template <int G>
struct Groups {
  V x[G], w[G], total;  // total: sum of w
};

// x is near d * q + m.
struct Fit {
  V d, m, error;
};

inline void keep_better(Fit &best, const Fit &other) {
  const auto better = other.error < best.error;
  best.d = better ? other.d : best.d;
  best.m = better ? other.m : best.m;
  best.error = better ? other.error : best.error;
}

// What quants may be.
struct Range {
  float low, high;
};

// The least squares d for the quants nearest to x / d, and the error with these quants.
template <int G>
Fit improved(const Groups<G> &g, V d, Range range) {
  const V inverse = ratio(all(1), d);
  V rr = all(0), rq = all(0), qq = all(0);
  for (int i = 0; i < G; i++) {
    const V q = rounded(clamp(g.x[i] * inverse, range.low, range.high));
    const V r = g.x[i] - d * q, wr = g.w[i] * r;
    rr += wr * r;
    rq += wr * q;
    qq += g.w[i] * q * q;
  }
  const V step = ratio(rq, qq);
  return {d + step, all(0), rr - step * rq};
}

// The same for d * q + m with q from 0 to `top` and m up to `ceiling`.
template <int G>
Fit improved(const Groups<G> &g, V d, V m, float top, float ceiling) {
  const V inverse = ratio(all(1), d);
  V rr = all(0), r1 = all(0), rq = all(0), q1 = all(0), qq = all(0);
  for (int i = 0; i < G; i++) {
    const V y = g.x[i] - m, q = rounded(clamp(y * inverse, 0, top));
    const V r = y - d * q, wr = g.w[i] * r, wq = g.w[i] * q;
    rr += wr * r;
    r1 += wr;
    rq += wr * q;
    q1 += wq;
    qq += wq * q;
  }
  const V determinant = g.total * qq - q1 * q1;
  const auto regular = determinant > 1e-5f * g.total * qq;  // not all quants the same
  V dd = regular ? ratio(g.total * rq - q1 * r1, determinant) : all(0);
  V dm = regular ? ratio(qq * r1 - q1 * rq, determinant) : ratio(r1, g.total);
  const auto over = m + dm > all(ceiling);
  dm = over ? ceiling - m : dm;
  dd = over ? ratio(rq - dm * q1, qq) : dd;
  const V error =
      rr - 2 * (dd * rq + dm * r1) + dd * dd * qq + 2 * dd * dm * q1 + dm * dm * g.total;
  return {d + dd, m + dm, error};
}

constexpr int kRounds = 4;

// The least error of d * q. `range` of the quants; the largest weight is put at `from` to `to`.
template <int G>
Fit search(const Groups<G> &g, Range range, float from, float to, float step) {
  V extreme = all(0);
  for (int i = 0; i < G; i++) {
    const V x = g.x[i];
    extreme = most(x, -x) > most(extreme, -extreme) ? x : extreme;
  }
  Fit best = {all(0), all(0), all(INFINITY)};
  for (float at = from; at <= to; at += step) {
    keep_better(best, improved(g, extreme / at, range));
    // One more quant below zero than above: which side the largest is on matters.
    if (range.low != -range.high) keep_better(best, improved(g, extreme / -at, range));
  }
  for (int i = 0; i < kRounds; i++) keep_better(best, improved(g, best.d, range));
  return best;
}

// The least error of d * q + m.
template <int G>
Fit search(const Groups<G> &g, float top, float ceiling) {
  V low = all(INFINITY), high = all(-INFINITY);
  for (int i = 0; i < G; i++) {
    low = least(low, g.x[i]);
    high = most(high, g.x[i]);
  }
  low = least(low, all(ceiling));
  // The lowest weight becomes quant `a`, the highest `top - b`: clipped below 0, unused above.
  static const float kEnds[] = {-1.5f, -1, -0.5f, 0, 0.5f, 1, 2};
  Fit best = {all(0), low, all(INFINITY)};
  for (float a : kEnds) {
    for (float b : kEnds) {
      const V d = (high - low) / (top - a - b);
      keep_better(best, improved(g, d, least(low - a * d, all(ceiling)), top, ceiling));
    }
  }
  for (int i = 0; i < kRounds; i++) {
    keep_better(best, improved(g, best.d, best.m, top, ceiling));
  }
  return best;
}

// Error of the nearest quants under a given scale and minimum.
template <int G>
V error_of(const Groups<G> &g, V d, V m, Range range) {
  const V inverse = ratio(all(1), d);
  V rr = all(0);
  for (int i = 0; i < G; i++) {
    const V y = g.x[i] - m;
    const V r = y - d * rounded(clamp(y * inverse, range.low, range.high));
    rr += g.w[i] * r * r;
  }
  return rr;
}

// The quants of one group: `q` (G).
template <int G>
void choose(const Groups<G> &g, int lane, float d, float m, Range range, int *q) {
  const float inverse = d != 0 ? 1 / d : 0;
  for (int i = 0; i < G; i++) {
    const V y = g.x[i] - m;
    q[i] = static_cast<int>(rounded(clamp(y * inverse, range.low, range.high))[lane]);
  }
}

template <class T>
void store(uint8_t *at, T value) {
  std::memcpy(at, &value, sizeof value);
}

void store_nibbles(uint8_t *at, const int *q) {
  for (int i = 0; i < 16; i++) at[i] = static_cast<uint8_t>((q[i] & 15) | ((q[i + 16] & 15) << 4));
}

void store_fifth_bits(uint8_t *at, const int *q) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; i++) bits |= static_cast<uint32_t>((q[i] >> 4) & 1) << i;
  store(at, bits);
}

// `count` groups of G from x and w into the lanes; the lanes after them are zero.
template <int G>
Groups<G> gather(const float *x, const float *w, int count) {
  Groups<G> g;
  g.total = all(0);
  for (int i = 0; i < G; i++) {
    g.x[i] = g.w[i] = all(0);
    for (int l = 0; l < count; l++) {
      g.x[i][l] = x[l * G + i];
      g.w[i][l] = w[l * G + i];
    }
    g.total += g.w[i];
  }
  return g;
}

// ---------------------------------------------------------------- one level: blocks of 32

// One block; false if a scale exceeds half precision.
bool write_block(int type, const Groups<32> &g, int lane, const Fit &fit, uint8_t *b) {
  const float d = half(fit.d[lane]), m = half(fit.m[lane]);
  int q[32];
  store(b, to_f16(d));
  switch (type) {
    case HY_Q8_0:
      choose(g, lane, d, 0, {-127, 127}, q);
      for (int i = 0; i < 32; i++) b[2 + i] = static_cast<uint8_t>(q[i]);
      break;
    case HY_Q4_0:
      choose(g, lane, d, 0, {-8, 7}, q);
      for (int &x : q) x += 8;
      store_nibbles(b + 2, q);
      break;
    case HY_Q5_0:
      choose(g, lane, d, 0, {-16, 15}, q);
      for (int &x : q) x += 16;
      store_fifth_bits(b + 2, q);
      store_nibbles(b + 6, q);
      break;
    case HY_Q4_1:
      choose(g, lane, d, m, {0, 15}, q);
      store(b + 2, to_f16(m));
      store_nibbles(b + 4, q);
      break;
    case HY_Q5_1:
      choose(g, lane, d, m, {0, 31}, q);
      store(b + 2, to_f16(m));
      store_fifth_bits(b + 4, q);
      store_nibbles(b + 8, q);
      break;
  }
  return std::isfinite(d) && std::isfinite(m);
}

Fit search_block(int type, const Groups<32> &g) {
  switch (type) {
    // Eight bits: clipping gains nothing, but errors differ between scales that are as good.
    case HY_Q8_0: return search(g, {-127, 127}, 119, 127, 0.25f);
    case HY_Q4_0: return search(g, {-8, 7}, 4.5f, 9, 0.25f);
    case HY_Q5_0: return search(g, {-16, 15}, 12, 17, 0.25f);
    case HY_Q4_1: return search(g, 15, 3e38f);
    default: return search(g, 31, 3e38f);
  }
}

bool quantize_row(const Format &f, int64_t columns, const float *x, const float *w, uint8_t *out) {
  bool fits = true;
  for (int64_t c = 0; c < columns; c += kLanes * 32) {
    const int count = static_cast<int>(columns - c < kLanes * 32 ? (columns - c) / 32 : kLanes);
    const Groups<32> g = gather<32>(x + c, w + c, count);
    const Fit fit = search_block(f.type, g);
    for (int l = 0; l < count; l++, out += f.block_bytes) {
      fits &= write_block(f.type, g, l, fit, out);
    }
  }
  return fits;
}

// ---------------------------------------------------------------- two levels: blocks of 256

// The scales of 4 N groups, multiples s of d, and their minima, multiples m of -dmin.
template <int N>
struct Multiples {
  float d, dmin;
  V s[N], m[N];
  float error;
};

// What multiples may be.
constexpr Range kSixBits = {0, 63}, kEightBits = {-128, 127};

// Sets multiples to the nearest of `fit` under (d, dmin); with `reach` 1, tries their neighbours
// too, and minima one quant higher and lower: a group that leaves an end of its quants unused can
// be written in several ways, of which one may fit dmin better.
template <int G, int N>
Multiples<N> settle(const Groups<G> *g, const Fit *fit, float d, float dmin, Range quants,
                    Range multiples, int reach) {
  Multiples<N> out;
  out.d = d;
  out.dmin = dmin;
  out.error = 0;
  const float by_d = d != 0 ? 1 / d : 0, by_dmin = dmin != 0 ? 1 / dmin : 0;
  const int reach_m = dmin != 0 ? reach : 0;
  for (int n = 0; n < N; n++) {
    const V nearest = rounded(clamp(fit[n].d * by_d, multiples.low, multiples.high));
    V best = all(INFINITY);
    out.s[n] = out.m[n] = all(0);
    for (int i = -reach; i <= reach; i++) {
      const V s = clamp(nearest + static_cast<float>(i), multiples.low, multiples.high);
      for (int k = -reach_m; k <= reach_m; k++) {
        const V m = rounded(clamp((static_cast<float>(k) * (d * s) - fit[n].m) * by_dmin, 0, 63));
        for (int j = -reach_m; j <= reach_m; j++) {
          const V mj = clamp(m + static_cast<float>(j), 0, 63);
          const V error = error_of(g[n], d * s, -(dmin * mj), quants);
          const auto better = error < best;
          out.s[n] = better ? s : out.s[n];
          out.m[n] = better ? mj : out.m[n];
          best = better ? error : best;
        }
      }
    }
    for (int l = 0; l < kLanes; l++) out.error += best[l];
  }
  return out;
}

// The least squares (d, dmin) for multiples and their quants, over the whole super-block.
template <int G, int N>
void refit(const Groups<G> *g, const Multiples<N> &in, Range quants, float &d, float &dmin) {
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
  for (int n = 0; n < N; n++) {
    const V scale = in.d * in.s[n], minimum = in.dmin * in.m[n], inverse = ratio(all(1), scale);
    V q1 = all(0), qq = all(0), xq = all(0), x1 = all(0);
    for (int i = 0; i < G; i++) {
      const V q = rounded(clamp((g[n].x[i] + minimum) * inverse, quants.low, quants.high));
      const V wq = g[n].w[i] * q;
      q1 += wq;
      qq += wq * q;
      xq += wq * g[n].x[i];
      x1 += g[n].w[i] * g[n].x[i];
    }
    // x is near d * (s q) - dmin * m.
    for (int l = 0; l < kLanes; l++) {
      const double s = in.s[n][l], m = in.m[n][l];
      aa += s * s * qq[l];
      ab -= s * m * q1[l];
      bb += m * m * g[n].total[l];
      xa += s * xq[l];
      xb -= m * x1[l];
    }
  }
  const double determinant = aa * bb - ab * ab;
  if (determinant > 1e-6 * aa * bb) {
    d = half(static_cast<float>((bb * xa - ab * xb) / determinant));
    dmin = half(static_cast<float>((aa * xb - ab * xa) / determinant));
  } else if (aa > 0 && dmin == 0) {
    d = half(static_cast<float>(xa / aa));
  }
}

// The best pair of `ds` and `dmins`, refitted, with multiples next to the nearest tried.
template <int G, int N>
Multiples<N> search_multiples(const Groups<G> *g, const Fit *fit, const float *ds, int d_count,
                              const float *dmins, int dmin_count, Range quants, Range multiples) {
  Multiples<N> best;
  best.error = INFINITY;
  for (int i = 0; i < d_count; i++) {
    for (int j = 0; j < dmin_count; j++) {
      const auto other =
          settle<G, N>(g, fit, half(ds[i]), half(dmins[j]), quants, multiples, 0);
      if (other.error < best.error || i + j == 0) best = other;
    }
  }
  for (int round = 0; round < 3; round++) {
    Fit near[N];
    for (int n = 0; n < N; n++) {
      near[n] = round ? Fit{best.d * best.s[n], -(best.dmin * best.m[n]), all(0)} : fit[n];
    }
    float d = best.d, dmin = best.dmin;
    if (round) refit(g, best, quants, d, dmin);
    const auto other = settle<G, N>(g, near, d, dmin, quants, multiples, 1);
    if (!(other.error < best.error)) break;
    best = other;
  }
  return best;
}

// Q4_K and Q5_K.
bool write_pairs(const Format &f, const float *x, const float *w, uint8_t *b) {
  constexpr int kCandidates = 5;
  const float top = f.type == HY_Q4_K ? 15 : 31;
  Groups<32> g[2];
  Fit fit[2];
  float largest_d = 0, largest_m = 0;
  for (int n = 0; n < 2; n++) {
    g[n] = gather<32>(x + 128 * n, w + 128 * n, kLanes);
    fit[n] = search(g[n], top, 0);
    for (int l = 0; l < kLanes; l++) {
      largest_d = std::fmax(largest_d, fit[n].d[l]);
      largest_m = std::fmax(largest_m, -fit[n].m[l]);
    }
  }
  float ds[kCandidates], dmins[kCandidates];
  for (int i = 0; i < kCandidates; i++) {
    ds[i] = largest_d / static_cast<float>(63 - i);
    dmins[i] = largest_m / static_cast<float>(63 - i);
  }
  const Range quants = {0, top};
  const auto best = search_multiples<32, 2>(g, fit, ds, kCandidates, dmins, kCandidates, quants,
                                            kSixBits);
  std::memset(b, 0, f.block_bytes);
  store(b, to_f16(best.d));
  store(b + 2, to_f16(best.dmin));
  uint8_t *pairs = b + 4, *low = b + (f.type == HY_Q4_K ? 16 : 48);
  for (int k = 0; k < 8; k++) {
    const int n = k / kLanes, l = k % kLanes;
    const int s = static_cast<int>(best.s[n][l]), m = static_cast<int>(best.m[n][l]);
    if (k < 4) {
      pairs[k] |= static_cast<uint8_t>(s);
      pairs[k + 4] |= static_cast<uint8_t>(m);
    } else {
      pairs[k + 4] = static_cast<uint8_t>((s & 15) | ((m & 15) << 4));
      pairs[k - 4] |= static_cast<uint8_t>((s >> 4) << 6);
      pairs[k] |= static_cast<uint8_t>((m >> 4) << 6);
    }
    int q[32];
    choose(g[n], l, best.d * best.s[n][l], -(best.dmin * best.m[n][l]), quants, q);
    for (int i = 0; i < 32; i++) {
      low[32 * (k / 2) + i] |= static_cast<uint8_t>((q[i] & 15) << (4 * (k % 2)));
      if (f.type == HY_Q5_K) b[16 + i] |= static_cast<uint8_t>((q[i] >> 4) << k);
    }
  }
  return std::isfinite(best.d) && std::isfinite(best.dmin);
}

bool write_q6_k(const Format &f, const float *x, const float *w, uint8_t *b) {
  constexpr Range kQuants = {-32, 31};
  Groups<16> g[4];
  Fit fit[4];
  float largest = 0;
  for (int n = 0; n < 4; n++) {
    g[n] = gather<16>(x + 64 * n, w + 64 * n, kLanes);
    fit[n] = search(g[n], kQuants, 25, 33, 0.5f);
    for (int l = 0; l < kLanes; l++) {
      if (std::fabs(fit[n].d[l]) > std::fabs(largest)) largest = fit[n].d[l];
    }
  }
  const float ds[] = {largest / -128, largest / 127, largest / 126, largest / 125}, none = 0;
  const auto best = search_multiples<16, 4>(g, fit, ds, 4, &none, 1, kQuants, kEightBits);
  std::memset(b, 0, f.block_bytes);
  store(b + 208, to_f16(best.d));
  for (int k = 0; k < 16; k++) {
    const int n = k / kLanes, l = k % kLanes;
    const float s = best.s[n][l];
    b[192 + k] = static_cast<uint8_t>(static_cast<int8_t>(s));
    int q[16];
    choose(g[n], l, best.d * s, 0, kQuants, q);
    const int part = k / 2 % 4, at = 32 * (k / 8), from = 16 * (k % 2);
    for (int i = 0; i < 16; i++) {
      const int u = q[i] + 32;
      uint8_t &low = b[2 * at + 32 * (part % 2) + from + i];
      low |= static_cast<uint8_t>((u & 15) << (part < 2 ? 0 : 4));
      b[128 + at + from + i] |= static_cast<uint8_t>((u >> 4) << (2 * part));
    }
  }
  return std::isfinite(best.d);
}

// How much the error of each column counts: `importance`, or 1. A column that is never used still
// counts a little, so that its weights are not lost.
void column_weights(int64_t columns, const float *importance, float *w) {
  float largest = 0;
  for (int64_t c = 0; importance && c < columns; c++) largest = std::fmax(largest, importance[c]);
  for (int64_t c = 0; c < columns; c++) {
    w[c] = largest > 0 ? std::fmax(importance[c] / largest, 1e-6f) : 1;
  }
}

}  // namespace
}  // namespace hy

using namespace hy;

int32_t hy_quantize(int32_t type, int64_t rows, int64_t columns, const float *x,
                    const float *importance, void *blocks) {
  const int index = format_index(type);
  if (index < 0 || !kFormats[index].bits || columns % kFormats[index].block) return -1;
  const Format &f = kFormats[index];
  float *w = new (std::nothrow) float[static_cast<size_t>(columns)];
  if (!w) return -1;
  column_weights(columns, importance, w);
  uint8_t *out = static_cast<uint8_t *>(blocks);
  bool fits = true;
  for (int64_t row = 0; row < rows && fits; row++, x += columns) {
    for (int64_t c = 0; c < columns; c++) fits &= std::isfinite(x[c]);
    if (!fits) break;
    if (!f.super) {
      fits = quantize_row(f, columns, x, w, out);
      out += columns / f.block * f.block_bytes;
      continue;
    }
    for (int64_t c = 0; c < columns; c += f.block, out += f.block_bytes) {
      fits &= f.type == HY_Q6_K ? write_q6_k(f, x + c, w + c, out)
                                : write_pairs(f, x + c, w + c, out);
    }
  }
  delete[] w;
  return fits ? 0 : -2;
}
