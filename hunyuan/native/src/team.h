// A team of threads that runs one function together, with dynamic work sharing and barriers.
//
// A step of a small model is hundreds of phases of some microseconds each, so waiting spins; it
// yields soon, because the other processor may be busy with somebody else's work, and between
// steps the helpers go to sleep. No OpenMP: two runtimes in one process (torch brings its own)
// spin against each other.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hy {

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Team {
 public:
  // Fewer threads than asked for where the system gives no more.
  explicit Team(int threads) {
    try {
      helpers_.reserve(threads);
      for (; size_ < threads; size_++)
        helpers_.emplace_back([this, i = size_] { help(i); });
    } catch (const std::exception &) {
    }
  }

  ~Team() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      round_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto &t : helpers_) t.join();
  }

  Team(const Team &) = delete;
  Team &operator=(const Team &) = delete;

  int size() const { return size_; }

  // Every thread calls `work(thread)`; returns when all have.
  void run(const std::function<void(int)> &work) {
    work_ = &work;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      round_.fetch_add(1, std::memory_order_release);
    }
    if (size_ > 1) wake_.notify_all();
    work(0);
    barrier();
  }

  // Inside `run`, called by every thread: shares items 0..count-1, `each(item)`; then a barrier.
  template <class Each>
  void share(int64_t count, const Each &each) {
    for (;;) {
      const int64_t item = next_.fetch_add(1, std::memory_order_relaxed);
      if (item >= count) break;
      each(item);
    }
    barrier();
  }

  // Inside `run`, called by every thread: nobody goes on before all are here.
  void barrier() {
    if (size_ == 1) {
      next_.store(0, std::memory_order_relaxed);
      return;
    }
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      next_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; spins++) {
      if (spins < 4000) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  void help(int thread) {
    uint64_t seen = 0;
    for (;;) {
      const auto begin = std::chrono::steady_clock::now();
      for (int spins = 0; round_.load(std::memory_order_acquire) == seen; spins++) {
        relax();
        if (spins % 64 == 63 && std::chrono::steady_clock::now() - begin > kSpin) {
          std::unique_lock<std::mutex> lock(mutex_);
          wake_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != seen; });
        }
      }
      seen = round_.load(std::memory_order_acquire);
      if (stop_) return;
      (*work_)(thread);
      barrier();
    }
  }

  static constexpr std::chrono::microseconds kSpin{100};

  int size_ = 1;
  std::vector<std::thread> helpers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  const std::function<void(int)> *work_ = nullptr;
  bool stop_ = false;
  std::atomic<uint64_t> round_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

}  // namespace hy
