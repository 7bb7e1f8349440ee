// SPDX-License-Identifier: Apache-2.0
#include "conformance/fault_guard.h"

#include <holdfast/units.h>

#include <csetjmp>

namespace holdfast::conformance {
namespace {

using model::Fault;

// Where a fault of this thread goes on; null: it is nobody's.
thread_local sigjmp_buf* volatile t_resume = nullptr;
thread_local volatile int t_signal = 0;
thread_local volatile int t_code = 0;

extern "C" void OnFault(int signal, siginfo_t* info, void*) {
  if (t_resume == nullptr) {
    // Not one of the accesses tried here: the instruction is done again, and ends the program.
    std::signal(signal, SIG_DFL);
    return;
  }
  t_signal = signal;
  t_code = info->si_code;
  siglongjmp(*t_resume, 1);
}

Fault FaultOf(int signal, int code) {
  if (signal == SIGSEGV) return Fault::kSegv;
  return code == BUS_MCEERR_AR ? Fault::kBusPoisoned : Fault::kBus;
}

constexpr std::size_t kLastOfPage = kPageSize / sizeof(model::Value) - 1;

}  // namespace

FaultGuard::FaultGuard() : bus_before_(), segv_before_() {
  struct sigaction action{};
  action.sa_sigaction = OnFault;
  // The jump leaves the handler without its return, so the signal must not stay blocked.
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ::sigaction(SIGBUS, &action, &bus_before_);
  ::sigaction(SIGSEGV, &action, &segv_before_);
}

FaultGuard::~FaultGuard() {
  ::sigaction(SIGBUS, &bus_before_, nullptr);
  ::sigaction(SIGSEGV, &segv_before_, nullptr);
}

model::HostAccess FaultGuard::Read(const std::byte* page) noexcept {
  const auto* const words = reinterpret_cast<const volatile model::Value*>(page);
  sigjmp_buf resume;
  if (sigsetjmp(resume, 0) != 0) {
    t_resume = nullptr;
    return {FaultOf(t_signal, t_code), 0};
  }
  t_resume = &resume;
  const model::Value first = words[0];
  const model::Value last = words[kLastOfPage];
  t_resume = nullptr;
  return {first == last ? Fault::kNone : Fault::kTorn, first};
}

model::HostAccess FaultGuard::Write(std::byte* page, model::Value value) noexcept {
  auto* const words = reinterpret_cast<volatile model::Value*>(page);
  sigjmp_buf resume;
  if (sigsetjmp(resume, 0) != 0) {
    t_resume = nullptr;
    return {FaultOf(t_signal, t_code), 0};
  }
  t_resume = &resume;
  words[0] = value;
  words[kLastOfPage] = value;
  t_resume = nullptr;
  return {Fault::kNone, 0};
}

}  // namespace holdfast::conformance
