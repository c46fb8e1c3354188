// The decoder: one step of a whole model, run by a team of threads in phases.
//
// The same computation as hunyuan/model (read that first); what differs is grouping. Between two
// barriers every phase shares its items among the threads:
//
//   norm      tokens          add the last layer's expert outputs, norm, quantise
//   qkv       blocks of rows  query, key and value products
//   place     tokens          rotate, normalise, write K and V into the cache
//   attend    (head, tokens)  attention over the cache, in spans of kSpan blocks
//   merge     tokens          join the spans, quantise
//   output    blocks of rows  attention output, added to x
//   route     tokens          norm, quantise; router and choice of experts
//   inner     blocks of rows  gate and up of every expert that has tokens, silu, quantise
//   down      blocks of rows  down of every expert
//
// A dense MLP is a shared expert without routed ones. Only weights of chosen experts are read.
// Where experts lie on disk (experts.h), inner and down come in rounds: of the experts that are
// there, while others arrive. A token's result depends neither on rounds nor on their order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <vector>

#include "experts.h"
#include "matrix.h"
#include "team.h"

namespace hy {
namespace {

constexpr int kSpan = 16;           // cache blocks that attention handles as a unit: 512 keys
constexpr int kQueryTile = 64;      // query rows per attention item, at most
constexpr size_t kItemBytes = 524288;  // weights per item, at most: long runs stream best

const float kZeros[kRows] = {0};

struct Expert {
  Matrix gate, up, down;
};

struct Layer {
  const float *input_norm = nullptr, *post_norm = nullptr, *q_gain = nullptr;
  const float *q_bias = nullptr, *k_bias = nullptr, *v_bias = nullptr, *o_bias = nullptr;
  Matrix q, k, v, o, router;
  Expert shared;
  std::vector<Expert> routed;
};

// Query rows of one sequence and one key/value head, over some spans of its blocks.
struct AttendItem {
  int32_t sequence, head, token, tokens;  // first token in the step, and how many
  int32_t first, last;                    // blocks
  int32_t part, parts;                    // which of the parts of these tokens this is
};

// One expert with tokens: `count` of them from place `begin` on, the start of a tile.
struct Job {
  const Expert *expert;
  int64_t begin, count;
  bool shared;

  int64_t down_blocks() const { return count > kTile ? kWide : 1; }  // per part of the product
};

// Where threads sleep until another has chosen what comes next: it may take as long as the disk.
class Gate {
 public:
  void open() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      opened_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
  }
  // Until it was opened more than `times` times.
  void wait(int64_t times) {
    for (int spins = 0; spins < 4000; spins++) {
      if (opened_.load(std::memory_order_acquire) > times) return;
      relax();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [&] { return opened_.load(std::memory_order_acquire) > times; });
  }
  int64_t times() const { return opened_.load(std::memory_order_acquire); }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<int64_t> opened_{0};
};

// (maximum, total, out) of more keys into those of earlier ones.
void merge(float &maximum, float &total, float *out, float more_maximum, float more_total,
           const float *more_out, int64_t n) {
  if (more_total == 0) return;
  if (total == 0) {
    maximum = more_maximum;
    total = more_total;
    std::memcpy(out, more_out, n * sizeof(float));
    return;
  }
  const float joint = std::max(maximum, more_maximum);
  const float a = std::exp(maximum - joint), b = std::exp(more_maximum - joint);
  for (int64_t i = 0; i < n; i++) out[i] = out[i] * a + more_out[i] * b;
  total = total * a + more_total * b;
  maximum = joint;
}

}  // namespace
}  // namespace hy

using namespace hy;

struct hy_decoder {
  hy_shape shape;
  std::vector<float> inverse;
  const Kernels *kernels;
  Team team;
  Matrix embedding, head;
  const float *final_norm = nullptr;
  std::vector<Layer> layers;
  std::vector<int64_t> expert_tokens;  // (layers, experts): tokens each has computed
  ExpertCache *disk = nullptr;         // where routed experts lie if not in memory

  // Scratch, grown to the largest step so far.
  std::vector<float> x, qkv, cosine, sine, part_maximum, part_total, part_out, out_shared,
      out_routed, weight, probabilities;
  std::vector<float> normed, attended_rows;
  Inputs hidden, attended, gathered, inner_shared, inner_routed;
  bool settled = false;
  std::vector<int32_t> choice, count, pair_of, token_at;
  std::vector<int32_t> sequence_of, parts_before;
  std::vector<AttendItem> items;
  std::vector<Job> jobs;
  std::vector<std::vector<float>> per_thread;
  std::vector<std::vector<WideGroup>> per_thread_wide;
  std::vector<std::vector<int32_t>> per_thread_limits;

  // Of experts on disk.
  Gate gate;
  bool lost = false;                      // an expert could not be read
  std::vector<Job> waiting;               // jobs of no round yet
  std::vector<int32_t> wanted_experts;
  std::vector<ExpertCache::Taken> taken;
  std::vector<int32_t> foreseen;          // (kForesight, experts): tokens that would choose it
  std::vector<Inputs> per_thread_ahead;   // a tile of the next layers' inputs
  std::vector<std::vector<float>> per_thread_normed;

