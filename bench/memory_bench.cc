// SPDX-License-Identifier: Apache-2.0
// The memory benchmarks: what guest_memfd and preallocation cost against the kernel's bare calls.
//   memory_bench ROUNDS [NAME]     NAME: only benchmarks whose name starts so
// Prints one JSON object a line: name, value, unit, baseline, baseline_value, ratio (medians).
#include <fmt/format.h>
#include <guest_images.h>
#include <holdfast/guest_memfd.h>
#include <holdfast/kvm_system.h>
#include <holdfast/mapping.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "object/memory_backend.h"
#include "report.h"
#include "support/guest_vm.h"

namespace holdfast::bench {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

constexpr std::uint64_t kGuestRam = 256 * kMiB;
constexpr std::uint64_t kTouched = 192 * kMiB;
constexpr std::uint64_t kPreallocated = 512 * kMiB;

double Milliseconds(steady_clock::time_point since) {
  return duration<double, std::milli>(steady_clock::now() - since).count();
}

// Runs the walk over `pages` pages and returns how long that took.
Result<double> Walk(test::GuestVm& guest, std::uint64_t pages) {
  const auto start = steady_clock::now();
  const test::GuestOutcome outcome =
      guest.Run(guests::kMemwalk, {test::GuestVm::kFreeRam, pages, 1});
  if (!outcome.error.empty()) return Fail(Errc::kSystem, outcome.error);
  return Milliseconds(start);
}

// Nanoseconds for a page that a guest touches first: the second walk over the same pages has all of
// the first one's cost but the page faults.
Result<double> FirstTouch(bool memfd, bool bound) {
  HF_TRY(const auto guest,
         test::GuestVm::Create({.ram_size = kGuestRam, .bound = bound, .memfd = memfd}));
  constexpr std::uint64_t kPages = kTouched / kPageSize;
  HF_TRY([[maybe_unused]] const double warm, Walk(*guest, 1));  // code, stack, thread
  HF_TRY(const double first, Walk(*guest, kPages));
  HF_TRY(const double second, Walk(*guest, kPages));
  return (first - second) * 1e6 / static_cast<double>(kPages);
}

// A backend from its description to memory that is all there.
Result<double> Preallocate(kvm::Vm& vm, unsigned threads) {
  object::ObjectStore store;
  HF_TRY(object::Object * made,
         store.AddFromOption(
             fmt::format("memory-backend-guest-memfd,id=m,size={},prealloc=on,prealloc-threads={}",
                         kPreallocated, threads)));
  auto& backend = dynamic_cast<object::MemoryBackend&>(*made);
  const auto start = steady_clock::now();
  HF_TRY_STATUS(
      backend.Allocate(vm, {.progress = [](const object::AllocateProgress&) { return true; }}));
  return Milliseconds(start);
}

// The kernel's part of that: the same memory, cut evenly, one call a thread.
Result<double> RawPopulate(const kvm::Vm& vm, unsigned threads) {
  const auto start = steady_clock::now();
  HF_TRY(const auto memfd,
         kvm::GuestMemfd::Create(vm, kPreallocated, kvm::GuestMemfd::Access::kHostShared));
  HF_TRY(const Mapping mapping,
         Mapping::MapFile(memfd.fd(), 0, kPreallocated, PROT_READ | PROT_WRITE, "guest_memfd"));
  const std::uint64_t part = kPreallocated / threads;
  std::vector<std::jthread> workers;
  for (unsigned i = 0; i < threads; ++i) {
    workers.emplace_back(
        [&, i] { (void)::madvise(mapping.data() + i * part, part, MADV_POPULATE_WRITE); });
  }
  workers.clear();
  return Milliseconds(start);
}

int Main(int rounds, std::string_view only) {
  auto system = kvm::System::Open();
  auto vm = system ? kvm::Vm::Create(*system) : Fail(system.error());
  if (!vm) {
    fmt::print(stderr, "memory_bench: {}\n", vm.error().ToString());
    return 1;
  }
  Report report("memory_bench", rounds, only);
  for (const bool bound : {false, true}) {
    report.Compare(
        bound ? "first_touch/bound" : "first_touch/unbound", "ns", "memfd",
        [&] { return FirstTouch(false, bound); }, [] { return FirstTouch(true, false); });
  }
  for (const unsigned threads : {1U, 2U}) {
    report.Compare(
        fmt::format("prealloc/{}", threads), "ms", "MADV_POPULATE_WRITE",
        [&] { return Preallocate(*vm, threads); }, [&] { return RawPopulate(*vm, threads); });
  }
  return report.exit_status();
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  return holdfast::bench::RunBench(argc, argv, "memory_bench", holdfast::bench::Main);
}
