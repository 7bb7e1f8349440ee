// SPDX-License-Identifier: Apache-2.0
// What follows when a guest panics, sets its clock, or its watchdog runs out.
#include <nlohmann/json.hpp>

#include "base/event_loop.h"
#include "base/log.h"
#include "machine/machine_impl.h"

namespace holdfast::machine {

void Machine::Impl::OnGuestPanic() {
  PanicPolicy policy = actions_.panic;
  if (policy == PanicPolicy::kShutdown && actions_.no_shutdown) policy = PanicPolicy::kPause;
  StopVcpus();
  if (events_.guest_panicked) {
    events_.guest_panicked(policy == PanicPolicy::kNone    ? PanicAction::kRun
                           : policy == PanicPolicy::kPause ? PanicAction::kPause
                                                           : PanicAction::kPoweroff);
  }
  log::Warn("the guest has panicked (it said so through pvpanic)");
  if (policy == PanicPolicy::kNone) return RunVcpus();
  const bool ends = policy != PanicPolicy::kPause;
  if (ends) TellShutdown(ShutdownCause::kGuestPanic);
  SetState(RunState::kGuestPanicked);
  if (ends) End(policy == PanicPolicy::kExitFailure ? 1 : 0);
}

void Machine::Impl::TellTimeSet(std::int64_t seconds) {
  if (!events_.device_event) return;
  loop_.Post([this, seconds] {
    events_.device_event("RTC_CHANGE",
                         {{"offset", seconds}, {"qom-path", "/machine/unattached/rtc"}});
  });
}

void Machine::Impl::OnWatchdog() {
  if (state_ != RunState::kRunning) return;
  const WatchdogAction action = actions_.watchdog;
  if (events_.device_event) {
    events_.device_event("WATCHDOG",
                         {{"action", kWatchdogActionNames[static_cast<std::size_t>(action)]}});
  }
  switch (action) {
    case WatchdogAction::kReset:
      return OnGuestReset();
    case WatchdogAction::kShutdown:
      return PowerButton();
    case WatchdogAction::kPoweroff:
      return End(0);
    case WatchdogAction::kPause:
      return Pause(RunState::kWatchdog);
    case WatchdogAction::kDebug:
      return log::Warn("watchdog: timer fired");
    case WatchdogAction::kNone:
      return;
    case WatchdogAction::kInjectNmi:
      if (const Status sent = InjectNmi(); !sent) log::Error(sent.error());
      return;
  }
}

Status Machine::Impl::InjectNmi() {
  for (unsigned i = 0; i < vcpus_.size(); ++i) {
    HF_TRY_STATUS(AskVcpu(i, [](const kvm::Vcpu& vcpu) { return vcpu.InjectNmi(); }));
  }
  return {};
}

}  // namespace holdfast::machine