  hy_decoder(const hy_shape &s, int threads)
      : shape(s),
        inverse(s.inverse_frequencies, s.inverse_frequencies + s.head_dim / 2),
        kernels(best_kernels()),
        team(threads),
        layers(s.layers),
        expert_tokens(static_cast<size_t>(s.layers) * s.experts) {
    for (Layer &layer : layers) layer.routed.resize(s.experts);
    per_thread.resize(team.size());
    per_thread_wide.resize(team.size());
    per_thread_limits.resize(team.size());
    shape.inverse_frequencies = nullptr;
  }

  void plan(const hy_step &step);
  // False if an expert could not be read.
  bool run(const hy_step &step, const hy_cache &cache, const float *logit_bias, float *logits,
           float *hidden_out);

 private:
  // Products of `matrices` with `tokens` tokens, in groups of row blocks; calls
  // emit(matrix, first row, rows, first token, n, values (n, 16)).
  template <class Emit>
  void products(int thread, const Matrix *const *matrices, int count, const Inputs &in,
                int64_t tokens, const Emit &emit) {
    int64_t group[4], items_before[5] = {0};
    for (int i = 0; i < count; i++) {
      const int64_t blocks = matrices[i]->blocks();
      const int64_t fair = std::max<int64_t>(1, blocks / (team.size() * 2));
      const int64_t wanted = tokens > kTile ? kWide : 1 + kItemBytes / matrices[i]->stride;
      group[i] = std::min(fair, wanted);
      items_before[i + 1] = items_before[i] + (blocks + group[i] - 1) / group[i];
    }
    team.share(items_before[count], [&](int64_t item) {
      int i = 0;
      while (item >= items_before[i + 1]) i++;
      const Matrix &m = *matrices[i];
      const int64_t first = (item - items_before[i]) * group[i];
      const int64_t last = std::min(first + group[i], m.blocks());
      // Long runs go by in fours: as many as share their loads where there are many tokens.
      for (int64_t b = first; b < last; b += kWide)
        multiply(kernels, m, b, std::min(b + kWide, last), in, 0, tokens, wide_scratch(thread),
                 [&](int64_t block, int64_t t, int n, const float *values) {
                   emit(i, block * kRows, m.rows_at(block), t, n, values);
                 });
    });
  }

  WideGroup *wide_scratch(int thread) { return per_thread_wide[thread].data(); }

  // each(token) for all tokens, a tile of them at a time.
  template <class Each>
  void per_token(int64_t tokens, const Each &each) {
    team.share(tiles_of(tokens), [&](int64_t tile) {
      for (int64_t t = tile * kTile; t < std::min(tokens, (tile + 1) * kTile); t++) each(t);
    });
  }

  void settle();
  void place(const Layer &layer, bool owner, int64_t slot, int token, const hy_step &step,
             const hy_cache &cache);
  void attend(const AttendItem &item, const hy_step &step, const hy_cache &cache, int64_t slot,
              int thread);
  void route(const Layer &layer, int64_t tile, int64_t tokens);
  void list_jobs(const Layer &layer, int tokens);
  void foresee(int layer, int distance, int64_t tile, int64_t tokens, int thread);
  void demand(int layer);
  void next_round(int layer);
  void run_experts(int layer, int thread);
  void run_jobs(int thread);
  void run_inner(const Job &job, int64_t item, int thread);
  void run_down(const Job &job, int64_t item, int thread);

  // run(job, part) for the parts of every job, in runs of neighbours: parts(job) says how many
  // there are, bytes(job) how much memory one reads.
  template <class Parts, class Bytes, class Run>
  void share_jobs(const Parts &parts, const Bytes &bytes, const Run &run) {
    const auto length = [&](const Job &job) {
      const int64_t fair = parts(job) / (team.size() * 2);
      const int64_t most = job.count > kTile ? 1 : kItemBytes / bytes(job);
      return std::max<int64_t>(1, std::min(fair, most));
    };
    const auto runs = [&](const Job &job) { return (parts(job) + length(job) - 1) / length(job); };
    int64_t total = 0;
    for (const Job &job : jobs) total += runs(job);
    team.share(total, [&](int64_t item) {
      const Job *job = jobs.data();
      for (; item >= runs(*job); job++) item -= runs(*job);
      const int64_t first = item * length(*job);
      for (int64_t p = first; p < std::min(first + length(*job), parts(*job)); p++) run(*job, p);
    });
  }
  void add_outputs(const Layer &layer, int token);
};

// Which inputs feed quantised and which float weights; once, when all weights are set.
void hy_decoder::settle() {
  for (const Layer &l : layers) {
    for (const Matrix *m : {&l.q, &l.k, &l.v, &l.router, &l.shared.gate, &l.shared.up})
      hidden.serve(*m);
    attended.serve(l.o);
    inner_shared.serve(l.shared.down);
    for (const Expert &e : l.routed) {
      gathered.serve(e.gate);
      gathered.serve(e.up);
      inner_routed.serve(e.down);
    }
  }
  hidden.serve(head);
  hidden.quantised |= gathered.quantised;
  hidden.floating |= gathered.floating;
  settled = true;
}

