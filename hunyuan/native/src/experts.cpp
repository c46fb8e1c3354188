// The cache of experts on disk, its readers, and the hash of an extent.
#include "experts.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <new>

namespace hy {
namespace {

constexpr int64_t kPage = 4096;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

uint64_t rotated(uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }

template <class T>
T loaded(const uint8_t *from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace

// Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md (seed 0, little endian).
uint64_t xxh64(const void *data, size_t bytes) {
  constexpr uint64_t p1 = 0x9E3779B185EBCA87u, p2 = 0xC2B2AE3D27D4EB4Fu, p3 = 0x165667B19E3779F9u,
                     p4 = 0x85EBCA77C2B2AE63u, p5 = 0x27D4EB2F165667C5u;
  const uint8_t *p = static_cast<const uint8_t *>(data), *const end = p + bytes;
  const auto round = [&](uint64_t sum, uint64_t lane) { return rotated(sum + lane * p2, 31) * p1; };
  uint64_t hash = p5;
  if (bytes >= 32) {
    uint64_t sums[4] = {p1 + p2, p2, 0, 0 - p1};
    for (; end - p >= 32; p += 32)
      for (int i = 0; i < 4; i++) sums[i] = round(sums[i], loaded<uint64_t>(p + 8 * i));
    hash = rotated(sums[0], 1) + rotated(sums[1], 7) + rotated(sums[2], 12) + rotated(sums[3], 18);
    for (const uint64_t sum : sums) hash = (hash ^ round(0, sum)) * p1 + p4;
  }
  hash += bytes;
  for (; end - p >= 8; p += 8) hash = rotated(hash ^ round(0, loaded<uint64_t>(p)), 27) * p1 + p4;
  if (end - p >= 4) {
    hash = rotated(hash ^ loaded<uint32_t>(p) * p1, 23) * p2 + p3;
    p += 4;
  }
  for (; p < end; p++) hash = rotated(hash ^ *p * p5, 11) * p1;
  hash = (hash ^ (hash >> 33)) * p2;
  hash = (hash ^ (hash >> 29)) * p3;
  return hash ^ (hash >> 32);
}

ExtentReader::ExtentReader(const char *path) {
  buffered_ = open(path, O_RDONLY | O_CLOEXEC);
#ifdef O_DIRECT
  direct_ = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
#endif
  refused_ = direct_;
}

ExtentReader::~ExtentReader() {
  if (buffered_ >= 0) close(buffered_);
  if (refused_ >= 0) close(refused_);
}

int ExtentReader::read(int64_t offset, int64_t bytes, uint8_t *to) {
  const int64_t begin = offset, all = bytes;
  while (bytes > 0) {
    const int direct = __atomic_load_n(&direct_, __ATOMIC_RELAXED);
    const ssize_t got = pread(direct >= 0 ? direct : buffered_, to, bytes, offset);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno == EINVAL && direct >= 0) {  // this file system refuses direct reads
        __atomic_store_n(&direct_, -1, __ATOMIC_RELAXED);
        continue;
      }
      return errno;
    }
    const int64_t whole = direct >= 0 ? got & ~(kPage - 1) : got;
    if (whole == 0) return -1;
    to += whole;
    offset += whole;
    bytes -= whole;
  }
#ifdef POSIX_FADV_DONTNEED
  if (!direct()) posix_fadvise(buffered_, begin, all, POSIX_FADV_DONTNEED);
#else
  (void)begin, (void)all;
#endif
  return 0;
}

ExpertCache::ExpertCache(const hy_expert_file &file, int64_t slots, int readers, bool check_always)
    : file_(file),
      offsets_(file.offsets, file.offsets + static_cast<int64_t>(file.layers) * file.experts),
      hashes_(file.hashes, file.hashes + static_cast<int64_t>(file.layers) * file.experts),
      reader_(file.path),
      check_always_(check_always),
      slots_(slots),
      extents_(offsets_.size()),
      visits_(file.layers),
      expected_(static_cast<size_t>(kForesight) * file.layers),
      came_true_(static_cast<size_t>(kForesight) * file.layers, kWorthReading) {
  file_.path = nullptr;
  file_.offsets = nullptr;
  file_.hashes = nullptr;
  if (!reader_.opened()) throw std::bad_alloc();
  for (Slot &slot : slots_) slot.hashes.resize(pieces());
  resident_.reserve(file.experts);
  for (auto &experts : expected_) experts.reserve(file.experts);
  // Pages are taken as they are written; huge ones where the system has them.
  void *memory = mmap(nullptr, slots * file.length, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<uint8_t *>(memory);
#ifdef MADV_HUGEPAGE
  madvise(memory, slots * file.length, MADV_HUGEPAGE);
#endif
  stats_.slots = slots;
  stats_.extent_bytes = file.length;
  try {
    for (int i = 0; i < readers; i++) readers_.emplace_back([this] { read_pieces(); });
  } catch (const std::exception &) {
    if (readers_.empty()) {
      munmap(memory_, slots * file.length);
      throw;
    }
  }
}

ExpertCache::~ExpertCache() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  for (auto &reader : readers_) reader.join();
  munmap(memory_, slots_.size() * file_.length);
}

// ------------------------------------------------------------ readers

void ExpertCache::read_pieces() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    Slot *slot = nullptr;
    work_.wait(lock, [&] { return stop_ || (slot = next_to_read()); });
    if (stop_) return;
    const int64_t piece = slot->next++;
    const int64_t from = piece * kPiece, bytes = std::min(kPiece, file_.length - from);
    const bool check = check_always_ || !extents_[slot->extent].checked;
    slot->reading++;
    if (in_flight_++ == 0) busy_since_ = now();
    lock.unlock();
    const int error = reader_.read(offsets_[slot->extent] + from, bytes, memory_of(*slot) + from);
    lock.lock();
    if (--in_flight_ == 0) stats_.busy_seconds += now() - busy_since_;
    if (!error) stats_.bytes_read += bytes;
    if (!error && check) {
      lock.unlock();
      slot->hashes[piece] = xxh64(memory_of(*slot) + from, bytes);
      lock.lock();
    }
    slot->reading--;
    slot->done++;
    if (error) {
      slot->error = error;
      slot->next = pieces();  // the others need not be read
    }
    if (slot->error ? slot->reading == 0 : slot->done == pieces()) finish(*slot);
    if (failed_) arrived_.notify_all();
    if (!unplaced_.empty()) assign();
  }
}

