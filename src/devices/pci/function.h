// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/guest_address.h>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "devices/pci/interrupts.h"

namespace holdfast::devices::pci {

/// The read-only head of a function's configuration space.
struct Identity {
  std::uint16_t vendor = 0;
  std::uint16_t device = 0;
  std::uint16_t subsystem_vendor = 0;
  std::uint16_t subsystem = 0;
  std::uint32_t class_code = 0;  ///< base class, sub-class, interface: 0x010000 is SCSI storage
  std::uint8_t revision = 0;
  bool interrupt_pin = true;  ///< INTA#
};

enum class BarKind : std::uint8_t { kMemory32, kMemory64, kMemory64Prefetchable, kIo };

/// MSI-X of a function: its table and pending bits, behind one BAR.
///
/// Thread-safety: Trigger() from any thread; it locks itself.
class Msix;

/// A PCI Express function: configuration space with BARs and capabilities, MSI-X, INTx.
///
/// Thread-safety: ReadConfig, WriteConfig, ReadBar and WriteBar come from any vCPU thread, several
/// at once. This class locks what is its own (the configuration space); a derived class locks what
/// is its. Building, Reset() and destruction happen on the main thread while the vCPUs stand.
class Function {
 public:
  static constexpr std::size_t kConfigSize = 4096;
  static constexpr unsigned kBars = 6;

  /// `services` outlives the function.
  Function(PciServices& services, const Identity& identity);
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;
  virtual ~Function();

  /// The device model's name: "virtio-blk-pci".
  virtual std::string_view name() const noexcept = 0;

  /// An aligned access of 1, 2 or 4 bytes; others read as all ones and write nothing.
  std::uint32_t ReadConfig(std::uint16_t offset, unsigned size) noexcept HF_EXCLUDES(mutex_);
  void WriteConfig(std::uint16_t offset, unsigned size, std::uint32_t value) noexcept
      HF_EXCLUDES(mutex_);

  /// What the bus calls for a guest's access to BAR `bar`: MSI-X's parts are handled, the rest goes
  /// to ReadBar and WriteBar.
  void AccessReadBar(unsigned bar, std::uint64_t offset, std::span<std::byte> data) noexcept;
  void AccessWriteBar(unsigned bar, std::uint64_t offset, std::span<const std::byte> data) noexcept;
  /// A guest's access to BAR `bar`, MSI-X's own parts excepted: they never come here.
  virtual void ReadBar(unsigned bar, std::uint64_t offset, std::span<std::byte> data) noexcept;
  virtual void WriteBar(unsigned bar, std::uint64_t offset,
                        std::span<const std::byte> data) noexcept;

  /// Back to power-on state. Overriders call it too.
  virtual void Reset() noexcept;
  /// The machine has stopped, with all vCPUs standing, or is about to go on. Main thread. Default:
  /// nothing to do.
  virtual void SetRunning(bool running) noexcept;

  /// Saves or loads all that a guest can have changed: configuration space, BARs, MSI-X, the level
  /// of INTx. Loading begins with Reset(), refuses what the guest could not have written, and moves
  /// BARs as the guest would. Overriders call it first. Main thread, after SetRunning(false).
  virtual void VisitState(state::Fields& fields) HF_EXCLUDES(mutex_);
  /// Version of what VisitState() saves.
  virtual std::uint32_t state_version() const noexcept { return 1; }
  /// @return kUnsupported, in a sentence, if there is state that nobody here knows
  virtual Status Migratable() const;

  /// Called by the function whenever the guest moved a BAR or changed the command register, with
  /// the BAR's number and where it is decoded now (nothing: nowhere). Set by the bus.
  using BarMoved = std::function<void(unsigned bar, std::optional<GuestAddress> where)>;
  void set_bar_moved(BarMoved moved) { bar_moved_ = std::move(moved); }
  /// Which GSI INTA# is wired to. Set by the bus.
  void set_intx(std::function<void(bool level)> line) { intx_line_ = std::move(line); }

  struct BarInfo {
    BarKind kind;
    std::uint64_t size;                 ///< bytes, a power of two; 0: no such BAR
    std::optional<GuestAddress> where;  ///< where it is decoded; for I/O a port
  };
  BarInfo bar(unsigned index) const noexcept HF_EXCLUDES(mutex_);
  const Identity& identity() const noexcept { return identity_; }
  /// Puts BAR `index` at `address`, as firmware would. Nothing decodes there before the guest says
  /// so in the command register. Main thread.
  void PlaceBar(unsigned index, GuestAddress address) noexcept HF_EXCLUDES(mutex_);

 protected:
  PciServices& services() const noexcept { return services_; }

  // For the constructor of a derived class.

