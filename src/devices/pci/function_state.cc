// SPDX-License-Identifier: Apache-2.0
// What a function is saved as.
#include <fmt/format.h>

#include <algorithm>

#include "devices/pci/config_regs.h"
#include "devices/pci/function.h"
#include "devices/pci/msix.h"

namespace holdfast::devices::pci {

Status Function::Migratable() const {
  return {};
}

void Function::ChangesItself(std::uint16_t offset, unsigned size, std::uint32_t mask) {
  const MutexLock lock(mutex_);
  for (unsigned i = 0; i < size; ++i)
    own_.at(offset + i) |= static_cast<std::uint8_t>(mask >> (8 * i));
}

void Function::VisitState(state::Fields& fields) {
  if (fields.loading()) Reset();
  std::vector<std::byte> config;  // without the zeroes at its end
  bool intx = false;
  if (!fields.loading()) {
    const MutexLock lock(mutex_);
    const auto bytes = std::as_bytes(std::span(config_));
    config.assign(bytes.begin(), bytes.end());
    while (!config.empty() && config.back() == std::byte{0}) config.pop_back();
    intx = intx_wanted_;
  }
  fields.Blob("config", config, kConfigSize);
  fields.Value("intx", intx);
  fields.Check(!intx || identity_.interrupt_pin, "it asserts INTA# and has no such pin");
  if (fields.loading()) CheckConfig(fields, config);
  if (msix_ != nullptr) msix_->VisitState(fields);
  if (fields.loading() && fields.ok()) ApplyConfig(config, intx);
}

// Makes `config` as long as configuration space, and judges it.
void Function::CheckConfig(state::Fields& fields, std::vector<std::byte>& config) {
  config.resize(kConfigSize);
  const MutexLock lock(mutex_);
  for (std::size_t i = 0; i < kConfigSize && fields.ok(); ++i) {
    auto changeable = static_cast<std::uint8_t>(writable_.at(i) | clear_by_one_.at(i) | own_.at(i));
    // The status register's bit for INTx follows from the line's level.
    if (i == kRegStatus) changeable |= kStatusInterrupt;
    const auto loaded = std::to_integer<std::uint8_t>(config[i]);
    if (((loaded ^ config_.at(i)) & ~changeable) == 0) continue;
    fields.Malformed(
        fmt::format("byte {:#x} of configuration space is {:#x} and here it is {:#x}, which no "
                    "guest can change",
                    i, loaded, config_.at(i)));
  }
}

void Function::ApplyConfig(std::span<const std::byte> config, bool intx) {
  const MutexLock moving(moves_mutex_);
  std::vector<Move> moves;
  std::uint32_t control = 0;
  {
    const MutexLock lock(mutex_);
    std::ranges::copy(config, std::as_writable_bytes(std::span(config_)).begin());
    intx_wanted_ = intx;
    CommandChanged();
    moves = FindMoves();
    if (msix_ != nullptr)
      control = Load(static_cast<std::uint16_t>(msix_capability_ + kMsixControl), 2);
  }
  if (msix_ != nullptr) {
    msix_->Control((control & kMsixEnable) != 0, (control & kMsixFunctionMask) != 0);
  }
  TellMoves(moves);
}

}  // namespace holdfast::devices::pci
