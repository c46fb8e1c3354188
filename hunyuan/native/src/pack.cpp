// From ggml's blocks to the layout of the kernels and back, row by row. Bits only move: nothing is
// rounded, and unpacking computes in ggml's order of operations.
#include "layout.h"

namespace hy {
namespace {

// One row's group of 32 columns, taken apart.
struct Group {
  uint8_t q[32];
  uint16_t d = 0, m = 0;     // float16: of the group, or of the super-block
  uint8_t s[2] = {0, 0};     // second level: of the group, or of its two halves
  uint8_t sm = 0;            // second level of the minimum
};

void fifth_bits(uint32_t bits, uint8_t *q) {
  for (int i = 0; i < 32; i++) q[i] |= ((bits >> i) & 1) << 4;
}

void nibbles(const uint8_t *from, uint8_t *q) {
  for (int i = 0; i < 16; i++) {
    q[i] = from[i] & 15;
    q[i + 16] = from[i] >> 4;
  }
}

// The six-bit pairs of Q4_K and Q5_K.
void scale_and_minimum(const uint8_t *packed, int g, Group &out) {
  if (g < 4) {
    out.s[0] = packed[g] & 63;
    out.sm = packed[g + 4] & 63;
  } else {
    out.s[0] = (packed[g + 4] & 15) | ((packed[g - 4] >> 6) << 4);
    out.sm = (packed[g + 4] >> 4) | ((packed[g] >> 6) << 4);
  }
}

// Group `g` of a ggml block.
Group read_group(const Format &f, const uint8_t *b, int g) {
  Group out;
  switch (f.type) {
    case HY_Q4_0:
      out.d = load_as<uint16_t>(b);
      nibbles(b + 2, out.q);
      break;
    case HY_Q4_1:
      out.d = load_as<uint16_t>(b);
      out.m = load_as<uint16_t>(b + 2);
      nibbles(b + 4, out.q);
      break;
    case HY_Q5_0:
      out.d = load_as<uint16_t>(b);
      nibbles(b + 6, out.q);
      fifth_bits(load_as<uint32_t>(b + 2), out.q);
      break;
    case HY_Q5_1:
      out.d = load_as<uint16_t>(b);
      out.m = load_as<uint16_t>(b + 2);
      nibbles(b + 8, out.q);
      fifth_bits(load_as<uint32_t>(b + 4), out.q);
      break;
    case HY_Q8_0:
      out.d = load_as<uint16_t>(b);
      for (int i = 0; i < 32; i++) out.q[i] = b[2 + i] ^ 0x80;
      break;
    case HY_Q4_K:
    case HY_Q5_K: {
      const uint8_t *low = b + (f.type == HY_Q4_K ? 16 : 48) + 32 * (g / 2);
      out.d = load_as<uint16_t>(b);
      out.m = load_as<uint16_t>(b + 2);
      scale_and_minimum(b + 4, g, out);
      for (int i = 0; i < 32; i++) {
        out.q[i] = g % 2 ? low[i] >> 4 : low[i] & 15;
        if (f.type == HY_Q5_K) out.q[i] |= ((b[16 + i] >> g) & 1) << 4;
      }
      break;
    }
    case HY_Q6_K: {
      const int half = g / 4, part = g % 4;
      const uint8_t *low = b + 64 * half + 32 * (part % 2), *high = b + 128 + 32 * half;
      out.d = load_as<uint16_t>(b + 208);
      out.s[0] = b[192 + 2 * g];
      out.s[1] = b[192 + 2 * g + 1];
      for (int i = 0; i < 32; i++) {
        out.q[i] = (part < 2 ? low[i] & 15 : low[i] >> 4) | (((high[i] >> (2 * part)) & 3) << 4);
      }
      break;
    }
  }
  return out;
}

// Where a group's quants and scales lie inside a unit.
struct Place {
  uint8_t *q, *d, *m, *s;  // s: second-level scales, 32 bytes
};

Place place_of(const Format &f, uint8_t *unit, int g) {
  if (!f.super) {
    const int bytes = f.bits == 8 ? 512 : f.bits == 5 ? 320 : 256;
    return {unit, unit + bytes, unit + bytes + 32, nullptr};
  }
  const int head = f.minimum ? 64 : 32, bytes = f.bits == 4 ? 256 : f.bits == 5 ? 320 : 384;
  uint8_t *sub = unit + head + g * (32 + bytes);
  return {sub + 32, unit, unit + 32, sub};
}

void write_group(const Format &f, const Group &in, uint8_t *unit, int g, int row) {
  const Place p = place_of(f, unit, g);
  std::memcpy(p.d + 2 * row, &in.d, 2);
  if (f.minimum) std::memcpy(p.m + 2 * row, &in.m, 2);
  if (f.super) {
    p.s[row] = in.s[0];
    p.s[16 + row] = f.minimum ? in.sm : in.s[1];
  }
  // Four columns at a time: word j is this row's part of vector j.
  uint32_t word[8];
  std::memcpy(word, in.q, 32);
  uint8_t *to = p.q + 4 * row;
  if (f.bits == 8) {
    for (int j = 0; j < 8; j++) std::memcpy(to + 64 * j, &word[j], 4);
    return;
  }
  for (int i = 0; i < 4; i++) {
    const uint32_t low = word[2 * i] & 0x0f0f0f0fu, high = word[2 * i + 1] & 0x0f0f0f0fu;
    const uint32_t both = low | (high << 4);
    std::memcpy(to + 64 * i, &both, 4);
  }
  uint32_t top[2] = {0, 0};
  if (f.bits == 5) {
    for (int j = 0; j < 8; j++) top[0] |= ((word[j] >> 4) & 0x01010101u) << j;
    std::memcpy(to + 256, &top[0], 4);
  } else if (f.bits == 6) {
    for (int j = 0; j < 8; j++) top[j / 4] |= ((word[j] >> 4) & 0x03030303u) << (2 * (j % 4));
    std::memcpy(to + 256, &top[0], 4);
    std::memcpy(to + 320, &top[1], 4);
  }
}

int quant_at(const Format &f, const uint8_t *q, int c, int row) {
  const int j = c / 4, at = 4 * row + c % 4;
  if (f.bits == 8) return q[64 * j + at];
  int value = (q[64 * (j / 2) + at] >> (4 * (j % 2))) & 15;
  if (f.bits == 5) value |= ((q[256 + at] >> j) & 1) << 4;
  if (f.bits == 6) value |= ((q[256 + 64 * (j / 4) + at] >> (2 * (j % 4))) & 3) << 4;
  return value;
}

}  // namespace
}  // namespace hy

