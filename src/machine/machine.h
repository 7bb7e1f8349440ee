// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include <nlohmann/json_fwd.hpp>

#include "base/state.h"
#include "machine/actions.h"
#include "machine/config.h"
#include "machine/cpu_info.h"
#include "machine/shutdown_cause.h"

namespace holdfast {
class AddressSpace;
class EventLoop;
class GuestConverter;
class RamBlock;
namespace devices {
class Bus;
struct MachineServices;
namespace pci {
class PciHost;
}
}  // namespace devices
namespace kvm {
class Stats;
class System;
class Vm;
}  // namespace kvm
}  // namespace holdfast

namespace holdfast::machine {

class DeviceTree;

/// QEMU's run states, as far as they exist here; names as in `info status`.
enum class RunState {
  kPrelaunch,
  kRunning,
  kPaused,
  kShutdown,
  kGuestPanicked,
  kInternalError,
  kIoError,
  kWatchdog,
  kInMigrate,      ///< waits for its state, see MachineConfig::incoming
  kSaveVm,         ///< ran, and stands while it is saved
  kRestoreVm,      ///< ran, and stands while another state is loaded
  kFinishMigrate,  ///< ran, and stands while the last of it moves to another monitor
  kPostMigrate     ///< runs in another monitor
};
std::string_view RunStateName(RunState state) noexcept;

/// An x86 machine (QEMU's q35 with PCI Express, without its chipset's devices) with its vCPU
/// threads.
///
/// Thread-safety: all public functions on the main loop's thread. vCPU threads talk to the main
/// thread only through EventLoop::Post.
class Machine {
 public:
  /// What becomes of a guest that has panicked.
  enum class PanicAction : std::uint8_t { kRun, kPause, kPoweroff };

  /// What happens to the machine and interests its owner; called on the main loop's thread. All but
  /// `quit` may be empty. Where one cause makes several happen, they come in the order below.
  struct Events {
    /// The power button was pressed, by whomever.
    std::function<void()> powerdown = {};
    /// The guest said so through pvpanic; what follows is `action`.
    std::function<void(PanicAction action)> guest_panicked = {};
    /// The guest told through pvpanic that its crash kernel takes over; it runs on.
    std::function<void()> guest_crash_loaded = {};
    /// The machine was reset; it runs on afterwards if it ran.
    std::function<void(ShutdownCause cause)> reset = {};
    /// The machine ends, or with -no-shutdown would end now.
    std::function<void(ShutdownCause cause)> shutdown = {};
    /// Every change of state().
    std::function<void(RunState)> state_changed = {};
    /// A device tells something that clients of the control protocol want to know.
    std::function<void(std::string_view name, const nlohmann::json& data)> device_event = {};
    /// The machine is over: exit with `status`. Not called where -no-shutdown keeps it.
    std::function<void(int status)> quit = {};
  };

  /// Builds the machine around `vm` with the blocks of `ram`, one behind the other, as its RAM,
  /// loads the guest into it and leaves the vCPUs standing at their first instruction. With
  /// config.numa the blocks are those of the nodes that have memory, in the order of their ids.
  /// `loop`, `vm` and the blocks outlive the machine.
  static Result<std::unique_ptr<Machine>> Create(EventLoop& loop, kvm::System& system, kvm::Vm& vm,
                                                 std::span<RamBlock* const> ram,
                                                 MachineConfig config, Events events);
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  /// Stops and joins the vCPU threads.
  ~Machine();

  RunState state() const noexcept;
  const MachineConfig& config() const noexcept;
  /// Whether the vCPUs run.
  bool running() const noexcept { return state() == RunState::kRunning; }

