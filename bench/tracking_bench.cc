// SPDX-License-Identifier: Apache-2.0
// What it costs to know which pages a guest writes, and to give it RAM on demand.
//   tracking_bench ROUNDS [NAME]     NAME: only benchmarks whose name starts so
// Prints one JSON object a line: name, value, unit, baseline, baseline_value, ratio (medians).
#include <fmt/format.h>
#include <guest_images.h>
#include <holdfast/address_space.h>
#include <holdfast/dirty_tracker.h>
#include <holdfast/lazy_population.h>
#include <holdfast/units.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "memory/dirty_trackers.h"
#include "report.h"
#include "support/guest_vm.h"

namespace holdfast::bench {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

constexpr std::uint64_t kGuestRam = 256 * kMiB;
constexpr std::uint64_t kTouched = 192 * kMiB;
constexpr std::uint64_t kPages = kTouched / kPageSize;
constexpr std::uint64_t kHashed = 512 * kMiB;
constexpr std::uint32_t kRingEntries = 4096;

double Seconds(steady_clock::time_point since) {
  return duration<double>(steady_clock::now() - since).count();
}

// Nanoseconds a page for a walk that writes each page and reads it again.
Result<double> Walk(test::GuestVm& guest, std::uint64_t pages, std::uint64_t seed) {
  const auto start = steady_clock::now();
  const test::GuestOutcome outcome =
      guest.Run(guests::kMemwalk, {test::GuestVm::kFreeRam, pages, seed});
  if (!outcome.error.empty()) return Fail(Errc::kSystem, outcome.error);
  return Seconds(start) * 1e9 / static_cast<double>(pages);
}

// What the guest and whoever collects need for a walk over pages that were all taken out of the log
// just before: every page is written for the first time again.
Result<double> Tracked(std::optional<DirtyMethod> method) {
  HF_TRY(const auto guest,
         test::GuestVm::Create({.ram_size = kGuestRam,
                                .dirty_ring = method == DirtyMethod::kRing ? kRingEntries : 0}));
  HF_TRY([[maybe_unused]] const double warm, Walk(*guest, kPages, 1));
  if (!method) return Walk(*guest, kPages, 2);
  HF_TRY(const auto tracker, DirtyTracker::Start(guest->space(), guest->vm(), {.method = *method}));
  DirtyPages dirty(guest->space());
  HF_TRY(const double walk, Walk(*guest, kPages, 2));
  const auto start = steady_clock::now();
  HF_TRY_STATUS(tracker->Collect(dirty));
  const double collect = Seconds(start) * 1e9 / static_cast<double>(kPages);
  if (dirty.count() < kPages) return Fail(Errc::kSystem, "written pages are missing");
  return walk + collect;
}

// GB/s of a scan of memory that is all there and nowhere zero, with every processor.
Result<double> Hash(AddressSpace& memory, DirtyTracker& tracker) {
  DirtyPages dirty(memory);
  const auto start = steady_clock::now();
  HF_TRY_STATUS(tracker.Collect(dirty));
  return static_cast<double>(kHashed) / Seconds(start) / 1e9;
}

Result<double> Copy(std::span<const std::byte> from, std::span<std::byte> to) {
  const unsigned count = std::max(1U, std::thread::hardware_concurrency());
  const std::size_t part = from.size() / count;
  const auto start = steady_clock::now();
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < count; ++i) {
      threads.emplace_back(
          [&, i] { std::memcpy(to.data() + i * part, from.data() + i * part, part); });
    }
  }
  return static_cast<double>(kHashed) / Seconds(start) / 1e9;
}

class CopySource : public PageSource {
 public:
  explicit CopySource(std::span<const std::byte> bytes) : bytes_(bytes.begin(), bytes.end()) {}
  Status Read(const RamBlock&, std::uint64_t offset, std::span<std::byte> to) override {
    std::memcpy(to.data(), bytes_.data() + offset, to.size());
    return {};
  }

 private:
  std::vector<std::byte> bytes_;
};

// Nanoseconds a page until a guest has touched all of its RAM, which somebody has to fill: chunk by
// chunk as it touches them, or everything before it runs.
Result<double> Populate(bool lazily) {
  HF_TRY(const auto guest, test::GuestVm::Create({.ram_size = kGuestRam}));
  guest->WritePattern(test::GuestVm::kFreeRam, kPages, 1);
  CopySource source(guest->ram().host_view());
  const auto start = steady_clock::now();
  std::unique_ptr<LazyPopulation> population;
  if (lazily) {
    HF_TRY(population,
           LazyPopulation::Start(guest->space(), source, {.background = false, .threads = 1}));
  } else {
    HF_TRY_STATUS(guest->ram().Discard(0, kGuestRam));
    HF_TRY_STATUS(source.Read(guest->ram(), 0, guest->ram().host_view()));
  }
  HF_TRY([[maybe_unused]] const double walk, Walk(*guest, kPages, 2));
  const double spent = Seconds(start) * 1e9 / static_cast<double>(kPages);
  if (population != nullptr) HF_TRY_STATUS(population->Finish());
  return spent;
}

Status HashAgainstCopy(Report& report) {
  HF_TRY(const auto block, RamBlock::CreateMemfd("hashed", kHashed));
  AddressSpace memory(nullptr);
  HF_TRY_STATUS(memory.AddRam(GuestAddress(0), kHashed, *block, 0));
  std::ranges::fill(block->host_view(), std::byte{0x5a});
  std::vector<std::byte> copy(kHashed);
  HF_TRY(const auto tracker, StartHashTracker(memory, {}));
  report.Compare(
      "content_hash", "GB/s", "memcpy", [&] { return Hash(memory, *tracker); },
      [&] { return Copy(block->host_view(), copy); });
  return {};
}

int Main(int rounds, std::string_view only) {
  Report report("tracking_bench", rounds, only);
  for (const DirtyMethod method : {DirtyMethod::kBitmap, DirtyMethod::kRing, DirtyMethod::kHash}) {
    report.Compare(
        fmt::format("dirty_tracking/{}", ToString(method)), "ns/page", "no tracking",
        [&] { return Tracked(method); }, [] { return Tracked(std::nullopt); });
  }
  report.Compare(
      "restore_lazy_fault", "ns/page", "filled before", [] { return Populate(true); },
      [] { return Populate(false); });
  if (report.Wants("content_hash")) {
    if (const Status done = HashAgainstCopy(report); !done) {
      fmt::print(stderr, "tracking_bench: {}\n", done.error().ToString());
      return 1;
    }
  }
  return report.exit_status();
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  return holdfast::bench::RunBench(argc, argv, "tracking_bench", holdfast::bench::Main);
}
