// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/function.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "devices/pci/config_regs.h"
#include "devices/pci/msix.h"

namespace holdfast::devices::pci {
namespace {

constexpr std::uint32_t kOnes = 0xffffffff;

bool IsAccess(std::uint16_t offset, unsigned size) noexcept {
  return (size == 1 || size == 2 || size == 4) && offset % size == 0 &&
         offset + size <= Function::kConfigSize;
}

bool Meets(std::uint16_t offset, unsigned size, unsigned start, unsigned length) noexcept {
  return offset < start + length && start < offset + size;
}

std::uint16_t BarRegister(unsigned index) noexcept {
  return static_cast<std::uint16_t>(kRegBar0 + 4 * index);
}

}  // namespace

Function::Function(PciServices& services, const Identity& identity)
    : services_(services), identity_(identity) {
  const MutexLock lock(mutex_);
  Preset(kRegVendor, 2, identity.vendor);
  Preset(kRegDevice, 2, identity.device);
  Preset(kRegRevision, 4, (identity.class_code << 8) | identity.revision);
  Preset(kRegSubsystemVendor, 2, identity.subsystem_vendor);
  Preset(kRegSubsystem, 2, identity.subsystem);
  Preset(kRegInterruptPin, 1, identity.interrupt_pin ? 1 : 0);
  Permit(kRegCommand, 2,
         kCommandIo | kCommandMemory | kCommandMaster | kCommandParity | kCommandSerr |
             kCommandIntxDisable);
  Permit(kRegCacheLine, 1, 0xff);
  Permit(kRegInterruptLine, 1, 0xff);
}

Function::~Function() = default;

// ---- Building
// --------------------------------------------------------------------------------------

void Function::AddBar(unsigned index, BarKind kind, std::uint64_t size) {
  const MutexLock lock(mutex_);
  bars_.at(index).kind = kind;
  bars_.at(index).size = size;
  const std::uint64_t mask = ~(size - 1);
  const std::uint16_t reg = BarRegister(index);
  std::uint32_t flags = 0;
  if (kind == BarKind::kIo) flags = kBarIo;
  if (kind == BarKind::kMemory64 || kind == BarKind::kMemory64Prefetchable) flags = kBarMemory64;
  if (kind == BarKind::kMemory64Prefetchable) flags |= kBarPrefetchable;
  Preset(reg, 4, flags);
  Permit(reg, 4, static_cast<std::uint32_t>(mask) & (kind == BarKind::kIo ? ~3U : ~15U));
  if ((flags & kBarMemory64) != 0)
    Permit(static_cast<std::uint16_t>(reg + 4), 4, static_cast<std::uint32_t>(mask >> 32));
}

std::uint16_t Function::AddCapability(std::uint8_t id, std::span<const std::uint8_t> body,
                                      std::span<const std::uint8_t> writable) {
  const MutexLock lock(mutex_);
  const std::uint16_t offset = next_capability_;
  Preset(
      last_capability_ == 0 ? kRegCapabilities : static_cast<std::uint16_t>(last_capability_ + 1),
      1, offset);
  Preset(kRegStatus, 2, kStatusCapabilities);
  Preset(offset, 1, id);
  Preset(static_cast<std::uint16_t>(offset + 1), 1, 0);
  for (std::size_t i = 0; i < body.size(); ++i) {
    const auto at = static_cast<std::uint16_t>(offset + 2 + i);
    Preset(at, 1, body[i]);
    if (i < writable.size()) Permit(at, 1, writable[i]);
  }
  last_capability_ = offset;
  next_capability_ = static_cast<std::uint16_t>((offset + 2 + body.size() + 3) / 4 * 4);
  return offset;
}

std::uint16_t Function::AddExpressCapability(std::uint8_t device_type) {
  // Version 2, 60 bytes. Registers that would tell of links, power or errors hold what a device on
  // a working link has: nothing depends on them.
  std::array<std::uint8_t, 58> body{};
  std::array<std::uint8_t, 58> writable{};
  const auto put = [](auto& array, unsigned reg, unsigned size, std::uint32_t value) {
    for (unsigned i = 0; i < size; ++i)
      array.at(reg - 2 + i) = static_cast<std::uint8_t>(value >> (8 * i));
  };
  put(body, 0x02, 2, 2U | (std::uint32_t{device_type} << 4));
  put(body, 0x04, 4, 1U << 15);    // device capabilities: role-based error reporting
  put(writable, 0x08, 2, 0x78ff);  // device control, but for function level reset
  if (device_type != kExpressIntegratedEndpoint) {
    put(body, 0x0c, 4, 0x0011);      // link: 2.5 GT/s, one lane
    put(writable, 0x10, 2, 0x00c3);  // link control
    put(body, 0x12, 2, 0x0011);
    put(body, 0x2c, 4, 0x0002);  // link capabilities 2: 2.5 GT/s
    put(body, 0x30, 2, 0x0001);
  }
  return AddCapability(kCapExpress, body, writable);
}

Status Function::AddMsix(unsigned vectors, unsigned bar, std::uint32_t table_offset,
                         std::uint32_t pba_offset) {
  const std::uint64_t table_end = table_offset + std::uint64_t{vectors} * kMsixEntrySize;
  const std::uint64_t pba_end = pba_offset + (std::uint64_t{vectors} + 63) / 64 * 8;
  const std::uint64_t room = bar < kBars ? this->bar(bar).size : 0;
  if (vectors == 0 || vectors > kMsixMostVectors || table_offset % 8 != 0 || pba_offset % 8 != 0 ||
      table_end > room || pba_end > room || (table_offset < pba_end && pba_offset < table_end)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{} MSI-X vectors do not fit BAR {} of {} bytes", vectors, bar, room),
                fmt::format("There can be 1 to {} vectors.", kMsixMostVectors));
  }
  std::array<std::uint8_t, 10> body{};
  const auto put = [&body](unsigned at, std::uint32_t value, unsigned size) {
    for (unsigned i = 0; i < size; ++i) body.at(at + i) = static_cast<std::uint8_t>(value >> 8 * i);
  };
  put(0, vectors - 1, 2);
  put(2, table_offset | bar, 4);
  put(6, pba_offset | bar, 4);
  constexpr std::array<std::uint8_t, 2> kControl{0x00, 0xc0};  // enable, function mask
  msix_capability_ = AddCapability(kCapMsix, body, kControl);
  msix_ = std::make_unique<Msix>(
      services_, vectors, Msix::Place{.bar = bar, .table = table_offset, .pending = pba_offset});
  return {};
}

