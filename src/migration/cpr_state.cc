// SPDX-License-Identifier: Apache-2.0
#include "migration/cpr_state.h"

#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <utility>

#include "base/hash.h"

namespace holdfast::migration {
namespace {

constexpr std::array<char, 8> kMagic = {'H', 'F', 'U', 'P', 'G', 'R', 'D', '\n'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kContentsVersion = 1;
// As little as a field of no length has, whatever it says.
constexpr std::uint64_t kLeastContents = 4;

struct RawHead {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t contents_version;
  std::uint64_t size;
  std::uint64_t hash;
  std::uint64_t zero;
};
static_assert(sizeof(RawHead) == CprHead::kSize);

void Visit(state::Fields& fields, CprState& state) {
  fields.Text("creator", state.creator, kMostCprName);
  fields.Value("stopped-at", state.stopped_at);
  fields.List("fds", state.fds, kMostCprFds, [](state::Fields& each, CprFd& fd) {
    each.Text("name", fd.name, kMostCprName);
    each.Value("number", fd.number);
  });
  fields.List("sections", state.sections, kMostCprSections,
              [](state::Fields& each, state::SavedSection& section) {
                each.Text("name", section.name, kMostCprName);
                each.Value("version", section.version);
                each.Blob("bytes", section.bytes, kMostCprBytes);
              });
}

Error Stays(const RamBlock& block, std::string_view why, std::string_view remedy) {
  return {Errc::kUnsupported,
          fmt::format("the memory '{}' cannot pass to another monitor: {}", block.id(), why),
          std::string(remedy)};
}

Status CheckBlock(const RamBlock& block) {
  if (block.conversion() != nullptr) {
    return Fail(Stays(block, "parts of it are the guest's alone",
                      "A confidential guest has to be shut down and started again."));
  }
  if (block.bound()) {
    return Fail(Stays(block, "with bind=on a guest_memfd belongs to the VM it was made in",
                      "Use bind=off or bind=auto."));
  }
  if (block.fd() < 0 || !block.shared()) {
    return Fail(Stays(block, "it is this process's own",
                      "Use memory-backend-guest-memfd, memory-backend-memfd, or share=on."));
  }
  return {};
}

}  // namespace

Result<CprHead> DecodeCprHead(std::span<const std::byte> bytes) {
  RawHead raw{};
  if (bytes.size() < sizeof raw) {
    return Fail(Errc::kMalformed, "the state of the other monitor is cut short");
  }
  std::memcpy(&raw, bytes.data(), sizeof raw);
  if (raw.magic != kMagic || raw.zero != 0) {
    return Fail(Errc::kMalformed, "this is not the state of a monitor that hands its guest over");
  }
  if (raw.version != kVersion || raw.contents_version != kContentsVersion) {
    return Fail(Errc::kUnsupported,
                fmt::format("the other monitor hands its guest over in version {}.{}, and this one "
                            "takes {}.{}",
                            raw.version, raw.contents_version, kVersion, kContentsVersion),
                "Go by way of a snapshot or a migration.");
  }
  if (raw.size < kLeastContents || raw.size > kMostCprBytes) {
    return Fail(Errc::kMalformed,
                fmt::format("the state of the other monitor cannot have {} bytes", raw.size));
  }
  return CprHead{.size = raw.size, .hash = raw.hash};
}

std::vector<std::byte> EncodeCprState(CprState state) {
  state::Fields fields(kContentsVersion);
  Visit(fields, state);
  const std::vector<std::byte> contents = std::move(fields).Take();
  const RawHead raw{.magic = kMagic,
                    .version = kVersion,
                    .contents_version = kContentsVersion,
                    .size = contents.size(),
                    .hash = Hash64(contents),
                    .zero = 0};
  const auto head = std::as_bytes(std::span(&raw, 1));
  std::vector<std::byte> all(head.size() + contents.size());
  std::ranges::copy(contents, std::ranges::copy(head, all.begin()).out);
  return all;
}

Result<CprState> DecodeCprState(const CprHead& head, std::span<const std::byte> contents) {
  if (contents.size() != head.size || Hash64(contents) != head.hash) {
    return Fail(Errc::kMalformed, "the state of the other monitor is damaged");
  }
  CprState state;
  state::Fields fields(kContentsVersion, contents);
  Visit(fields, state);
  if (Status good = fields.status(); !good) {
    return Fail(std::move(good).error().Wrap("the state of the other monitor"));
  }
  return state;
}

Status CheckCpr(const Subject& subject) {
  if (subject.machine.converter() != nullptr) {
    return Fail(Errc::kUnsupported,
                "a confidential guest cannot pass to another monitor: its private memory belongs "
                "to the VM it was made in",
                "Shut it down and start it again.");
  }
  for (const AddressSpace::Region& region : subject.memory.regions()) {
    HF_TRY_STATUS(CheckBlock(*region.block));
  }
  return subject.may_hand_over ? subject.may_hand_over() : Status{};
}

std::vector<KeptFd> KeptFds(const Subject& subject) {
  std::vector<KeptFd> kept;
  for (const AddressSpace::Region& region : subject.memory.regions()) {
    std::string name = "ram/" + region.block->id();
    const auto same = [&](const KeptFd& each) { return each.name == name; };
    if (std::ranges::any_of(kept, same)) continue;
    kept.push_back({std::move(name), region.block->fd()});
  }
  if (subject.kept_fds) {
    for (KeptFd& each : subject.kept_fds()) kept.push_back(std::move(each));
  }
  return kept;
}

std::uint64_t CprClock() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace holdfast::migration