void hy_decoder::plan(const hy_step &step) {
  if (!settled) settle();
  const int tokens = step.tokens;
  const int64_t d = shape.hidden, c = shape.head_dim;
  const int64_t heads = shape.heads, k = shape.kv_heads, per_head = heads / k;
  reserve(x, tokens * d);
  reserve(qkv, tokens * (heads + 2 * k) * c);
  reserve(cosine, tokens * c / 2);
  reserve(sine, tokens * c / 2);
  reserve(normed, tokens * d);
  reserve(attended_rows, tokens * heads * c);
  hidden.resize(tiles_of(tokens));
  attended.resize(tiles_of(tokens));
  if (shape.shared_ffn) {
    inner_shared.resize(tiles_of(tokens));
    reserve(out_shared, tokens * d);
  }
  if (shape.experts) {
    const int64_t pairs = static_cast<int64_t>(tokens) * shape.top_k;
    // Every expert's tokens start a tile of their own.
    const int64_t places = pairs + static_cast<int64_t>(shape.experts) * (kTile - 1);
    gathered.resize(tiles_of(places));
    inner_routed.resize(tiles_of(places));
    reserve(out_routed, places * d);
    reserve(token_at, places);
    reserve(weight, pairs);
    reserve(probabilities, static_cast<int64_t>(tokens) * shape.experts);
    reserve(choice, pairs);
    reserve(pair_of, pairs);
    reserve(count, shape.experts);
  }

  // Attention items; a lone token is split into spans, so that every thread has work.
  items.clear();
  reserve(sequence_of, tokens);
  reserve(parts_before, tokens + 1);
  const int tile = std::max<int>(1, kQueryTile / static_cast<int>(per_head));
  int token = 0, parts_total = 0;
  for (int s = 0; s < step.sequences; s++) {
    const bool split = step.counts[s] == 1;
    for (int done = 0; done < step.counts[s]; done += tile) {
      const int n = std::min(tile, step.counts[s] - done);
      const int64_t keys = step.positions[token + done + n - 1] + 1;
      const int blocks = static_cast<int>((keys + HY_BLOCK - 1) / HY_BLOCK);
      const int parts = split ? (blocks + kSpan - 1) / kSpan : 1;
      for (int i = 0; i < n; i++) {
        sequence_of[token + done + i] = s;
        parts_before[token + done + i] = parts_total;
        parts_total += parts;
      }
      for (int p = 0; p < parts; p++) {
        const int first = split ? p * kSpan : 0;
        const int last = split ? std::min(blocks, first + kSpan) : blocks;
        for (int h = 0; h < k; h++) items.push_back({s, h, token + done, n, first, last, p, parts});
      }
    }
    token += step.counts[s];
  }
  parts_before[tokens] = parts_total;
  reserve(part_maximum, parts_total * heads);
  reserve(part_total, parts_total * heads);
  reserve(part_out, parts_total * heads * c);
  const int64_t rows = static_cast<int64_t>(std::min(tile, tokens)) * per_head;
  for (auto &scratch : per_thread) reserve(scratch, rows * (2 * c + 2));
  for (auto &limits : per_thread_limits) reserve(limits, rows);
  // Nothing is allocated inside the phases: a thread has nowhere to report that it failed.
  if (tokens > kTile) {
    const int64_t widest = std::max({d, heads * c, static_cast<int64_t>(shape.ffn),
                                     static_cast<int64_t>(shape.shared_ffn)});
    for (auto &wide : per_thread_wide) reserve(wide, widest / kGroup);
  }
  jobs.reserve(shape.experts + 1);
  if (disk) {
    waiting.reserve(shape.experts + 1);
    wanted_experts.reserve(shape.experts);
    taken.reserve(shape.experts);
    foreseen.assign(static_cast<size_t>(kForesight) * shape.experts, 0);
    per_thread_ahead.resize(team.size());
    per_thread_normed.resize(team.size());
    for (auto &normed_ahead : per_thread_normed) reserve(normed_ahead, d);
    for (Inputs &ahead : per_thread_ahead) {
      ahead.serve(layers[0].router);
      ahead.resize(1);
    }
  }
}

