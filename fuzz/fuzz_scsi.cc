// SPDX-License-Identifier: Apache-2.0
// Any bytes as commands for a SCSI disk and CD-ROM: a byte for the size of the CDB, the CDB, a byte
// for the size of its parameters, the parameters. No command may fail to be answered.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "base/event_loop.h"
#include "devices/block/drive.h"
#include "devices/block/null_device.h"
#include "devices/scsi/scsi_disk.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace holdfast::devices;  // NOLINT(google-build-using-namespace): only here
  auto loop = holdfast::EventLoop::Create();
  if (!loop) std::abort();
  std::span<const std::uint8_t> rest(data, size);
  const auto take = [&rest](std::size_t count) {
    const auto taken = rest.first(std::min(count, rest.size()));
    rest = rest.subspan(taken.size());
    return std::vector<std::uint8_t>(taken.begin(), taken.end());
  };
  const auto number = [&] {
    const auto byte = take(1);
    return byte.empty() ? std::size_t{0} : std::size_t{byte[0]};
  };
  const bool cdrom = number() % 2 != 0;
  block::NullDevice medium("null", 1ULL << 30, /*read_zeroes=*/true, /*readonly=*/cdrom);
  block::Drive drive("drive", &medium, nullptr);
  if (!drive.Attach({.name = "disk", .removable = cdrom})) std::abort();
  scsi::Identity identity;
  identity.cdrom = cdrom;
  identity.block_size = cdrom ? 2048 : 512;
  identity.serial = "fuzz";
  scsi::ScsiDisk disk(**loop, drive, identity);
  std::vector<std::uint8_t> in(64 * 1024);
  for (unsigned i = 0; i < 32 && !rest.empty(); ++i) {
    auto command = std::make_shared<scsi::Command>();
    command->cdb = take(number() % 33);
    std::vector<std::uint8_t> out = take(number());
    command->out_size = out.size();
    if (!out.empty()) {
      command->data_out = {{out.data(), out.size()}};
    } else {
      command->in_size = in.size();
      command->data_in = {{in.data(), in.size()}};
    }
    unsigned answers = 0;
    command->done = [&answers](scsi::Command& done) {
      ++answers;
      if (done.transferred > done.in_size + done.out_size) std::abort();
    };
    disk.Execute(command);
    disk.Kick();
    disk.AbortAll();
    if (answers != 1) std::abort();
  }
  return 0;
}
