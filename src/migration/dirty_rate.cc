// SPDX-License-Identifier: Apache-2.0
#include "migration/dirty_rate.h"

#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/dirty_rings.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/log.h"
#include "machine/machine.h"
#include "memory/present_pages.h"

namespace holdfast::migration {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kShortestTime{100};
constexpr milliseconds kLongestTime{60'000};
constexpr std::uint64_t kFewestSamples = 128;
constexpr std::uint64_t kMostSamples = 16384;

// MiB a second.
std::int64_t Rate(std::uint64_t pages, EventLoop::Clock::duration time) {
  const double seconds = std::chrono::duration<double>(time).count();
  if (seconds <= 0) return 0;
  return static_cast<std::int64_t>(static_cast<double>(pages) * kPageSize / kMiB / seconds);
}

Status Check(const DirtyRateRequest& request) {
  if (request.time < kShortestTime || request.time > kLongestTime) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("calc-time is out of range [{}, {}] milliseconds",
                            kShortestTime.count(), kLongestTime.count()),
                "Measure for a second or some more.");
  }
  if (!request.sample_pages) return {};
  if (request.mode != DirtyRateMode::kPageSampling) {
    return Fail(Errc::kInvalidArgument, "sample-pages is used only in page-sampling mode",
                "Leave it out.");
  }
  if (*request.sample_pages < kFewestSamples || *request.sample_pages > kMostSamples) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("sample-pages is out of range [{}, {}]", kFewestSamples, kMostSamples),
                fmt::format("{} of each GiB are looked at by default.", kDefaultSamplePages));
  }
  return {};
}

}  // namespace

std::string_view ToString(DirtyRateMode mode) noexcept {
  switch (mode) {
    case DirtyRateMode::kPageSampling:
      return "page-sampling";
    case DirtyRateMode::kDirtyRing:
      return "dirty-ring";
    case DirtyRateMode::kDirtyBitmap:
      break;
  }
  return "dirty-bitmap";
}

std::string_view ToString(DirtyRateStatus status) noexcept {
  switch (status) {
    case DirtyRateStatus::kUnstarted:
      return "unstarted";
    case DirtyRateStatus::kMeasuring:
      return "measuring";
    case DirtyRateStatus::kMeasured:
      break;
  }
  return "measured";
}

DirtyRate::~DirtyRate() {
  if (timer_ != 0) subject_.loop.CancelTimer(timer_);
  // The machine ends, so its guest need not go on.
  if (tracker_ != nullptr) subject_.machine.Pause();
}

Status DirtyRate::Start(const DirtyRateRequest& request) {
  if (info_.status == DirtyRateStatus::kMeasuring) {
    return Fail(Errc::kInvalidArgument, "a dirty rate is being measured already",
                "query-dirty-rate tells when it is done.");
  }
  HF_TRY_STATUS(Check(request));
  const std::uint64_t samples = request.sample_pages.value_or(kDefaultSamplePages);
  HF_TRY_STATUS(request.mode == DirtyRateMode::kPageSampling ? StartSampling(samples)
                                                             : StartTrackingAs(request.mode));
  begin_ = EventLoop::Clock::now();
  info_ = {
      .status = DirtyRateStatus::kMeasuring,
      .start = std::chrono::duration_cast<milliseconds>(begin_.time_since_epoch()),
      .time = request.time,
      .sample_pages = request.mode == DirtyRateMode::kPageSampling ? samples : 0,
      .mode = request.mode,
      .exchange = tracker_ == nullptr ? std::chrono::nanoseconds(0) : tracker_->exchange_time()};
  timer_ = subject_.loop.AddTimer(begin_ + request.time, [this] {
    timer_ = 0;
    Finish();
  });
  return {};
}

// ---- Some pages' contents -----------------------------------------------------------------------

Status DirtyRate::StartSampling(std::uint64_t pages_per_gib) {
  if (subject_.machine.converter() != nullptr) {
    return Fail(Errc::kInvalidArgument,
                "the memory of a confidential guest cannot be looked at for its dirty rate",
                "Use mode dirty-bitmap, where its memory can be tracked.");
  }
  std::random_device random;
  seed_ = random() | std::uint64_t{random()} << 32;
  std::mt19937_64 numbers(seed_);
  samples_.clear();
  const DirtyPages all(subject_.memory);
  for (const DirtyPages::Block& entry : all.blocks()) {
    const std::uint64_t pages = entry.pages.pages();
    const std::uint64_t count =
        std::max<std::uint64_t>(1, entry.block->size() / kMiB * pages_per_gib / 1024);
    std::uniform_int_distribution<std::uint64_t> any(0, pages - 1);
    for (std::uint64_t i = 0; i < count; ++i) samples_.push_back({entry.block, any(numbers)});
  }
  HF_TRY(hashes_, LookAtSamples());
  return {};
}