// Rotate and normalise one token's queries and keys; write its K and V into the cache.
void hy_decoder::place(const Layer &layer, bool owner, int64_t slot, int token,
                       const hy_step &step, const hy_cache &cache) {
  const int64_t c = shape.head_dim, half = c / 2, kv_heads = shape.kv_heads;
  const int64_t width = (shape.heads + 2 * kv_heads) * c;
  const float *cosines = &cosine[token * half], *sines = &sine[token * half];
  const auto turn = [&](float *v) { kernels->rotate(v, cosines, sines, half); };
  float *q = &qkv[token * width];
  for (int h = 0; h < shape.heads; h++) {
    turn(q + h * c);
    if (shape.qk_norm) kernels->rms_norm(q + h * c, layer.q_gain, shape.norm_eps, c, q + h * c);
  }
  if (!owner) return;
  float *key = q + shape.heads * c, *value = key + kv_heads * c;
  const int64_t position = step.positions[token];
  const int32_t *table = step.tables + static_cast<int64_t>(sequence_of[token]) * step.table_width;
  const int64_t block = table[position / HY_BLOCK], at = position % HY_BLOCK;
  for (int h = 0; h < kv_heads; h++) {
    turn(key + h * c);
    if (shape.qk_norm) kernels->rms_norm(key + h * c, nullptr, shape.norm_eps, c, key + h * c);
    const int64_t cell = (slot * cache.blocks + block) * kv_heads + h;
    const float *kh = key + h * c, *vh = value + h * c;
    const int64_t k0 = cell * c * HY_BLOCK + at, v0 = (cell * HY_BLOCK + at) * c;
    if (cache.type == HY_KV_F32) {
      float *k = static_cast<float *>(cache.k), *v = static_cast<float *>(cache.v);
      for (int64_t i = 0; i < c; i++) k[k0 + i * HY_BLOCK] = kh[i];
      std::memcpy(v + v0, vh, c * sizeof(float));
    } else if (cache.type == HY_KV_BF16) {
      uint16_t *k = static_cast<uint16_t *>(cache.k), *v = static_cast<uint16_t *>(cache.v);
      for (int64_t i = 0; i < c; i++) k[k0 + i * HY_BLOCK] = to_bf16(kh[i]);
      for (int64_t i = 0; i < c; i++) v[v0 + i] = to_bf16(vh[i]);
    } else {
      int8_t *k = static_cast<int8_t *>(cache.k), *v = static_cast<int8_t *>(cache.v);
      const auto scaled = [&](const float *from, float &scale, int8_t *to, int64_t stride) {
        float largest = 0;
        for (int64_t i = 0; i < c; i++) largest = std::max(largest, std::fabs(from[i]));
        scale = largest / 127.0f;
        const float inverse_scale = largest > 0 ? 127.0f / largest : 0.0f;
        for (int64_t i = 0; i < c; i++)
          to[i * stride] = static_cast<int8_t>(std::nearbyint(from[i] * inverse_scale));
      };
      scaled(kh, cache.k_scale[cell * HY_BLOCK + at], k + k0, HY_BLOCK);
      scaled(vh, cache.v_scale[cell * HY_BLOCK + at], v + v0, 1);
    }
  }
}

void hy_decoder::attend(const AttendItem &item, const hy_step &step, const hy_cache &cache,
                        int64_t slot, int thread) {
  const int64_t c = shape.head_dim, k = shape.kv_heads, per_head = shape.heads / k;
  const int64_t width = (shape.heads + 2 * k) * c;
  const int rows = static_cast<int>(item.tokens * per_head);
  float *q = per_thread[thread].data(), *out = q + rows * c;
  float *maximum = out + rows * c, *total = maximum + rows;
  int32_t *limit = per_thread_limits[thread].data();
  const float scale = 1.0f / std::sqrt(static_cast<float>(c));
  for (int t = 0; t < item.tokens; t++) {
    const float *from = &qkv[(item.token + t) * width + item.head * per_head * c];
    for (int64_t i = 0; i < per_head * c; i++) q[t * per_head * c + i] = from[i] * scale;
    for (int g = 0; g < per_head; g++)
      limit[t * per_head + g] = static_cast<int32_t>(step.positions[item.token + t]) + 1;
  }
  const int64_t size = cache.type == HY_KV_F32 ? 4 : cache.type == HY_KV_BF16 ? 2 : 1;
  const int64_t cell = slot * cache.blocks * k + item.head;
  Span span;
  span.q = q;
  span.limit = limit;
  span.rows = rows;
  span.k = static_cast<const char *>(cache.k) + cell * c * HY_BLOCK * size;
  span.v = static_cast<const char *>(cache.v) + cell * c * HY_BLOCK * size;
  span.k_scale = cache.k_scale ? cache.k_scale + cell * HY_BLOCK : nullptr;
  span.v_scale = cache.v_scale ? cache.v_scale + cell * HY_BLOCK : nullptr;
  span.stride = k * c * HY_BLOCK * size;
  span.scale_stride = k * HY_BLOCK;
  span.table = step.tables + static_cast<int64_t>(item.sequence) * step.table_width;
  span.head_dim = static_cast<int>(c);
  span.type = cache.type;
  span.maximum = maximum;
  span.total = total;
  span.out = out;
  for (int first = item.first; first < item.last; first += kSpan) {
    span.first = first;
    span.last = std::min(item.last, first + kSpan);
    std::fill(maximum, maximum + rows, -std::numeric_limits<float>::infinity());
    std::fill(total, total + rows, 0.0f);
    std::fill(out, out + rows * c, 0.0f);
    kernels->attend(span);
    for (int r = 0; r < rows; r++) {
      const int64_t token = item.token + r / per_head;
      const int64_t head = item.head * per_head + r % per_head;
      const int64_t at = parts_before[token] * static_cast<int64_t>(shape.heads) +
                         head * item.parts + item.part;
      if (first == item.first) part_total[at] = 0;
      merge(part_maximum[at], part_total[at], &part_out[at * c], maximum[r], total[r],
            out + r * c, c);
    }
  }
}

