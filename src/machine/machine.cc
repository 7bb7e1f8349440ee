// SPDX-License-Identifier: Apache-2.0
#include "machine/machine.h"

#include <holdfast/vm.h>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/trace.h"
#include "machine/machine_impl.h"

namespace holdfast::machine {

std::string_view RunStateName(RunState state) noexcept {
  switch (state) {
    case RunState::kPrelaunch:
      return "prelaunch";
    case RunState::kRunning:
      return "running";
    case RunState::kPaused:
      return "paused";
    case RunState::kShutdown:
      return "shutdown";
    case RunState::kGuestPanicked:
      return "guest-panicked";
    case RunState::kIoError:
      return "io-error";
    case RunState::kWatchdog:
      return "watchdog";
    case RunState::kInternalError:
      return "internal-error";
    case RunState::kInMigrate:
      return "inmigrate";
    case RunState::kSaveVm:
      return "save-vm";
    case RunState::kRestoreVm:
      return "restore-vm";
    case RunState::kFinishMigrate:
      return "finish-migrate";
    case RunState::kPostMigrate:
      return "postmigrate";
  }
  return "?";
}

// ---- What the owner asks --------------------------------------------------------------------

Status Machine::Impl::Resume() {
  switch (state_) {
    case RunState::kRunning:
      return {};
    case RunState::kShutdown:
    case RunState::kGuestPanicked:
    case RunState::kInternalError:
      return Fail(Errc::kInvalidArgument, "Resetting the Virtual Machine is required",
                  "Use system_reset first.");
    case RunState::kInMigrate:
      return Fail(Errc::kInvalidArgument, "the machine has no state yet that it could run with",
                  "It runs when its state has been loaded.");
    case RunState::kPrelaunch:
    case RunState::kPaused:
    case RunState::kSaveVm:
    case RunState::kRestoreVm:
    case RunState::kFinishMigrate:
    case RunState::kPostMigrate:
    case RunState::kWatchdog:
    case RunState::kIoError:
      break;
  }
  HF_TRY_STATUS(ContinueClock());
  SetState(RunState::kRunning);
  RunVcpus();
  return {};
}

void Machine::Impl::Pause(RunState state) {
  const bool stands = state_ == RunState::kSaveVm || state_ == RunState::kRestoreVm ||
                      state_ == RunState::kFinishMigrate;
  // One that a user has stopped leaves as well. What the guest has ended in stays to be seen.
  const bool leaves = state_ == RunState::kPaused && state == RunState::kPostMigrate;
  if (state_ != RunState::kRunning && !stands && !leaves) return;
  StopVcpus();
  SetState(state);
}

Status Machine::Impl::Reset(ShutdownCause cause) {
  if (state_ == RunState::kInMigrate) {
    return Fail(Errc::kInvalidArgument, "a machine that waits for its state cannot be reset",
                "Reset it when its state has been loaded.");
  }
  if (config_.confidential != nullptr && !config_.confidential->can_reset()) {
    return Fail(Errc::kUnsupported, "a confidential guest cannot be reset",
                "End it and start it anew.");
  }
  const bool was_running = state_ == RunState::kRunning;
  StopVcpus();
  epoch_.fetch_add(1, std::memory_order_relaxed);
  auto restored = RestorePowerOnState();
  if (restored) restored = LoadAndEnter();
  if (!restored) {
    Error error = std::move(restored).error().Wrap("the guest cannot be reset");
    SetState(RunState::kInternalError);
    return Fail(std::move(error));
  }
  if (events_.reset) events_.reset(cause);
  if (was_running) {
    RunVcpus();
  } else if (state_ != RunState::kPaused) {
    SetState(RunState::kPrelaunch);
  }
  return {};
}

Status Machine::Impl::CheckFree() const {
  if (!held_) return {};
  return Fail(Errc::kInvalidArgument, fmt::format("the machine has to stay as it is: {}", *held_),
              "Wait for the job, or cancel it.");
}

void Machine::Impl::Break(const Error& error) {
  StopVcpus();
  log::Error(error);
  SetState(RunState::kInternalError);
}

void Machine::Impl::PowerButton() {
  HF_TRACE(qemu_system_powerdown_request);
  if (events_.powerdown) events_.powerdown();
  platform_->PressPowerButton();
}

void Machine::Impl::Quit(ShutdownCause cause, int status) {
  StopVcpus();
  TellShutdown(cause);
  End(status);
}

// ---- What the owner wants to know
// -----------------------------------------------------------------

CpuInfo Machine::Impl::CpuAt(unsigned index) const {
  const CpuTopology& smp = config_.smp;
  return {.index = index,
          .socket_id = index / smp.threads / smp.cores,
          .core_id = index / smp.threads % smp.cores,
          .thread_id = index % smp.threads,
          .node_id = config_.numa.NodeOfCpu(index),
          .apic_id = apic_ids_[index]};
}

std::vector<VcpuInfo> Machine::Impl::Vcpus() const {
  std::vector<VcpuInfo> infos;
  for (const auto& vcpu : vcpus_) infos.push_back({CpuAt(vcpu->index()), vcpu->tid()});
  return infos;
}

// ---- What the guest asks, on a vCPU's thread
// ------------------------------------------------------

void Machine::Impl::Request(std::function<void()> on_main_thread) {
  // The guest must not see another instruction after asking: it would run on after its power-off.
  VcpuThread::StopCurrent();
  loop_.Post(
      [this, epoch = epoch_.load(std::memory_order_relaxed), handle = std::move(on_main_thread)] {
        if (epoch == epoch_.load(std::memory_order_relaxed) && state_ == RunState::kRunning)
          handle();
      });
}

void Machine::Impl::RequestReset(const char* reason) {
  HF_TRACE(system_reset_request, reason);
  Request([this] { OnGuestReset(); });
}

void Machine::Impl::RequestShutdown() {
  HF_TRACE(qemu_system_shutdown_request, "guest-shutdown");
  Request([this] { OnGuestShutdown(ShutdownCause::kGuestShutdown); });
}

void Machine::Impl::RequestExit(int status) {
  HF_TRACE(qemu_system_shutdown_request, "guest-exit");
  Request([this, status] { OnGuestExit(status); });
}

void Machine::Impl::RequestPanic(devices::Pvpanic::Event event) {
  // A guest that has loaded its crash kernel goes on; only one that stands still is over.
  if (event != devices::Pvpanic::Event::kPanicked) {
    if (events_.guest_crash_loaded) loop_.Post(events_.guest_crash_loaded);
    return;
  }
  Request([this] { OnGuestPanic(); });
}

void Machine::Impl::RequestInternalError(Error error) {
  Request([this, error = std::move(error)] { OnInternalError(error); });
}

// ---- The same, on the main thread
// -----------------------------------------------------------------

void Machine::Impl::OnGuestReset() {
  const bool can_reset = config_.confidential == nullptr || config_.confidential->can_reset();
  if (!can_reset) log::Info("a confidential guest cannot be reset: its reset ends it");
  if (actions_.no_reboot || !can_reset) {
    OnGuestShutdown(ShutdownCause::kGuestReset);
    return;
  }
  const Status status = Reset(ShutdownCause::kGuestReset);
  if (!status) OnInternalError(status.error());
}

void Machine::Impl::OnGuestShutdown(ShutdownCause cause) {
  StopVcpus();
  TellShutdown(cause);
  SetState(RunState::kShutdown);
  if (!actions_.no_shutdown) End(0);
}

void Machine::Impl::OnInternalError(const Error& error) {
  StopVcpus();
  log::Error(error);
  if (!actions_.no_shutdown) TellShutdown(ShutdownCause::kHostError);
  SetState(RunState::kInternalError);
  if (!actions_.no_shutdown) End(1);
}

// The guest's debug exit device ends the monitor, -no-shutdown or not.
void Machine::Impl::OnGuestExit(int status) {
  StopVcpus();
  TellShutdown(ShutdownCause::kGuestShutdown);
  End(status);
}

void Machine::Impl::TellShutdown(ShutdownCause cause) {
  if (events_.shutdown) events_.shutdown(cause);
}

void Machine::Impl::End(int status) {
  StopVcpus();
  if (events_.quit) events_.quit(status);
}

// ---- vCPUs and state
// --------------------------------------------------------------------------------

Status Machine::Impl::RestorePowerOnState() {
  platform_->Reset();
  devices_->Reset();
  for (const kvm_irqchip& chip : chips_.irqchips) HF_TRY_STATUS(vm_.SetIrqchip(chip));
  HF_TRY_STATUS(vm_.SetPit(chips_.pit));
  for (std::size_t i = 0; i < vcpus_.size(); ++i) {
    HF_TRY_STATUS(power_on_[i].Restore(vcpus_[i]->vcpu()));
  }
  return {};
}

void Machine::Impl::StopVcpus() {
  for (const auto& vcpu : vcpus_) vcpu->Stop();
  for (const auto& vcpu : vcpus_) vcpu->WaitUntilStanding();
}

void Machine::Impl::RunVcpus() {
  for (const auto& vcpu : vcpus_) vcpu->Run();
}

void Machine::Impl::SetState(RunState state) {
  if (state == state_) return;
  HF_TRACE(runstate_set, static_cast<int>(state_), RunStateName(state_), static_cast<int>(state),
           RunStateName(state));
  if (state_ == RunState::kRunning) StopClock();
  state_ = state;
  platform_->SetRunning(state == RunState::kRunning);
  devices_->SetRunning(state == RunState::kRunning);
  if (events_.state_changed) events_.state_changed(state);
}

// ---- The public face
// ---------------------------------------------------------------------------------

Machine::Machine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Machine::~Machine() = default;

Result<std::unique_ptr<Machine>> Machine::Create(EventLoop& loop, kvm::System& system, kvm::Vm& vm,
                                                 std::span<RamBlock* const> ram,
                                                 MachineConfig config, Events events) {
  auto impl = std::make_unique<Impl>(loop, vm, std::move(config), std::move(events));
  HF_TRY_STATUS(impl->Build(system, ram));
  return std::unique_ptr<Machine>(new Machine(std::move(impl)));
}

RunState Machine::state() const noexcept {
  return impl_->state();
}
const MachineConfig& Machine::config() const noexcept {
  return impl_->config();
}
void Machine::Hold(std::string_view why) {
  impl_->Hold(why);
}
void Machine::Release() {
  impl_->Release();
}
void Machine::Break(const Error& error) {
  impl_->Break(error);
}
Status Machine::Resume() {
  HF_TRY_STATUS(impl_->CheckFree());
  return impl_->Resume();
}
void Machine::Pause(RunState state) {
  impl_->Pause(state);
}
Status Machine::Reset(ShutdownCause cause) {
  HF_TRY_STATUS(impl_->CheckFree());
  return impl_->Reset(cause);
}
Result<std::vector<state::SavedSection>> Machine::SaveState() {
  return impl_->SaveState();
}
Status Machine::CheckState(std::span<const state::SavedSection> saved) {
  return impl_->CheckState(saved);
}
Status Machine::LoadState(std::span<const state::SavedSection> saved) {
  return impl_->LoadState(saved);
}
bool Machine::saved_running() const noexcept {
  return impl_->saved_running();
}
Status Machine::NewGeneration() {
  return impl_->NewGeneration();
}
void Machine::Quit(ShutdownCause cause, int status) {
  impl_->Quit(cause, status);
}
const Actions& Machine::actions() const noexcept {
  return impl_->actions();
}
void Machine::SetActions(const Actions& actions) {
  impl_->SetActions(actions);
}
Status Machine::InjectNmi() {
  return impl_->InjectNmi();
}
void Machine::PowerButton() {
  impl_->PowerButton();
}
void Machine::SendBreak(std::size_t port) {
  impl_->SendBreak(port);
}

Status Machine::AddDevice(const devices::DeviceRequest& request) {
  HF_TRY_STATUS(impl_->CheckFree());
  return impl_->AddDevice(request);
}
Status Machine::RemoveDevice(std::string_view id) {
  HF_TRY_STATUS(impl_->CheckFree());
  return impl_->RemoveDevice(id);
}
devices::pci::PciHost& Machine::pci() noexcept {
  return impl_->device_tree().pci();
}
const DeviceTree& Machine::device_tree() const noexcept {
  return impl_->device_tree();
}

const devices::Bus& Machine::io() const noexcept {
  return impl_->platform().io();
}
const devices::Bus& Machine::mmio() const noexcept {
  return impl_->platform().mmio();
}
const AddressSpace& Machine::memory() const noexcept {
  return impl_->memory();
}
AddressSpace& Machine::ram() noexcept {
  return impl_->ram();
}
GuestConverter* Machine::converter() noexcept {
  return impl_->converter();
}
devices::MachineServices& Machine::services() noexcept {
  return impl_->services();
}
std::vector<CpuInfo> Machine::possible_cpus() const {
  std::vector<CpuInfo> infos;
  for (unsigned i = 0; i < config().smp.max_cpus; ++i) infos.push_back(impl_->CpuAt(i));
  return infos;
}
std::vector<VcpuInfo> Machine::vcpus() const {
  return impl_->Vcpus();
}

Status Machine::Throttle(unsigned percent) {
  return impl_->Throttle(percent);
}
unsigned Machine::throttle() const noexcept {
  return impl_->throttle();
}

Result<VcpuRegisters> Machine::Registers(unsigned index) {
  return impl_->AskVcpu(index, [](const kvm::Vcpu& vcpu) -> Result<VcpuRegisters> {
    VcpuRegisters registers;
    HF_TRY(registers.regs, vcpu.GetRegs());
    HF_TRY(registers.sregs, vcpu.GetSregs());
    HF_TRY(registers.fpu, vcpu.GetFpu());
    HF_TRY(registers.debug, vcpu.GetDebugRegs());
    HF_TRY(const kvm_mp_state mp, vcpu.GetMpState());
    registers.halted = mp.mp_state == KVM_MP_STATE_HALTED;
    return registers;
  });
}
Result<std::optional<std::uint64_t>> Machine::Translate(unsigned index,
                                                        std::uint64_t virtual_address) {
  return impl_->AskVcpu(
      index, [virtual_address](const kvm::Vcpu& vcpu) { return vcpu.Translate(virtual_address); });
}
Result<const kvm::Stats*> Machine::VcpuStats(unsigned index) {
  auto& known = impl_->vcpu_stats();
  auto found = known.find(index);
  if (found == known.end()) {
    HF_TRY(kvm::Stats stats, impl_->AskVcpu(index, [](const kvm::Vcpu& vcpu) {
      return kvm::Stats::Open(vcpu.fd());
    }));
    found = known.emplace(index, std::move(stats)).first;
  }
  return &found->second;
}

}  // namespace holdfast::machine
