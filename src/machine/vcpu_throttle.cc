// SPDX-License-Identifier: Apache-2.0
#include "machine/vcpu_throttle.h"

#include <system_error>

namespace holdfast::machine {
namespace {

using Clock = VcpuThread::Clock;

constexpr std::chrono::milliseconds kSlice{10};  // in which the guest runs, as in QEMU

}  // namespace

Status VcpuThrottle::Set(Vcpus vcpus, unsigned percent) {
  percent_ = percent;
  if (percent == 0) {
    Stop();
    return {};
  }
  {
    const MutexLock lock(mutex_);
    rest_ = std::chrono::nanoseconds(kSlice) * percent / (100 - percent);
  }
  if (thread_.joinable()) return {};
  vcpus_ = vcpus;
  try {
    thread_ = std::thread([this] { Work(); });
  } catch (const std::system_error& error) {
    percent_ = 0;
    return Fail(Error::FromErrno("a thread that slows vCPUs down", error.code().value()));
  }
  return {};
}

void VcpuThrottle::Stop() {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
  {
    const MutexLock lock(mutex_);
    ends_ = false;
  }
  for (const auto& vcpu : vcpus_) vcpu->RestUntil({});
}

void VcpuThrottle::Work() {
  auto next = Clock::now() + kSlice;
  while (true) {
    {
      const MutexLock lock(mutex_);
      while (!ends_ && Clock::now() < next) changed_.wait_until(mutex_, next);
      if (ends_) return;
      next = Clock::now() + rest_;
    }
    for (const auto& vcpu : vcpus_) vcpu->RestUntil(next);
    next += kSlice;
  }
}

}  // namespace holdfast::machine
