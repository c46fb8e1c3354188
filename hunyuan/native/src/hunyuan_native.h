// The C interface of the native decoder. No C++ and no torch on this side: Python calls it through
// ctypes, and any other language could.
//
// Letters as in the rest of the package: T tokens of one step, D hidden width, H query heads,
// K key/value heads, C head width, F inner width, E routed experts, V vocabulary, U cache slots.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HY_API __attribute__((visibility("default")))

// Raised whenever a struct or a signature below changes; the Python side refuses another number.
#define HY_ABI_VERSION 5

// Raised whenever the layout of packed matrices (layout.h) changes: they are stored in files. It
// is the same for every instruction set.
#define HY_PACKING_VERSION 1

// Tokens per block of the cache.
#define HY_BLOCK 32

// Types of matrices, with ggml's numbers.
enum hy_type {
  HY_F32 = 0, HY_F16 = 1, HY_Q4_0 = 2, HY_Q4_1 = 3, HY_Q5_0 = 6, HY_Q5_1 = 7, HY_Q8_0 = 8,
  HY_Q4_K = 12, HY_Q5_K = 13, HY_Q6_K = 14, HY_BF16 = 30,
};

// Types of the cache.
enum hy_kv_type { HY_KV_F32 = 0, HY_KV_BF16 = 1, HY_KV_I8 = 2 };

// What a matrix or vector is for. Matrices are (output rows, input columns).
enum hy_role {
  HY_EMBEDDING, HY_HEAD, HY_FINAL_NORM,                       // of the model (layer is ignored)
  HY_INPUT_NORM, HY_POST_NORM, HY_Q, HY_K, HY_V, HY_O,        // of a layer
  HY_Q_BIAS, HY_K_BIAS, HY_V_BIAS, HY_O_BIAS, HY_Q_GAIN,
  HY_ROUTER, HY_SHARED_GATE, HY_SHARED_UP, HY_SHARED_DOWN,    // a dense MLP is a shared expert
  HY_EXPERT_GATE, HY_EXPERT_UP, HY_EXPERT_DOWN,               // of one routed expert
};

typedef struct {
  int32_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn, shared_ffn;
  int32_t experts, top_k, norm_topk_prob, cla_share, qk_norm;
  float norm_eps;
  const float *inverse_frequencies;  // (C/2)
} hy_shape;

// The paged cache: K as (U, blocks, K, C, HY_BLOCK), V as (U, blocks, K, HY_BLOCK, C); the scales
// of an int8 cache as (U, blocks, K, HY_BLOCK).
typedef struct {
  void *k, *v;
  float *k_scale, *v_scale;
  int64_t blocks;
  int32_t type;
} hy_cache;

// The tokens of one step: sequences one after the other.
typedef struct {
  const int64_t *ids, *positions;  // (T)
  int32_t tokens, sequences;
  const int32_t *counts;           // (sequences): tokens of each in this step
  const int32_t *tables;           // (sequences, table_width): its blocks, in order of position
  int32_t table_width;
  const int32_t *wanted;           // (rows): tokens whose logits are wanted
  int32_t rows;
} hy_step;

typedef struct hy_decoder hy_decoder;

HY_API int32_t hy_abi_version(void);

// Best instruction set of this processor that this library was built for, or the one that the
// environment variable HUNYUAN_ISA names; null if that one cannot run here.
HY_API const char *hy_isa(void);

// Bytes of a packed matrix, or 0 if the type is unknown or columns is no multiple of its group.
HY_API size_t hy_packed_bytes(int32_t type, int64_t rows, int64_t columns);
// Repack rows of ggml blocks; `packed` starts at a multiple of 64 bytes. Nothing is rounded.
HY_API void hy_pack(int32_t type, int64_t rows, int64_t columns, const void *blocks, void *packed);
// One row of a packed matrix as floats.
HY_API void hy_unpack_row(int32_t type, int64_t columns, const void *packed, int64_t row, float *out);
// y (T, rows) = x (T, columns) times the transposed matrix, x quantised on the way as the decoder
// does it.
HY_API int32_t hy_matmul(int32_t type, int64_t rows, int64_t columns, const void *packed,
                         const float *x, int32_t tokens, float *y, int32_t threads);

// A decoder borrows every pointer it is given. Null if out of memory.
HY_API hy_decoder *hy_decoder_new(const hy_shape *shape, int32_t threads);
HY_API void hy_decoder_free(hy_decoder *);
HY_API void hy_decoder_set(hy_decoder *, int32_t role, int32_t layer, int32_t expert, int32_t type,
                           int64_t rows, int64_t columns, const void *data);
// Runs a step: writes the cache and, where asked for, normed hidden states (T, D) and logits
// (rows, V) with `logit_bias` (V) added. Returns 0; -1 if out of memory; -2 if an expert could not
// be read (hy_experts_failure says why), and then nothing that was written means anything.
HY_API int32_t hy_decoder_run(hy_decoder *, const hy_step *, const hy_cache *,
                              const float *logit_bias, float *logits, float *hidden);

// Tokens that each routed expert has computed so far, (layers, experts); from any thread.
HY_API void hy_decoder_expert_tokens(const hy_decoder *, int64_t *out);

// ------------------------------------------------------------------ experts on disk (experts.cpp)

// A file of extents, one per (layer, expert): gate, up and down packed, at `starts` in the extent.
typedef struct {
  const char *path;
  int32_t layers, experts;
  int32_t types[3];
  int64_t starts[3];
  int64_t length;           // of every extent, a multiple of 4096
  const int64_t *offsets;   // (layers, experts), multiples of 4096
  const uint64_t *hashes;   // (layers, experts)
} hy_expert_file;