// Demanded before expected, each in order of turns; none that was expected in vain.
ExpertCache::Slot *ExpertCache::next_to_read() {
  Slot *best = nullptr;
  for (Slot &slot : slots_) {
    if (slot.state != State::kLoading || slot.next >= pieces()) continue;
    if (!slot.pinned && !slot.ahead) continue;
    if (!best || slot.pinned > best->pinned ||
        (slot.pinned == best->pinned && slot.turn < best->turn))
      best = &slot;
  }
  return best;
}

// All pieces are there, or one of them never will be.
void ExpertCache::finish(Slot &slot) {
  Extent &extent = extents_[slot.extent];
  int kind = !slot.error      ? HY_EXPERT_WHOLE
             : slot.error < 0 ? HY_EXPERT_TRUNCATED
                              : HY_EXPERT_UNREADABLE;
  uint64_t found = 0;
  if (!kind && (check_always_ || !extent.checked)) {
    found = xxh64(slot.hashes.data(), pieces() * sizeof(uint64_t));
    extent.checked = found == hashes_[slot.extent];
    if (!extent.checked) kind = HY_EXPERT_ALTERED;
  }
  if (kind) {
    // One that is only expected is read again when it is demanded.
    if (slot.pinned) fail(slot, kind, found);
    empty(slot);
  } else {
    slot.state = State::kReady;
    if (slot.pinned) resident_.push_back(slot.extent % file_.experts);
  }
  arrived_.notify_all();
}

void ExpertCache::fail(const Slot &slot, int kind, uint64_t found) {
  if (failed_) return;
  failed_ = true;
  failure_ = {kind, slot.extent / file_.experts, slot.extent % file_.experts, slot.error,
              hashes_[slot.extent], found};
}

// ------------------------------------------------------------ slots

void ExpertCache::empty(Slot &slot) {
  extents_[slot.extent].slot = -1;
  missed_ -= slot.missed;
  slot.state = State::kFree;
  slot.extent = -1;
  slot.error = 0;
  slot.pinned = slot.missed = slot.ahead = false;
}

void ExpertCache::begin_reading(Slot &slot, int extent) {
  if (slot.extent >= 0) empty(slot);
  slot.state = State::kLoading;
  slot.extent = extent;
  slot.turn = turn_++;
  slot.next = slot.done = 0;
  extents_[extent].slot = static_cast<int>(&slot - slots_.data());
}

