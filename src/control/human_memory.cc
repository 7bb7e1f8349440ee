// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include "control/context.h"
#include "control/human_commands.h"
#include "control/human_format.h"
#include "control/words.h"
#include "devices/bus.h"
#include "machine/machine.h"

// The commands that show memory and where it lies.
namespace holdfast::control {
namespace {

constexpr std::uint64_t kLastPort = 0xffff;

struct DumpRequest {
  DumpFormat format;
  std::uint64_t address = 0;
};

// What stands behind `x` or `xp`: "/FORMAT ADDRESS" or "ADDRESS".
Result<DumpRequest> ParseDump(machine::Machine& machine, std::string_view arguments) {
  DumpRequest request;
  if (arguments.starts_with('/')) {
    HF_TRY(request.format, ParseDumpFormat(TakeWord(arguments).substr(1)));
  }
  if (arguments.empty()) {
    return Fail(Errc::kInvalidArgument, "the address is missing",
                "For example: xp /4xw 0x1000, or x /8xg $rsp");
  }
  HF_TRY(const machine::VcpuRegisters registers, machine.Registers(0));
  HF_TRY(request.address, EvaluateAddress(arguments, registers));
  return request;
}

Error CannotAccess(std::string_view kind, std::uint64_t address, const Status& why = {}) {
  if (!why && why.error().code() == Errc::kPrivate) return why.error();
  return Error(Errc::kInvalidArgument,
               fmt::format("Cannot access memory at {} address {:#x}", kind, address),
               "'info mtree -f' lists where RAM lies.");
}

std::vector<MemoryTreeRow> MemoryRows(const machine::Machine& machine) {
  std::vector<MemoryTreeRow> rows;
  for (const AddressSpace::Region& region : machine.memory().regions()) {
    rows.push_back({region.base.value(), region.base.value() + region.size - 1, "ram",
                    region.block->id(), region.block_offset});
  }
  machine.mmio().ForEach(
      [&](std::uint64_t base, std::uint64_t size, const devices::BusDevice& device) {
        rows.push_back({base, base + size - 1, "i/o", std::string(device.name()), 0});
      });
  std::ranges::sort(rows, {}, &MemoryTreeRow::begin);
  return rows;
}

std::vector<MemoryTreeRow> PortRows(const machine::Machine& machine) {
  std::vector<MemoryTreeRow> rows;
  machine.io().ForEach(
      [&](std::uint64_t base, std::uint64_t size, const devices::BusDevice& device) {
        rows.push_back({base, base + size - 1, "i/o", std::string(device.name()), 0});
      });
  return rows;
}

}  // namespace

Result<std::string> HumanCommands::ExaminePhysical(std::string_view arguments) {
  machine::Machine& machine = context_.machine();
  HF_TRY(const DumpRequest request, ParseDump(machine, arguments));
  std::vector<std::byte> data(request.format.bytes());
  if (const Status read = machine.memory().Read(GuestAddress(request.address), data); !read)
    return Fail(CannotAccess("guest physical", request.address, read));
  return FormatDump(request.format, request.address, data);
}

Result<std::string> HumanCommands::Examine(std::string_view arguments) {
  machine::Machine& machine = context_.machine();
  HF_TRY(const DumpRequest request, ParseDump(machine, arguments));
  std::vector<std::byte> data(request.format.bytes());
  // Neighbouring virtual pages may lie anywhere.
  for (std::uint64_t done = 0; done < data.size();) {
    const std::uint64_t address = request.address + done;
    const std::uint64_t in_page = address % kPageSize;
    const std::uint64_t length = std::min(kPageSize - in_page, data.size() - done);
    HF_TRY(const auto physical, machine.Translate(0, address - in_page));
    if (!physical) return Fail(CannotAccess("virtual", address));
    const Status read = machine.memory().Read(GuestAddress(*physical + in_page),
                                              std::span(data).subspan(done, length));
    if (!read) return Fail(CannotAccess("virtual", address, read));
    done += length;
  }
  return FormatDump(request.format, request.address, data);
}

Result<std::string> HumanCommands::InfoMtree(std::string_view arguments) {
  if (!arguments.empty() && arguments != "-f") {
    return Fail(Errc::kInvalidArgument, fmt::format("info mtree: unknown option '{}'", arguments),
                "-f shows the ranges flat; there are no other options here.");
  }
  const machine::Machine& machine = context_.machine();
  const bool flat = arguments == "-f";
  const std::string memory =
      FormatMemoryTree("memory", "system", ~std::uint64_t{0}, MemoryRows(machine), flat);
  const std::string ports = FormatMemoryTree("I/O", "io", kLastPort, PortRows(machine), flat);
  return flat ? fmt::format("FlatView #0\n{}FlatView #1\n{}", memory, ports) : memory + ports;
}

Result<std::string> HumanCommands::InfoRamblock(std::string_view) {
  std::vector<RamBlockRow> rows;
  std::uint64_t offset = 0;
  for (const AddressSpace::Region& region : context_.machine().memory().regions()) {
    const RamBlock& block = *region.block;
    if (std::ranges::find(rows, block.id(), &RamBlockRow::name) != rows.end()) continue;
    rows.push_back({block.id(), offset, block.size(),
                    reinterpret_cast<std::uint64_t>(block.host_view().data()), false});
    offset += block.size();
  }
  return FormatRamBlocks(rows);
}

}  // namespace holdfast::control
