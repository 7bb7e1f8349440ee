// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/guest_converter.h>

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/machine_services.h"
#include "kvm/stats.h"
#include "machine/acpi/tables.h"
#include "machine/boot/boot_source.h"
#include "machine/boot/ram_layout.h"
#include "machine/conversion_exits.h"
#include "machine/device_tree.h"
#include "machine/machine.h"
#include "machine/platform.h"
#include "machine/saved_vcpu.h"
#include "machine/smbios/smbios.h"
#include "machine/vcpu_state.h"
#include "machine/vcpu_thread.h"
#include "machine/vcpu_throttle.h"
#include "object/confidential_guest.h"

namespace holdfast::machine {

/// What Machine is made of: machine_build.cc puts it together, machine.cc lives with it.
///
/// Thread-safety: everything belongs to the main thread except epoch_ and the Request functions,
/// which vCPU threads call from device callbacks.
class Machine::Impl {
 public:
  Impl(EventLoop& loop, kvm::Vm& vm, MachineConfig config, Events events)
      : config_(std::move(config)),
        actions_{.no_reboot = config_.no_reboot,
                 .no_shutdown = config_.no_shutdown,
                 .panic = config_.panic,
                 .watchdog = config_.watchdog},
        loop_(loop),
        vm_(vm),
        events_(std::move(events)),
        state_(config_.incoming ? RunState::kInMigrate : RunState::kPrelaunch),
        ram_(&vm),
        converter_(ram_) {}

  /// The order matters: memslots before devices that register with KVM (a grace period each
  /// otherwise), interrupt controllers before vCPUs, everything before the guest is loaded.
  Status Build(kvm::System& system, std::span<RamBlock* const> ram);

  RunState state() const noexcept { return state_; }
  const MachineConfig& config() const noexcept { return config_; }
  const Platform& platform() const noexcept { return *platform_; }

  Status Resume();
  void Pause(RunState state = RunState::kPaused);
  Status Reset(ShutdownCause cause);
  Result<std::vector<state::SavedSection>> SaveState();
  Status CheckState(std::span<const state::SavedSection> saved);
  Status LoadState(std::span<const state::SavedSection> saved);
  bool saved_running() const noexcept { return saved_running_; }
  Status NewGeneration();
  void Quit(ShutdownCause cause, int status);
  void PowerButton();
  const Actions& actions() const noexcept { return actions_; }
  void SetActions(const Actions& actions) { actions_ = actions; }
  Status InjectNmi();
  Status AddDevice(const devices::DeviceRequest& request);
  Status RemoveDevice(std::string_view id);
  DeviceTree& device_tree() noexcept { return *devices_; }
  void Hold(std::string_view why) { held_ = why; }
  void Release() { held_.reset(); }
  void Break(const Error& error);
  /// @return kInvalidArgument while somebody needs the machine to stay as it is
  Status CheckFree() const;
  void SendBreak(std::size_t port) { platform_->SendBreak(port); }

  const AddressSpace& memory() const noexcept { return ram_; }
  AddressSpace& ram() noexcept { return ram_; }
  GuestConverter* converter() noexcept {
    return config_.confidential != nullptr ? &converter_ : nullptr;
  }
  devices::MachineServices& services() noexcept { return services_; }
  CpuInfo CpuAt(unsigned index) const;
  std::vector<VcpuInfo> Vcpus() const;
  /// Calls `ask(vcpu)` while vCPU `index` stands.
  template <typename Ask>
  auto AskVcpu(unsigned index, Ask ask) -> decltype(ask(std::declval<const kvm::Vcpu&>())) {
    if (index >= vcpus_.size()) {
      return Fail(Errc::kInvalidArgument, fmt::format("there is no CPU {}", index),
                  fmt::format("The last one is {}.", vcpus_.size() - 1));
    }
    VcpuThread& thread = *vcpus_[index];
    if (state_ != RunState::kRunning) return ask(thread.vcpu());
    thread.Stop();
    thread.WaitUntilStanding();
    auto answer = ask(thread.vcpu());
    if (!thread.stopped_itself()) thread.Run();
    return answer;
  }
  Status Throttle(unsigned percent) { return throttle_.Set(vcpus_, percent); }
  unsigned throttle() const noexcept { return throttle_.percent(); }
  /// KVM's statistics of the vCPUs that somebody asked for.
  std::map<unsigned, kvm::Stats>& vcpu_stats() noexcept { return vcpu_stats_; }

