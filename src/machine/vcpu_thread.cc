// SPDX-License-Identifier: Apache-2.0
#include "machine/vcpu_thread.h"

#include <fmt/format.h>
#include <holdfast/units.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <system_error>

#include "base/thread_role.h"
#include "base/trace.h"
#include "devices/bus.h"

namespace holdfast::machine {
namespace {

// Interrupts KVM_RUN. Its handler does nothing: the interruption is all that is wanted.
constexpr int kKickSignal = SIGUSR1;

// The vCPU whose thread this is.
thread_local VcpuThread* t_current = nullptr;

void InstallKickHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    ::sigemptyset(&action.sa_mask);
    ::sigaction(kKickSignal, &action, nullptr);  // cannot fail with these arguments
  });
}

// Guest threads take no signal but the kick: SIGTERM and friends are the main loop's.
void BlockOtherSignals() {
  sigset_t mask;
  ::sigfillset(&mask);
  for (const int signal : {kKickSignal, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS})
    ::sigdelset(&mask, signal);
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

// Of a conversion, to be mapped in at once: a huge page's worth.
constexpr std::uint64_t kMostMappedIn = 2 * kMiB;

// For cpu_in and cpu_out, as QEMU writes them.
char SizeLetter(unsigned size) {
  return size == 1 ? 'b' : size == 2 ? 'w' : 'l';
}
std::uint32_t Value(std::span<const std::byte> data) {
  std::uint32_t value = 0;
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof value));
  return value;
}

std::string DescribeInternalError(const kvm_run& run) {
  switch (run.internal.suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
      return "KVM could not emulate an instruction of the guest";
    case KVM_INTERNAL_ERROR_DELIVERY_EV: {
      // Which event, what got in its way and where: all there is to find the cause by.
      std::string text = "KVM could not deliver an event to the guest";
      const auto& error = run.internal;
      const std::size_t count = std::min<std::size_t>(error.ndata, std::size(error.data));
      for (std::size_t i = 0; i < count; ++i)
        text += fmt::format("{}{:#x}", i == 0 ? " (KVM's data: " : " ", error.data[i]);
      return count == 0 ? text : text + ")";
    }
    default:
      return fmt::format("KVM internal error, suberror {}", run.internal.suberror);
  }
}

}  // namespace

VcpuThread::VcpuThread(unsigned index, kvm::Vcpu vcpu, const devices::Bus& io,
                       const devices::Bus& mmio, Events events, ConversionExits* conversion)
    : index_(index),
      vcpu_(std::move(vcpu)),
      io_(io),
      mmio_(mmio),
      events_(std::move(events)),
      conversion_(conversion) {}

VcpuThread::~VcpuThread() {
  if (!thread_.joinable()) return;
  SetTarget(Target::kExit);
  thread_.join();
}

Status VcpuThread::Start() {
  InstallKickHandler();
  try {
    thread_ = std::thread([this] { Loop(); });
  } catch (const std::system_error& error) {
    return Fail(Error::FromErrno(fmt::format("starting the thread of vCPU {}", index_),
                                 error.code().value()));
  }
  // QEMU's name, so that tools that pin vCPU threads find them.
  ::pthread_setname_np(thread_.native_handle(), fmt::format("CPU {}/KVM", index_).c_str());
  WaitUntilStanding();  // tid_ is known from then on
  return {};
}

void VcpuThread::SetTarget(Target target) {
  {
    const MutexLock lock(mutex_);
    target_ = target;
    if (target == Target::kRun) {
      standing_ = false;
      stopped_itself_ = false;
    } else {
      // Before the signal: should the signal come just before KVM_RUN, KVM sees the request.
      vcpu_.RequestExit();
    }
  }
  changed_.notify_all();
  if (target != Target::kRun) ::pthread_kill(thread_.native_handle(), kKickSignal);
}

void VcpuThread::Run() {
  SetTarget(Target::kRun);
}
void VcpuThread::Stop() {
  SetTarget(Target::kStand);
}

void VcpuThread::WaitUntilStanding() {
  const MutexLock lock(mutex_);
  while (!standing_) changed_.wait(mutex_);
}

void VcpuThread::RestUntil(Clock::time_point when) {
  bool kick = false;
  {
    const MutexLock lock(mutex_);
    rest_until_ = when;
    kick = target_ == Target::kRun && Clock::now() < when;
    if (kick) vcpu_.RequestExit();
  }
  changed_.notify_all();
  if (kick) ::pthread_kill(thread_.native_handle(), kKickSignal);
}

bool VcpuThread::stopped_itself() {
  const MutexLock lock(mutex_);
  return stopped_itself_;
}

void VcpuThread::StopCurrent() {
  if (t_current == nullptr) return;
  const MutexLock lock(t_current->mutex_);
  t_current->stopped_itself_ = true;
  if (t_current->target_ == Target::kRun) t_current->target_ = Target::kStand;
  t_current->vcpu_.RequestExit();
}

void VcpuThread::Loop() {
  t_current = this;
  tid_ = ::gettid();
  BlockOtherSignals();
  while (WaitForRun()) {
    ConfineThread(ThreadRole::kVcpu);
    RunGuest();
  }
}

