// SPDX-License-Identifier: Apache-2.0
// The threads of LazyPopulation: those that answer page faults and the one in the background.
#include <fmt/format.h>
#include <holdfast/ram_block.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <latch>
#include <memory>
#include <system_error>

#include "base/thread_role.h"
#include "memory/lazy_population_impl.h"

namespace holdfast {
namespace {

// What the background fills at once. A vCPU that needs a part of it waits for all of it.
constexpr std::uint64_t kBackgroundBytes = 512 * kKiB;
// Each populated range of a guest_memfd that others do not touch costs two mappings, and a process
// may have 65530 (vm.max_map_count). From this many on new ones only grow what is there.
constexpr std::uint64_t kMostIslands = 8192;
// The background gives way to vCPUs, but not so far that one which waits for a chunk it has begun
// would wait for long: a tenth of their share.
constexpr int kBackgroundNice = 10;

// Signals are the main loop's.
void BlockSignals() {
  sigset_t mask;
  ::sigfillset(&mask);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS})
    ::sigdelset(&mask, signal);
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

}  // namespace

Status LazyPopulation::Impl::StartThreads() {
  const bool confined = IsThreadConfined();
  const unsigned serving = std::max(1U, options_.threads);
  // All have set themselves up when this returns: the sandbox may close next, and knows nothing of
  // priorities.
  const auto ready = std::make_shared<std::latch>(serving + 1);
  const auto start = [&](const char* name, int nice, auto&& work) {
    threads_.emplace_back([=] {
      BlockSignals();
      if (confined) {
        InheritConfinement();
      } else if (nice != 0) {
        (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), nice);
      }
      ready->count_down();
      work();
    });
    (void)::pthread_setname_np(threads_.back().native_handle(), name);
  };
  try {
    for (unsigned i = 0; i < serving; ++i) start("populate/fault", 0, [this] { ServeFaults(); });
    start("populate/rest", kBackgroundNice, [this] { FillInBackground(); });
  } catch (const std::system_error& error) {
    const int code = error.code().value();
    StopThreads();
    return Fail(Error::FromErrno("starting the threads that populate memory", code));
  }
  ready->wait();
  return {};
}

