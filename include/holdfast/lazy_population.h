// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>
#include <holdfast/units.h>

namespace holdfast {

class AddressSpace;
class DirtyPages;
class RamBlock;

/// Where the contents of guest RAM come from when they are read on demand: a snapshot file, a peer.
///
/// Thread-safety: called on several threads at once.
class PageSource {
 public:
  virtual ~PageSource() = default;
  /// Fills all of `to` with what `block` holds from `offset` on: whole pages, a chunk or several
  /// that follow each other, inside the block. `to` may be guest memory itself, which nobody else
  /// looks at yet, or a buffer; what it holds before is undefined.
  /// @return a failed read, or kMalformed for contents that are not what they should be; then the
  ///         range stays unpopulated whatever `to` holds
  virtual Status Read(const RamBlock& block, std::uint64_t offset, std::span<std::byte> to) = 0;
  /// Whether the range, as Read() would be asked for it, is known to be all zeroes without reading.
  virtual bool IsZero(const RamBlock& /*block*/, std::uint64_t /*offset*/,
                      std::uint64_t /*size*/) noexcept {
    return false;
  }
};

/// Guest RAM that is filled while the guest runs already: what it touches first, then what lies
/// behind that, the rest in the background.
///
/// A guest_memfd cannot be registered with userfaultfd, but its guest view need not be a mapping of
/// it from the start: it is an anonymous reservation that is registered, and each chunk of it is
/// replaced by the guest_memfd's own pages once they are filled through the host view. Memslots
/// that are bound are unbound meanwhile. Other memory is registered itself and filled by
/// UFFDIO_COPY.
///
/// Each chunk is filled once, however many threads ask for it. One that cannot be filled stays
/// unpopulated and is reported once (on_error): vCPUs that touch it wait, interruptible by a
/// signal as KVM_RUN always is; AddressSpace answers with the error. Retry() tries again. An
/// unfinished population that is destroyed closes what is missing (PROT_NONE): a guest that still
/// ran would end with an error, it never sees zeroes in its place.
///
/// Thread-safety: Start(), Finish() and destruction on the main thread with the vCPUs standing;
/// everything else on any thread. Callbacks run on population threads and on those that need
/// memory, with no lock held: they must not destroy the population or wait for somebody who does.
class LazyPopulation {
 public:
  struct Options {
    /// Filled at a time on demand: a power of two, at least a page (of hugetlb: a huge page is the
    /// least).
    std::uint64_t chunk = 64 * kKiB;
    /// Bytes a second that the background reads at most; 0: as fast as it goes.
    std::uint64_t background_speed = 0;
    /// false: only what is touched is filled.
    bool background = true;
    unsigned threads = 2;  ///< that serve faults; at least one
    /// Only chunks with a page of these are filled, all others are there already. A guest_memfd's
    /// keep what they have until the source overwrites it, so that it need not bring pages that
    /// are not missing; those of other memory are emptied. Null: everything is missing, and memory
    /// is emptied. Needed by Start() only.
    const DirtyPages* missing = nullptr;
    /// From OpenUserfaultfd(), if that has to be earlier than the start; else Start() opens one.
    UniqueFd userfaultfd = {};
    /// A chunk of `block` that begins at `offset` could not be filled. Once for each chunk, and
    /// again after a Retry() that failed.
    std::function<void(const RamBlock& block, std::uint64_t offset, const Error& error)> on_error =
        {};
    /// Everything is there: time to call Finish(). Once, maybe while Finish() works already.
    std::function<void()> on_done = {};
  };
  struct Progress {
    std::uint64_t populated = 0;  ///< bytes
    std::uint64_t total = 0;      ///< bytes
    std::uint64_t faults = 0;     ///< that a vCPU or another thread waited for
    std::uint64_t failed = 0;     ///< chunks that could not be filled
  };

  /// A userfaultfd that handles faults of KVM too. Before the sandbox closes.
  /// @return kUnsupported, saying what permits it, where this process may not have one
  static Result<UniqueFd> OpenUserfaultfd();

  /// Empties guest RAM, or what is missing of it, and registers it. Before the first vCPU runs.
  /// `memory` and `source` outlive the population.
  /// @return kInvalidArgument or kUnsupported, with the remedy, for memory that cannot be filled
  ///         lazily (ordinary files, memory others map too, engines that need bound memslots);
  ///         else the failed system call, with memory empty
  static Result<std::unique_ptr<LazyPopulation>> Start(AddressSpace& memory, PageSource& source,
                                                       Options options);
  LazyPopulation(const LazyPopulation&) = delete;
  LazyPopulation& operator=(const LazyPopulation&) = delete;
  ~LazyPopulation();

  Progress progress() const;
  bool done() const;
  /// Fills [offset, offset + size) of the block now if it is not there, or waits for whoever does.
  /// AddressSpace calls it before each access. @return the chunk's error, naming it
  Status Need(const RamBlock& block, std::uint64_t offset, std::uint64_t size);
  /// Tries again, in the background, what failed.
  void Retry();
  /// Changes the speed of the background; see Options.
  void SetBackgroundSpeed(std::uint64_t bytes_per_second);
  /// Fills all that is missing as fast as it goes, then ends: the threads are joined, memslots are
  /// as their blocks say. Idempotent. @return the first chunk's error: Retry() and Finish() again
  Status Finish();

 private:
  class Impl;
  explicit LazyPopulation(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace holdfast
