// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/guest_address.h>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "devices/bus.h"

namespace holdfast {
class AddressSpace;
}

namespace holdfast::devices {

/// fw_cfg, the x86 form: items that a guest picks by number and reads byte by byte from a port or
/// in one go by DMA; the files among them have names in a directory item. Linux shows those under
/// /sys/firmware/qemu_fw_cfg. Nothing is writable. Spec: QEMU, docs/specs/fw_cfg.
///
/// Thread-safety: items are added before any vCPU runs; accesses come from any vCPU's thread.
class FwCfg final : public BusDevice {
 public:
  static constexpr std::uint16_t kPort = 0x510;
  static constexpr std::uint16_t kPortCount = 12;
  /// The longest name of a file, without its final zero.
  static constexpr std::size_t kLongestName = 55;
  /// How many files there can be; QEMU's default is a few less.
  static constexpr std::size_t kMostFiles = 64;

  /// Items with a number of their own.
  enum class Key : std::uint16_t {
    kSignature = 0x0000,
    kId = 0x0001,
    kUuid = 0x0002,
    kRamSize = 0x0003,
    kCpus = 0x0005,
    kMaxCpus = 0x000f,
    kDirectory = 0x0019,
    kFirstFile = 0x0020,
  };

  /// `memory` is what DMA reaches; it outlives the device.
  explicit FwCfg(const AddressSpace& memory);

  /// Sets the item of one of the numbers before kDirectory, little-endian.
  void SetNumber(Key key, std::uint64_t value, unsigned size);
  void SetBytes(Key key, std::vector<std::byte> bytes);
  /// Adds a file. @return kInvalidArgument for an empty, too long or taken name, or one file too
  /// many; kExhausted for contents of 4 GiB and more
  Status AddFile(std::string_view name, std::vector<std::byte> contents);

  std::string_view name() const noexcept override { return "fw_cfg"; }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  void Reset() noexcept override;
  /// The selected item and how far it has been read; the items follow from the command line. Main
  /// thread, vCPUs standing.
  void VisitState(state::Fields& fields) HF_EXCLUDES(mutex_);

 private:
  void Select(std::uint16_t key) HF_REQUIRES(mutex_);
  std::byte NextByte() HF_REQUIRES(mutex_);
  void RunDma(GuestAddress request) HF_REQUIRES(mutex_);
  /// Copies `length` bytes of the selected item to the guest, zeroes behind its end.
  Status CopyOut(GuestAddress to, std::uint32_t length) HF_REQUIRES(mutex_);

  const AddressSpace& memory_;
  std::map<std::uint16_t, std::vector<std::byte>> items_;
  std::vector<std::string> files_;  // names, in the order of their numbers

  mutable Mutex mutex_;
  std::uint16_t key_ HF_GUARDED_BY(mutex_) = 0;  // of the last selection, there or not
  const std::vector<std::byte>* selected_ HF_GUARDED_BY(mutex_) = nullptr;
  std::size_t position_ HF_GUARDED_BY(mutex_) = 0;
  std::uint64_t dma_address_ HF_GUARDED_BY(mutex_) = 0;
};

}  // namespace holdfast::devices