double ExpertCache::worth(int extent) const {
  const Extent &e = extents_[extent];
  const int64_t age = visits_[extent / file_.experts] - e.last;
  return e.visits * std::exp2(-static_cast<double>(age) / kHalfLife);
}

// A slot for another extent: a free one, else that of the expert worth least; for a demand, if
// need be, one that was only expected. Null if there is none.
ExpertCache::Slot *ExpertCache::place(bool demanded) {
  Slot *best = nullptr, *expected = nullptr;
  double least = 0;
  int farthest = 0;
  for (Slot &slot : slots_) {
    if (slot.state == State::kFree) return &slot;
    if (slot.pinned || slot.reading) continue;
    if (slot.ahead) {
      if (!expected || slot.turn > expected->turn) expected = &slot;
      continue;
    }
    if (slot.state == State::kLoading) return &slot;
    const double value = worth(slot.extent);
    int distance = slot.extent / file_.experts - layer_;
    if (distance <= 0) distance += file_.layers;
    if (!best || value < least || (value == least && distance > farthest)) {
      best = &slot;
      least = value;
      farthest = distance;
    }
  }
  return best ? best : demanded ? expected : nullptr;
}

// Give slots to demanded experts, as many as are read at once.
void ExpertCache::assign() {
  while (!unplaced_.empty() && missed_ < kDemandsAtOnce) {
    Slot *slot = place(true);
    if (!slot) break;  // a reader is at the only one left
    begin_reading(*slot, layer_ * file_.experts + unplaced_.front());
    unplaced_.pop_front();
    slot->pinned = slot->missed = true;
    missed_++;
  }
  work_.notify_all();
}

// ------------------------------------------------------------ the decoder's side

void ExpertCache::begin_step(int64_t tokens) {
  std::lock_guard<std::mutex> lock(mutex_);
  stats_.steps++;
  stats_.tokens += tokens;
}

void ExpertCache::demand(int layer, const std::vector<int32_t> &experts) {
  std::lock_guard<std::mutex> lock(mutex_);
  layer_ = layer;
  visits_[layer]++;
  resident_.clear();
  open_ = static_cast<int>(experts.size());
  stats_.demanded += open_;
  for (int d = 0; d < kForesight; d++) {
    auto &expected = expected_[d * file_.layers + layer];
    if (expected.empty()) continue;
    int64_t right = 0;
    for (const int32_t e : expected)
      right += std::find(experts.begin(), experts.end(), e) != experts.end();
    stats_.expected += expected.size();
    stats_.came_true += right;
    // What comes true because nearly all are chosen says nothing of the next single token.
    double &share = came_true_[d * file_.layers + layer];
    if (!most(expected))
      share += 0.1 * (static_cast<double>(right) / static_cast<double>(expected.size()) - share);
    expected.clear();
  }
  for (const int32_t e : experts) {
    const int number = layer * file_.experts + e;
    Extent &extent = extents_[number];
    extent.visits = worth(number) + 1;
    extent.last = visits_[layer];
    if (extent.slot < 0) {
      unplaced_.push_back(e);
      continue;
    }
    Slot &slot = slots_[extent.slot];
    stats_.ahead_used += slot.ahead;
    slot.ahead = false;
    slot.pinned = true;
    if (slot.state == State::kReady) {
      stats_.hits++;
      resident_.push_back(e);
    } else {
      slot.missed = true;
      missed_++;
    }
  }
  for (Slot &slot : slots_)  // expected in vain: no more of it is read
    if (slot.ahead && slot.extent / file_.experts == layer) slot.ahead = false;
  assign();
}

void ExpertCache::expect(int layer, int distance, const std::vector<int32_t> &experts) {
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t at = static_cast<size_t>(distance - 1) * file_.layers + layer;
  expected_[at].assign(experts.begin(), experts.end());
  read_ahead();
}

// Begin to read what is expected, as far as nothing that is demanded waits for a slot: what is
// demanded now comes first, slots as well as reads.
void ExpertCache::read_ahead() {
  if (!unplaced_.empty()) return;
  const auto held = std::count_if(slots_.begin(), slots_.end(), [](const Slot &s) { return s.ahead; });
  int64_t room = std::max<int64_t>(1, static_cast<int64_t>(slots_.size()) / 4) - held;
  for (int d = 0; d < kForesight && layer_ + d + 1 < file_.layers; d++) {
    const int layer = layer_ + d + 1;
    const size_t at = static_cast<size_t>(d) * file_.layers + layer;
    if (came_true_[at] < kWorthReading && !most(expected_[at])) continue;
    for (const int32_t e : expected_[at]) {
      const int number = layer * file_.experts + e;
      if (room <= 0) return;
      if (extents_[number].slot >= 0) continue;
      Slot *slot = place(false);
      if (!slot) return;
      begin_reading(*slot, number);
      slot->ahead = true;
      stats_.ahead++;
      room--;
      work_.notify_all();
    }
  }
}

