// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include <holdfast/dirty_tracker.h>
#include <holdfast/error.h>

#include "base/event_loop.h"
#include "memory/content_hash.h"
#include "migration/save_job.h"

namespace holdfast::migration {

/// How it is found out how much a guest writes; QEMU's words, in the order of its enumeration.
enum class DirtyRateMode : std::uint8_t { kPageSampling, kDirtyRing, kDirtyBitmap };
std::string_view ToString(DirtyRateMode mode) noexcept;
enum class DirtyRateStatus : std::uint8_t { kUnstarted, kMeasuring, kMeasured };
std::string_view ToString(DirtyRateStatus status) noexcept;

inline constexpr std::uint64_t kDefaultSamplePages = 512;

/// What a measurement is asked for.
struct DirtyRateRequest {
  std::chrono::milliseconds time{1000};
  /// Pages looked at of each GiB of RAM, when sampling.
  std::optional<std::uint64_t> sample_pages = {};
  DirtyRateMode mode = DirtyRateMode::kPageSampling;
};

/// The last measurement, or the one that is under way.
struct DirtyRateInfo {
  DirtyRateStatus status = DirtyRateStatus::kUnstarted;
  std::chrono::milliseconds start{0};  ///< of the host's monotonic clock
  std::chrono::milliseconds time{0};
  std::uint64_t sample_pages = 0;
  DirtyRateMode mode = DirtyRateMode::kPageSampling;
  /// For how long the vCPUs stood at the start for the exchange of memslots.
  std::chrono::nanoseconds exchange{0};
  std::optional<std::int64_t> rate = {};  ///< MiB a second; empty until it is measured
  std::vector<std::int64_t> vcpus = {};   ///< likewise, by vCPU; only of kDirtyRing
};

/// Measures how many different pages a guest writes in a while (QEMU's calc-dirty-rate): by hashes
/// of some pages, or by KVM's log or rings. With those the vCPUs stand for a moment at both ends.
///
/// Thread-safety: the main thread.
class DirtyRate {
 public:
  /// `subject` outlives this.
  explicit DirtyRate(const Subject& subject) : subject_(subject) {}
  DirtyRate(const DirtyRate&) = delete;
  DirtyRate& operator=(const DirtyRate&) = delete;
  ~DirtyRate();

  /// Starts a measurement. @return kInvalidArgument for numbers out of QEMU's ranges, while another
  ///         is under way, or where the mode cannot work here
  Status Start(const DirtyRateRequest& request);
  const DirtyRateInfo& info() const noexcept { return info_; }

 private:
  struct Sample {
    const RamBlock* block;
    std::uint64_t page;
  };
  Status StartSampling(std::uint64_t pages_per_gib);
  Status StartTrackingAs(DirtyRateMode mode);
  Result<std::vector<ContentHash>> LookAtSamples() const;
  void Finish();
  Result<std::uint64_t> CountSamples();
  Result<std::uint64_t> CountTracked();
  Status Standing(const std::function<Status()>& work);

  const Subject& subject_;
  DirtyRateInfo info_;
  EventLoop::Clock::time_point begin_;
  EventLoop::TimerId timer_ = 0;
  std::uint64_t seed_ = 0;
  std::vector<Sample> samples_;
  std::vector<ContentHash> hashes_;  // of the samples at the start
  std::unique_ptr<DirtyTracker> tracker_;
  std::vector<std::uint64_t> counts_;  // of the vCPUs' rings at the start
};

}  // namespace holdfast::migration