  /// @param size  a power of two, at least 16 (memory) or 4 (I/O); the next BAR belongs to a 64-bit
  /// one
  void AddBar(unsigned index, BarKind kind, std::uint64_t size);
  /// Appends a capability. @param body  what follows id and next pointer
  /// @param writable  which bits of the body the guest may write; shorter: the rest is read-only
  /// @return where in configuration space the capability (its id byte) is
  std::uint16_t AddCapability(std::uint8_t id, std::span<const std::uint8_t> body,
                              std::span<const std::uint8_t> writable = {});
  /// Lets the guest clear these bits of a register of 1, 2 or 4 bytes by writing ones to them.
  void ClearByOne(std::uint16_t offset, unsigned size, std::uint32_t mask) HF_EXCLUDES(mutex_);
  /// Says that the function itself changes these bits of a register of 1, 2 or 4 bytes, by
  /// PokeConfig(): they are loaded as they were saved.
  void ChangesItself(std::uint16_t offset, unsigned size, std::uint32_t mask) HF_EXCLUDES(mutex_);
  /// Sets what a register of 1, 2 or 4 bytes holds from power-on, and which bits the guest may
  /// write.
  void PresetConfig(std::uint16_t offset, unsigned size, std::uint32_t value,
                    std::uint32_t writable = 0) HF_EXCLUDES(mutex_);
  /// The PCI Express capability of an endpoint (or root port, by `device_type`).
  /// @return where it is
  std::uint16_t AddExpressCapability(std::uint8_t device_type);
  /// MSI-X with `vectors` entries, the table at `table_offset` and the pending bits at `pba_offset`
  /// of `bar`, which AddBar() has made large enough.
  Status AddMsix(unsigned vectors, unsigned bar, std::uint32_t table_offset,
                 std::uint32_t pba_offset);

  /// Sends vector `vector`. @return whether MSI-X is enabled and has that vector; if not, the
  /// caller uses INTx. Any thread.
  bool TriggerMsix(unsigned vector) noexcept;
  bool msix_enabled() const noexcept;
  unsigned msix_vectors() const noexcept;
  /// Writing 1 to it sends vector `vector` whenever MSI-X is enabled: for vhost and other
  /// processes. Stays the function's and never changes. @return kInvalidArgument without such a
  /// vector; else why the host gives no eventfd or interrupt route
  Result<int> MsixEventFd(unsigned vector);
  /// Asserts INTA# unless the guest has disabled it (command register). Any thread.
  void SetIntx(bool level) noexcept HF_EXCLUDES(mutex_);

  /// Whether the guest has let the function master the bus; without it a function neither touches
  /// memory nor sends messages.
  bool bus_master() const noexcept { return bus_master_.load(std::memory_order_relaxed); }

  /// After the guest wrote to [offset, offset + size) of a capability or device specific register;
  /// and before it reads one, to put a value there with PokeConfig(). No lock is held.
  virtual void ConfigWritten(std::uint16_t offset, unsigned size) noexcept;
  virtual void ConfigRead(std::uint16_t offset, unsigned size) noexcept;
  /// After the function's own handling of a moved BAR; for doorbells. Calls do not overlap; one
  /// must not write to this function's configuration space.
  virtual void OnBarMoved(unsigned bar, std::optional<GuestAddress> where) noexcept;
  std::uint32_t PeekConfig(std::uint16_t offset, unsigned size) const noexcept HF_EXCLUDES(mutex_);
  void PokeConfig(std::uint16_t offset, unsigned size, std::uint32_t value) noexcept
      HF_EXCLUDES(mutex_);

 private:
  friend class PciBus;
  struct Bar {
    BarKind kind = BarKind::kMemory32;
    std::uint64_t size = 0;
    std::optional<GuestAddress> where;
  };
  struct Move {
    unsigned bar;
    std::optional<GuestAddress> where;
  };
  // Sets a byte range to `value` now and at power-on.
  void Preset(std::uint16_t offset, unsigned size, std::uint32_t value) HF_REQUIRES(mutex_);
  void Permit(std::uint16_t offset, unsigned size, std::uint32_t mask) HF_REQUIRES(mutex_);
  std::uint32_t Load(std::uint16_t offset, unsigned size) const HF_REQUIRES(mutex_);
  void Store(std::uint16_t offset, unsigned size, std::uint32_t value) HF_REQUIRES(mutex_);
  std::optional<GuestAddress> Decoded(unsigned index) const HF_REQUIRES(mutex_);
  std::vector<Move> FindMoves() HF_REQUIRES(mutex_);
  void CommandChanged() HF_REQUIRES(mutex_);
  void UpdateIntx() HF_REQUIRES(mutex_);
  void TellMoves(const std::vector<Move>& moves);
  void CheckConfig(state::Fields& fields, std::vector<std::byte>& config) HF_EXCLUDES(mutex_);
  void ApplyConfig(std::span<const std::byte> config, bool intx) HF_EXCLUDES(mutex_);

  PciServices& services_;
  const Identity identity_;
  BarMoved bar_moved_;
  std::function<void(bool)> intx_line_;

  Mutex moves_mutex_;  // taken first: BARs move one after the other
  mutable Mutex mutex_;
  std::array<std::uint8_t, kConfigSize> config_ HF_GUARDED_BY(mutex_){};
  std::array<std::uint8_t, kConfigSize> power_on_ HF_GUARDED_BY(mutex_){};
  std::array<std::uint8_t, kConfigSize> writable_ HF_GUARDED_BY(mutex_){};
  std::array<std::uint8_t, kConfigSize> clear_by_one_ HF_GUARDED_BY(mutex_){};
  std::array<std::uint8_t, kConfigSize> own_ HF_GUARDED_BY(mutex_){};  // the function's to change
  std::array<Bar, kBars> bars_ HF_GUARDED_BY(mutex_){};
  bool intx_wanted_ HF_GUARDED_BY(mutex_) = false;
  bool intx_level_ HF_GUARDED_BY(mutex_) = false;
  std::atomic<bool> bus_master_ = false;  // the command register's bit, for other threads
  std::uint16_t next_capability_ = 0x40;
  std::uint16_t last_capability_ = 0;  // 0: none yet
  std::uint16_t msix_capability_ = 0;
  std::unique_ptr<Msix> msix_;  // constant after construction
};

}  // namespace holdfast::devices::pci
