// SPDX-License-Identifier: Apache-2.0
#include "migration/load_job.h"

#include <system_error>
#include <utility>

#include "base/log.h"
#include "migration/snapshot_load.h"

namespace holdfast::migration {

Result<std::unique_ptr<LoadJob>> LoadJob::Start(const Subject& subject, const std::string& path,
                                                Done done) {
  if (subject.machine.converter() != nullptr) {
    return Fail(Errc::kUnsupported,
                "a confidential guest cannot be loaded: its private memory is not the host's to "
                "write");
  }
  HF_TRY(SnapshotChain chain, SnapshotChain::Open(path));
  HF_TRY_STATUS(CheckMemory(chain, subject.memory));
  HF_TRY(auto sections, chain.newest().ReadSections());
  std::unique_ptr<LoadJob> job(new LoadJob(subject, std::move(chain), std::move(done)));
  job->sections_ = std::move(sections);
  try {
    job->thread_ = std::thread([raw = job.get()] {
      Status status = raw->Work();
      raw->main_.Post([raw, status = std::move(status)] {
        raw->thread_.join();
        const Done finished = raw->done_;
        finished(raw->Finish(status));
      });
    });
  } catch (const std::system_error& error) {
    return Fail(Error::FromErrno("a thread for the snapshot", error.code().value()));
  }
  return job;
}

LoadJob::~LoadJob() {
  checking_.cancelled = true;
  loading_.cancelled = true;
  main_.Close();
  if (thread_.joinable()) thread_.join();
  if (held_) subject_.machine.Release();
}

Status LoadJob::Work() {
  HF_TRY_STATUS(VerifyMemory(chain_, checking_));
  HF_TRY_STATUS(main_.Run([this] { return StandStill(); }));
  return LoadMemory(chain_, subject_.memory, false, loading_);
}

Status LoadJob::StandStill() {
  machine::Machine& machine = subject_.machine;
  ran_ = machine.running();
  machine.Pause(machine::RunState::kRestoreVm);
  machine.Hold("a snapshot is being loaded into it");
  held_ = true;
  return {};
}

Status LoadJob::Finish(Status memory) {
  machine::Machine& machine = subject_.machine;
  if (!held_) return memory;  // nothing was changed
  machine.Release();
  held_ = false;
  if (!memory) {
    machine.Break(memory.error());
    return memory;
  }
  HF_TRY_STATUS(machine.LoadState(sections_));
  HF_TRY_STATUS(machine.NewGeneration());
  return ran_ && machine.saved_running() ? machine.Resume() : Status{};
}

}  // namespace holdfast::migration
