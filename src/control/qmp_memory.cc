// SPDX-License-Identifier: Apache-2.0
// Commands about guest memory.
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/numa_policy.h>
#include <holdfast/ram_block.h>
#include <holdfast/unique_fd.h>
#include <holdfast/units.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "base/write_all.h"
#include "control/qmp_commands.h"
#include "machine/machine.h"
#include "object/json_value.h"
#include "object/memory_backend.h"

namespace holdfast::control {
namespace {

// A property of a backend, or `otherwise` where its type has no such property.
Json PropertyOr(const object::Object& backend, std::string_view name, Json otherwise) {
  const object::PropertyInfo* const info = backend.FindProperty(name);
  const auto value = backend.Get(name);
  if (info == nullptr || !value) return otherwise;
  return PropertyToJson(*info, *value);
}

// Where the memory is, by node of the host; what has no page yet is on none.
Result<Json> DescribePlacement(const RamBlock& block) {
  HF_TRY(const Placement placement, QueryPlacement(block));
  Json nodes = Json::array();
  for (const auto& [node, bytes] : placement.nodes) {
    nodes.push_back({{"node", node}, {"bytes", bytes}});
  }
  return Json{{"allocated", placement.allocated}, {"nodes", std::move(nodes)}};
}

Json DescribeBackend(const object::MemoryBackend& backend) {
  Json memdev = {{"id", backend.id()},
                 {"size", backend.size()},
                 {"merge", PropertyOr(backend, "merge", false)},
                 {"dump", PropertyOr(backend, "dump", true)},
                 {"prealloc", PropertyOr(backend, "prealloc", false)},
                 {"share", PropertyOr(backend, "share", true)},
                 {"reserve", PropertyOr(backend, "reserve", true)},
                 {"host-nodes", PropertyOr(backend, "host-nodes", Json::array())},
                 {"policy", PropertyOr(backend, "policy", "default")},
                 {"qom-type", backend.type().name},
                 {"mapped", backend.mapped()}};
  const RamBlock* const block = backend.block();
  memdev["guest-memfd"] = block != nullptr && block->guest_memfd() != nullptr;
  memdev["bound"] = block != nullptr && block->bound();
  return memdev;
}

QmpResult QueryMemdev(VmContext& vm, const Json& arguments) {
  const bool with_placement = arguments.value("placement", false);
  Json list = Json::array();
  for (const auto& object : vm.objects->objects()) {
    const auto* const backend = dynamic_cast<const object::MemoryBackend*>(object.get());
    if (backend == nullptr) continue;
    Json memdev = DescribeBackend(*backend);
    if (with_placement && backend->block() != nullptr) {
      HF_QMP_TRY(memdev["placement"], DescribePlacement(*backend->block()));
    }
    list.push_back(std::move(memdev));
  }
  return list;
}

// There are none: all RAM is there from the start.
QmpResult QueryMemoryDevices(VmContext&, const Json&) {
  return Json::array();
}

QmpResult QueryMemorySizeSummary(VmContext& vm, const Json&) {
  return Json{{"base-memory", vm.machine().memory().total_size()}, {"plugged-memory", 0}};
}

// ---- memsave and pmemsave -----------------------------------------------------------------------

tl::unexpected<QmpError> BadRange(std::int64_t address, std::int64_t size) {
  return QmpFail(fmt::format("Invalid addr 0x{:016x}/size {} specified", address, size),
                 "The whole range must be guest RAM.");
}

// Where the bytes at an offset of what is saved lie, and how many of them lie there together.
struct Piece {
  std::uint64_t address;
  std::uint64_t size;
};
using Locate = std::function<Result<std::optional<Piece>>(std::uint64_t offset)>;

// Saves guest RAM. The whole range is held before the file is touched, so that a wrong one, or one
// with a private page in it, does not cost the file that was there.
QmpResult Save(VmContext& vm, const Json& arguments, const Locate& locate) {
  const auto address = arguments["val"].get<std::int64_t>();
  const auto size = arguments["size"].get<std::int64_t>();
  const auto& path = arguments["filename"].get_ref<const std::string&>();
  const AddressSpace& memory = vm.machine().memory();
  if (size < 0) return QmpFail("Parameter 'size' expects a number that is not negative");
  // Nothing the guest has is larger, whatever its page tables repeat.
  if (static_cast<std::uint64_t>(size) > memory.total_size()) return BadRange(address, size);
  if (path.find('\0') != std::string::npos) {
    return QmpFail("Parameter 'filename' expects a file name without NUL");
  }
  std::vector<Piece> pieces;
  for (std::uint64_t done = 0; done < static_cast<std::uint64_t>(size);) {
    HF_QMP_TRY(std::optional<Piece> piece, locate(done));
    if (!piece) return BadRange(address, size);
    piece->size = std::min(piece->size, static_cast<std::uint64_t>(size) - done);
    done += piece->size;
    if (!pieces.empty() && pieces.back().address + pieces.back().size == piece->address) {
      pieces.back().size += piece->size;
    } else {
      pieces.push_back(*piece);
    }
  }
  GuestIoVec held;
  for (const Piece& piece : pieces) {
    auto pinned = memory.Pin(GuestAddress(piece.address), piece.size, MemoryAccess::kRead, held);
    if (pinned) continue;
    if (pinned.error().code() == Errc::kPrivate)
      return tl::unexpected<QmpError>(std::move(pinned).error());
    return BadRange(address, size);
  }
  // A pipe that nobody reads must not hold the monitor up.
  const UniqueFd file(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666));
  if (!file) {
    return tl::unexpected<QmpError>(
        Error::FromErrno(fmt::format("Could not open '{}'", path), errno));
  }
  std::vector<std::byte> buffer(
      std::min<std::uint64_t>(static_cast<std::uint64_t>(size), 1U << 20));
  // Copied first: the guest may change the bytes while they are written.
  for (std::uint64_t done = 0; done < held.size();) {
    const std::size_t now = held.CopyOut(done, buffer);
    HF_QMP_TRY_STATUS(
        WriteAll(file.get(), std::span(buffer).first(now), fmt::format("memory to '{}'", path)));
    done += now;
  }
  return Json::object();
}

QmpResult Pmemsave(VmContext& vm, const Json& arguments) {
  const auto start = static_cast<std::uint64_t>(arguments["val"].get<std::int64_t>());
  return Save(vm, arguments, [start](std::uint64_t offset) -> Result<std::optional<Piece>> {
    constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();
    if (offset > kMax - start) return std::nullopt;
    return Piece{start + offset, kMax - (start + offset)};
  });
}

QmpResult Memsave(VmContext& vm, const Json& arguments) {
  unsigned cpu = 0;
  if (const auto index = arguments.find("cpu-index"); index != arguments.end()) {
    HF_QMP_TRY_STATUS(CheckCpuIndex(vm, *index));
    cpu = index->get<unsigned>();
  }
  const auto start = static_cast<std::uint64_t>(arguments["val"].get<std::int64_t>());
  return Save(
      vm, arguments, [&vm, cpu, start](std::uint64_t offset) -> Result<std::optional<Piece>> {
        const std::uint64_t address = start + offset;  // wraps around as the guest's addresses do
        HF_TRY(const std::optional<std::uint64_t> found, vm.machine().Translate(cpu, address));
        if (!found) return std::nullopt;
        return Piece{*found, kPageSize - address % kPageSize};
      });
}

}  // namespace