// Stands until told to run, and rests as long as it shall; false when told to end.
bool VcpuThread::WaitForRun() {
  const MutexLock lock(mutex_);
  while (target_ != Target::kExit) {
    if (target_ == Target::kStand) {
      standing_ = true;
      changed_.notify_all();
      changed_.wait(mutex_);
    } else if (Clock::now() < rest_until_) {
      // A copy: the wait looks at the time once more after it has let go of the lock.
      const Clock::time_point until = rest_until_;
      changed_.wait_until(mutex_, until);
    } else {
      break;
    }
  }
  vcpu_.ClearExitRequest();
  return target_ == Target::kRun;
}

// Runs the guest until interrupted. After an exit KVM is always entered again, even when the
// thread is to stop: only then does KVM complete the instruction that exited. The request to exit
// makes it return at once without executing another one.
void VcpuThread::RunGuest() {
  for (;;) {
    auto outcome = vcpu_.Run();
    if (!outcome) {
      Broken(std::move(outcome).error().Wrap(fmt::format("vCPU {} cannot run", index_)));
      return;
    }
    if (*outcome == kvm::Vcpu::RunOutcome::kInterrupted) return;
    HF_TRACE(kvm_run_exit, index_, vcpu_.run().exit_reason);
    HandleExit();
  }
}

void VcpuThread::HandleExit() {
  const kvm_run& run = vcpu_.run();
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      HandleIo();
      return;
    case KVM_EXIT_MMIO:
      HandleMmio();
      return;
    case KVM_EXIT_SHUTDOWN:
      StopCurrent();
      events_.triple_fault();
      return;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return;
    case KVM_EXIT_INTERNAL_ERROR:
      if (NothingWasBeingDelivered()) return;
      Broken(Error(Errc::kSystem, DescribeInternalError(run)));
      return;
    case KVM_EXIT_FAIL_ENTRY:
      Broken(Error(Errc::kSystem,
                   fmt::format("the processor refuses to enter the guest, hardware reason {:#x}",
                               run.fail_entry.hardware_entry_failure_reason)));
      return;
    case kvm::abi::kExitMemoryFault:
      HandleMemoryFault();
      return;
    case KVM_EXIT_HYPERCALL:
      HandleHypercall();
      return;
    default:
      Broken(Error(Errc::kSystem, fmt::format("unexpected KVM exit reason {}", run.exit_reason)));
  }
}

// KVM gives up on an instruction that touches a device while an event is being delivered. Under
// QEMU's TCG some kernels see such an event where there is none (docs/lab.md): then KVM has nothing
// to deliver again, the instruction has not been executed, and entering the guest executes it.
bool VcpuThread::NothingWasBeingDelivered() const {
  if (vcpu_.run().internal.suberror != KVM_INTERNAL_ERROR_DELIVERY_EV) return false;
  const auto events = vcpu_.GetEvents();
  return events && events->exception.injected == 0 && events->interrupt.injected == 0 &&
         events->nmi.injected == 0;
}

void VcpuThread::HandleIo() {
  const auto& io = vcpu_.run().io;
  const std::span<std::byte> data = vcpu_.io_data();
  for (std::size_t done = 0; done + io.size <= data.size(); done += io.size) {
    const std::span<std::byte> one = data.subspan(done, io.size);
    if (io.direction == KVM_EXIT_IO_OUT) {
      io_.Write(io.port, one);
      HF_TRACE(cpu_out, io.port, SizeLetter(io.size), Value(one));
    } else {
      io_.Read(io.port, one);
      HF_TRACE(cpu_in, io.port, SizeLetter(io.size), Value(one));
    }
  }
}

void VcpuThread::HandleMmio() {
  auto& mmio = vcpu_.run().mmio;
  const std::size_t length = std::min<std::size_t>(mmio.len, sizeof mmio.data);
  const std::span<std::byte> data(reinterpret_cast<std::byte*>(mmio.data), length);
  if (mmio.is_write != 0) {
    mmio_.Write(mmio.phys_addr, data);
  } else {
    mmio_.Read(mmio.phys_addr, data);
  }
}

void VcpuThread::HandleHypercall() {
  if (conversion_ == nullptr) {
    Broken(Error(Errc::kSystem, "KVM passes on a hypercall that nobody has asked it to"));
    return;
  }
  if (const auto changed = conversion_->OnHypercall(vcpu_.run())) MapIn(*changed);
}

void VcpuThread::HandleMemoryFault() {
  const kvm::abi::MemoryFaultExit fault = vcpu_.memory_fault();
  HF_TRACE(kvm_memory_fault, fault.gpa, fault.size, fault.flags);
  if (conversion_ == nullptr) {
    Broken(Error(Errc::kSystem,
                 fmt::format("the guest cannot reach its memory at guest physical address {:#x}",
                             fault.gpa)));
    return;
  }
  auto changed = conversion_->OnMemoryFault(fault);
  if (!changed) return Broken(std::move(changed).error());
  if (*changed) MapIn(**changed);
}

// Saves the guest the faults on what it has just converted. Only a range that it will probably
// touch at once: what is not there yet would be allocated. Where it fails, the guest faults as
// ever.
void VcpuThread::MapIn(const ConversionExits::Range& range) {
  if (!conversion_->unmaps() || range.size > kMostMappedIn) return;
  (void)vcpu_.PreFault(range.start, range.size);
}

void VcpuThread::Broken(Error error) {
  StopCurrent();
  if (const auto regs = vcpu_.GetRegs()) {
    error = std::move(error).WithHint(fmt::format(
        "vCPU {} stands at instruction address {:#x}; the guest cannot go on.", index_, regs->rip));
  }
  events_.internal_error(std::move(error));
}

}  // namespace holdfast::machine
