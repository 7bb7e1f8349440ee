// SPDX-License-Identifier: Apache-2.0
#include "object/memory_backend.h"

#include <fmt/format.h>
#include <holdfast/units.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "base/trace.h"
#include "memory/free_memory.h"
#include "memory/populate.h"
#include "object/backend_properties.h"

namespace holdfast::object {
namespace {

// More threads than this only get into each other's way.
constexpr std::uint64_t kMostThreads = 64;

std::string NodeList(const std::vector<std::uint64_t>& nodes) {
  return fmt::format("host node{} {}", nodes.size() > 1 ? "s" : "", fmt::join(nodes, ", "));
}

std::string_view PolicyName(NumaMode mode) {
  return kNumaModeWords[static_cast<std::size_t>(mode)];
}

// Where the pages of a block come from, as far as looking for free memory is concerned.
enum class Source : std::uint8_t { kMemory, kHugePages, kDisk };

Source SourceOf(const RamBlock& block) {
  if (block.page_size() != kPageSize) return Source::kHugePages;
  if (block.guest_memfd() != nullptr || block.fd() < 0 || !block.shared()) return Source::kMemory;
  struct statfs info{};
  const bool tmpfs = ::fstatfs(block.fd(), &info) == 0 && info.f_type == TMPFS_MAGIC;
  return tmpfs ? Source::kMemory : Source::kDisk;
}

// What a file on tmpfs already has needs no new memory.
std::uint64_t AllocatedInFile(const RamBlock& block) {
  struct stat info{};
  if (block.fd() < 0 || !block.shared() || ::fstat(block.fd(), &info) != 0) return 0;
  return static_cast<std::uint64_t>(info.st_blocks) * 512;
}

Error OutOfMemory(const RamBlock& block, const NumaPolicy& policy) {
  const FreeMemory free = FindFreeMemory(policy, block.guest_memfd() == nullptr);
  return Error(Errc::kExhausted,
               fmt::format("qemu_prealloc_mem: preallocating memory failed: Cannot allocate "
                           "memory: '{}' needs {} of {}, which has {} free",
                           block.id(), FormatSize(block.size()), free.where,
                           FormatSize(AlignDown(free.bytes, kPageSize))),
               "Make the memory smaller, free some, or leave prealloc out.", ENOMEM);
}

// Whether the memory is there to be had. The kernel would not say no but end some process, so it
// is asked before. Huge pages and files are refused by the kernel itself.
Status CheckFreeMemory(const RamBlock& block, const NumaPolicy& policy) {
  if (SourceOf(block) != Source::kMemory) return {};
  const std::uint64_t there = AllocatedInFile(block);
  const std::uint64_t needed = block.size() > there ? block.size() - there : 0;
  const FreeMemory free = FindFreeMemory(policy, block.guest_memfd() == nullptr);
  if (needed <= free.bytes) return {};
  return Fail(OutOfMemory(block, policy));
}

}  // namespace

Status MemoryBackend::Complete() {
  if (!settings_.size) {
    return Fail(Errc::kInvalidArgument, "Parameter 'size' is missing",
                "Say how large the memory is, for example size=2G.");
  }
  if (settings_.prealloc && !settings_.reserve) {
    return Fail(Errc::kInvalidArgument, "'prealloc=on' and 'reserve=off' are incompatible",
                "Leave one of the two out.");
  }
  const bool has_nodes = !settings_.host_nodes.empty();
  if (has_nodes && settings_.policy == NumaMode::kDefault) {
    return Fail(Errc::kInvalidArgument,
                "host-nodes must be empty for policy default, or you should explicitly specify a "
                "policy other than default",
                "Add policy=bind, policy=preferred or policy=interleave.");
  }
  if (!has_nodes && settings_.policy != NumaMode::kDefault) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("host-nodes must be set for policy {}", PolicyName(settings_.policy)),
                "Name the host's NUMA nodes, for example host-nodes=0-1.");
  }
  return Check();
}

Status MemoryBackend::Allocate(kvm::Vm& vm, const AllocateOptions& options) {
  if (block_ != nullptr) return {};
  UniqueFd inherited = options.inherited ? options.inherited(id()) : UniqueFd();
  const bool adopted = static_cast<bool>(inherited);
  HF_TRY(std::unique_ptr<RamBlock> block,
         adopted ? Adopt(std::move(inherited)) : CreateRamBlock(vm, options.conversion));
  HF_TRY_STATUS(SetPolicy(*block));
  const bool merge = settings_.merge.value_or(options.merge);
  const bool dump = settings_.dump.value_or(options.dump);
  block->SetMergeable(merge);
  HF_TRY_STATUS(block->SetDumped(dump));
  // What is inherited is there already, and a look at all of it would take its time.
  if (settings_.prealloc && !adopted) HF_TRY_STATUS(Preallocate(*block, options));
  settings_.merge = merge;
  settings_.dump = dump;
  if (!settings_.prealloc_threads) settings_.prealloc_threads = options.prealloc_threads;
  block_ = std::move(block);
  HF_TRACE(memory_backend_create, id(), type().name, size(), block_->fd());
  return {};
}

