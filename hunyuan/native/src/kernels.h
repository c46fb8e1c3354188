// The arithmetic of one processor family: a table of functions, filled once per instruction set.
//
// Every function computes each token by itself, in an order that does not depend on how many
// tokens are computed together: a token's result is the same bit for bit whether it comes alone,
// in a batch or in a chunk of a prompt.
#pragma once
#include "layout.h"

namespace hy {

constexpr int kTile = 16;  // tokens per tile

// Inputs of matrix products lie in tiles of 16 tokens, so that every address within a tile is a
// constant away from its start. For quantised weights: 32 columns as signed bytes with one scale
// per token.
struct alignas(64) GroupTile {
  int8_t q[kTile][kGroup];
  float scale[kTile];
  float sum[kTile];                  // scale times the sum of q
  int32_t minus_sum[3][kTile];       // minus the sums of q: of 16 columns, of 16, of all 32
};

// What eight bits left over, for groups with an outlier: its scale drowns the other 31 columns.
// The same again in steps of 1/254; zero for tokens that need none.
struct alignas(64) FineTile {
  int8_t q[kTile][kGroup];
  float scale[kTile];
  int32_t minus_sum[3][kTile];
};

// The inputs of one tile: groups (columns / 32), what they left over where `has_fine` (columns /
// 32) says so, and floats (columns, 16) for float weights.
struct Tile {
  const GroupTile *groups;
  const FineTile *fines;
  const uint8_t *has_fine;
  const float *floats;
  int64_t columns;
};

// Four blocks of 16 rows of quantised weights, unpacked for many tokens: 32 columns of them.
constexpr int kWide = 4;
struct alignas(64) WideGroup {
  uint8_t q[kWide][8][64];
  float scale[kWide][2][kRows];  // two where 16 columns share a scale, else the first
  float minimum[kWide][kRows];
};

// Attention of some query rows over a span of blocks of one sequence, for one key/value head.
struct Span {
  const float *q;            // (rows, C), scaled by 1/sqrt(C)
  const int32_t *limit;      // (rows): keys that a row may see, counted from position 0
  int rows;
  const char *k, *v;         // of this slot and head, at block 0
  const float *k_scale, *v_scale;
  int64_t stride, scale_stride;  // bytes / floats from one block to the next
  const int32_t *table;      // blocks of the sequence
  int first, last;           // blocks first..last-1 of the table
  int head_dim, type;
  float *maximum, *total;    // (rows): running maximum, and sum of exponentials
  float *out;                // (rows, C): sum of exponentials times values
};

// One row each of what training computes between its matrix products; numbers are bfloat16, sums
// float32. "In place" means that the result takes the place of the first argument.
struct TrainingRows {
  // scores (n) -> probabilities over [begin, end) of scale * score, 0 elsewhere, in place. Returns
  // the logarithm of the sum of exponentials.
  float (*softmax)(uint16_t *scores, int64_t begin, int64_t end, int64_t n, float scale);
  // scores (n) -> probabilities, and gradients of those (n) -> gradients of the scores, in place.
  // `log_sum` is what softmax returned, `delta` the sum of probability times gradient.
  void (*softmax_backward)(uint16_t *scores, uint16_t *grads, int64_t begin, int64_t end,
                           int64_t n, float scale, float log_sum, float delta);
  // logits (n) -> weight times the gradient of the cross-entropy, in place; returns the latter.
  float (*cross_entropy)(uint16_t *logits, int64_t n, int64_t target, float weight);
  // out = x * scale * gain with scale = 1/sqrt(mean(x^2) + eps), which is returned.
  float (*rms_norm)(const uint16_t *x, const float *gain, float eps, int64_t n, uint16_t *out);
  // dx, and adds this row's part to gain_grad (n).
  void (*rms_norm_backward)(const uint16_t *x, const float *gain, float scale,
                            const uint16_t *grad, int64_t n, uint16_t *dx, float *gain_grad);
  void (*swiglu)(const uint16_t *gate, const uint16_t *up, int64_t n, uint16_t *out);
  void (*swiglu_backward)(const uint16_t *gate, const uint16_t *up, const uint16_t *grad,
                          int64_t n, uint16_t *dgate, uint16_t *dup);
  // One head of C = 2 * half channels: rotate by the angles, then, if eps >= 0, scale to root mean
  // square 1 and multiply with gain (null: 1). Returns the scale, 1 without it.
  float (*rotate_unit)(const uint16_t *x, const float *cosine, const float *sine,
                       const float *gain, float eps, int64_t half, uint16_t *out);
  void (*rotate_unit_backward)(const uint16_t *x, const float *cosine, const float *sine,
                               const float *gain, float scale, bool unit, const uint16_t *grad,
                               int64_t half, uint16_t *dx, float *gain_grad);
};

struct Kernels {
  const char *name;
  // out (n, 16) = one block of 16 rows times the first n tokens of a tile.
  void (*product[kFormatCount])(const uint8_t *block, const Tile &in, int n, float *out);
  // The same for many tokens, in two steps; null for float weights. `widen` unpacks block number
  // `at` of four into (columns / 32) groups; `wide_product` gives out (4, 16, 16): by block, token
  // and row. The results equal `product`'s bit for bit.
  void (*widen[kFormatCount])(const uint8_t *block, int64_t columns, int at, WideGroup *out);
  void (*wide_product[kFormatCount])(const WideGroup *weights, const Tile &in, int n, float *out);
  // Fills token `at` of a group from 32 floats; true if the largest exceeds `limit`, and then what
  // is left over goes to `fine`, which otherwise becomes zero.
  bool (*quantize)(const float *from, float limit, GroupTile &to, FineTile &fine, int at);
  void (*rms_norm)(const float *x, const float *gain, float eps, int64_t n, float *out);
  // Rotary embedding of one head: channel i with channel i + n, by the angles of one token.
  void (*rotate)(float *x, const float *cosine, const float *sine, int64_t n);
  // out = silu(gate) * up
  void (*silu_mul)(const float *gate, const float *up, int64_t n, float *out);
  // Continues maximum, total and out over the span.
  void (*attend)(const Span &);
  // Rows of training, in bfloat16 (training_impl.h).
  TrainingRows training;
};

// Null where this library was built without them.
const Kernels *generic_kernels();
const Kernels *avx2_kernels();
const Kernels *avx512_kernels();
// The best that runs here, or the one HUNYUAN_ISA names (null if it cannot run).
const Kernels *best_kernels();

}  // namespace hy