// Router and choice of one tile of tokens: softmax, the best top_k.
void hy_decoder::route(const Layer &layer, int64_t tile, int64_t tokens) {
  const int experts = shape.experts, k = shape.top_k;
  const int n = static_cast<int>(std::min<int64_t>(kTile, tokens - tile * kTile));
  alignas(64) float values[kTile * kRows];
  for (int64_t b = 0; b < layer.router.blocks(); b++) {
    kernels->product[layer.router.index](layer.router.data + b * layer.router.stride,
                                         hidden.tile(tile), n, values);
    for (int t = 0; t < n; t++)
      for (int64_t e = b * kRows; e < std::min<int64_t>(experts, (b + 1) * kRows); e++)
        probabilities[(tile * kTile + t) * experts + e] = values[t * kRows + e - b * kRows];
  }
  for (int64_t token = tile * kTile; token < tile * kTile + n; token++) {
    float *p = &probabilities[token * experts];
    const float largest = *std::max_element(p, p + experts);
    float total = 0;
    for (int e = 0; e < experts; e++) total += p[e] = std::exp(p[e] - largest);
    for (int e = 0; e < experts; e++) p[e] /= total;
    float chosen = 0;
    for (int i = 0; i < k; i++) {
      const int best = static_cast<int>(std::max_element(p, p + experts) - p);
      choice[token * k + i] = best;
      weight[token * k + i] = p[best];
      chosen += p[best];
      p[best] = -1;
    }
    if (shape.norm_topk_prob)
      for (int i = 0; i < k; i++) weight[token * k + i] /= chosen;
  }
}

// Give every (token, expert) pair a place, expert by expert; one job per expert with tokens.
void hy_decoder::list_jobs(const Layer &layer, int tokens) {
  jobs.clear();
  if (layer.shared.down.data) jobs.push_back({&layer.shared, 0, tokens, true});
  if (!shape.experts) return;
  const int64_t pairs = static_cast<int64_t>(tokens) * shape.top_k;
  std::fill(count.begin(), count.end(), 0);
  for (int64_t p = 0; p < pairs; p++) count[choice[p]]++;
  int64_t *totals = &expert_tokens[(&layer - layers.data()) * shape.experts];
  int64_t place = 0;
  for (int e = 0; e < shape.experts; e++) {
    const int64_t taken = count[e];
    __atomic_fetch_add(&totals[e], taken, __ATOMIC_RELAXED);  // others read while this runs
    if (taken) jobs.push_back({&layer.routed[e], place, taken, false});
    count[e] = static_cast<int32_t>(place);
    place += tiles_of(taken) * kTile;
  }
  for (int64_t p = 0; p < pairs; p++) {
    pair_of[p] = count[choice[p]]++;
    token_at[pair_of[p]] = static_cast<int32_t>(p / shape.top_k);
  }
}

// Which experts the router of `layer` would choose for a tile if the residual stream reached it as
// it is now. Only what is read early depends on it.
void hy_decoder::foresee(int layer, int distance, int64_t tile, int64_t tokens, int thread) {
  const Layer &next = layers[layer];
  const int64_t d = shape.hidden;
  const int n = static_cast<int>(std::min<int64_t>(kTile, tokens - tile * kTile));
  Inputs &in = per_thread_ahead[thread];
  float *row = per_thread_normed[thread].data();
  for (int t = 0; t < n; t++) {
    kernels->rms_norm(&x[(tile * kTile + t) * d], next.post_norm, shape.norm_eps, d, row);
    in.put_row(kernels, t, row);
  }
  alignas(64) float values[kTile * kRows];
  float best[kTile][kRows];
  int32_t chosen[kTile][kRows];
  const int k = std::min(shape.top_k, kRows);
  for (auto &one : best) std::fill(one, one + k, -std::numeric_limits<float>::infinity());
  for (auto &one : chosen) std::fill(one, one + k, 0);
  for (int64_t b = 0; b < next.router.blocks(); b++) {
    kernels->product[next.router.index](next.router.data + b * next.router.stride, in.tile(0), n,
                                        values);
    for (int t = 0; t < n; t++)
      for (int e = 0; e < next.router.rows_at(b); e++) {
        float value = values[t * kRows + e];
        int32_t expert = static_cast<int32_t>(b * kRows + e);
        for (int i = 0; i < k; i++)  // insert into the best so far
          if (value > best[t][i]) {
            std::swap(value, best[t][i]);
            std::swap(expert, chosen[t][i]);
          }
      }
  }
  int32_t *counts = &foreseen[static_cast<size_t>(distance - 1) * shape.experts];
  for (int t = 0; t < n; t++)
    for (int i = 0; i < k; i++) __atomic_fetch_add(&counts[chosen[t][i]], 1, __ATOMIC_RELAXED);
}

// Ask for the experts of the jobs, and for those of the next layers as far as they are foreseen.
void hy_decoder::demand(int layer) {
  waiting.assign(jobs.begin(), jobs.end());
  wanted_experts.clear();
  for (const Job &job : jobs)
    if (!job.shared)
      wanted_experts.push_back(static_cast<int32_t>(job.expert - layers[layer].routed.data()));
  disk->demand(layer, wanted_experts);
  for (int distance = 1; distance <= kForesight && layer + distance < shape.layers; distance++) {
    int32_t *counts = &foreseen[static_cast<size_t>(distance - 1) * shape.experts];
    wanted_experts.clear();
    for (int e = 0; e < shape.experts; e++)
      if (counts[e]) wanted_experts.push_back(e);
    std::stable_sort(wanted_experts.begin(), wanted_experts.end(),
                     [&](int32_t a, int32_t b) { return counts[a] > counts[b]; });
    disk->expect(layer + distance, distance, wanted_experts);
    std::fill(counts, counts + shape.experts, 0);
  }
}