// Hashes all samples. A page that does not exist is zero, and does not come to exist by this.
Result<std::vector<ContentHash>> DirtyRate::LookAtSamples() const {
  std::vector<ContentHash> hashes;
  const RamBlock* block = nullptr;
  PageBitmap present;
  for (const Sample& sample : samples_) {
    if (sample.block != block) {
      block = sample.block;
      present = PageBitmap(block->size());
      // All in one go: to find the end of a piece the kernel walks all of it, whatever is asked.
      HF_TRY_STATUS(
          ForEachPresent(*block, 0, block->size(), [&](std::uint64_t offset, std::uint64_t size) {
            present.Set(offset / kPageSize, size / kPageSize);
            return true;
          }));
    }
    const auto page = block->host_view().subspan(sample.page * kPageSize);
    hashes.push_back(present.Test(sample.page) ? HashPage(page.first<kPageSize>(), seed_)
                                               : ContentHash());
  }
  return hashes;
}

// Pages that were written, of all, by the share of the samples that are.
Result<std::uint64_t> DirtyRate::CountSamples() {
  HF_TRY(const std::vector<ContentHash> now, LookAtSamples());
  std::uint64_t changed = 0;
  for (std::size_t i = 0; i < now.size(); ++i) changed += now[i] == hashes_[i] ? 0 : 1;
  std::uint64_t pages = 0;
  const DirtyPages all(subject_.memory);
  for (const DirtyPages::Block& entry : all.blocks()) pages += entry.pages.pages();
  // Samples are spread evenly but for rounding.
  return now.empty() ? 0 : pages * changed / now.size();
}

// ---- KVM's log or rings -------------------------------------------------------------------------

// Trackers come and go while the vCPUs stand.
Status DirtyRate::Standing(const std::function<Status()>& work) {
  machine::Machine& machine = subject_.machine;
  const bool ran = machine.running();
  if (ran) machine.Pause(machine::RunState::kSaveVm);
  Status done = work();
  if (ran && machine.state() == machine::RunState::kSaveVm) {
    Status resumed = machine.Resume();
    if (done) done = std::move(resumed);
  }
  return done;
}

Status DirtyRate::StartTrackingAs(DirtyRateMode mode) {
  const auto method = mode == DirtyRateMode::kDirtyRing ? DirtyMethod::kRing : DirtyMethod::kBitmap;
  HF_TRY_STATUS(Standing([&]() -> Status {
    HF_TRY(tracker_, DirtyTracker::Start(subject_.memory, subject_.vm, {.method = method}));
    return {};
  }));
  counts_.clear();
  if (subject_.vm.dirty_rings() != nullptr) counts_ = subject_.vm.dirty_rings()->Counts();
  return {};
}

Result<std::uint64_t> DirtyRate::CountTracked() {
  DirtyPages dirty(subject_.memory);
  HF_TRY_STATUS(Standing([&]() -> Status {
    const Status collected = tracker_->Collect(dirty);
    const Status stopped = tracker_->Stop();
    tracker_.reset();
    return collected ? stopped : collected;
  }));
  return dirty.count();
}

void DirtyRate::Finish() {
  const auto time = EventLoop::Clock::now() - begin_;
  info_.status = DirtyRateStatus::kMeasured;
  const auto pages = tracker_ == nullptr ? CountSamples() : CountTracked();
  if (!pages) {
    log::Error(Error(pages.error()).Wrap("measuring the dirty rate"));
    info_.status = DirtyRateStatus::kUnstarted;
    return;
  }
  info_.rate = Rate(*pages, time);
  if (info_.mode != DirtyRateMode::kDirtyRing) return;
  const std::vector<std::uint64_t> now = subject_.vm.dirty_rings()->Counts();
  for (std::size_t i = 0; i < now.size() && i < counts_.size(); ++i)
    info_.vcpus.push_back(Rate(now[i] - counts_[i], time));
}

}  // namespace holdfast::migration