 private:
  // KVM's interrupt controllers and timer as they were made; there is no other way back.
  struct ChipState {
    std::array<kvm_irqchip, 3> irqchips;
    kvm_pit_state2 pit;
  };

  // Building (machine_build.cc).
  Status MapRam(std::span<RamBlock* const> blocks, unsigned guest_phys_bits);
  Status CreateChips();
  Status CreateVcpus(kvm::System& system, std::span<const kvm_cpuid_entry2> cpuid);
  Status CreatePlatform();
  Status CreateDevices(unsigned guest_phys_bits);
  void WhileStanding(const std::function<void()>& work);
  Status PrepareAcpi();
  // machine_firmware.cc: what firmware would have told.
  Status FillFwCfg();
  Result<std::optional<std::array<std::uint8_t, 16>>> GenerationId();
  Status PrepareSmbios(std::span<const kvm_cpuid_entry2> cpuid);
  Status LoadAndEnter();
  // machine_confidential.cc
  Status PrepareConversion();
  Status TakeBackMemory();
  Status LaunchConfidential();
  void TellRefusedConversion(const ConversionExits::Refusal& refusal);

  // Living (machine.cc). The Request functions run on vCPU threads.
  void Request(std::function<void()> on_main_thread);
  void RequestReset(const char* reason);
  void RequestShutdown();
  void RequestExit(int status);
  void TellTimeSet(std::int64_t seconds);
  void RequestPanic(devices::Pvpanic::Event event);
  void RequestInternalError(Error error);

  void OnGuestReset();
  void OnGuestShutdown(ShutdownCause cause);
  void OnGuestPanic();  // machine_actions.cc, as the next
  void OnWatchdog();
  void OnInternalError(const Error& error);
  void OnGuestExit(int status);
  void End(int status);
  void TellShutdown(ShutdownCause cause);

  // machine_state.cc
  std::vector<state::Section> ListState();
  void VisitState(state::Fields& fields);
  void VisitIrqchips(state::Fields& fields);
  void VisitPit(state::Fields& fields);
  void VisitClock(state::Fields& fields);
  void VisitGeneration(state::Fields& fields);
  void VisitVcpu(std::size_t index, state::Fields& fields);
  void StopClock();
  Status ContinueClock();

  Status RestorePowerOnState();  // without loading the guest
  void StopVcpus();
  void RunVcpus();
  void SetState(RunState state);

  const MachineConfig config_;
  Actions actions_;
  EventLoop& loop_;
  kvm::Vm& vm_;
  const Events events_;
  std::optional<std::string> held_;  // why the machine has to stay as it is
  RunState state_;
  RunState loaded_state_ = RunState::kPaused;  // what LoadState() makes it
  bool saved_running_ = false;
  // Counts resets. A request made before the last one is about a guest that no longer exists.
  std::atomic<std::uint64_t> epoch_{0};

  std::map<unsigned, kvm::Stats> vcpu_stats_;

  AddressSpace ram_;
  GuestConverter converter_;
  std::optional<ConversionExits> conversion_exits_;  // vCPU threads use it
  std::vector<boot::RamRange> ram_ranges_;
  boot::BootSource source_;
  acpi::AcpiTables acpi_;
  GuestAddress generation_id_;  // where the guest's is: a saved guest brings its own tables
  smbios::Tables smbios_;
  std::unique_ptr<Platform> platform_;
  const devices::Backends no_backends_;
  devices::MachineServices services_;
  std::unique_ptr<DeviceTree> devices_;
  ChipState chips_{};
  // kvmclock, which stands while the guest does; empty before it runs for the first time.
  std::optional<std::uint64_t> clock_ns_;
  VcpuAbilities abilities_;
  std::vector<std::vector<kvm_cpuid_entry2>> cpuid_;      // what each vCPU was given
  std::optional<SavedVcpu::TscReference> tsc_reference_;  // while vCPUs are loaded
  std::vector<std::uint32_t> apic_ids_;
  std::vector<PowerOnState> power_on_;              // by vCPU index
  std::vector<std::unique_ptr<VcpuThread>> vcpus_;  // their threads use all of the above
  VcpuThrottle throttle_;                           // last: its thread uses them
};

}  // namespace holdfast::machine
