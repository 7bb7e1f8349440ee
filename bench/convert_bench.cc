// SPDX-License-Identifier: Apache-2.0
// The conversion benchmarks: what making memory private and shared costs.
//   convert_bench ROUNDS [NAME]     NAME: only benchmarks whose name starts so
//   convert_raw/…        against the kernel's call alone
//   convert_two_layer/…  against the two-layer way: free one side, allocate and zero the other
//   convert_hypercall/…  a guest's request for one page, against an empty exit and the bare call
// Prints one JSON object a line: name, value, unit, baseline, baseline_value, ratio (medians).
#include <abi.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <guest_images.h>
#include <holdfast/conversion.h>
#include <holdfast/kvm_system.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>
#include <sys/mman.h>

#include <chrono>
#include <ctime>

#include "memory/guard_pages.h"
#include "report.h"
#include "support/guest_vm.h"

namespace holdfast::bench {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

constexpr std::uint64_t kSizes[] = {kPageSize, 64 * kKiB, 2 * kMiB, kGiB};
// So much is converted for one value, in ranges of the size in question.
constexpr std::uint64_t kEachTime = 64 * kMiB;

double Nanoseconds(steady_clock::time_point since) {
  return duration<double, std::nano>(steady_clock::now() - since).count();
}

// CPU time of this thread: what is measured sleeps nowhere, and a machine that does other things as
// well does not show.
double ThreadNanoseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return duration<double, std::nano>(std::chrono::seconds(now.tv_sec) +
                                     std::chrono::nanoseconds(now.tv_nsec))
      .count();
}

// Memory of one size to convert ranges of.
class Bed {
 public:
  static Result<Bed> Make(std::uint64_t range, bool populated) {
    Bed bed(range);
    HF_TRY(auto system, kvm::System::Open());
    HF_TRY(bed.vm_, kvm::Vm::Create(system));
    const std::uint64_t size = std::max(range, kEachTime);
    HF_TRY(bed.block_, RamBlock::CreateGuestMemfd(*bed.vm_, "bench", size, true));
    HF_TRY_STATUS(bed.block_->EnableConversion(*bed.vm_, ConversionEngineKind::kGuard));
    if (populated && ::madvise(bed.block_->host_view().data(), size, MADV_POPULATE_WRITE) != 0)
      return FailErrno("populating");
    return bed;
  }

  // Nanoseconds a page for work(offset) over all ranges.
  template <typename Work>
  Result<double> Time(Work&& work) const {
    const std::uint64_t ranges = std::max(range_, kEachTime) / range_;
    const double start = ThreadNanoseconds();
    for (std::uint64_t i = 0; i < ranges; ++i) HF_TRY_STATUS(work(i * range_));
    return (ThreadNanoseconds() - start) / static_cast<double>(ranges * (range_ / kPageSize));
  }

  Status Convert(std::uint64_t offset, MemoryAttribute to) const {
    HF_TRY(const auto outcome,
           block_->conversion()->Convert({.offset = offset, .size = range_, .to = to}));
    if (outcome.changed_pages == range_ / kPageSize) return {};
    return Fail(Errc::kSystem, "a conversion did not change all of its range");
  }
  Status Guard(std::uint64_t offset, bool closed) const {
    return SetGuardPages(block_->host_view().subspan(offset, range_), closed);
  }

 private:
  explicit Bed(std::uint64_t range) : range_(range) {}

  std::uint64_t range_;
  std::optional<kvm::Vm> vm_;
  std::unique_ptr<RamBlock> block_;
};

// What two layers do to one range: the side that goes out of use is freed, the other allocated and
// zeroed. QEMU leaves the second part to the guest's faults, which cost more than this.
class TwoLayers {
 public:
  static Result<TwoLayers> Make(std::uint64_t range) {
    TwoLayers both(range);
    HF_TRY(auto system, kvm::System::Open());
    HF_TRY(both.vm_, kvm::Vm::Create(system));
    const std::uint64_t size = std::max(range, kEachTime);
    HF_TRY(both.shared_, RamBlock::CreateMemfd("shared", size));
    HF_TRY(both.private_, RamBlock::CreateGuestMemfd(*both.vm_, "private", size, true));
    if (::madvise(both.shared_->host_view().data(), size, MADV_POPULATE_WRITE) != 0)
      return FailErrno("populating");
    return both;
  }
  Status Convert(std::uint64_t offset, MemoryAttribute to) const {
    const bool is_private = to == MemoryAttribute::kPrivate;
    const RamBlock& old_side = is_private ? *shared_ : *private_;
    const RamBlock& new_side = is_private ? *private_ : *shared_;
    HF_TRY_STATUS(old_side.Discard(offset, range_));
    if (::madvise(new_side.host_view().data() + offset, range_, MADV_POPULATE_WRITE) != 0)
      return FailErrno("populating");
    return {};
  }

 private:
  explicit TwoLayers(std::uint64_t range) : range_(range) {}

  std::uint64_t range_;
  std::optional<kvm::Vm> vm_;
  std::unique_ptr<RamBlock> shared_;
  std::unique_ptr<RamBlock> private_;
};

