// SPDX-License-Identifier: Apache-2.0
// The part of Outgoing for a guest that runs at the other side before all of its memory is there.
// This side only answers: the other one knows what it has, and asks again for what was on its way
// when a connection was lost.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "migration/outgoing.h"
#include "migration/patience.h"

namespace holdfast::migration {

// ---- What the main thread asks ------------------------------------------------------------------

Status Outgoing::StartPostcopy() {
  if (!Is(Capability::kPostcopyRam)) {
    return Fail(Errc::kInvalidArgument,
                "Enable postcopy with migrate_set_capability before the start of migration");
  }
  const MutexLock lock(mutex_);
  postcopy_wanted_ = true;
  if (interruptible_ != nullptr) interruptible_->Interrupt();
  return {};
}

Status Outgoing::Pause() {
  {
    const MutexLock lock(mutex_);
    if (!CanPause(status_)) return Fail(NotInPostcopy());
    if (!lost_) lost_ = PausedByUser();
    (void)stop_.request_stop();
  }
  ShutChannels();
  return {};
}

Status Outgoing::Resume(const Address& to, AddressServices services) {
  const MutexLock lock(mutex_);
  if (status_ != MigrationStatus::kPostcopyPaused)
    return Fail(Errc::kInvalidArgument, "Cannot resume if there is no paused migration");
  const bool one = std::holds_alternative<FdAddress>(to) || std::holds_alternative<ExecAddress>(to);
  if (one && Is(Capability::kPostcopyPreempt)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("'{}' is one connection, and postcopy-preempt needs two", Describe(to)),
                "Use tcp: or unix:.");
  }
  if (std::holds_alternative<FileAddress>(to)) {
    return Fail(Errc::kUnsupported, fmt::format("nobody answers in '{}'", Describe(to)),
                "Use tcp: or unix:.");
  }
  resume_ = {to, std::move(services)};
  SetStatus(MigrationStatus::kPostcopyRecoverSetup);
  changed_.notify_all();
  return {};
}

// ---- On the return path's thread ----------------------------------------------------------------

// @return kMalformed for a peer that asks when there is nobody to ask, or for too much
Status Outgoing::Serve(const PageRequest& request) {
  const MutexLock lock(mutex_);
  if (server_ == nullptr) return Fail(Unexpected(FrameType::kRequest));
  if (request.urgent) ++urgent_requests_;
  return server_->Add(request);
}

// ---- On the migration's thread ------------------------------------------------------------------

bool Outgoing::PostcopyWanted() const {
  const MutexLock lock(mutex_);
  return postcopy_wanted_;
}

Status Outgoing::SendMissing(const DirtyPages& missing) {
  const auto blocks = missing.blocks();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto words = blocks[i].pages.words();
    constexpr std::size_t kMost = MissingPages::kMostPages / 64;
    for (std::size_t at = 0; at < words.size(); at += kMost) {
      const auto part = words.subspan(at, std::min(kMost, words.size() - at));
      MissingPages frame{.block = static_cast<std::uint32_t>(i), .first = at * 64};
      frame.words.assign(part.begin(), part.end());
      HF_TRY_STATUS(writers_.front()->Write(FrameType::kMissing, EncodeMissing(frame)));
    }
  }
  return {};
}

// Pages may be asked for from here on.
Status Outgoing::StartServer() {
  HF_TRY(auto server, PageServer::Start(subject_.memory, *writers_.front(), urgent_,
                                        [this](const Error& error) { Lost(error); }));
  const MutexLock lock(mutex_);
  server_ = std::move(server);
  return {};
}

void Outgoing::CountSent() {
  std::uint64_t sent = sent_before_;
  for (const auto& writer : writers_) sent += writer->sent();
  transferred_ = sent;
}

// To the end of post-copy, over as many connections as it takes.
// @return only after Cancel() an error
Status Outgoing::ServeMemory() {
  Measure(0, Clock::now());
  sender_.reset();  // it knows connections that may go
  if (runs_there_) SetStatus(MigrationStatus::kPostcopyActive);
  Status served = answers_->Wait(FrameType::kComplete, kNoLimit);
  while (!served) {
    LetGo(std::move(served).error());
    served = Reconnect();
    if (served) {
      served = answers_->Wait(FrameType::kComplete, kNoLimit);
    } else if (cancelled_) {
      return served;
    }
  }
  CountSent();
  remaining_ = 0;
  return {};
}

// What the other side said explains more than a connection that broke, and what was noticed first
// more than what came of it.
Error Outgoing::Explain(Error error) const {
  if (SaidByPeer(error)) return error;
  const auto said = answers_ == nullptr ? std::nullopt : answers_->error();
  if (said && SaidByPeer(*said)) return *said;
  if (error.os_errno() != ECANCELED && !IsConnectionLost(error)) return error;
  const MutexLock lock(mutex_);
  return lost_ ? *lost_ : error;
}

// The connections are of no use any more.
void Outgoing::LetGo(Error error) {
  ShutChannels();
  std::unique_ptr<PageServer> server;
  {
    const MutexLock lock(mutex_);
    server = std::move(server_);
  }
  server.reset();
  error = Explain(std::move(error));
  answers_.reset();
  CountSent();
  sent_before_ = transferred_;
  urgent_ = nullptr;
  writers_.clear();
  const MutexLock lock(mutex_);
  channels_.clear();
  stop_ = std::stop_source();
  if (cancelled_) return;
  log::Warn(fmt::format("the migration is paused, and memory of the guest waits here: {}",
                        error.ToString()));
  lost_.reset();
  why_paused_ = std::move(error);
  SetStatus(MigrationStatus::kPostcopyPaused);
}

Status Outgoing::WaitForAddress() {
  const MutexLock lock(mutex_);
  while (!resume_ && !cancelled_) changed_.wait(mutex_);
  if (cancelled_) return Fail(why_paused_ ? *why_paused_ : MonitorEnds());
  way_ = *std::exchange(resume_, std::nullopt);
  return {};
}

Status Outgoing::Reconnect() {
  HF_TRY_STATUS(WaitForAddress());
  const std::uint32_t number = ++recoveries_ & 0xff;
  HF_TRY_STATUS(Dial(ChannelKind::kRecover, number));
  SetStatus(MigrationStatus::kPostcopyRecover);
  if (Is(Capability::kPostcopyPreempt)) {
    HF_TRY(urgent_, Dial(ChannelKind::kUrgent, number));
  }
  HF_TRY_STATUS(StartServer());
  HF_TRY_STATUS(HearAnswers());
  HF_TRY_STATUS(answers_->Wait(FrameType::kResumed, kPatience));
  runs_there_ = true;
  remaining_ = answers_->missing();
  SetStatus(MigrationStatus::kPostcopyActive);
  return {};
}

}  // namespace holdfast::migration