// Let go of the experts of the last round, and make jobs of those that are there now; none when
// all are done or one is lost.
void hy_decoder::next_round(int layer) {
  std::vector<Expert> &routed = layers[layer].routed;
  for (const Job &job : jobs)
    if (!job.shared) disk->release(static_cast<int>(job.expert - routed.data()));
  jobs.clear();
  if (waiting.empty()) return;
  if (waiting.front().shared) {
    jobs.push_back(waiting.front());
    waiting.erase(waiting.begin());
  }
  taken.clear();
  if (!disk->take(taken, jobs.empty())) {
    lost = true;
    jobs.clear();
    return;
  }
  const hy_expert_file &file = disk->file();
  for (const ExpertCache::Taken &one : taken) {
    Expert &expert = routed[one.expert];
    expert.gate.data = one.extent + file.starts[0];
    expert.up.data = one.extent + file.starts[1];
    expert.down.data = one.extent + file.starts[2];
    const auto job = std::find_if(waiting.begin(), waiting.end(), [&](const Job &w) {
      return w.expert == &expert;
    });
    jobs.push_back(*job);
    waiting.erase(job);
  }
}

void hy_decoder::run_experts(int layer, int thread) {
  int64_t rounds = gate.times();  // nobody opens it before all are past the barrier below
  if (shape.experts) {
    team.share(jobs.size(), [&](int64_t j) {
      const Job &job = jobs[j];
      if (job.shared) return;
      for (int64_t i = job.begin; i < job.begin + job.count; i++)
        gathered.copy(i, hidden, token_at[i]);
    });
  }
  if (!disk) return run_jobs(thread);
  if (thread == 0) {
    demand(layer);
    jobs.clear();
  }
  for (;; rounds++) {
    if (thread == 0) {
      next_round(layer);
      gate.open();
    } else {
      gate.wait(rounds);
    }
    if (jobs.empty()) return;
    run_jobs(thread);
  }
}

void hy_decoder::run_jobs(int thread) {
  // Gate and up of 32 inner columns at a time: a whole group of the down product's input.
  share_jobs(
      [](const Job &job) { return (job.expert->gate.rows + kGroup - 1) / kGroup; },
      [](const Job &job) { return 4 * job.expert->gate.stride; },
      [&](const Job &job, int64_t group) { run_inner(job, group, thread); });
  // Down: four blocks of rows at a time for many tokens, one for few.
  share_jobs([](const Job &job) { return (job.expert->down.blocks() + job.down_blocks() - 1) /
                                         job.down_blocks(); },
             [](const Job &job) { return job.expert->down.stride; },
             [&](const Job &job, int64_t part) { run_down(job, part, thread); });
}

// Gate, up and silu of 32 inner columns.
void hy_decoder::run_inner(const Job &job, int64_t item, int thread) {
  const Matrix &gate = job.expert->gate, &up = job.expert->up;
  const Inputs &in = job.shared ? hidden : gathered;
  Inputs &out = job.shared ? inner_shared : inner_routed;
  // Gate blocks, then up blocks, each by token and row.
  alignas(64) float both[kWide * kTile * kRows];
  float *g = both, *u = both + 2 * kTile * kRows;
  float group[kTile][kGroup];
  const int64_t columns = std::min<int64_t>(kGroup, gate.rows - item * kGroup);
  const int64_t first = 2 * item, last = std::min(first + 2, gate.blocks());
  const bool wide =
      job.count > kTile && last - first == 2 && gate.quantised() && gate.index == up.index;
  WideGroup *scratch = nullptr;
  if (wide) {
    scratch = wide_scratch(thread);
    for (int r = 0; r < 2; r++) {
      kernels->widen[gate.index](gate.data + (first + r) * gate.stride, gate.columns, r, scratch);
      kernels->widen[up.index](up.data + (first + r) * up.stride, up.columns, 2 + r, scratch);
    }
  }
  for (int64_t t = 0; t < job.count; t += kTile) {
    const int n = static_cast<int>(std::min<int64_t>(kTile, job.count - t));
    const Tile tile = in.tile((job.begin + t) / kTile);
    if (wide) kernels->wide_product[gate.index](scratch, tile, n, both);
    for (int r = 0; r < last - first; r++) {
      float *gr = g + r * kTile * kRows, *ur = u + r * kTile * kRows;
      if (!wide) {
        kernels->product[gate.index](gate.data + (first + r) * gate.stride, tile, n, gr);
        kernels->product[up.index](up.data + (first + r) * up.stride, tile, n, ur);
      }
      kernels->silu_mul(gr, ur, n * kRows, gr);
      for (int i = 0; i < n; i++)
        std::memcpy(&group[i][r * kRows], gr + i * kRows, kRows * sizeof(float));
    }
    for (int i = 0; i < n; i++)
      out.put(kernels, job.begin + t + i, item * kGroup, item * kGroup + columns, group[i]);
  }
}

