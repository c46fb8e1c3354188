// Training's rows over whole tensors, shared by the threads of the caller's own OpenMP runtime.
//
// torch computes the matrix products on its OpenMP threads, which spin for a while after each; a
// second team would fight them for the processors. So the caller passes that runtime's
// GOMP_parallel, which GCC's and LLVM's runtimes both have; without it one thread does all.
#include <algorithm>
#include <atomic>

#include "hunyuan_native.h"
#include "kernels.h"

using namespace hy;

namespace {

using Parallel = void (*)(void (*)(void *), void *, unsigned, unsigned);

// Calls each(item) for 0..count-1, items in an order that depends on nothing but luck.
template <class Each>
void share(const hy_workers *workers, int64_t count, const Each &each) {
  struct Job {
    const Each &each;
    int64_t count;
    std::atomic<int64_t> next{0};
  } job{each, count};
  const auto work = [](void *data) {
    Job &job = *static_cast<Job *>(data);
    for (int64_t i; (i = job.next.fetch_add(1, std::memory_order_relaxed)) < job.count;)
      job.each(i);
  };
  if (workers->parallel && workers->threads > 1 && count > 1) {
    reinterpret_cast<Parallel>(workers->parallel)(work, &job, workers->threads, 0);
  } else {
    work(&job);
  }
}

// Rows in pieces of about 64 kB: enough to be worth handing out.
template <class Each>
void share_rows(const hy_workers *workers, int64_t rows, int64_t width, const Each &each) {
  const int64_t piece = std::max<int64_t>(1, 32768 / std::max<int64_t>(width, 1));
  share(workers, (rows + piece - 1) / piece, [&](int64_t item) {
    const int64_t end = std::min(rows, (item + 1) * piece);
    for (int64_t row = item * piece; row < end; row++) each(row);
  });
}

const TrainingRows &rows_here() { return best_kernels()->training; }

// What a row of a block of scores may see.
struct Seen {
  int64_t begin, end;
};

Seen seen_by(const hy_scores *s, int64_t batch, int64_t row) {
  const int64_t token = s->first_query + row % s->queries;
  const int64_t from = s->first_seen[batch / s->kv_heads * s->tokens + token];
  return {std::max<int64_t>(from - s->first_key, 0), token - s->first_key + 1};
}

}  // namespace

void hy_train_softmax(const hy_workers *workers, const hy_scores *s, uint16_t *scores,
                      float *log_sum) {
  const TrainingRows &rows = rows_here();
  share_rows(workers, s->batch * s->rows, s->keys, [&](int64_t at) {
    const Seen seen = seen_by(s, at / s->rows, at % s->rows);
    log_sum[at] = rows.softmax(scores + at * s->keys, seen.begin, seen.end, s->keys, s->scale);
  });
}

void hy_train_softmax_backward(const hy_workers *workers, const hy_scores *s, uint16_t *scores,
                               uint16_t *grads, const float *log_sum, const float *delta) {
  const TrainingRows &rows = rows_here();
  share_rows(workers, s->batch * s->rows, s->keys, [&](int64_t at) {
    const Seen seen = seen_by(s, at / s->rows, at % s->rows);
    rows.softmax_backward(scores + at * s->keys, grads + at * s->keys, seen.begin, seen.end,
                          s->keys, s->scale, log_sum[at], delta[at]);
  });
}

void hy_train_cross_entropy(const hy_workers *workers, int64_t count, int64_t vocab,
                            const int64_t *targets, const float *weights, uint16_t *logits,
                            float *losses) {
  const TrainingRows &rows = rows_here();
  share_rows(workers, count, vocab, [&](int64_t row) {
    uint16_t *at = logits + row * vocab;
    if (targets[row] < 0) {
      std::fill(at, at + vocab, uint16_t{0});
      losses[row] = 0;
    } else {
      losses[row] = rows.cross_entropy(at, vocab, targets[row], weights[row]);
    }
  });
}

void hy_train_rms_norm(const hy_workers *workers, int64_t count, int64_t width, const uint16_t *x,
                       const float *gain, float eps, uint16_t *out, float *scales) {
  const TrainingRows &rows = rows_here();
  share_rows(workers, count, width, [&](int64_t row) {
    scales[row] = rows.rms_norm(x + row * width, gain, eps, width, out + row * width);
  });
}

void hy_train_rms_norm_backward(const hy_workers *workers, int64_t count, int64_t width,
                                const uint16_t *x, const float *gain, const float *scales,
                                const uint16_t *grad, uint16_t *dx, int64_t parts,
                                float *gain_parts) {
  const TrainingRows &rows = rows_here();
  const int64_t piece = (count + parts - 1) / parts;
  share(workers, parts, [&](int64_t part) {
    for (int64_t row = part * piece; row < std::min(count, (part + 1) * piece); row++)
      rows.rms_norm_backward(x + row * width, gain, scales[row], grad + row * width, width,
                             dx + row * width, gain_parts + part * width);
  });
}

void hy_train_swiglu(const hy_workers *workers, int64_t count, const uint16_t *gate,
                     const uint16_t *up, uint16_t *out) {
  const TrainingRows &rows = rows_here();
  constexpr int64_t piece = 16384;
  share(workers, (count + piece - 1) / piece, [&](int64_t item) {
    const int64_t at = item * piece;
    rows.swiglu(gate + at, up + at, std::min(piece, count - at), out + at);
  });
}

void hy_train_swiglu_backward(const hy_workers *workers, int64_t count, const uint16_t *gate,
                              const uint16_t *up, const uint16_t *grad, uint16_t *dgate,
                              uint16_t *dup) {
  const TrainingRows &rows = rows_here();
  constexpr int64_t piece = 16384;
  share(workers, (count + piece - 1) / piece, [&](int64_t item) {
    const int64_t at = item * piece;
    rows.swiglu_backward(gate + at, up + at, grad + at, std::min(piece, count - at), dgate + at,
                         dup + at);
  });
}

void hy_train_rotate_unit(const hy_workers *workers, const hy_heads *h, const uint16_t *x,
                          const float *cosine, const float *sine, const float *gain,
                          uint16_t *out, float *scales) {
  const TrainingRows &rows = rows_here();
  share_rows(workers, h->tokens, h->heads * h->half * 2, [&](int64_t token) {
    const int64_t angle = token % h->angles * h->half;
    for (int64_t row = token * h->heads; row < (token + 1) * h->heads; row++)
      scales[row] = rows.rotate_unit(x + row * 2 * h->half, cosine + angle, sine + angle, gain,
                                     h->eps, h->half, out + row * 2 * h->half);
  });
}

void hy_train_rotate_unit_backward(const hy_workers *workers, const hy_heads *h,
                                   const uint16_t *x, const float *cosine, const float *sine,
                                   const float *gain, const float *scales, const uint16_t *grad,
                                   uint16_t *dx, int64_t parts, float *gain_parts) {
  const TrainingRows &rows = rows_here();
  const int64_t piece = (h->tokens + parts - 1) / parts, width = 2 * h->half;
  share(workers, parts, [&](int64_t part) {
    for (int64_t token = part * piece; token < std::min(h->tokens, (part + 1) * piece); token++) {
      const int64_t angle = token % h->angles * h->half;
      for (int64_t row = token * h->heads; row < (token + 1) * h->heads; row++)
        rows.rotate_unit_backward(x + row * width, cosine + angle, sine + angle, gain, scales[row],
                                  h->eps >= 0, grad + row * width, h->half, dx + row * width,
                                  gain_parts + part * width);
    }
  });
}
