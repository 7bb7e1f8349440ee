// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/mapping.h>
#include <holdfast/numa_policy.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace holdfast {
namespace {

// So much is looked at in one go: it bounds the page tables and tables of ours that asking costs.
constexpr std::uint64_t kWindow = 32 * kMiB;

// A page that may exist and whose node is still to be found.
constexpr std::int16_t kNotAsked = -2;

// The one node of a host that has no more, where nobody needs to be asked.
std::optional<std::int16_t> OnlyNode() {
  std::ifstream file("/sys/devices/system/node/has_memory");
  std::int16_t node = 0;
  std::string rest;
  if (file >> node && !(file >> rest)) return node;  // "0", not "0-1" or "0,2"
  return std::nullopt;
}

// Asks move_pages, which moves nothing when it is given no nodes, for the pages of `view` whose
// node is not known yet. It sees only what this process has in its page tables.
Status AskForNodes(std::byte* view, std::span<std::int16_t> nodes) {
  std::vector<void*> addresses;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i] == kNotAsked) addresses.push_back(view + i * kPageSize);
  }
  if (addresses.empty()) return {};
  std::vector<int> answers(addresses.size());
  if (::syscall(SYS_move_pages, 0, addresses.size(), addresses.data(), nullptr, answers.data(), 0) <
      0) {
    return FailErrno("asking for the nodes of guest memory (move_pages)");
  }
  auto answer = answers.begin();
  for (std::int16_t& node : nodes) {
    if (node != kNotAsked) continue;
    if (*answer >= 0) node = static_cast<std::int16_t>(*answer);
    ++answer;
  }
  return {};
}

// The same for pages that exist but are not in the page tables of `block`'s mappings, because a
// guest in a bound memslot or another process has them: a mapping for the purpose gets them there.
Status AskThroughWindow(const RamBlock& block, std::uint64_t offset,
                        std::span<std::int16_t> nodes) {
  HF_TRY(const Mapping window,
         Mapping::MapFile(block.fd(), block.fd_offset() + offset, nodes.size() * kPageSize,
                          PROT_READ, "'" + block.id() + "' to look at it"));
  for (auto run = std::ranges::find(nodes, kNotAsked); run != nodes.end();) {
    const auto end =
        std::find_if(run, nodes.end(), [](std::int16_t node) { return node != kNotAsked; });
    // A page that has meanwhile become private, or gone, is one that is not counted.
    (void)::madvise(window.data() + static_cast<std::size_t>(run - nodes.begin()) * kPageSize,
                    static_cast<std::size_t>(end - run) * kPageSize, MADV_POPULATE_READ);
    run = std::find(end, nodes.end(), kNotAsked);
  }
  return AskForNodes(window.data(), nodes);
}

Status QueryWindow(const RamBlock& block, std::uint64_t offset, std::span<std::int16_t> nodes) {
  const std::span<std::byte> view = block.guest_view().subspan(offset, nodes.size() * kPageSize);
  // The pages of anonymous memory and of huge pages are all in the page tables of the one mapping
  // they have, and mincore knows nothing beyond that. Those of a shared file need not be.
  const bool file =
      block.fd() >= 0 && block.shared() && block.page_size() == kPageSize && !block.readonly();
  std::ranges::fill(nodes, kNotAsked);
  if (file) {
    std::vector<unsigned char> present(nodes.size());
    if (::mincore(view.data(), view.size(), present.data()) != 0)
      return FailErrno("asking which guest memory is there (mincore)");
    const auto only = OnlyNode();
    for (std::size_t i = 0; i < nodes.size(); ++i)
      nodes[i] = (present[i] & 1U) == 0 ? kNoNode : only.value_or(kNotAsked);
  }
  HF_TRY_STATUS(AskForNodes(view.data(), nodes));
  if (file && std::ranges::find(nodes, kNotAsked) != nodes.end())
    HF_TRY_STATUS(AskThroughWindow(block, offset, nodes));
  std::ranges::replace(nodes, kNotAsked, kNoNode);
  return {};
}

}  // namespace

Status QueryPageNodes(const RamBlock& block, std::uint64_t offset, std::span<std::int16_t> nodes) {
  const auto length = CheckedMul(nodes.size(), kPageSize);
  if (!IsPageAligned(offset) || !length || !RangeFits(offset, *length, block.size())) {
    return Fail(Errc::kInvalidArgument, fmt::format("{} pages at {:#x} are not inside '{}'",
                                                    nodes.size(), offset, block.id()));
  }
  constexpr std::size_t kPages = kWindow / kPageSize;
  while (!nodes.empty()) {
    const std::size_t pages = std::min(nodes.size(), kPages);
    HF_TRY_STATUS(QueryWindow(block, offset, nodes.first(pages)));
    nodes = nodes.subspan(pages);
    offset += pages * kPageSize;
  }
  return {};
}

Result<Placement> QueryPlacement(const RamBlock& block) {
  Placement placement;
  std::vector<std::int16_t> nodes;
  for (std::uint64_t offset = 0; offset < block.size(); offset += kWindow) {
    nodes.resize(std::min(kWindow, block.size() - offset) / kPageSize);
    HF_TRY_STATUS(QueryPageNodes(block, offset, nodes));
    for (const std::int16_t node : nodes) {
      if (node == kNoNode) continue;
      placement.allocated += kPageSize;
      placement.nodes[static_cast<std::uint64_t>(node)] += kPageSize;
    }
  }
  return placement;
}

}  // namespace holdfast