std::string Name(std::uint64_t size) {
  return size >= kGiB ? "1G" : size >= kMiB ? "2M" : fmt::format("{}K", size / kKiB);
}

// Both directions, one after the other, on beds that live as long as the comparison.
void CompareSize(Report& report, std::uint64_t size, bool populated) {
  auto ours = Bed::Make(size, populated);
  auto bare = Bed::Make(size, populated);
  if (!ours || !bare) {
    report.Compare(
        "convert_raw/" + Name(size), "ns/page", "madvise",
        [&]() -> Result<double> { return Fail(ours ? bare.error() : ours.error()); },
        []() -> Result<double> { return 0.0; });
    return;
  }
  // What is converted by one measurement is converted back outside of it.
  for (const bool closed : {true, false}) {
    const auto to = closed ? MemoryAttribute::kPrivate : MemoryAttribute::kShared;
    const auto back = PageAttributes::Opposite(to);
    report.Compare(
        fmt::format("convert_raw/{}/{}/{}", Name(size), closed ? "to_private" : "to_shared",
                    populated ? "populated" : "empty"),
        "ns/page", "madvise",
        [&]() -> Result<double> {
          if (!closed)
            HF_TRY_STATUS(ours->Time([&](std::uint64_t at) { return ours->Convert(at, back); }));
          auto time = ours->Time([&](std::uint64_t at) { return ours->Convert(at, to); });
          if (closed)
            HF_TRY_STATUS(ours->Time([&](std::uint64_t at) { return ours->Convert(at, back); }));
          return time;
        },
        [&]() -> Result<double> {
          if (!closed)
            HF_TRY_STATUS(bare->Time([&](std::uint64_t at) { return bare->Guard(at, true); }));
          auto time = bare->Time([&](std::uint64_t at) { return bare->Guard(at, closed); });
          if (closed)
            HF_TRY_STATUS(bare->Time([&](std::uint64_t at) { return bare->Guard(at, false); }));
          return time;
        });
  }
}

void CompareTwoLayers(Report& report, std::uint64_t size) {
  auto ours = Bed::Make(size, true);
  auto two = TwoLayers::Make(size);
  report.Compare(
      "convert_two_layer/" + Name(size), "ns/page", "two layers",
      [&]() -> Result<double> {
        if (!ours) return Fail(ours.error());
        HF_TRY(const double there, ours->Time([&](std::uint64_t at) {
          return ours->Convert(at, MemoryAttribute::kPrivate);
        }));
        HF_TRY(const double back, ours->Time([&](std::uint64_t at) {
          return ours->Convert(at, MemoryAttribute::kShared);
        }));
        return (there + back) / 2;
      },
      [&]() -> Result<double> {
        if (!two) return Fail(two.error());
        const auto time = [&](MemoryAttribute to) {
          return ours->Time([&](std::uint64_t at) { return two->Convert(at, to); });
        };
        HF_TRY(const double there, time(MemoryAttribute::kPrivate));
        HF_TRY(const double back, time(MemoryAttribute::kShared));
        return (there + back) / 2;
      });
}

// Nanoseconds of one ring of the doorbell, for one page or for nothing.
Result<double> Ring(test::GuestVm& guest, bool convert) {
  constexpr std::uint64_t kRounds = 20000;
  constexpr std::uint64_t kMailbox = test::GuestVm::kFreeRam;
  const auto start = steady_clock::now();
  const test::GuestOutcome outcome =
      guest.Run(guests::kDoorbell, {convert ? kMailbox + kMiB : 0, kRounds, kMailbox});
  if (outcome.end_code != 0) return Fail(Errc::kSystem, "the guest failed: " + outcome.error);
  return Nanoseconds(start) / kRounds;
}

void CompareRequest(Report& report) {
  auto guest = test::GuestVm::Create({.conversion = ConversionEngineKind::kGuard});
  auto bare = Bed::Make(kPageSize, true);
  report.Compare(
      "convert_hypercall/one_page", "ns", "empty exit + madvise",
      [&]() -> Result<double> {
        if (!guest) return Fail(guest.error());
        return Ring(**guest, true);
      },
      [&]() -> Result<double> {
        if (!guest || !bare) return Fail(Errc::kSystem, "there is no guest memory");
        HF_TRY(const double exit, Ring(**guest, false));
        HF_TRY(const double close,
               bare->Time([&](std::uint64_t at) { return bare->Guard(at, true); }));
        HF_TRY(const double open,
               bare->Time([&](std::uint64_t at) { return bare->Guard(at, false); }));
        return exit + (close + open) / 2;
      });
}

int Main(int rounds, std::string_view only) {
  Report report("convert_bench", rounds, only);
  for (const std::uint64_t size : kSizes) {
    for (const bool populated : {true, false})
      if (report.Wants("convert_raw/")) CompareSize(report, size, populated);
  }
  for (const std::uint64_t size : kSizes)
    if (report.Wants("convert_two_layer/")) CompareTwoLayers(report, size);
  if (report.Wants("convert_hypercall/")) CompareRequest(report);
  return report.exit_status();
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  return holdfast::bench::RunBench(argc, argv, "convert_bench", holdfast::bench::Main);
}
