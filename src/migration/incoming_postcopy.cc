// SPDX-License-Identifier: Apache-2.0
// The part of Incoming for a guest that runs here already: its connections may be lost, and come
// back. None of that needs the main thread, which may be one of those that wait for memory.
#include <fmt/format.h>
#include <sys/eventfd.h>

#include <utility>

#include "base/log.h"
#include "migration/incoming.h"
#include "migration/patience.h"

namespace holdfast::migration {

// ---- What the main thread asks ------------------------------------------------------------------

Status Incoming::Pause() {
  {
    const MutexLock lock(mutex_);
    if (!runs_ || !CanPause(status_)) return Fail(NotInPostcopy());
    if (!error_) error_ = PausedByUser();
    changed_.notify_all();
  }
  (void)::eventfd_write(wake_.get(), 1);
  ShutChannels();
  return {};
}

Status Incoming::Recover(const Address& from) {
  if (status_ != MigrationStatus::kPostcopyPaused) {
    return Fail(Errc::kInvalidArgument, "Migrate recover can only be run when postcopy is paused.");
  }
  const bool many =
      std::holds_alternative<TcpAddress>(from) || std::holds_alternative<UnixAddress>(from);
  if (std::holds_alternative<FileAddress>(from)) {
    return Fail(Errc::kUnsupported, fmt::format("'{}' cannot be waited for", Describe(from)),
                "Use tcp: or unix:.");
  }
  if (!many && config_.urgent_channel) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("'{}' is one connection, and postcopy-preempt needs two", Describe(from)),
        "Use tcp: or unix:.");
  }
  // There it listens all the time.
  if (many && from == address_) return {};
  HF_TRY(auto listener, Listener::Listen(from, request_.services));
  address_ = listener->address();
  {
    const MutexLock lock(mutex_);
    next_listener_ = std::move(listener);
  }
  (void)::eventfd_write(wake_.get(), 1);
  return {};
}

// ---- On the migration's thread ------------------------------------------------------------------

Status Incoming::AwaitMemory() {
  while (true) {
    {
      const MutexLock lock(mutex_);
      while (!complete_ && !error_) changed_.wait(mutex_);
      if (complete_) break;
    }
    bool serves = false;
    while (!serves) {
      if (stop_.stop_requested()) return Fail(MonitorEnds());
      LetGo();
      const Status again = TakeUpAgain();
      serves = again.has_value();
      if (serves) continue;
      const MutexLock lock(mutex_);
      if (complete_) return {};
      if (!error_) error_ = again.error();
    }
  }
  // The guest has what it needs, whether the source hears of it or not.
  (void)connection_->writer.Write(FrameType::kComplete);
  return {};
}

// The connections are of no use any more.
void Incoming::LetGo() {
  EndThreads();
  peer_->Detach();
  connection_ = nullptr;
  urgent_ = nullptr;
  const MutexLock lock(mutex_);
  connections_.clear();
  controls_.clear();
  why_paused_ = std::exchange(error_, std::nullopt);
  log::Warn(fmt::format("the migration is paused, and pages of the guest wait: {}",
                        why_paused_ ? why_paused_->ToString() : "it has no connection"));
  SetStatus(MigrationStatus::kPostcopyPaused);
}

// Waits for the source to come back.
Status Incoming::TakeUpAgain() {
  HF_TRY(connection_, Next(kNoLimit));
  SetStatus(MigrationStatus::kPostcopyRecover);
  const Hello hello{.kind = ChannelKind::kRecover, .id = id_, .index = connection_->hello.index};
  HF_TRY_STATUS(connection_->channel->WriteAll(EncodeHello(hello)));
  HF_TRY_STATUS(StartThread(&Incoming::TakeAnswers, *connection_));
  if (config_.urgent_channel) {
    HF_TRY(urgent_, Next(kPatience));
    HF_TRY_STATUS(StartThread(&Incoming::TakeAnswers, *urgent_));
  }
  const auto now = population_->progress();
  HF_TRY_STATUS(
      connection_->writer.Write(FrameType::kResumed, EncodeNumber(now.total - now.populated)));
  const auto connection = main_connection();
  HF_TRY_STATUS(peer_->Attach({connection, &connection->writer}));
  SetStatus(MigrationStatus::kPostcopyActive);
  return {};
}

// A request could not be sent. Whoever sent it may be late, and the connection one of before.
void Incoming::Lost(const FrameWriter& writer, const Error& error) {
  {
    const MutexLock lock(mutex_);
    if (connections_.empty() || &connections_.front()->writer != &writer) return;
    if (!error_ && !ended_) error_ = error;
    changed_.notify_all();
  }
  (void)::eventfd_write(wake_.get(), 1);
  ShutChannels();
}

}  // namespace holdfast::migration
