// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/lazy_population.h>

#include "migration/main_thread.h"
#include "migration/save_job.h"
#include "migration/snapshot_reader.h"

namespace holdfast::migration {

/// A snapshot's memory as what guest RAM is populated from.
///
/// Thread-safety: any thread.
class SnapshotSource final : public PageSource {
 public:
  /// CheckMemory() has compared them.
  SnapshotSource(SnapshotChain chain, const AddressSpace& memory);

  Status Read(const RamBlock& block, std::uint64_t offset, std::span<std::byte> to) override;
  bool IsZero(const RamBlock& block, std::uint64_t offset, std::uint64_t size) noexcept override;
  const SnapshotChain& chain() const noexcept { return chain_; }

 private:
  std::size_t IndexOf(const RamBlock& block) const noexcept;

  const SnapshotChain chain_;
  std::vector<std::pair<const RamBlock*, std::size_t>> index_;  // constant
};

/// A guest that runs while its memory is still being read, from a snapshot or from the monitor it
/// ran in before.
///
/// Thread-safety: the main thread; progress() on any.
class LazyRestore {
 public:
  struct Events {
    /// All of it is there.
    std::function<void()> done;
    /// A page could not be read, or is not what was saved: the guest was made to stand. `error`
    /// names the file.
    std::function<void(const std::string& block, std::uint64_t offset, const Error& error)> failed;
  };
  /// Makes RAM come from `chain`. Before the first vCPU runs. @param bandwidth  bytes a second that
  /// are read in the background, 0: as fast as it goes
  /// @return as LazyPopulation::Start
  static Result<std::unique_ptr<LazyRestore>> Start(const Subject& subject, SnapshotChain chain,
                                                    std::uint64_t bandwidth, Events events);
  /// The same from any source. Of `options` the callbacks are its own.
  static Result<std::unique_ptr<LazyRestore>> Start(const Subject& subject,
                                                    std::unique_ptr<PageSource> source,
                                                    LazyPopulation::Options options, Events events);
  LazyRestore(const LazyRestore&) = delete;
  LazyRestore& operator=(const LazyRestore&) = delete;
  /// The guest stands and cannot go on unless all was there.
  ~LazyRestore();

  LazyPopulation::Progress progress() const { return population_->progress(); }
  /// Tries again what could not be read: the guest is to go on.
  void Retry();

 private:
  LazyRestore(const Subject& subject, std::unique_ptr<PageSource> source, Events events)
      : subject_(subject),
        events_(std::move(events)),
        source_(std::move(source)),
        main_(subject.loop) {}
  void OnDone();
  void OnError(const std::string& block, std::uint64_t offset, const Error& error);

  const Subject subject_;
  const Events events_;
  const std::unique_ptr<PageSource> source_;
  MainThread main_;
  std::unique_ptr<LazyPopulation> population_;  // last: its threads use the source
};

}  // namespace holdfast::migration
