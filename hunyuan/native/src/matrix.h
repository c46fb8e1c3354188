// A packed matrix, the inputs it is multiplied with, and the product of some of its rows with them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels.h"

namespace hy {

// A value this many times its row's root mean square is an outlier, whose group is computed in
// sixteen bits. Measured on SmolLM2: a third of the divergence from float32, for an eighth more work.
constexpr float kOutlier = 8;

struct Matrix {
  int index = -1;  // into kFormats; -1: absent
  int64_t rows = 0, columns = 0;
  const uint8_t *data = nullptr;
  size_t stride = 0;  // bytes of 16 rows

  int64_t blocks() const { return (rows + kRows - 1) / kRows; }
  int rows_at(int64_t block) const {
    return static_cast<int>(std::min<int64_t>(kRows, rows - block * kRows));
  }
  bool quantised() const { return kFormats[index].bits != 0; }
};

template <class T>
inline void reserve(std::vector<T> &v, size_t n) {
  if (v.size() < n) v.resize(n);
}

inline int64_t tiles_of(int64_t tokens) { return (tokens + kTile - 1) / kTile; }

// Inputs of matrix products, tile by tile; which of the two kinds depends on the weights.
struct Inputs {
  bool quantised = false, floating = false;
  int64_t columns = 0;
  std::vector<GroupTile> groups;  // (tiles, columns / 32)
  std::vector<FineTile> fines;
  std::vector<uint8_t> has_fine;
  std::vector<float> floats;      // (tiles, columns, 16)

  void serve(const Matrix &m) {
    if (m.index < 0) return;
    columns = m.columns;
    (m.quantised() ? quantised : floating) = true;
  }
  void resize(int64_t tiles) {
    if (quantised) {
      reserve(groups, tiles * (columns / kGroup));
      reserve(fines, tiles * (columns / kGroup));
      reserve(has_fine, tiles * (columns / kGroup));
    }
    if (floating) reserve(floats, tiles * columns * kTile);
  }
  Tile tile(int64_t t) const {
    const int64_t first = t * (columns / kGroup);
    return {groups.data() + first, fines.data() + first, has_fine.data() + first,
            floats.data() + t * columns * kTile, columns};
  }
  // Columns [from, to) of one token, from its floats `x` (to - from). Values above `limit` get
  // what their group's eight bits leave over as well. The tokens of a tile come in order.
  void put(const Kernels *kernels, int64_t token, int64_t from, int64_t to, const float *x,
           float limit = std::numeric_limits<float>::infinity()) {
    const int64_t t = token / kTile;
    const int at = static_cast<int>(token % kTile);
    if (quantised)
      for (int64_t c = from; c < to; c += kGroup) {
        const int64_t g = (t * columns + c) / kGroup;
        const bool fine = kernels->quantize(x + c - from, limit, groups[g], fines[g], at);
        has_fine[g] = fine | (at ? has_fine[g] : 0);
      }
    if (floating)
      for (int64_t c = from; c < to; c++) floats[(t * columns + c) * kTile + at] = x[c - from];
  }
  // A whole token, with what is left over where a value is an outlier of its row.
  void put_row(const Kernels *kernels, int64_t token, const float *x) {
    float squares = 0;
    for (int64_t c = 0; c < columns; c++) squares += x[c] * x[c];
    put(kernels, token, 0, columns, x,
        kOutlier * std::sqrt(squares / static_cast<float>(columns)));
  }
  // One token of another `Inputs` of the same kinds.
  void copy(int64_t token, const Inputs &other, int64_t source) {
    const int64_t t = token / kTile, at = token % kTile, u = source / kTile, from = source % kTile;
    if (quantised)
      for (int64_t i = 0; i < columns / kGroup; i++) {
        const int64_t g = t * (columns / kGroup) + i, h = u * (columns / kGroup) + i;
        copy_numbers(groups[g], at, other.groups[h], from);
        groups[g].sum[at] = other.groups[h].sum[from];
        copy_numbers(fines[g], at, other.fines[h], from);
        has_fine[g] = other.has_fine[h] | (at ? has_fine[g] : 0);
      }
    if (floating)
      for (int64_t c = 0; c < columns; c++)
        floats[(t * columns + c) * kTile + at] = other.floats[(u * columns + c) * kTile + from];
  }

 private:
  template <class Numbers>
  static void copy_numbers(Numbers &to, int64_t at, const Numbers &other, int64_t from) {
    std::memcpy(to.q[at], other.q[from], kGroup);
    to.scale[at] = other.scale[from];
    for (int h = 0; h < 3; h++) to.minus_sum[h][at] = other.minus_sum[h][from];
  }
};

// Blocks [first, last) of `m`, at most four, times `tokens` tokens of `in` from place `begin` on,
// the start of a tile: emit(block, first token, n, values (n, 16)). For many tokens four blocks are
// unpacked into `wide` (columns / 32) and share every load; the results are the same.
template <class Emit>
void multiply(const Kernels *kernels, const Matrix &m, int64_t first, int64_t last,
              const Inputs &in, int64_t begin, int64_t tokens, WideGroup *wide, const Emit &emit) {
  alignas(64) float values[kWide * kTile * kRows];
  const auto tokens_at = [&](int64_t t) {
    return static_cast<int>(std::min<int64_t>(kTile, tokens - t));
  };
  if (tokens > kTile && last - first == kWide && m.quantised()) {
    for (int r = 0; r < kWide; r++)
      kernels->widen[m.index](m.data + (first + r) * m.stride, m.columns, r, wide);
    for (int64_t t = 0; t < tokens; t += kTile) {
      kernels->wide_product[m.index](wide, in.tile((begin + t) / kTile), tokens_at(t), values);
      for (int r = 0; r < kWide; r++)
        emit(first + r, t, tokens_at(t), values + r * kTile * kRows);
    }
    return;
  }
  for (int64_t b = first; b < last; b++)
    for (int64_t t = 0; t < tokens; t += kTile) {
      kernels->product[m.index](m.data + b * m.stride, in.tile((begin + t) / kTile), tokens_at(t),
                                values);
      emit(b, t, tokens_at(t), values);
    }
}

}  // namespace hy