// One part of an expert's down product.
void hy_decoder::run_down(const Job &job, int64_t item, int thread) {
  const Matrix &down = job.expert->down;
  float *to = job.shared ? out_shared.data() : out_routed.data();
  const int64_t size = job.down_blocks(), first = item * size;
  multiply(kernels, down, first, std::min(first + size, down.blocks()),
           job.shared ? inner_shared : inner_routed, job.begin, job.count, wide_scratch(thread),
           [&](int64_t block, int64_t t, int n, const float *values) {
             for (int i = 0; i < n; i++)
               std::memcpy(to + (job.begin + t + i) * down.rows + block * kRows,
                           values + i * kRows, down.rows_at(block) * sizeof(float));
           });
}

// Add what a layer's experts gave for a token to its residual stream.
void hy_decoder::add_outputs(const Layer &layer, int token) {
  const int64_t d = shape.hidden;
  float *to = &x[token * d];
  if (layer.shared.down.data) {
    const float *from = &out_shared[token * d];
    for (int64_t i = 0; i < d; i++) to[i] += from[i];
  }
  for (int j = 0; j < (shape.experts ? shape.top_k : 0); j++) {
    const int64_t pair = static_cast<int64_t>(token) * shape.top_k + j;
    const float *from = &out_routed[pair_of[pair] * d];
    const float w = weight[pair];
    for (int64_t i = 0; i < d; i++) to[i] += w * from[i];
  }
}

bool hy_decoder::run(const hy_step &step, const hy_cache &cache, const float *logit_bias,
                     float *logits, float *hidden_out) {
  const int tokens = step.tokens;
  const int64_t d = shape.hidden, c = shape.head_dim, half = c / 2;
  const int64_t heads = shape.heads, kv_heads = shape.kv_heads;
  const int64_t width = (heads + 2 * kv_heads) * c;
  lost = false;
  if (disk) disk->begin_step(tokens);

  team.run([&](int thread) {
    team.share(tokens, [&](int64_t t) {
      hy_unpack_row(kFormats[embedding.index].type, d, embedding.data, step.ids[t], &x[t * d]);
      const float position = static_cast<float>(step.positions[t]);
      for (int64_t i = 0; i < half; i++) {
        const float angle = position * inverse[i];
        cosine[t * half + i] = std::cos(angle);
        sine[t * half + i] = std::sin(angle);
      }
    });
    for (int l = 0; l < shape.layers; l++) {
      const Layer &layer = layers[l];
      const bool owner = layer.k.data != nullptr;
      const int64_t slot = l / shape.cla_share;
      per_token(tokens, [&](int64_t t) {
        if (l) add_outputs(layers[l - 1], static_cast<int>(t));
        kernels->rms_norm(&x[t * d], layer.input_norm, shape.norm_eps, d, &normed[t * d]);
        hidden.put_row(kernels, t, &normed[t * d]);
      });

      const Matrix *projections[] = {&layer.q, &layer.k, &layer.v};
      const float *biases[] = {layer.q_bias, layer.k_bias, layer.v_bias};
      const int64_t starts[] = {0, heads * c, (heads + kv_heads) * c};
      products(thread, projections, owner ? 3 : 1, hidden, tokens,
               [&](int m, int64_t row, int rows, int64_t t, int n, const float *values) {
                 for (int i = 0; i < n; i++) {
                   float *to = &qkv[(t + i) * width + starts[m] + row];
                   const float *bias = biases[m] ? biases[m] + row : kZeros;
                   for (int r = 0; r < rows; r++) to[r] = values[i * kRows + r] + bias[r];
                 }
               });

      team.share(tokens, [&](int64_t t) {
        place(layer, owner, slot, static_cast<int>(t), step, cache);
      });
      team.share(items.size(), [&](int64_t i) { attend(items[i], step, cache, slot, thread); });
      per_token(tokens, [&](int64_t t) {
        float *row = &attended_rows[t * heads * c];
        const int parts = parts_before[t + 1] - parts_before[t];
        for (int64_t h = 0; h < heads; h++) {
          const int64_t at = parts_before[t] * heads + h * parts;
          float *out = &part_out[at * c];
          for (int p = 1; p < parts; p++)
            merge(part_maximum[at], part_total[at], out, part_maximum[at + p], part_total[at + p],
                  &part_out[(at + p) * c], c);
          float *to = row + h * c;
          for (int64_t i = 0; i < c; i++) to[i] = out[i] / part_total[at];
        }
        attended.put_row(kernels, t, row);
      });

      const Matrix *output[] = {&layer.o};
      products(thread, output, 1, attended, tokens,
               [&](int, int64_t row, int rows, int64_t t, int n, const float *values) {
                 for (int i = 0; i < n; i++) {
                   float *to = &x[(t + i) * d + row];
                   const float *bias = layer.o_bias ? layer.o_bias + row : kZeros;
                   for (int r = 0; r < rows; r++) to[r] += values[i * kRows + r] + bias[r];
                 }
               });

      team.share(tiles_of(tokens), [&](int64_t tile) {
        for (int64_t t = tile * kTile; t < std::min<int64_t>(tokens, (tile + 1) * kTile); t++) {
          kernels->rms_norm(&x[t * d], layer.post_norm, shape.norm_eps, d, &normed[t * d]);
          hidden.put_row(kernels, t, &normed[t * d]);
        }
        if (shape.experts) route(layer, tile, tokens);
        for (int ahead = 1; disk && ahead <= kForesight && l + ahead < shape.layers; ahead++)
          foresee(l + ahead, ahead, tile, tokens, thread);
      });
      if (thread == 0) list_jobs(layer, tokens);
      team.barrier();
      run_experts(l, thread);
      if (lost) return;
    }
    team.share(tokens, [&](int64_t t) {
      add_outputs(layers[shape.layers - 1], static_cast<int>(t));
      kernels->rms_norm(&x[t * d], final_norm, shape.norm_eps, d, &normed[t * d]);
      if (hidden_out) std::memcpy(hidden_out + t * d, &normed[t * d], d * sizeof(float));
    });
    if (!step.rows) return;
    per_token(step.rows, [&](int64_t r) {
      hidden.put_row(kernels, r, &normed[step.wanted[r] * d]);
    });
    const Matrix *heads_only[] = {&head};
    const int64_t vocabulary = shape.vocab;
    products(thread, heads_only, 1, hidden, step.rows,
             [&](int, int64_t row, int rows, int64_t t, int n, const float *values) {
               for (int i = 0; i < n; i++) {
                 float *to = logits + (t + i) * vocabulary + row;
                 const float *bias = logit_bias ? logit_bias + row : kZeros;
                 for (int r = 0; r < rows; r++) to[r] = values[i * kRows + r] + bias[r];
               }
             });
  });
  return !lost;
}