Result<std::unique_ptr<RamBlock>> MemoryBackend::Adopt(UniqueFd fd) const {
  const Adoption wanted = adoption();
  const bool is_guest_memfd = kvm::GuestMemfd::Is(fd.get());
  if (!share() || wanted.guest_memfd.value_or(is_guest_memfd) != is_guest_memfd) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the guest's memory '{}' is a {}, which {} '{}' cannot be", id(),
                            is_guest_memfd ? "guest_memfd" : "shared file", type().name, id()),
                "Describe the memory as the monitor did that had the guest before.");
  }
  struct stat info{};
  struct statfs system{};
  if (::fstat(fd.get(), &info) != 0 || ::fstatfs(fd.get(), &system) != 0) {
    return FailErrno(fmt::format("looking at the memory '{}'", id()));
  }
  const auto have = static_cast<std::uint64_t>(info.st_size);
  const auto end = CheckedAdd(wanted.offset, wanted.size);
  if (!end || (is_guest_memfd || wanted.offset == 0 ? have != *end : have < *end)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the guest's memory '{}' has {}, not {}", id(), FormatSize(have),
                            FormatSize(wanted.size)),
                "Give it the size that it had.");
  }
  if (is_guest_memfd) {
    if (wanted.bind == Bind::kOn) {
      return Fail(Errc::kUnsupported,
                  fmt::format("bind=on of '{}' cannot be had for memory that another monitor made: "
                              "a guest_memfd is bound to the VM it was made in",
                              id()),
                  "Leave bind=on out.");
    }
    return RamBlock::AdoptGuestMemfd(id(), std::move(fd), wanted.size);
  }
  const bool huge = system.f_type == HUGETLBFS_MAGIC;
  const std::uint64_t page = huge ? static_cast<std::uint64_t>(info.st_blksize) : kPageSize;
  return RamBlock::CreateFromFd(id(), std::move(fd), wanted.offset, wanted.size, page,
                                {.readonly = wanted.readonly,
                                 .reserve = settings_.reserve,
                                 .alignment = std::max(wanted.alignment, page)});
}

Status MemoryBackend::SetPolicy(const RamBlock& block) const {
  if (settings_.policy == NumaMode::kDefault) return {};
  if (Status status = SetNumaPolicy(block.guest_view(), numa_policy()); !status) {
    return Fail(Error::FromErrno("cannot bind memory to host NUMA nodes", status.error().os_errno())
                    .WithHint(fmt::format(
                        "'{}' names {}; /sys/devices/system/node/has_memory lists those that "
                        "this host has.",
                        id(), NodeList(settings_.host_nodes))));
  }
  return {};
}

Status MemoryBackend::Preallocate(const RamBlock& block, const AllocateOptions& options) const {
  const NumaPolicy policy = numa_policy();
  HF_TRY_STATUS(CheckFreeMemory(block, policy));
  PopulateOptions how{
      .threads = static_cast<unsigned>(std::clamp<std::uint64_t>(
          settings_.prealloc_threads.value_or(options.prealloc_threads), 1, kMostThreads)),
      .page_size = block.page_size(),
      // Counts only where the memory has no policy of its own, as guest_memfd before Linux 6.19.
      .thread_policy = policy,
      .write = !block.readonly(),
  };
  if (options.progress) {
    how.progress = [&](std::uint64_t done) {
      return options.progress({.id = id(), .done = done, .total = block.size()});
    };
  }
  if (Status status = Populate(block.guest_view(), how); !status) {
    const int error = status.error().os_errno();
    if (error == EINTR) {
      return Fail(Error(Errc::kSystem, fmt::format("interrupted while preallocating '{}'", id()),
                        {}, EINTR));
    }
    if (error == ENOMEM) return Fail(OutOfMemory(block, policy));
    return Fail(
        Error::FromErrno("qemu_prealloc_mem: preallocating memory failed", error)
            .WithHint(fmt::format("'{}' needs {} in pages of {}.", id(), FormatSize(block.size()),
                                  FormatSize(block.page_size()))));
  }
  return policy.mode == NumaMode::kDefault ? Status{} : CheckPlacement(block);
}