using namespace hy;

int32_t hy_packing_version(void) { return HY_PACKING_VERSION; }

size_t hy_packed_bytes(int32_t type, int64_t rows, int64_t columns) {
  const int index = format_index(type);
  if (index < 0 || columns % kFormats[index].unit) return 0;
  return static_cast<size_t>((rows + kRows - 1) / kRows) * block_bytes(kFormats[index], columns);
}

void hy_pack(int32_t type, int64_t rows, int64_t columns, const void *blocks, void *packed) {
  const Format &f = kFormats[format_index(type)];
  const size_t stride = block_bytes(f, columns);
  std::memset(packed, 0, hy_packed_bytes(type, rows, columns));
  const uint8_t *from = static_cast<const uint8_t *>(blocks);
  for (int64_t row = 0; row < rows; row++) {
    uint8_t *to = static_cast<uint8_t *>(packed) + row / kRows * stride;
    const int lane = row % kRows;
    for (int64_t unit = 0; unit < columns / f.unit; unit++, to += f.unit_bytes) {
      if (!f.bits) {
        std::memcpy(to + lane * f.block_bytes, from, f.block_bytes);
      } else {
        for (int g = 0; g < f.unit / kGroup; g++) write_group(f, read_group(f, from, g), to, g, lane);
      }
      from += f.block_bytes;
    }
  }
}

void hy_unpack_row(int32_t type, int64_t columns, const void *packed, int64_t row, float *out) {
  const Format &f = kFormats[format_index(type)];
  uint8_t *unit = static_cast<uint8_t *>(const_cast<void *>(packed)) +
                  row / kRows * block_bytes(f, columns);
  const int lane = row % kRows;
  for (int64_t u = 0; u < columns / f.unit; u++, unit += f.unit_bytes) {
    if (f.type == HY_F32) {
      *out++ = load_as<float>(unit + 4 * lane);
      continue;
    }
    if (!f.bits) {
      const uint16_t bits = load_as<uint16_t>(unit + 2 * lane);
      *out++ = f.type == HY_F16 ? from_f16(bits) : from_bf16(bits);
      continue;
    }
    for (int g = 0; g < f.unit / kGroup; g++) {
      const Place p = place_of(f, unit, g);
      const float d = from_f16(load_as<uint16_t>(p.d + 2 * lane));
      const float m = f.minimum ? from_f16(load_as<uint16_t>(p.m + 2 * lane)) : 0;
      for (int c = 0; c < kGroup; c++) {
        const float q = static_cast<float>(quant_at(f, p.q, c, lane) - f.centre);
        if (!f.super) {
          *out++ = f.minimum ? d * q + m : d * q;
        } else if (f.minimum) {
          *out++ = (d * p.s[lane]) * q - m * p.s[16 + lane];
        } else {
          *out++ = (d * static_cast<int8_t>(p.s[16 * (c / 16) + lane])) * q;
        }
      }
    }
  }
}
