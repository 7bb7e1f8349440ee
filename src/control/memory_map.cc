// SPDX-License-Identifier: Apache-2.0
#include "control/memory_map.h"

#include <holdfast/address_space.h>
#include <holdfast/numa_policy.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <bit>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "control/qmp_commands.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

constexpr std::uint64_t kUsualCells = 1024;
// Each run of pages that is looked at costs some system calls, whatever its length.
constexpr std::uint64_t kRunsOfCell = 4;
constexpr std::uint64_t kShortestRun = 16;

// Bytes in all, and by node of the host.
struct Use {
  std::uint64_t size = 0;
  std::uint64_t allocated = 0;
  std::uint64_t private_bytes = 0;
  std::vector<std::uint64_t> nodes;

  void Add(std::uint64_t node, std::uint64_t bytes) {
    if (nodes.size() <= node) nodes.resize(node + 1);
    nodes[node] += bytes;
    allocated += bytes;
  }
  void Add(const Use& other) {
    size += other.size;
    private_bytes += other.private_bytes;
    for (std::size_t node = 0; node < other.nodes.size(); ++node)
      if (other.nodes[node] > 0) Add(node, other.nodes[node]);
  }
  Json ToJson() const {
    return {{"size", size}, {"allocated", allocated}, {"private", private_bytes}, {"nodes", nodes}};
  }
};

// Of a part of a block. Counts follow the ranges, not the pages.
std::uint64_t PrivateBytes(const RamBlock& block, std::uint64_t offset, std::uint64_t size) {
  if (block.conversion() == nullptr) return 0;
  std::uint64_t pages = 0;
  for (const PageAttributes::Range& range :
       block.conversion()->attributes().Ranges(offset / kPageSize, size / kPageSize)) {
    if (range.attribute == MemoryAttribute::kPrivate) pages += range.count;
  }
  return pages * kPageSize;
}

class Mapper {
 public:
  Mapper(std::uint64_t cell_size, std::uint64_t pages_of_cell)
      : cell_size_(cell_size), pages_of_cell_(pages_of_cell) {}

  Status Add(const AddressSpace::Region& region) {
    const std::uint64_t end = region.base.value() + region.size;
    for (std::uint64_t at = region.base.value(); at < end;) {
      // Cells begin at multiples of their size, apart from the first of a region.
      const std::uint64_t next = std::min(AlignDown(at, cell_size_) + cell_size_, end);
      HF_TRY(const Use use,
             Look(*region.block, region.block_offset + (at - region.base.value()), next - at));
      Json cell = use.ToJson();
      cell["gpa"] = at;
      cells_.push_back(std::move(cell));
      backends_[region.block->id()].Add(use);
      at = next;
    }
    return {};
  }

  Json Take(std::uint64_t size) && {
    Json backends = Json::array();
    for (const auto& [id, use] : backends_) {
      Json backend = use.ToJson();
      backend["id"] = id;
      backends.push_back(std::move(backend));
    }
    return {{"size", size},
            {"cell-size", cell_size_},
            {"sampled", sampled_},
            {"cells", std::move(cells_)},
            {"backends", std::move(backends)}};
  }

 private:
  // Adds the pages of one run to `found`, by node.
  Status LookAt(const RamBlock& block, std::uint64_t offset, std::uint64_t pages, Use& found) {
    nodes_.resize(pages);
    HF_TRY_STATUS(QueryPageNodes(block, offset, nodes_));
    for (const std::int16_t node : nodes_)
      if (node >= 0) found.Add(static_cast<std::uint64_t>(node), kPageSize);
    return {};
  }

  Result<Use> Look(const RamBlock& block, std::uint64_t offset, std::uint64_t size) {
    Use use;
    use.size = size;
    use.private_bytes = PrivateBytes(block, offset, size);
    const std::uint64_t pages = size / kPageSize;
    if (pages <= pages_of_cell_) {
      HF_TRY_STATUS(LookAt(block, offset, pages, use));
      return use;
    }
    sampled_ = true;
    const std::uint64_t runs =
        std::clamp<std::uint64_t>(pages_of_cell_ / kShortestRun, 1, kRunsOfCell);
    const std::uint64_t length = std::max<std::uint64_t>(1, pages_of_cell_ / runs);
    Use seen;
    for (std::uint64_t run = 0; run < runs; ++run) {
      // In the middle of its part of the cell.
      const std::uint64_t part = pages / runs;
      const std::uint64_t first = run * part + (part - length) / 2;
      HF_TRY_STATUS(LookAt(block, offset + first * kPageSize, length, seen));
    }
    // Page counts below 2^52 / 2^12: the product does not wrap, and no cell gets more than it has.
    for (std::size_t node = 0; node < seen.nodes.size(); ++node)
      if (seen.nodes[node] > 0)
        use.Add(node, seen.nodes[node] / kPageSize * pages / (runs * length) * kPageSize);
    return use;
  }

  std::uint64_t cell_size_;
  std::uint64_t pages_of_cell_;
  bool sampled_ = false;
  std::vector<std::int16_t> nodes_;
  Json cells_ = Json::array();
  std::map<std::string, Use> backends_;
};

QmpResult QueryMemoryMap(VmContext& vm, const Json& arguments) {
  const std::int64_t cells = arguments.value("cells", static_cast<std::int64_t>(kUsualCells));
  if (cells < 1 || cells > static_cast<std::int64_t>(kMostMapCells)) {
    return QmpFail("Parameter 'cells' expects a number from 1 to 65536");
  }
  HF_QMP_TRY(Json map, MapMemory(vm.machine().memory(), static_cast<std::uint64_t>(cells)));
  return map;
}

}  // namespace

std::uint64_t MapCellSize(std::uint64_t ram_size, std::uint64_t cells) {
  return std::max(kPageSize, std::bit_ceil(ram_size / cells + (ram_size % cells != 0 ? 1 : 0)));
}

Result<Json> MapMemory(const AddressSpace& memory, std::uint64_t cells, std::uint64_t most_pages) {
  const std::uint64_t cell_size = MapCellSize(memory.total_size(), cells);
  const std::uint64_t count = std::max<std::uint64_t>(1, memory.total_size() / cell_size);
  const bool all = memory.total_size() / kPageSize <= most_pages;
  Mapper mapper(cell_size,
                all ? cell_size / kPageSize : std::max<std::uint64_t>(1, most_pages / count));
  for (const AddressSpace::Region& region : memory.regions()) HF_TRY_STATUS(mapper.Add(region));
  return std::move(mapper).Take(memory.total_size());
}

void DefineMemoryMapCommand(Schema& schema) {
  schema.Struct("HoldfastMemoryCell", {{"gpa", "size"},
                                       {"size", "size"},
                                       {"allocated", "size"},
                                       {"private", "size"},
                                       {"nodes", "[size]"}});
  schema.Struct("HoldfastMemoryBackend", {{"id", "str"},
                                          {"size", "size"},
                                          {"allocated", "size"},
                                          {"private", "size"},
                                          {"nodes", "[size]"}});
  schema.Struct("HoldfastMemoryMap", {{"size", "size"},
                                      {"cell-size", "size"},
                                      {"sampled", "bool"},
                                      {"cells", "[HoldfastMemoryCell]"},
                                      {"backends", "[HoldfastMemoryBackend]"}});
  schema.Struct("HoldfastQueryMemoryMapArguments", {{"cells?", "int"}});
  schema.AddCommand("holdfast-query-memory-map", {.arguments = "HoldfastQueryMemoryMapArguments",
                                                  .result = "HoldfastMemoryMap",
                                                  .run = QueryMemoryMap});
}

}  // namespace holdfast::control