  /// Lets the vCPUs run (`cont`, or the start without -S). From kShutdown or kGuestPanicked a
  /// Reset() must come first, from kInMigrate LoadState().
  Status Resume();
  /// Stops all vCPUs and waits until they stand (`stop`); nothing if they stand already,
  /// but for a machine in kSaveVm, kRestoreVm or kFinishMigrate, and for one in kPaused
  /// that leaves (kPostMigrate): it stands for `state` from then on.
  /// @param state  kPaused, or kIoError for a disk that cannot go on, or kWatchdog, kSaveVm,
  ///               kRestoreVm, kFinishMigrate, kPostMigrate
  void Pause(RunState state = RunState::kPaused);
  /// While somebody needs the machine to stay as it is: Resume(), Reset(), AddDevice() and
  /// RemoveDevice() are refused, saying why: "it is being saved". vCPUs stand.
  void Hold(std::string_view why);
  void Release();
  /// The machine cannot go on: kInternalError, until a Reset(). vCPUs stand.
  void Break(const Error& error);
  /// Power-on state, guest reloaded; the vCPUs run on if they ran (`system_reset`).
  Status Reset(ShutdownCause cause = ShutdownCause::kHostQmpSystemReset);
  /// The state of vCPUs, interrupt controllers, clocks and all devices, without the contents of
  /// RAM; vCPUs stand. Resume() after it goes on as if nothing had been. A machine in kSaveVm or
  /// kFinishMigrate is saved as one that runs, others as what they are.
  /// @return kInvalidArgument while it runs or waits for a state itself; kUnsupported where a
  ///         device or a confidential guest cannot be saved, in a sentence that names it
  Result<std::vector<state::SavedSection>> SaveState();
  /// Whether LoadState() has a chance: the same parts, RAM and CPUs, and a processor that has what
  /// that guest was given. Changes nothing that lasts.
  /// @return as LoadState()
  Status CheckState(std::span<const state::SavedSection> saved);
  /// Makes this machine the one that was saved, whatever it was; vCPUs stand. RAM is the caller's
  /// business and must be there before, or be populated on demand: KVM may look into it. Afterwards
  /// the machine is kPaused, or as the saved one was if that stood for a reason of its own
  /// (kShutdown, kGuestPanicked …); saved_running() says whether to Resume() it.
  /// @return kInvalidArgument while it runs; kMalformed naming the section that does not fit; what
  ///         this host cannot do for the guest. After a failure the machine is kInternalError: only
  ///         Reset() or its end makes sense.
  Status LoadState(std::span<const state::SavedSection> saved);
  /// Whether the machine that LoadState() took over ran when it was saved.
  bool saved_running() const noexcept;

  /// Gives a guest that goes on from a saved state a number by which it knows (-device vmgenid):
  /// the one of the command line, or a random one where that says `auto`. After LoadState(), with
  /// RAM in place; nothing where there is no vmgenid or the guest has that number already.
  /// @return why guest memory cannot be written, or there is no randomness
  Status NewGeneration();

  /// Ends the machine from outside (`quit`, a signal), -no-shutdown or not: Events::shutdown, then
  /// Events::quit.
  void Quit(ShutdownCause cause, int status = 0);
  /// Presses the ACPI power button (`system_powerdown`, first SIGTERM).
  void PowerButton();
  /// What follows when the guest reboots, powers off, panics or its watchdog runs out.
  const Actions& actions() const noexcept;
  void SetActions(const Actions& actions);
  /// Sends every vCPU a non-maskable interrupt. @return the failed ioctl
  Status InjectNmi();
  /// A break condition on serial port `port` (0 is COM1); nothing where there is no such port.
  /// Linux takes it as magic SysRq.
  void SendBreak(std::size_t port);

  /// Makes a device for a machine that is built (`device_add`): behind a hotplug port, or on
  /// another device's bus. @return why not, in QEMU's words
  Status AddDevice(const devices::DeviceRequest& request);
  /// Asks the guest to let a device go (`device_del`); when it has, Events::device_event says
  /// DEVICE_DELETED. @return kNotFound "Device 'ID' not found"; kInvalidArgument where it cannot go
  Status RemoveDevice(std::string_view id);
  /// The PCI buses and what is on them.
  devices::pci::PciHost& pci() noexcept;
  /// The same with what is on the buses of other devices, for listings.
  const DeviceTree& device_tree() const noexcept;

  /// The devices behind I/O ports and behind memory-mapped ranges, for listings.
  const devices::Bus& io() const noexcept;
  const devices::Bus& mmio() const noexcept;
  /// Guest RAM: where its regions lie, and access to it.
  const AddressSpace& memory() const noexcept;
  /// The same for those who change how it is mapped: dirty tracking and lazy population.
  AddressSpace& ram() noexcept;
  /// Its shared and private pages; null where none can be private.
  GuestConverter* converter() noexcept;
  /// The devices that are known by what they do: the balloon.
  devices::MachineServices& services() noexcept;
  /// The CPUs the machine can have (-smp maxcpus=), by index; the first config().smp.cpus exist.
  std::vector<CpuInfo> possible_cpus() const;
  /// Those that exist.
  std::vector<VcpuInfo> vcpus() const;
  /// Lets all vCPUs rest for `percent` of the time, 0 to 99; 0, as at first: not at all.
  /// @return an error if the host has no thread left; then none rests
  Status Throttle(unsigned percent);
  unsigned throttle() const noexcept;
  /// The registers of vCPU `index`, which is made to stand for that moment if it runs.
  /// @return kInvalidArgument if there is no such vCPU; else the failed ioctl
  Result<VcpuRegisters> Registers(unsigned index);
  /// Where vCPU `index` would find this virtual address just now; the vCPU stands meanwhile.
  /// @return the guest physical address, empty where nothing is mapped; errors as for Registers()
  Result<std::optional<std::uint64_t>> Translate(unsigned index, std::uint64_t virtual_address);
  /// KVM's statistics of vCPU `index`; the first time it is made to stand for a moment.
  /// @return kInvalidArgument if there is no such vCPU; kUnsupported before Linux 5.14
  Result<const kvm::Stats*> VcpuStats(unsigned index);

 private:
  class Impl;
  explicit Machine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::machine
