// How a matrix lies in memory for the kernels: blocks of 16 rows, so that each vector lane is a
// row and no kernel ever sums across lanes.
//
// Along the columns a block is a sequence of units. Within a unit, 32 columns form a group of eight
// vectors of 64 bytes: byte 4 * row + i of vector j is column 4 * j + i.
//
//   Q4_0 Q4_1 Q5_0 Q5_1 Q8_0   unit of 32 columns: quants, d[16], (m[16])          float16
//   Q4_K Q5_K                  unit of 256: d[16], dmin[16] float16, then eight times
//                              s[16], m[16] (bytes), quants
//   Q6_K                       unit of 256: d[16] float16, then eight times s[2][16] (signed
//                              bytes, for 16 columns each), quants
//   F32 F16 BF16               unit of 1 column: the 16 values
//
// Quants of a group, by bits: 8: eight vectors, as q + 128. 4: four vectors; the low halves of
// vector i are vector 2i, the high ones 2i + 1. 5: the same, then one vector whose bit j is the
// fifth bit of vector j. 6: the same as 4, then two vectors with the two top bits of vectors 0-3
// and 4-7. All integers are unsigned, with `centre` to be subtracted.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hunyuan_native.h"

namespace hy {

constexpr int kRows = 16;
constexpr int kGroup = 32;

struct Format {
  int type;
  int bits;        // of a quant; 0 for floats
  int centre;      // subtracted from quants
  bool minimum;    // an offset per group besides the scale
  bool super;      // scales in two levels
  int unit;        // columns per unit
  int unit_bytes;  // of 16 rows
  int block;       // columns of a ggml block
  int block_bytes;
};

constexpr Format kFormats[] = {
    {HY_F32, 0, 0, false, false, 1, 64, 1, 4},
    {HY_F16, 0, 0, false, false, 1, 32, 1, 2},
    {HY_BF16, 0, 0, false, false, 1, 32, 1, 2},
    {HY_Q4_0, 4, 8, false, false, 32, 256 + 32, 32, 18},
    {HY_Q4_1, 4, 0, true, false, 32, 256 + 64, 32, 20},
    {HY_Q5_0, 5, 16, false, false, 32, 320 + 32, 32, 22},
    {HY_Q5_1, 5, 0, true, false, 32, 320 + 64, 32, 24},
    {HY_Q8_0, 8, 128, false, false, 32, 512 + 32, 32, 34},
    {HY_Q4_K, 4, 0, true, true, 256, 64 + 8 * (32 + 256), 256, 144},
    {HY_Q5_K, 5, 0, true, true, 256, 64 + 8 * (32 + 320), 256, 176},
    {HY_Q6_K, 6, 32, false, true, 256, 32 + 8 * (32 + 384), 256, 210},
};
constexpr int kFormatCount = sizeof(kFormats) / sizeof(kFormats[0]);

constexpr int format_index(int type) {
  for (int i = 0; i < kFormatCount; i++)
    if (kFormats[i].type == type) return i;
  return -1;
}

inline size_t block_bytes(const Format &f, int64_t columns) {
  return static_cast<size_t>(columns / f.unit) * f.unit_bytes;
}

template <class T>
inline T load_as(const void *from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline float from_bf16(uint16_t bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  return load_as<float>(&wide);
}

inline uint16_t to_bf16(float x) {
  uint32_t bits = load_as<uint32_t>(&x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 64);  // nan
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

inline float from_f16(uint16_t half) {
  uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  uint32_t exponent = (half >> 10) & 31, mantissa = half & 1023u, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | (mantissa << 13);
  } else if (exponent) {
    bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else {  // zero and subnormals: exact in float
    float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
    return sign ? -value : value;
  }
  return load_as<float>(&bits);
}

}  // namespace hy