void DefineMemoryCommands(Schema& schema) {
  schema.Enum("HostMemPolicy", {"default", "preferred", "bind", "interleave"});
  schema.Struct("Memdev", {{"id?", "str"},
                           {"size", "size"},
                           {"merge", "bool"},
                           {"dump", "bool"},
                           {"prealloc", "bool"},
                           {"share", "bool"},
                           {"reserve?", "bool"},
                           {"host-nodes", "[uint16]"},
                           {"policy", "HostMemPolicy"},
                           {"qom-type", "str"},
                           {"mapped", "bool"},
                           {"guest-memfd", "bool"},
                           {"bound", "bool"},
                           {"placement?", "MemoryPlacement"}});
  schema.Struct("MemoryOnNode", {{"node", "uint16"}, {"bytes", "size"}});
  schema.Struct("MemoryPlacement", {{"allocated", "size"}, {"nodes", "[MemoryOnNode]"}});
  // The argument is Holdfast's: looking at each page of a large guest takes its time.
  schema.Struct("QueryMemdevArguments", {{"placement?", "bool"}});
  schema.AddCommand(
      "query-memdev",
      {.arguments = "QueryMemdevArguments", .result = "[Memdev]", .run = QueryMemdev});

  schema.Struct("PCDIMMDeviceInfo", {{"id?", "str"},
                                     {"addr", "int"},
                                     {"size", "int"},
                                     {"slot", "int"},
                                     {"node", "int"},
                                     {"memdev", "str"},
                                     {"hotplugged", "bool"},
                                     {"hotpluggable", "bool"}});
  schema.Struct("PCDIMMDeviceInfoWrapper", {{"data", "PCDIMMDeviceInfo"}});
  schema.Enum("MemoryDeviceInfoKind", {"dimm"});
  schema.Union("MemoryDeviceInfo", {{"type", "MemoryDeviceInfoKind"}}, "type",
               {{"dimm", "PCDIMMDeviceInfoWrapper"}});
  schema.AddCommand("query-memory-devices",
                    {.result = "[MemoryDeviceInfo]", .run = QueryMemoryDevices});
  schema.Struct("MemoryInfo", {{"base-memory", "size"}, {"plugged-memory?", "size"}});
  schema.AddCommand("query-memory-size-summary",
                    {.result = "MemoryInfo", .run = QueryMemorySizeSummary});

  schema.Struct("MemsaveArguments",
                {{"val", "int"}, {"size", "int"}, {"filename", "str"}, {"cpu-index?", "int"}});
  schema.AddCommand("memsave", {.arguments = "MemsaveArguments", .run = Memsave});
  schema.Struct("PmemsaveArguments", {{"val", "int"}, {"size", "int"}, {"filename", "str"}});
  schema.AddCommand("pmemsave", {.arguments = "PmemsaveArguments", .run = Pmemsave});
}

}  // namespace holdfast::control
