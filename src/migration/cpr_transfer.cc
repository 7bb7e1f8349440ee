// SPDX-License-Identifier: Apache-2.0
#include "migration/cpr_transfer.h"

#include <fmt/format.h>

#include <system_error>
#include <utility>

#include "base/log.h"

namespace holdfast::migration {
namespace {

constexpr const char* kOwner = "owner";

}  // namespace

// ---- The monitor that has the guest -------------------------------------------------------------

Result<std::unique_ptr<CprTransfer>> CprTransfer::Start(const Subject& subject,
                                                        const std::string& path, Done done) {
  HF_TRY_STATUS(CheckCpr(subject));
  HF_TRY(CprOwner owner, CprOwner::Create());
  HF_TRY(CprSocket socket, CprSocket::Connect(path));
  std::unique_ptr<CprTransfer> job(
      new CprTransfer(subject, std::move(socket), std::move(owner), std::move(done)));
  job->fds_ = KeptFds(subject);
  job->fds_.push_back({kOwner, job->owner_.fd()});
  try {
    job->thread_ = std::thread([raw = job.get()] {
      Status status = raw->Work();
      if (!status) raw->WaitForDisks();
      raw->main_.Post([raw, status = std::move(status)] { raw->Finish(status); });
    });
  } catch (const std::system_error& error) {
    return Fail(Error::FromErrno("a thread for the transfer", error.code().value()));
  }
  return job;
}

CprTransfer::~CprTransfer() {
  socket_.Shutdown();
  main_.Close();
  if (!thread_.joinable()) return;
  thread_.join();
  if (owner_.ClaimForSource()) TakeBack();
  if (held_) subject_.machine.Release();
}

Status CprTransfer::Work() {
  CprState first{.creator = subject_.creator};
  for (const KeptFd& each : fds_) first.fds.push_back({.name = each.name});
  HF_TRY_STATUS(socket_.SendState(std::move(first)));
  HF_TRY_STATUS(socket_.SendFds(fds_));
  HF_TRY_STATUS(socket_.ReceiveAnswer(CprAnswer::kBuilt));
  HF_TRY_STATUS(main_.Run([this] { return StandStill(); }));
  HF_TRY_STATUS(socket_.SendState(std::move(state_)));
  HF_TRY_STATUS(socket_.ReceiveAnswer(CprAnswer::kLoaded));
  HF_TRY_STATUS(main_.Run([this] {
    disks_gone_ = true;
    return subject_.inactivate_disks ? subject_.inactivate_disks() : Status{};
  }));
  HF_TRY_STATUS(socket_.SendGo());
  return socket_.ReceiveAnswer(CprAnswer::kRunning);
}

// The other monitor may have the disks' locks: they are free when it has gone.
void CprTransfer::WaitForDisks() {
  if (disks_gone_ && owner_.ClaimForSource()) socket_.WaitForClose();
}

Status CprTransfer::StandStill() {
  machine::Machine& machine = subject_.machine;
  HF_TRY_STATUS(CheckCpr(subject_));
  ran_ = machine.running();
  stopped_at_ = CprClock();
  if (ran_) machine.Pause(machine::RunState::kSaveVm);
  machine.Hold("its guest goes to another monitor");
  held_ = true;
  if (subject_.flush_disks) HF_TRY_STATUS(subject_.flush_disks());
  HF_TRY(state_.sections, machine.SaveState());
  state_.creator = subject_.creator;
  state_.stopped_at = ran_ ? stopped_at_ : 0;
  return {};
}

// As if nothing had been.
void CprTransfer::TakeBack() {
  if (!std::exchange(held_, false)) return;
  machine::Machine& machine = subject_.machine;
  machine.Release();
  if (subject_.activate_disks) {
    if (auto active = subject_.activate_disks(); !active) {
      log::Error(active.error());
      machine.Pause(machine::RunState::kIoError);
      return;
    }
  }
  if (!ran_ || machine.state() != machine::RunState::kSaveVm) return;
  if (auto resumed = machine.Resume(); !resumed) log::Error(resumed.error());
}

void CprTransfer::Finish(Status status) {
  thread_.join();
  const Done done = done_;
  // A connection that ends says nothing of who has the guest; the word that both share does.
  if (!status && owner_.ClaimForSource()) {
    TakeBack();
    done(Fail(std::move(status).error()));
    return;
  }
  if (!status) log::Warn(status.error().ToString());
  machine::Machine& machine = subject_.machine;
  machine.Pause(machine::RunState::kPostMigrate);
  machine.Hold("its guest is another monitor's now");  // for good
  held_ = false;
  done(Outcome{.downtime = CprClock() - stopped_at_});
}

// ---- The monitor that gets it -------------------------------------------------------------------

Result<std::unique_ptr<CprArrival>> CprArrival::Wait(const std::string& path, InheritedFds& fds) {
  HF_TRY(CprSocket socket, CprSocket::Accept(path));
  HF_TRY(const CprState named, socket.ReceiveState());
  HF_TRY(std::vector<UniqueFd> received, socket.ReceiveFds(named.fds.size()));
  for (std::size_t i = 0; i < received.size(); ++i) {
    HF_TRY_STATUS(fds.Add(named.fds[i].name, std::move(received[i])));
  }
  HF_TRY(CprOwner owner, CprOwner::Adopt(fds.Take(kOwner)));
  return std::unique_ptr<CprArrival>(new CprArrival(std::move(socket), std::move(owner)));
}

CprArrival::~CprArrival() {
  if (!claimed_) static_cast<void>(socket_.SendAnswer(CprAnswer::kError, why_));
}

Result<CprState> CprArrival::ReceiveState() {
  HF_TRY_STATUS(socket_.SendAnswer(CprAnswer::kBuilt));
  return socket_.ReceiveState();
}

Status CprArrival::Loaded() {
  HF_TRY_STATUS(socket_.SendAnswer(CprAnswer::kLoaded));
  return socket_.ReceiveGo();
}

Status CprArrival::Claim() {
  claimed_ = owner_.ClaimForDestination();
  if (claimed_) return {};
  return Fail(Errc::kInvalidArgument, "the other monitor has taken its guest back");
}

void CprArrival::Running() {
  if (auto told = socket_.SendAnswer(CprAnswer::kRunning); !told) {
    log::Warn(told.error().ToString());
  }
}

}  // namespace holdfast::migration