hy_decoder *hy_decoder_new(const hy_shape *shape, int32_t threads) {
  try {
    return best_kernels() ? new hy_decoder(*shape, threads) : nullptr;
  } catch (const std::exception &) {
    return nullptr;
  }
}

void hy_decoder_free(hy_decoder *decoder) { delete decoder; }

void hy_decoder_set(hy_decoder *decoder, int32_t role, int32_t layer, int32_t expert, int32_t type,
                    int64_t rows, int64_t columns, const void *data) {
  const int index = format_index(type);
  const Matrix m = {index, rows, columns, static_cast<const uint8_t *>(data),
                    block_bytes(kFormats[index], columns)};
  const float *vector = static_cast<const float *>(data);
  if (role == HY_EMBEDDING) { decoder->embedding = m; return; }
  if (role == HY_HEAD) { decoder->head = m; return; }
  if (role == HY_FINAL_NORM) { decoder->final_norm = vector; return; }
  Layer &l = decoder->layers[layer];
  switch (role) {
    case HY_INPUT_NORM: l.input_norm = vector; break;
    case HY_POST_NORM: l.post_norm = vector; break;
    case HY_Q: l.q = m; break;
    case HY_K: l.k = m; break;
    case HY_V: l.v = m; break;
    case HY_O: l.o = m; break;
    case HY_Q_BIAS: l.q_bias = vector; break;
    case HY_K_BIAS: l.k_bias = vector; break;
    case HY_V_BIAS: l.v_bias = vector; break;
    case HY_O_BIAS: l.o_bias = vector; break;
    case HY_Q_GAIN: l.q_gain = vector; break;
    case HY_ROUTER: l.router = m; break;
    case HY_SHARED_GATE: l.shared.gate = m; break;
    case HY_SHARED_UP: l.shared.up = m; break;
    case HY_SHARED_DOWN: l.shared.down = m; break;
    case HY_EXPERT_GATE: l.routed[expert].gate = m; break;
    case HY_EXPERT_UP: l.routed[expert].up = m; break;
    case HY_EXPERT_DOWN: l.routed[expert].down = m; break;
  }
}

void hy_decoder_set_experts(hy_decoder *decoder, hy_experts *experts) {
  const hy_expert_file &file = experts->cache.file();
  const int64_t hidden = decoder->shape.hidden, ffn = decoder->shape.ffn;
  const auto matrix = [&](int projection, int64_t rows, int64_t columns) -> Matrix {
    const int index = format_index(file.types[projection]);
    return {index, rows, columns, nullptr, block_bytes(kFormats[index], columns)};
  };
  decoder->disk = &experts->cache;
  for (Layer &layer : decoder->layers)
    for (Expert &expert : layer.routed)
      expert = {matrix(0, ffn, hidden), matrix(1, ffn, hidden), matrix(2, hidden, ffn)};
}

void hy_decoder_expert_tokens(const hy_decoder *decoder, int64_t *out) {
  const std::vector<int64_t> &counted = decoder->expert_tokens;
  for (size_t i = 0; i < counted.size(); i++) out[i] = __atomic_load_n(&counted[i], __ATOMIC_RELAXED);
}

int32_t hy_decoder_run(hy_decoder *decoder, const hy_step *step, const hy_cache *cache,
                       const float *logit_bias, float *logits, float *hidden) {
  try {
    decoder->plan(*step);
    return decoder->run(*step, *cache, logit_bias, logits, hidden) ? 0 : -2;
  } catch (const std::exception &) {
    return -1;
  }
}
