// What training computes between its matrix products, one row at a time, over the same small
// vector type as kernels_impl.h, which includes this. Numbers are bfloat16 in memory and float32
// in registers; every sum is float32.
#include <cstring>

namespace hy {
namespace HY_ISA {

inline F from_numbers(const uint16_t *p) { return load_bf16(reinterpret_cast<const uint8_t *>(p)); }

// The last, incomplete vector of a row goes through a buffer: nothing beyond the row is touched.
inline F from_last_numbers(const uint16_t *p, int64_t count) {
  uint16_t whole[kLanes] = {0};
  std::memcpy(whole, p, count * sizeof *p);
  return from_numbers(whole);
}
inline void store_last_numbers(uint16_t *p, int64_t count, F x) {
  uint16_t whole[kLanes];
  store_bf16(whole, x);
  std::memcpy(p, whole, count * sizeof *p);
}

// Calls whole(i) for every complete vector of [begin, end), then last(i, count) for what is left.
template <class Whole, class Last>
inline void over(int64_t begin, int64_t end, const Whole &whole, const Last &last) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) whole(i);
  if (i < end) last(i, end - i);
}

inline float largest_of(const uint16_t *x, int64_t begin, int64_t end) {
  const float lowest = -std::numeric_limits<float>::infinity();
  F most = set(lowest);
  over(
      begin, end, [&](int64_t i) { most = max(most, from_numbers(x + i)); },
      [&](int64_t i, int64_t count) {
        most = max(most, first_lanes(from_last_numbers(x + i, count), static_cast<int>(count),
                                     lowest));
      });
  return reduce_max(most);
}

// Sum of e^(scale * x - shift).
inline float sum_of_exponentials(const uint16_t *x, int64_t begin, int64_t end, float scale,
                                 float shift) {
  F sum = set(0);
  over(
      begin, end,
      [&](int64_t i) {
        sum = add(sum, exponential(sub(mul(from_numbers(x + i), set(scale)), set(shift))));
      },
      [&](int64_t i, int64_t count) {
        const F e = exponential(sub(mul(from_last_numbers(x + i, count), set(scale)), set(shift)));
        sum = add(sum, first_lanes(e, static_cast<int>(count), 0));
      });
  return reduce_add(sum);
}

// x[i] = each(x[i], i) for [begin, end).
template <class Each>
inline void change(uint16_t *x, int64_t begin, int64_t end, const Each &each) {
  over(
      begin, end, [&](int64_t i) { store_bf16(x + i, each(from_numbers(x + i))); },
      [&](int64_t i, int64_t count) {
        store_last_numbers(x + i, count, each(from_last_numbers(x + i, count)));
      });
}

inline void clear(uint16_t *x, int64_t begin, int64_t end) {
  if (begin < end) std::memset(x + begin, 0, (end - begin) * sizeof *x);
}

float train_softmax(uint16_t *scores, int64_t begin, int64_t end, int64_t n, float scale) {
  const float most = scale * largest_of(scores, begin, end);
  const float log_sum = most + std::log(sum_of_exponentials(scores, begin, end, scale, most));
  clear(scores, 0, begin);
  change(scores, begin, end,
         [&](F x) { return exponential(sub(mul(x, set(scale)), set(log_sum))); });
  clear(scores, end, n);
  return log_sum;
}

void train_softmax_backward(uint16_t *scores, uint16_t *grads, int64_t begin, int64_t end,
                            int64_t n, float scale, float log_sum, float delta) {
  const auto one = [&](F &score, F &grad) {
    score = exponential(sub(mul(score, set(scale)), set(log_sum)));
    grad = mul(mul(score, set(scale)), sub(grad, set(delta)));
  };
  for (uint16_t *x : {scores, grads}) {
    clear(x, 0, begin);
    clear(x, end, n);
  }
  over(
      begin, end,
      [&](int64_t i) {
        F score = from_numbers(scores + i), grad = from_numbers(grads + i);
        one(score, grad);
        store_bf16(scores + i, score);
        store_bf16(grads + i, grad);
      },
      [&](int64_t i, int64_t count) {
        F score = from_last_numbers(scores + i, count), grad = from_last_numbers(grads + i, count);
        one(score, grad);
        store_last_numbers(scores + i, count, score);
        store_last_numbers(grads + i, count, grad);
      });
}

float train_cross_entropy(uint16_t *logits, int64_t n, int64_t target, float weight) {
  const float most = largest_of(logits, 0, n);
  const float log_sum = most + std::log(sum_of_exponentials(logits, 0, n, 1, most));
  const float of_target = from_bf16(logits[target]);
  change(logits, 0, n,
         [&](F x) { return mul(exponential(sub(x, set(log_sum))), set(weight)); });
  const float at_target = weight * (std::exp(of_target - log_sum) - 1);
  F all = set(at_target);
  store_last_numbers(logits + target, 1, all);
  return log_sum - of_target;
}

// Widths of the rest are multiples of 16, hence of every kLanes.

float train_rms_norm(const uint16_t *x, const float *gain, float eps, int64_t n, uint16_t *out) {
  F squares = set(0);
  for (int64_t i = 0; i < n; i += kLanes) {
    const F v = from_numbers(x + i);
    squares = fma(v, v, squares);
  }
  const float scale = 1 / std::sqrt(reduce_add(squares) / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; i += kLanes)
    store_bf16(out + i, mul(mul(from_numbers(x + i), set(scale)), load(gain + i)));
  return scale;
}