void LazyPopulation::Impl::StopThreads() {
  {
    const MutexLock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  (void)::eventfd_write(stop_.get(), 1);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void LazyPopulation::Impl::ServeFaults() {
  while (true) {
    pollfd waits[2] = {{faults_.fd(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0) continue;  // EINTR is the only reason there is
    if (waits[1].revents != 0) return;
    ConfineThread(ThreadRole::kWorker);
    while (const auto address = faults_.NextFault()) HandleFault(*address);
  }
}

void LazyPopulation::Impl::HandleFault(std::uint64_t address) {
  fault_count_.fetch_add(1, std::memory_order_relaxed);
  const auto found =
      std::ranges::find_if(blocks_, [&](const auto& block) { return block->Contains(address); });
  if (found == blocks_.end()) return;
  PopulationBlock& block = **found;
  const std::uint64_t chunk = (address - block.block().guest_view_address()) / block.chunk_size();
  Piece piece;
  {
    const MutexLock lock(mutex_);
    // Who fills it wakes who waits; and of a chunk that failed, Retry() will.
    if (block.state(chunk) == ChunkState::kFilling || block.state(chunk) == ChunkState::kFailed)
      return;
    if (block.state(chunk) == ChunkState::kAbsent) {
      if (ending_) return;
      piece = AroundFault(block, chunk);
      // What comes next is likely to lie behind it.
      cursor_block_ = static_cast<std::size_t>(found - blocks_.begin());
      cursor_chunk_ = chunk + 1;
    }
  }
  if (piece.block == nullptr) {
    (void)block.Resume(faults_, chunk);
    return;
  }
  (void)NeedChunks(piece);  // what fails is reported to on_error
}

LazyPopulation::Impl::Piece LazyPopulation::Impl::AroundFault(PopulationBlock& block,
                                                              std::uint64_t chunk) {
  const auto ready = [&](std::uint64_t at) { return block.state(at) == ChunkState::kReady; };
  if (islands_ < kMostIslands) return {&block, chunk, 1};
  // Everything up to the nearest that is there.
  for (std::uint64_t distance = 1; distance < block.chunks(); ++distance) {
    if (chunk >= distance && ready(chunk - distance))
      return {&block, chunk - distance + 1, distance};
    if (chunk + distance < block.chunks() && ready(chunk + distance))
      return {&block, chunk, distance};
  }
  return {&block, chunk, 1};
}

LazyPopulation::Impl::Piece LazyPopulation::Impl::Claim(PopulationBlock& block, std::uint64_t first,
                                                        std::uint64_t limit) {
  Piece piece{&block, first, 0};
  const auto is_zero = [&](std::uint64_t chunk) {
    return source_.IsZero(block.block(), chunk * block.chunk_size(), block.Bytes(chunk, 1));
  };
  // Zeroes and others are not mixed: what is zero is not to be read.
  const bool zero = is_zero(first);
  const std::uint64_t most = std::max<std::uint64_t>(1, kBackgroundBytes / block.chunk_size());
  const std::uint64_t end = std::min(block.chunks(), first + std::min(limit, most));
  for (std::uint64_t at = first; at < end && block.state(at) == ChunkState::kAbsent; ++at) {
    if (is_zero(at) != zero) break;
    block.set_state(at, ChunkState::kFilling);
    ++piece.count;
  }
  if (piece.count != 0) ++filling_;
  return piece;
}

void LazyPopulation::Impl::Fill(const Piece& piece) {
  if (piece.count != 0) FillOnce(piece, piece.count == 1);
}

void LazyPopulation::Impl::FillOnce(const Piece& piece, bool last_try) {
  PopulationBlock& block = *piece.block;
  const Status filled = block.Fill(source_, faults_, piece.first, piece.count);
  if (!filled && !last_try) {
    // Which of them it is: each alone.
    for (std::uint64_t i = 0; i < piece.count; ++i) {
      {
        const MutexLock lock(mutex_);
        ++filling_;
      }
      FillOnce({&block, piece.first + i, 1}, true);
    }
    const MutexLock lock(mutex_);
    --filling_;
    changed_.notify_all();
    return;
  }
  Error error(Errc::kSystem, {});
  {
    const MutexLock lock(mutex_);
    const ChunkState state = filled ? ChunkState::kReady : ChunkState::kFailed;
    for (std::uint64_t i = 0; i < piece.count; ++i) block.set_state(piece.first + i, state);
    if (filled) {
      CountIslands(piece);
      missing_ -= block.Bytes(piece.first, piece.count);
      if (missing_ == 0) done_.store(true, std::memory_order_release);
    } else {
      error = Error(filled.error())
                  .Wrap(fmt::format("populating the memory '{}' at {:#x}", block.block().id(),
                                    piece.first * block.chunk_size()));
      failed_.insert_or_assign({&block, piece.first}, error);
    }
  }
  if (!filled && options_.on_error)
    options_.on_error(block.block(), piece.first * block.chunk_size(), error);
  // Last, as whoever ends this waits for it.
  const MutexLock lock(mutex_);
  --filling_;
  changed_.notify_all();
}

void LazyPopulation::Impl::CountIslands(const Piece& filled) {
  const PopulationBlock& block = *filled.block;
  const std::uint64_t end = filled.first + filled.count;
  const bool left = filled.first > 0 && block.state(filled.first - 1) == ChunkState::kReady;
  const bool right = end < block.chunks() && block.state(end) == ChunkState::kReady;
  islands_ = islands_ + 1 - (left ? 1 : 0) - (right ? 1 : 0);
}

void LazyPopulation::Impl::FillInBackground() {
  while (const auto piece = NextInBackground()) {
    ConfineThread(ThreadRole::kWorker);
    Fill(*piece);
  }
  if (done() && options_.on_done) options_.on_done();
}

std::optional<LazyPopulation::Impl::Piece> LazyPopulation::Impl::FindAbsent() {
  for (std::size_t i = 0; i <= blocks_.size(); ++i) {
    const std::size_t index = (cursor_block_ + i) % blocks_.size();
    PopulationBlock& block = *blocks_[index];
    // The first block twice: from the cursor on, and in the end what lies before it.
    for (std::uint64_t at = i == 0 ? cursor_chunk_ : 0; at < block.chunks(); ++at) {
      if (block.state(at) != ChunkState::kAbsent) continue;
      cursor_block_ = index;
      cursor_chunk_ = at;
      return Piece{&block, at, 1};
    }
  }
  return std::nullopt;
}

std::optional<LazyPopulation::Impl::Piece> LazyPopulation::Impl::NextInBackground() {
  const MutexLock lock(mutex_);
  while (true) {
    if (ending_ || done()) return std::nullopt;
    const bool wanted = options_.background || retried_;
    if (const auto now = Clock::now(); wanted && now < not_before_) {
      // A copy: the wait looks at it again without the lock.
      const auto until = not_before_;
      changed_.wait_until(mutex_, until);
      continue;
    }
    const auto absent = wanted ? FindAbsent() : std::nullopt;
    if (!absent) {
      retried_ = false;
      changed_.wait(mutex_);
      continue;
    }
    const Piece piece = Claim(*absent->block, absent->first, absent->block->chunks());
    cursor_chunk_ = piece.first + piece.count;
    const std::uint64_t bytes = piece.block->Bytes(piece.first, piece.count);
    if (speed_ != 0) {
      not_before_ = std::max(not_before_, Clock::now()) +
                    std::chrono::nanoseconds(bytes * 1'000'000'000 / speed_);
    }
    return piece;
  }
}

}  // namespace holdfast