void Function::ClearByOne(std::uint16_t offset, unsigned size, std::uint32_t mask) {
  const MutexLock lock(mutex_);
  for (unsigned i = 0; i < size; ++i)
    clear_by_one_.at(offset + i) |= static_cast<std::uint8_t>(mask >> (8 * i));
}

void Function::PresetConfig(std::uint16_t offset, unsigned size, std::uint32_t value,
                            std::uint32_t writable) {
  const MutexLock lock(mutex_);
  Preset(offset, size, value);
  Permit(offset, size, writable);
}

void Function::Preset(std::uint16_t offset, unsigned size, std::uint32_t value) {
  for (unsigned i = 0; i < size; ++i)
    config_.at(offset + i) = power_on_.at(offset + i) = static_cast<std::uint8_t>(value >> (8 * i));
}

void Function::Permit(std::uint16_t offset, unsigned size, std::uint32_t mask) {
  for (unsigned i = 0; i < size; ++i)
    writable_.at(offset + i) = static_cast<std::uint8_t>(mask >> (8 * i));
}

// ---- Configuration space
// ----------------------------------------------------------------------------

std::uint32_t Function::Load(std::uint16_t offset, unsigned size) const {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= std::uint32_t{config_.at(offset + i)} << (8 * i);
  return value;
}

void Function::Store(std::uint16_t offset, unsigned size, std::uint32_t value) {
  for (unsigned i = 0; i < size; ++i)
    config_.at(offset + i) = static_cast<std::uint8_t>(value >> (8 * i));
}

std::uint32_t Function::PeekConfig(std::uint16_t offset, unsigned size) const noexcept {
  if (!IsAccess(offset, size)) return kOnes;
  const MutexLock lock(mutex_);
  return Load(offset, size);
}