void train_rms_norm_backward(const uint16_t *x, const float *gain, float scale,
                             const uint16_t *grad, int64_t n, uint16_t *dx, float *gain_grad) {
  F dot = set(0);
  for (int64_t i = 0; i < n; i += kLanes) {
    const F unit = mul(from_numbers(x + i), set(scale)), g = from_numbers(grad + i);
    dot = fma(mul(g, load(gain + i)), unit, dot);
    store(gain_grad + i, fma(g, unit, load(gain_grad + i)));
  }
  const F mean = set(reduce_add(dot) / static_cast<float>(n));
  for (int64_t i = 0; i < n; i += kLanes) {
    const F unit = mul(from_numbers(x + i), set(scale));
    const F through = mul(from_numbers(grad + i), load(gain + i));
    store_bf16(dx + i, mul(set(scale), sub(through, mul(unit, mean))));
  }
}

inline F sigmoid(F x) {
  return divide(set(1), add(set(1), exponential(min(sub(set(0), x), set(88)))));
}

void train_swiglu(const uint16_t *gate, const uint16_t *up, int64_t n, uint16_t *out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const F g = from_numbers(gate + i);
    store_bf16(out + i, mul(mul(g, sigmoid(g)), from_numbers(up + i)));
  }
}

void train_swiglu_backward(const uint16_t *gate, const uint16_t *up, const uint16_t *grad,
                           int64_t n, uint16_t *dgate, uint16_t *dup) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const F g = from_numbers(gate + i), s = sigmoid(g), d = from_numbers(grad + i);
    const F slope = mul(s, fma(g, sub(set(1), s), set(1)));
    store_bf16(dup + i, mul(d, mul(g, s)));
    store_bf16(dgate + i, mul(mul(d, from_numbers(up + i)), slope));
  }
}

struct Turned {
  F first, second;
};

// Channels i.. and half + i.., rotated by +angle or, for gradients, by -angle.
template <int Sign>
inline Turned turned(F first, F second, const float *cosine, const float *sine, int64_t i) {
  const F c = load(cosine + i), s = mul(load(sine + i), set(Sign));
  return {sub(mul(first, c), mul(second, s)), add(mul(second, c), mul(first, s))};
}

float train_rotate_unit(const uint16_t *x, const float *cosine, const float *sine,
                        const float *gain, float eps, int64_t half, uint16_t *out) {
  float scale = 1;
  if (eps >= 0) {  // a rotation keeps lengths
    F squares = set(0);
    for (int64_t i = 0; i < 2 * half; i += kLanes) {
      const F v = from_numbers(x + i);
      squares = fma(v, v, squares);
    }
    scale = 1 / std::sqrt(reduce_add(squares) / static_cast<float>(2 * half) + eps);
  }
  for (int64_t i = 0; i < half; i += kLanes) {
    Turned t = turned<1>(from_numbers(x + i), from_numbers(x + half + i), cosine, sine, i);
    t.first = mul(t.first, set(scale));
    t.second = mul(t.second, set(scale));
    if (gain) {
      t.first = mul(t.first, load(gain + i));
      t.second = mul(t.second, load(gain + half + i));
    }
    store_bf16(out + i, t.first);
    store_bf16(out + half + i, t.second);
  }
  return scale;
}

void train_rotate_unit_backward(const uint16_t *x, const float *cosine, const float *sine,
                                const float *gain, float scale, bool unit, const uint16_t *grad,
                                int64_t half, uint16_t *dx, float *gain_grad) {
  F dot = set(0);
  if (unit) {
    for (int64_t i = 0; i < half; i += kLanes) {
      Turned t = turned<1>(from_numbers(x + i), from_numbers(x + half + i), cosine, sine, i);
      const F first = mul(t.first, set(scale)), second = mul(t.second, set(scale));
      F d_first = from_numbers(grad + i), d_second = from_numbers(grad + half + i);
      if (gain) {
        store(gain_grad + i, fma(d_first, first, load(gain_grad + i)));
        store(gain_grad + half + i, fma(d_second, second, load(gain_grad + half + i)));
        d_first = mul(d_first, load(gain + i));
        d_second = mul(d_second, load(gain + half + i));
      }
      dot = fma(d_first, first, fma(d_second, second, dot));
    }
  }
  const F mean = set(reduce_add(dot) / static_cast<float>(2 * half));
  for (int64_t i = 0; i < half; i += kLanes) {
    F d_first = from_numbers(grad + i), d_second = from_numbers(grad + half + i);
    if (unit) {
      Turned t = turned<1>(from_numbers(x + i), from_numbers(x + half + i), cosine, sine, i);
      if (gain) {
        d_first = mul(d_first, load(gain + i));
        d_second = mul(d_second, load(gain + half + i));
      }
      d_first = mul(set(scale), sub(d_first, mul(mul(t.first, set(scale)), mean)));
      d_second = mul(set(scale), sub(d_second, mul(mul(t.second, set(scale)), mean)));
    }
    const Turned back = turned<-1>(d_first, d_second, cosine, sine, i);
    store_bf16(dx + i, back.first);
    store_bf16(dx + half + i, back.second);
  }
}

constexpr TrainingRows training_rows() {
  return {train_softmax,     train_softmax_backward, train_cross_entropy,
          train_rms_norm,    train_rms_norm_backward, train_swiglu,
          train_swiglu_backward, train_rotate_unit,  train_rotate_unit_backward};
}

}  // namespace HY_ISA
}  // namespace hy