bool ExpertCache::take(std::vector<Taken> &taken, bool wait) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (wait && open_ && resident_.empty() && !failed_) {
    const double begin = now();
    arrived_.wait(lock, [&] { return failed_ || !resident_.empty(); });
    stats_.waited_seconds += now() - begin;
  }
  if (failed_) {
    // Leave nothing behind that a later step could take for what it demanded.
    unplaced_.clear();
    for (Slot &slot : slots_)
      if (slot.state == State::kLoading) slot.next = pieces();
    arrived_.wait(lock, [&] {
      return std::none_of(slots_.begin(), slots_.end(), [](const Slot &s) { return s.reading; });
    });
    for (Slot &slot : slots_) {
      if (slot.state == State::kLoading) empty(slot);
      missed_ -= slot.missed;
      slot.pinned = slot.missed = false;
    }
    resident_.clear();
    open_ = 0;
    failed_ = false;
    return false;
  }
  for (const int32_t e : resident_)
    taken.push_back({e, memory_of(slots_[extents_[layer_ * file_.experts + e].slot])});
  open_ -= static_cast<int>(resident_.size());
  resident_.clear();
  return true;
}

void ExpertCache::release(int expert) {
  std::lock_guard<std::mutex> lock(mutex_);
  Slot &slot = slots_[extents_[layer_ * file_.experts + expert].slot];
  missed_ -= slot.missed;
  slot.pinned = slot.missed = false;
  if (!unplaced_.empty()) assign();
  read_ahead();
}

void ExpertCache::stats(hy_expert_stats &out) const {
  std::lock_guard<std::mutex> lock(mutex_);
  out = stats_;
  out.direct = reader_.direct();
  out.resident = std::count_if(slots_.begin(), slots_.end(),
                               [](const Slot &s) { return s.state == State::kReady; });
  if (in_flight_) out.busy_seconds += now() - busy_since_;
}

hy_expert_failure ExpertCache::failure() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

}  // namespace hy

using namespace hy;

uint64_t hy_extent_hash(const void *extent, int64_t bytes) {
  std::vector<uint64_t> hashes;
  for (int64_t from = 0; from < bytes; from += kPiece)
    hashes.push_back(xxh64(static_cast<const uint8_t *>(extent) + from,
                           std::min(kPiece, bytes - from)));
  return xxh64(hashes.data(), hashes.size() * sizeof(uint64_t));
}

hy_experts *hy_experts_new(const hy_expert_file *file, int64_t slots, int32_t readers,
                           int32_t check_always) {
  try {
    return new hy_experts{{*file, slots, readers, check_always != 0}};
  } catch (const std::exception &) {
    return nullptr;
  }
}

void hy_experts_free(hy_experts *experts) { delete experts; }

void hy_experts_stats(const hy_experts *experts, hy_expert_stats *out) { experts->cache.stats(*out); }

void hy_experts_failure(const hy_experts *experts, hy_expert_failure *out) {
  *out = experts->cache.failure();
}

double hy_sequential_read(const char *path, int64_t bytes, int32_t readers, int32_t *direct) {
  try {
    ExtentReader reader(path);
    if (!reader.opened()) return -1;
    struct stat status;
    if (stat(path, &status)) return -1;
    const int64_t pieces = std::min<int64_t>(bytes, status.st_size) / kPiece;
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    const auto read = [&] {
      void *memory = mmap(nullptr, kPiece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) {
        failed = true;
        return;
      }
      for (int64_t piece; !failed && (piece = next++) < pieces;)
        if (reader.read(piece * kPiece, kPiece, static_cast<uint8_t *>(memory))) failed = true;
      munmap(memory, kPiece);
    };
    const double begin = now();
    std::vector<std::thread> threads;
    for (int i = 0; i < readers; i++) threads.emplace_back(read);
    for (auto &thread : threads) thread.join();
    *direct = reader.direct();
    return failed || !pieces ? -1 : static_cast<double>(pieces * kPiece) / (now() - begin);
  } catch (const std::exception &) {
    return -1;
  }
}
