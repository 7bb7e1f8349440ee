// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace holdfast::kvm {

/// One statistic of a VM or vCPU, as the kernel describes it (Documentation/virt/kvm/api.rst,
/// KVM_GET_STATS_FD).
struct StatDescription {
  /// The order is the kernel's.
  enum class Type : std::uint8_t { kCumulative, kInstant, kPeak, kLinearHistogram, kLog2Histogram };
  enum class Unit : std::uint8_t { kNone, kBytes, kSeconds, kCycles, kBoolean };

  std::string name;
  Type type = Type::kCumulative;
  Unit unit = Unit::kNone;
  bool binary_base = false;       ///< the exponent is of 2, else of 10
  std::int16_t exponent = 0;      ///< value * base^exponent is in `unit`
  std::uint16_t count = 1;        ///< numbers; more than one in a histogram
  std::uint32_t bucket_size = 0;  ///< of a linear histogram
  std::uint32_t offset = 0;       ///< bytes from the start of the values
};

/// Reads the descriptions out of the file that KVM_GET_STATS_FD gives.
/// @param file  all of it that precedes the values
/// @return kMalformed where it contradicts itself
Result<std::vector<StatDescription>> ParseStatDescriptions(std::span<const std::byte> file);

/// The statistics of a VM or vCPU: KVM's counters in binary form.
///
/// Thread-safety: const functions on any thread, also while the vCPU runs.
class Stats {
 public:
  /// @param kvm_fd  of the VM, or of a vCPU that does not run: the kernel waits until it stands
  /// @return kUnsupported where the kernel has no binary statistics (they came with Linux 5.14)
  static Result<Stats> Open(int kvm_fd);

  const std::vector<StatDescription>& descriptions() const noexcept { return descriptions_; }
  /// The numbers as they are now: descriptions()[i].count of them for each.
  Result<std::vector<std::vector<std::uint64_t>>> Read() const;

 private:
  Stats(UniqueFd fd, std::vector<StatDescription> descriptions, std::uint32_t data_offset,
        std::size_t data_size)
      : fd_(std::move(fd)),
        descriptions_(std::move(descriptions)),
        data_offset_(data_offset),
        data_size_(data_size) {}

  UniqueFd fd_;
  std::vector<StatDescription> descriptions_;
  std::uint32_t data_offset_;
  std::size_t data_size_;  // bytes of all values
};

}  // namespace holdfast::kvm
