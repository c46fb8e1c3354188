// The routed experts of a model on disk (hunyuan/formats/expert_file.py), in a cache of bounded
// size.
//
// A slot holds one extent. The decoder demands the experts of a layer when it has routed, takes
// those that are there, computes them and releases them, while readers bring the others: an extent
// is read in pieces, by all readers together, those that are demanded before those that are only
// expected. Few demands are read at once, so that a prompt which visits every expert streams
// through few slots and leaves the rest as they are.
//
// Who gives way: the expert whose visits, each counting half as much after kHalfLife steps, add up
// to least; among equals the one whose layer comes again last. Never one that is demanded now.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "hunyuan_native.h"

namespace hy {

constexpr int64_t kPiece = 4 << 20;  // bytes read and hashed at a time
constexpr int kDemandsAtOnce = 4;    // demanded extents that are read or wait to be computed
constexpr int kForesight = 2;        // layers ahead whose routers run early
constexpr double kHalfLife = 32;     // steps
// Expected experts are read while at least this share of what was expected of the layer lately
// came true: below it, reading ahead costs more than it saves.
constexpr double kWorthReading = 0.5;

uint64_t xxh64(const void *data, size_t bytes);

// One open file; any thread may read.
class ExtentReader {
 public:
  explicit ExtentReader(const char *path);
  ~ExtentReader();
  bool opened() const { return buffered_ >= 0; }
  bool direct() const { return __atomic_load_n(&direct_, __ATOMIC_RELAXED) >= 0; }
  // Reads `bytes`, a multiple of the page, to page-aligned memory. Returns 0, an errno, or -1 where
  // the file ends too early.
  int read(int64_t offset, int64_t bytes, uint8_t *to);

 private:
  int buffered_ = -1, direct_ = -1, refused_ = -1;
};

class ExpertCache {
 public:
  ExpertCache(const hy_expert_file &file, int64_t slots, int readers, bool check_always);
  ~ExpertCache();
  ExpertCache(const ExpertCache &) = delete;
  ExpertCache &operator=(const ExpertCache &) = delete;

  struct Taken {
    int expert;
    const uint8_t *extent;
  };

  // The following from one thread, the decoder's; layers come in order.
  void begin_step(int64_t tokens);
  void demand(int layer, const std::vector<int32_t> &experts);
  // The experts of `layer`, `distance` layers ahead, that its router would choose now, the
  // likeliest first.
  void expect(int layer, int distance, const std::vector<int32_t> &experts);
  // Demanded experts that are there and were not taken yet; waits for one if asked to and if any is
  // left. False if one cannot be read (`failure` says why), and then nothing is demanded any more.
  bool take(std::vector<Taken> &taken, bool wait);
  void release(int expert);

  // From any thread.
  void stats(hy_expert_stats &out) const;
  hy_expert_failure failure() const;

  const hy_expert_file &file() const { return file_; }

 private:
  enum class State { kFree, kLoading, kReady };
  struct Extent {
    int slot = -1;
    double visits = 0;       // decayed to the visit at `last`
    int64_t last = 0;        // visit of the layer
    bool checked = false;
  };
  struct Slot {
    State state = State::kFree;
    int extent = -1;
    bool pinned = false;     // demanded now
    bool missed = false;     // demanded when it was not there
    bool ahead = false;      // expected, not demanded yet
    int error = 0;           // of a piece: errno, -1 where the file ends
    int64_t turn = 0;        // order of reading
    int64_t next = 0, done = 0;
    int reading = 0;         // pieces that readers are at
    std::vector<uint64_t> hashes;
  };

  void read_pieces();
  Slot *next_to_read();
  void finish(Slot &slot);
  void fail(const Slot &slot, int kind, uint64_t found);
  void assign();
  void read_ahead();
  bool most(const std::vector<int32_t> &experts) const {
    return 2 * static_cast<int>(experts.size()) > file_.experts;
  }
  void begin_reading(Slot &slot, int extent);
  void empty(Slot &slot);
  Slot *place(bool demanded);
  double worth(int extent) const;
  int64_t pieces() const { return (file_.length + kPiece - 1) / kPiece; }
  uint8_t *memory_of(const Slot &slot) const {
    return memory_ + (&slot - slots_.data()) * file_.length;
  }

  hy_expert_file file_;
  std::vector<int64_t> offsets_;
  std::vector<uint64_t> hashes_;
  ExtentReader reader_;
  bool check_always_;
  uint8_t *memory_ = nullptr;
  std::vector<Slot> slots_;
  std::vector<Extent> extents_;
  std::vector<int64_t> visits_;                    // (layers)
  std::vector<std::vector<int32_t>> expected_;     // (kForesight, layers)
  std::vector<double> came_true_;                  // (kForesight, layers), running

  mutable std::mutex mutex_;
  std::condition_variable work_, arrived_;
  bool stop_ = false, failed_ = false;
  hy_expert_failure failure_{};
  int layer_ = 0;
  std::vector<int32_t> resident_;                  // demanded experts that are there
  std::deque<int32_t> unplaced_;                   // demanded experts without a slot
  int missed_ = 0;                                 // slots with `missed`
  int open_ = 0;                                   // demanded experts not taken yet
  int64_t turn_ = 0;
  int in_flight_ = 0;
  double busy_since_ = 0;
  hy_expert_stats stats_{};
  std::vector<std::thread> readers_;
};

}  // namespace hy

struct hy_experts {
  hy::ExpertCache cache;
};