// Since the beginning.
typedef struct {
  int64_t slots, resident, extent_bytes;
  int64_t direct;                    // whether reads pass the page cache by
  int64_t steps, tokens;             // of the decoder
  int64_t demanded, hits;            // experts that steps visited; of these, those that were there
  int64_t ahead, ahead_used;         // read before they were demanded; of these, those then demanded
  int64_t expected, came_true;       // what the routers said ahead; of this, what they chose then
  int64_t bytes_read;
  double busy_seconds;               // while the disk was being read
  double waited_seconds;             // while the decoder had nothing else to do
} hy_expert_stats;

enum hy_expert_failure_kind {
  HY_EXPERT_WHOLE, HY_EXPERT_UNREADABLE, HY_EXPERT_TRUNCATED, HY_EXPERT_ALTERED
};

typedef struct {
  int32_t kind, layer, expert, error;  // error: errno of an unreadable one
  uint64_t wanted, found;              // hashes of an altered one
} hy_expert_failure;

typedef struct hy_experts hy_experts;

HY_API int32_t hy_packing_version(void);
HY_API uint64_t hy_extent_hash(const void *extent, int64_t bytes);
// A cache of `slots` extents (at least 2), read by `readers` threads. An extent's hash is checked
// when it is read for the first time, or always. Null if out of memory or the file does not open.
HY_API hy_experts *hy_experts_new(const hy_expert_file *, int64_t slots, int32_t readers,
                                  int32_t check_always);
HY_API void hy_experts_free(hy_experts *);
HY_API void hy_experts_stats(const hy_experts *, hy_expert_stats *);  // from any thread
HY_API void hy_experts_failure(const hy_experts *, hy_expert_failure *);
// The decoder takes its routed experts from there, and no other may; borrowed.
HY_API void hy_decoder_set_experts(hy_decoder *, hy_experts *);
// Bytes a second that `readers` threads get reading the first `bytes` of a file in order, past the
// page cache where the file system allows it (`direct`); below 0 if it cannot be read.
HY_API double hy_sequential_read(const char *path, int64_t bytes, int32_t readers,
                                 int32_t *direct);

// ------------------------------------------------------------------ quantising (quantize.cpp)

// Rows of floats x (rows, columns) to ggml blocks of `type`, a quantised one, scales searched for
// the least sum of importance[column] * error^2; `importance` (columns), none negative, may be
// null: all the same. Rows are independent: ranges of them may be given to several threads.
// Returns 0; -1 if the type is not quantised or columns is no multiple of its block, or out of
// memory; -2 if x holds a number that is not finite or too large for half precision scales.
HY_API int32_t hy_quantize(int32_t type, int64_t rows, int64_t columns, const float *x,
                           const float *importance, void *blocks);

// ------------------------------------------------------------------ training (training.cpp)

// What training computes between its matrix products. Numbers are bfloat16 as their bits, in
// contiguous tensors whose last dimension is a multiple of 16 (scores and logits: any).

// The caller's OpenMP runtime: its GOMP_parallel, or null for one thread.
typedef struct {
  void *parallel;
  int32_t threads;
} hy_workers;

// A block of attention scores (batch, rows, keys): batch = sequences * kv_heads; rows = query heads
// of a kv head * `queries` tokens from `first_query` on; keys from `first_key` on. A query sees the
// keys from first_seen (sequences, tokens) to itself.
typedef struct {
  int64_t batch, rows, keys, kv_heads, tokens, queries, first_query, first_key;
  const int32_t *first_seen;
  float scale;
} hy_scores;

// Heads x (tokens, heads, 2 * half); token t turns by the angles of row t % angles. eps < 0: no
// normalisation.
typedef struct {
  int64_t tokens, heads, half, angles;
  float eps;
} hy_heads;

// Row functions of kernels.h over tensors. Gains' gradients come in `parts` sums, cleared by the
// caller, so that they do not depend on the number of threads.
HY_API void hy_train_softmax(const hy_workers *, const hy_scores *, uint16_t *scores,
                             float *log_sum);
HY_API void hy_train_softmax_backward(const hy_workers *, const hy_scores *, uint16_t *scores,
                                      uint16_t *grads, const float *log_sum, const float *delta);
// A negative target: no loss and no gradient.
HY_API void hy_train_cross_entropy(const hy_workers *, int64_t count, int64_t vocab,
                                   const int64_t *targets, const float *weights,
                                   uint16_t *logits, float *losses);
HY_API void hy_train_rms_norm(const hy_workers *, int64_t count, int64_t width, const uint16_t *x,
                              const float *gain, float eps, uint16_t *out, float *scales);
HY_API void hy_train_rms_norm_backward(const hy_workers *, int64_t count, int64_t width,
                                       const uint16_t *x, const float *gain, const float *scales,
                                       const uint16_t *grad, uint16_t *dx, int64_t parts,
                                       float *gain_parts);
HY_API void hy_train_swiglu(const hy_workers *, int64_t count, const uint16_t *gate,
                            const uint16_t *up, uint16_t *out);
HY_API void hy_train_swiglu_backward(const hy_workers *, int64_t count, const uint16_t *gate,
                                     const uint16_t *up, const uint16_t *grad, uint16_t *dgate,
                                     uint16_t *dup);
HY_API void hy_train_rotate_unit(const hy_workers *, const hy_heads *, const uint16_t *x,
                                 const float *cosine, const float *sine, const float *gain,
                                 uint16_t *out, float *scales);
HY_API void hy_train_rotate_unit_backward(const hy_workers *, const hy_heads *, const uint16_t *x,
                                          const float *cosine, const float *sine,
                                          const float *gain, const float *scales,
                                          const uint16_t *grad, uint16_t *dx, int64_t parts,
                                          float *gain_parts);

#ifdef __cplusplus
}
#endif