void Function::PokeConfig(std::uint16_t offset, unsigned size, std::uint32_t value) noexcept {
  if (!IsAccess(offset, size)) return;
  const MutexLock lock(mutex_);
  Store(offset, size, value);
}

std::uint32_t Function::ReadConfig(std::uint16_t offset, unsigned size) noexcept {
  if (!IsAccess(offset, size)) return kOnes;
  ConfigRead(offset, size);
  const MutexLock lock(mutex_);
  return Load(offset, size);
}

void Function::WriteConfig(std::uint16_t offset, unsigned size, std::uint32_t value) noexcept {
  if (!IsAccess(offset, size)) return;
  {
    const MutexLock moving(moves_mutex_);
    std::vector<Move> moves;
    bool enabled = false;
    bool masked = false;
    const bool msix = msix_ != nullptr && Meets(offset, size, msix_capability_ + kMsixControl, 2U);
    {
      const MutexLock lock(mutex_);
      for (unsigned i = 0; i < size; ++i) {
        const auto byte = static_cast<std::uint8_t>(value >> (8 * i));
        std::uint8_t& now = config_.at(offset + i);
        const std::uint8_t may = writable_.at(offset + i);
        now = static_cast<std::uint8_t>((now & ~may) | (byte & may));
        now = static_cast<std::uint8_t>(now & ~(byte & clear_by_one_.at(offset + i)));
      }
      if (Meets(offset, size, kRegCommand, 2)) CommandChanged();
      if (Meets(offset, size, kRegCommand, 2) || Meets(offset, size, kRegBar0, 4 * kBars))
        moves = FindMoves();
      if (msix) {
        const std::uint32_t control =
            Load(static_cast<std::uint16_t>(msix_capability_ + kMsixControl), 2);
        enabled = (control & kMsixEnable) != 0;
        masked = (control & kMsixFunctionMask) != 0;
      }
    }
    if (msix) msix_->Control(enabled, masked);
    TellMoves(moves);
  }
  ConfigWritten(offset, size);
}

void Function::ConfigWritten(std::uint16_t /*offset*/, unsigned /*size*/) noexcept {}
void Function::ConfigRead(std::uint16_t /*offset*/, unsigned /*size*/) noexcept {}

void Function::CommandChanged() {
  const std::uint32_t command = Load(kRegCommand, 2);
  bus_master_.store((command & kCommandMaster) != 0, std::memory_order_relaxed);
  UpdateIntx();
}

// ---- BARs
// -------------------------------------------------------------------------------------------

// Where the registers say that the BAR is. An address of 0 and one that reaches the end of what it
// can hold, as when a driver asks for the size with all ones, decode nothing.
std::optional<GuestAddress> Function::Decoded(unsigned index) const {
  const Bar& bar = bars_.at(index);
  const std::uint32_t command = Load(kRegCommand, 2);
  const std::uint16_t reg = BarRegister(index);
  const bool io = bar.kind == BarKind::kIo;
  if ((command & (io ? kCommandIo : kCommandMemory)) == 0) return std::nullopt;
  std::uint64_t address = Load(reg, 4) & (io ? ~3U : ~15U);
  std::uint64_t last = io ? 0xffff : kOnes;
  if (bar.kind == BarKind::kMemory64 || bar.kind == BarKind::kMemory64Prefetchable) {
    address |= std::uint64_t{Load(static_cast<std::uint16_t>(reg + 4), 4)} << 32;
    last = std::numeric_limits<std::uint64_t>::max();
  }
  if (address == 0 || bar.size - 1 >= last || address >= last - (bar.size - 1)) return std::nullopt;
  return GuestAddress(address);
}

std::vector<Function::Move> Function::FindMoves() {
  std::vector<Move> moves;
  for (unsigned i = 0; i < kBars; ++i) {
    if (bars_.at(i).size == 0) continue;
    const auto where = Decoded(i);
    if (where == bars_.at(i).where) continue;
    bars_.at(i).where = where;
    moves.push_back({i, where});
  }
  return moves;
}

void Function::TellMoves(const std::vector<Move>& moves) {
  for (const Move& move : moves) {
    if (bar_moved_) bar_moved_(move.bar, move.where);
    OnBarMoved(move.bar, move.where);
  }
}