// The kernel is asked where each page came to lie. Only bind is a promise: the other policies let
// the kernel take other nodes when theirs are full. So does a file that was in the page cache.
Status MemoryBackend::CheckPlacement(const RamBlock& block) const {
  HF_TRY(const Placement placement, QueryPlacement(block));
  const auto asked_for = [&](std::uint64_t node) {
    return std::ranges::find(settings_.host_nodes, node) != settings_.host_nodes.end();
  };
  for (const auto& [node, bytes] : placement.nodes) {
    if (asked_for(node)) continue;
    std::string message = fmt::format(
        "{} of '{}' lie on host node {}, not on {} as policy={} asks for", FormatSize(bytes), id(),
        node, NodeList(settings_.host_nodes), PolicyName(settings_.policy));
    if (settings_.policy == NumaMode::kBind && SourceOf(block) != Source::kDisk) {
      return Fail(Errc::kSystem, std::move(message),
                  "The node may have been full: make the memory smaller or name more nodes.");
    }
    log::Warn(message);
  }
  if (settings_.policy != NumaMode::kInterleave) return {};
  // An even share, give or take what page tables and other threads took out of turn.
  const std::uint64_t share = block.size() / settings_.host_nodes.size();
  for (const std::uint64_t node : settings_.host_nodes) {
    const auto found = placement.nodes.find(node);
    const std::uint64_t bytes = found == placement.nodes.end() ? 0 : found->second;
    if (bytes + share / 8 + block.page_size() < share) {
      log::Warn(
          fmt::format("only {} of '{}' lie on host node {}, {} would be its share of "
                      "policy=interleave",
                      FormatSize(bytes), id(), node, FormatSize(share)));
    }
  }
  return {};
}

Result<std::unique_ptr<RamBlock>> MemoryBackend::CreateGuestMemfd(kvm::Vm& vm, Bind bind,
                                                                  Conversion conversion) const {
  if (conversion && bind == Bind::kOff) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("bind=off of '{}' and confidential-guest-support exclude each other: "
                            "private pages are reached only through a bound memslot",
                            id()),
                "Leave bind=off out.");
  }
  auto block = conversion == ConversionEngineKind::kAttributes
                   ? RamBlock::CreateTwoLayer(vm, id(), size())
                   : RamBlock::CreateGuestMemfd(vm, id(), size(), conversion || bind == Bind::kOn);
  if (block && conversion) HF_TRY_STATUS((*block)->EnableConversion(vm, *conversion));
  if (!block && block.error().os_errno() == ENOMEM) {
    return Fail(Error::FromErrno(fmt::format("cannot set up guest memory '{}'", id()), ENOMEM)
                    .WithHint("Make it smaller: it is mapped twice."));
  }
  if (!block || settings_.policy == NumaMode::kDefault || settings_.prealloc) return block;
  HF_TRY(const bool takes_policy, GuestMemfdTakesPolicy(vm));
  if (takes_policy) return block;
  return Fail(Errc::kUnsupported,
              fmt::format("policy={} of '{}' has no effect on guest_memfd with this kernel",
                          PolicyName(settings_.policy), id()),
              "Run Linux 6.19 or later, which places guest_memfd's pages by policy, or add "
              "prealloc=on, which places them while they are allocated.");
}

Status MemoryBackend::CanDelete() const {
  if (!mapped_) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("Cannot delete host memory backend '{}' which is mapped", id()),
              "The guest uses this memory as long as it runs.");
}

Status MemoryBackend::MayChange(const PropertyInfo& property, const PropertyValue& value) const {
  if (block_ == nullptr || property.name == "merge" || property.name == "dump") return {};
  // What cannot be read cannot be compared, and is not to be changed either.
  if (const auto now = Get(property.name); now && *now == value) return {};
  // QEMU's sentence about the size ends in a blank.
  const char* const hint = "The memory is there already; make another object.";
  if (property.name != "size")
    return Fail(Errc::kInvalidArgument, "cannot change property value", hint);
  return Fail(Errc::kInvalidArgument,
              fmt::format("cannot change property size of {} ", type().name), hint);
}

Status MemoryBackend::Changed(const PropertyInfo& property) {
  if (block_ == nullptr) return {};
  if (property.name == "merge") block_->SetMergeable(settings_.merge.value_or(true));
  return property.name == "dump" ? block_->SetDumped(settings_.dump.value_or(true)) : Status{};
}

}  // namespace holdfast::object
