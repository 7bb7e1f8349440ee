// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/placement.h"

#include <algorithm>
#include <span>
#include <utility>

#include <fmt/format.h>

#include <holdfast/units.h>

#include "machine/boot/layout.h"

namespace holdfast::machine::boot {

Status LoadPart(const AddressSpace& ram, const BootFile& file, std::uint64_t file_offset,
                GuestAddress to, std::uint64_t size) {
  Status status = ram.ReadFile(file.fd.get(), file_offset, to, size);
  if (status) return status;
  Error error = std::move(status).error().Wrap(fmt::format("{} cannot be loaded", file.name));
  if (error.code() == Errc::kMalformed)
    return Fail(std::move(error).WithHint("It became shorter after it was opened."));
  return Fail(std::move(error));
}

Result<GuestAddress> LoadInitrd(const AddressSpace& ram, const BootFile& initrd,
                                const MemoryMapEntry& area, std::uint64_t from,
                                std::uint64_t max_end) {
  const std::uint64_t end = std::min(area.end(), max_end);
  const std::uint64_t room = end > from ? end - from : 0;
  if (initrd.size <= room) {
    const std::uint64_t base = AlignDown(end - initrd.size, kPageSize);
    if (base >= from) {
      HF_TRY_STATUS(LoadPart(ram, initrd, 0, GuestAddress(base), initrd.size));
      return GuestAddress(base);
    }
  }
  return Fail(Errc::kInvalidArgument,
              fmt::format("{} of {} does not fit: the guest has {} of RAM left for it beside the "
                          "kernel",
                          initrd.name, FormatSize(initrd.size), FormatSize(room)),
              "Give the guest more RAM (-m) or take a smaller initrd.");
}

Status WriteCmdline(const AddressSpace& ram, const BootSource& source, std::uint64_t limit) {
  const std::uint64_t longest = std::min(limit, kCmdline.size - 1);
  if (source.cmdline.size() > longest)
    return Fail(Errc::kInvalidArgument,
                fmt::format("the kernel command line has {} bytes; {} takes at most {}",
                            source.cmdline.size(), source.kernel.name, longest),
                "Shorten what -append gives.");
  // size() + 1: std::string ends with a zero of its own.
  const std::span text(source.cmdline.c_str(), source.cmdline.size() + 1);
  return ram.Write(kCmdline.base, std::as_bytes(text));
}

}  // namespace holdfast::machine::boot
