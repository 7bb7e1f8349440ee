// SPDX-License-Identifier: Apache-2.0
// The snapshot benchmarks.
//   snapshot_bench ROUNDS PATTERN [NAME]     PATTERN: guests/pattern.elf; NAME: only those that
//                                            start so
// snapshot_write, restore_eager: memory to and from a file, against plain writes and reads of the
// same bytes on the same file system. snapshot_diff_size: bytes of a differential file for each
// byte of the pages it holds. restore_lazy_constant: from the start of the process to the first
// guest instruction, with much memory against little.
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "migration/parallel.h"
#include "migration/snapshot_load.h"
#include "migration/snapshot_reader.h"
#include "migration/snapshot_writer.h"
#include "monitors.h"
#include "process.h"
#include "report.h"

namespace holdfast::bench {
namespace {

using migration::kSnapshotChunk;
using migration::SnapshotChain;
using migration::SnapshotWriter;
using std::chrono::duration;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr std::uint64_t kSize = 256 * kMiB;
constexpr seconds kLimit{300};
constexpr double kMega = 1e6;

double MegabytesPerSecond(steady_clock::time_point start) {
  return static_cast<double>(kSize) / kMega / duration<double>(steady_clock::now() - start).count();
}

Result<std::unique_ptr<RamBlock>> FullMemory() {
  HF_TRY(auto block, RamBlock::CreateMemfd("pc.ram", kSize));
  std::mt19937_64 random{1};
  for (std::uint64_t at = 0; at < kSize; at += 8) {
    const std::uint64_t value = random();
    std::copy_n(reinterpret_cast<const std::byte*>(&value), 8, block->host_view().data() + at);
  }
  return block;
}

// Every `stride`th page of each chunk, or all of them.
Status WriteSnapshot(const RamBlock& block, SnapshotWriter::Options options, std::uint32_t which) {
  HF_TRY(const auto writer, SnapshotWriter::Create(std::move(options), {{"pc.ram", kSize}}));
  const std::atomic<bool> never = false;
  const auto write = [&](std::size_t i) {
    const std::uint64_t at = i * kSnapshotChunk;
    return writer->WriteChunk(0, at, block.host_view().subspan(at, kSnapshotChunk), which);
  };
  HF_TRY_STATUS(migration::ForEachInParallel(kSize / kSnapshotChunk, never, write));
  return writer->Finish({}, {});
}

// Takes a file that is on disk out of the page cache.
Status Forget(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return FailErrno(path);
  const int error = ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
  return error == 0 ? Status{} : Status(Fail(Error::FromErrno("posix_fadvise", error)));
}

void CompareFiles(Report& report, const Folder& folder) {
  const auto memory = FullMemory();
  const std::string file = folder / "snapshot";
  const std::string plain = folder / "plain";
  const auto write_ours = [&]() -> Result<double> {
    if (!memory) return Fail(memory.error());
    const auto start = steady_clock::now();
    HF_TRY_STATUS(WriteSnapshot(**memory, {.path = file}, ~0U));
    return MegabytesPerSecond(start);
  };
  const auto write_plain = [&]() -> Result<double> {
    if (!memory) return Fail(memory.error());
    const auto start = steady_clock::now();
    const UniqueFd fd(::open(plain.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    for (std::uint64_t at = 0; at < kSize; at += kMiB) {
      if (::write(fd.get(), (*memory)->host_view().data() + at, kMiB) != static_cast<ssize_t>(kMiB))
        return FailErrno("write");
    }
    if (::fsync(fd.get()) != 0) return FailErrno("fsync");
    return MegabytesPerSecond(start);
  };
  report.Compare("snapshot_write/256M", "MB/s", "write+fsync", write_ours, write_plain);
  // Also where that one is not asked for. What goes wrong shows below.
  if (!std::filesystem::exists(file)) {
    (void)write_ours();
    (void)write_plain();
  }
  // Out of the page cache, as a clone finds it, and from the disk.
  for (const bool cold : {false, true}) {
    const char* const name = cold ? "restore_eager/256M_cold" : "restore_eager/256M";
    report.Compare(
        name, "MB/s", "read",
        [&, cold]() -> Result<double> {
          if (cold) HF_TRY_STATUS(Forget(file));
          HF_TRY(const auto block, RamBlock::CreateMemfd("pc.ram", kSize));
          const auto start = steady_clock::now();
          HF_TRY(const SnapshotChain chain, SnapshotChain::Open(file));
          std::vector<migration::RingReader::Target> chunks;
          for (std::uint64_t at = 0; at < kSize; at += kSnapshotChunk)
            chunks.push_back({0, at, block->host_view().subspan(at, kSnapshotChunk), true});
          migration::Progress progress;
          HF_TRY_STATUS(migration::ReadChunks(chain, chunks, progress));
          return MegabytesPerSecond(start);
        },
        [&, cold]() -> Result<double> {
          if (cold) HF_TRY_STATUS(Forget(plain));
          HF_TRY(const auto block, RamBlock::CreateMemfd("pc.ram", kSize));
          const auto start = steady_clock::now();
          const UniqueFd fd(::open(plain.c_str(), O_RDONLY | O_CLOEXEC));
          for (std::uint64_t at = 0; at < kSize; at += kMiB) {
            if (::read(fd.get(), block->host_view().data() + at, kMiB) !=
                static_cast<ssize_t>(kMiB))
              return FailErrno("read");
          }
          return MegabytesPerSecond(start);
        });
  }
  report.Compare(
      "snapshot_diff_size/every_16th_page", "bytes", "dirty pages",
      [&]() -> Result<double> {
        if (!memory) return Fail(memory.error());
        HF_TRY(const SnapshotChain chain, SnapshotChain::Open(file));
        const std::string diff = folder / "diff";
        HF_TRY_STATUS(WriteSnapshot(
            **memory,
            {.path = diff, .parent = chain.newest().header().id, .parent_file = "snapshot"}, 1U));
        return static_cast<double>(std::filesystem::file_size(diff));
      },
      [] { return Result<double>(static_cast<double>(kSize / kSnapshotChunk * kPageSize)); });
}

// A guest that has filled nearly all of its memory, saved.
Status Prepare(const Folder& folder, const std::string& guest, unsigned mib) {
  const std::string socket = folder / fmt::format("{}.qmp", mib);
  HF_TRY(Process monitor,
         Process::Start({"holdfast", "-nographic", "-nodefaults", "-serial", "stdio", "-kernel",
                         guest, "-append", std::to_string(mib - 32), "-m", fmt::format("{}M", mib),
                         "-qmp", fmt::format("unix:{},server=on,wait=off", socket)},
                        Process::Watch::kOutput));
  HF_TRY_STATUS(monitor.WaitForText("round 1 ok", kLimit));
  HF_TRY(Process ctl, Process::Start({"holdfastctl", "snapshot", "create", socket,
                                      folder / fmt::format("{}.snapshot", mib)},
                                     Process::Watch::kOutput));
  return ctl.WaitForText(" in ", kLimit);
}

Result<double> StartUntilFirstRun(const Folder& folder, const std::string& guest, unsigned mib) {
  HF_TRY(const Process process,
         Process::Start(
             {"holdfast", "-nographic", "-nodefaults", "-serial", "stdio", "-kernel", guest,
              "-append", std::to_string(mib - 32), "-m", fmt::format("{}M", mib), "-incoming",
              fmt::format("file:{}", folder / fmt::format("{}.snapshot", mib))},
             Process::Watch::kFirstRun));
  HF_TRY_STATUS(process.CpuTimeAtFirstRun(kLimit));
  return duration<double, std::milli>(steady_clock::now() - process.started()).count();
}

void CompareLazy(Report& report, const Folder& folder, const std::string& guest) {
  constexpr unsigned kSmall = 256;
  constexpr unsigned kLarge = 2048;
  Status ready = Prepare(folder, guest, kSmall);
  if (ready) ready = Prepare(folder, guest, kLarge);
  const auto measure = [&](unsigned mib) -> Result<double> {
    if (!ready) return Fail(ready.error());
    return StartUntilFirstRun(folder, guest, mib);
  };
  report.Compare(
      "restore_lazy_constant/2G", "ms", "256M", [&] { return measure(kLarge); },
      [&] { return measure(kSmall); });
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  using namespace holdfast::bench;
  const int rounds = argc == 3 || argc == 4 ? std::atoi(argv[1]) : 0;
  if (rounds < 1) {
    std::fputs("usage: snapshot_bench ROUNDS PATTERN [NAME]\n", stderr);
    return 1;
  }
  Report report("snapshot_bench", rounds, argc == 4 ? argv[3] : "");
  const Folder folder(".");  // whose file system is measured
  if (report.Wants("snapshot_") || report.Wants("restore_eager")) CompareFiles(report, folder);
  if (report.Wants("restore_lazy_constant")) CompareLazy(report, folder, argv[2]);
  return report.exit_status();
}
