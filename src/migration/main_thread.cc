// SPDX-License-Identifier: Apache-2.0
#include "migration/main_thread.h"

#include <optional>
#include <utility>

namespace holdfast::migration {

Error MonitorEnds() {
  return {Errc::kInvalidArgument, "the monitor ends"};
}

Status MainThread::Run(std::function<Status()> work) {
  // Written by the main thread and read by the one that waits, both under the gate's mutex.
  auto answer = std::make_shared<std::optional<Status>>();
  const std::shared_ptr<Gate> gate = gate_;
  loop_.Post([gate, answer, work = std::move(work)] {
    {
      const MutexLock lock(gate->mutex);
      if (gate->closed) return;
    }
    Status status = work();
    const MutexLock lock(gate->mutex);
    *answer = std::move(status);
    gate->changed.notify_all();
  });
  const MutexLock lock(gate->mutex);
  while (!gate->closed && !answer->has_value()) gate->changed.wait(gate->mutex);
  if (answer->has_value()) return std::move(answer->value());
  return Fail(MonitorEnds());
}

void MainThread::Post(std::function<void()> work) {
  loop_.Post([gate = gate_, work = std::move(work)] {
    {
      const MutexLock lock(gate->mutex);
      if (gate->closed) return;
    }
    work();
  });
}

void MainThread::Close() {
  const MutexLock lock(gate_->mutex);
  gate_->closed = true;
  gate_->changed.notify_all();
}

}  // namespace holdfast::migration