void Function::OnBarMoved(unsigned /*bar*/, std::optional<GuestAddress> /*where*/) noexcept {}

Function::BarInfo Function::bar(unsigned index) const noexcept {
  const MutexLock lock(mutex_);
  const Bar& bar = bars_.at(index);
  return {bar.kind, bar.size, bar.where};
}

void Function::PlaceBar(unsigned index, GuestAddress address) noexcept {
  const std::uint16_t reg = BarRegister(index);
  const BarKind kind = bar(index).kind;
  WriteConfig(reg, 4, static_cast<std::uint32_t>(address.value()));
  if (kind == BarKind::kMemory64 || kind == BarKind::kMemory64Prefetchable)
    WriteConfig(static_cast<std::uint16_t>(reg + 4), 4,
                static_cast<std::uint32_t>(address.value() >> 32));
}

void Function::AccessReadBar(unsigned bar, std::uint64_t offset,
                             std::span<std::byte> data) noexcept {
  if (msix_ != nullptr && msix_->Holds(bar, offset, data.size())) {
    msix_->Read(offset, data);
  } else {
    ReadBar(bar, offset, data);
  }
}

void Function::AccessWriteBar(unsigned bar, std::uint64_t offset,
                              std::span<const std::byte> data) noexcept {
  if (msix_ != nullptr && msix_->Holds(bar, offset, data.size())) {
    msix_->Write(offset, data);
  } else {
    WriteBar(bar, offset, data);
  }
}

void Function::ReadBar(unsigned /*bar*/, std::uint64_t /*offset*/,
                       std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0xff});
}
void Function::WriteBar(unsigned /*bar*/, std::uint64_t /*offset*/,
                        std::span<const std::byte> /*data*/) noexcept {}

// ---- Interrupts
// -------------------------------------------------------------------------------------

bool Function::TriggerMsix(unsigned vector) noexcept {
  if (msix_ == nullptr || !msix_->enabled()) return false;
  // A message is a write to memory, which the guest may have forbidden.
  if (!bus_master()) return vector < msix_->vectors();
  return msix_->Trigger(vector);
}

bool Function::msix_enabled() const noexcept {
  return msix_ != nullptr && msix_->enabled();
}
unsigned Function::msix_vectors() const noexcept {
  return msix_ == nullptr ? 0 : msix_->vectors();
}

Result<int> Function::MsixEventFd(unsigned vector) {
  if (msix_ == nullptr) return Fail(Errc::kInvalidArgument, "the device has no MSI-X");
  return msix_->EventFd(vector);
}

void Function::SetIntx(bool level) noexcept {
  const MutexLock lock(mutex_);
  intx_wanted_ = level;
  UpdateIntx();
}

void Function::UpdateIntx() {
  const std::uint32_t status = Load(kRegStatus, 2) & ~std::uint32_t{kStatusInterrupt};
  Store(kRegStatus, 2, status | (intx_wanted_ ? kStatusInterrupt : 0U));
  const bool level = intx_wanted_ && (Load(kRegCommand, 2) & kCommandIntxDisable) == 0;
  if (level == intx_level_) return;
  intx_level_ = level;
  // Under the lock, so that two changes arrive in their order; the line only counts.
  if (intx_line_) intx_line_(level);
}

// ---- Reset
// ------------------------------------------------------------------------------------------

void Function::SetRunning(bool) noexcept {}

void Function::Reset() noexcept {
  const MutexLock moving(moves_mutex_);
  std::vector<Move> moves;
  {
    const MutexLock lock(mutex_);
    for (std::size_t i = 0; i < kConfigSize; ++i) {
      const auto changeable = static_cast<std::uint8_t>(writable_.at(i) | clear_by_one_.at(i));
      config_.at(i) =
          static_cast<std::uint8_t>((config_.at(i) & ~changeable) | (power_on_.at(i) & changeable));
    }
    intx_wanted_ = false;
    CommandChanged();
    moves = FindMoves();
  }
  if (msix_ != nullptr) msix_->Reset();
  TellMoves(moves);
}

}  // namespace holdfast::devices::pci
