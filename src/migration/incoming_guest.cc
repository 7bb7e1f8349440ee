// SPDX-License-Identifier: Apache-2.0
// What Incoming does with the guest on the main thread: compares what comes with what is here,
// loads it, lets its memory come, and lets it run.
#include <fmt/format.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "migration/incoming.h"

namespace holdfast::migration {

Status Incoming::Check() const {
  const auto mine = missing_.blocks();
  constexpr std::string_view kRemedy = "Start the machine with the options that the other one has.";
  if (!config_.uuid.empty() && config_.uuid != request_.uuid) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the machine that comes has the UUID {} and this one {}", config_.uuid,
                            request_.uuid.empty() ? "none" : request_.uuid),
                "Give both the same -uuid, or turn the capability validate-uuid off.");
  }
  for (std::size_t i = 0; i < std::max(mine.size(), config_.blocks.size()); ++i) {
    if (i >= mine.size() || i >= config_.blocks.size() ||
        mine[i].block->id() != config_.blocks[i].id) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("memory {} of the machine that comes is '{}' and of this one '{}'", i,
                              i < config_.blocks.size() ? config_.blocks[i].id : "none",
                              i < mine.size() ? mine[i].block->id() : "none"),
                  std::string(kRemedy));
    }
    if (mine[i].block->size() == config_.blocks[i].size) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("the memory '{}' of the machine that comes has {} and that of this one "
                            "{}",
                            config_.blocks[i].id, FormatSize(config_.blocks[i].size),
                            FormatSize(mine[i].block->size())),
                std::string(kRemedy));
  }
  return subject_.machine.CheckState(config_.sections);
}

Status Incoming::Load(std::span<const state::SavedSection> sections) {
  return subject_.machine.LoadState(sections);
}

Status Incoming::TakeDisks() {
  if (subject_.activate_disks) HF_TRY_STATUS(subject_.activate_disks());
  disks_taken_ = true;
  return {};
}

Status Incoming::RunGuest() {
  HF_TRY_STATUS(events_.arrived());
  runs_ = true;
  return {};
}

Status Incoming::StartPopulation() {
  auto pages = std::make_unique<PeerPages>(
      missing_, [this](const FrameWriter& writer, const Error& error) { Lost(writer, error); });
  peer_ = pages.get();
  const auto connection = main_connection();
  HF_TRY_STATUS(peer_->Attach({connection, &connection->writer}));
  LazyPopulation::Options options;
  constexpr std::uint64_t kChunk = 64 * kKiB;
  options.chunk = kChunk;
  options.background_speed = config_.postcopy_bandwidth;
  options.missing = &peer_->missing();
  LazyRestore::Events events;
  // The population stays until the connections' threads have ended, which know its source.
  events.done = [this] {
    {
      const MutexLock lock(mutex_);
      complete_ = true;
      changed_.notify_all();
    }
    (void)::eventfd_write(wake_.get(), 1);
  };
  events.failed = [](const std::string&, std::uint64_t, const Error& error) { log::Error(error); };
  auto started =
      LazyRestore::Start(subject_, std::move(pages), std::move(options), std::move(events));
  if (!started) {
    peer_ = nullptr;  // it went with the source
    return Fail(std::move(started).error());
  }
  population_ = *std::move(started);
  return {};
}

}  // namespace holdfast::migration
