// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::devices::scsi {

/// What a disk or CD-ROM tells about itself.
struct Identity {
  bool cdrom = false;
  std::string vendor = "HOLDFAST";
  std::string product;  ///< "HARDDISK", "CD-ROM"
  std::string version = "1.0";
  std::string serial;
  std::string device_id;  ///< VPD page 0x83
  std::uint64_t wwn = 0;  ///< likewise; 0: none
  std::uint32_t block_size = 512;
  std::uint32_t physical_block_size = 512;
  std::uint64_t min_io_blocks = 0;
  std::uint64_t opt_io_blocks = 0;
  std::uint64_t unmap_granularity_blocks = 1;
  std::uint16_t rotation_rate = 0;  ///< 0: not told, 1: no rotation
  bool unmaps = true;
};

using Bytes = std::vector<std::uint8_t>;

/// Standard INQUIRY data (SPC-4, 6.4.2).
Bytes InquiryData(const Identity& identity);
/// A page of vital product data. @return nothing if there is no such page
std::optional<Bytes> VitalProductData(const Identity& identity, std::uint8_t page);

/// What MODE SENSE shows beside the identity.
struct ModeState {
  bool readonly = false;
  bool write_cache = true;
  bool locked = false;
  std::uint64_t blocks = 0;
};
/// MODE SENSE's answer. @param ten  the form with the longer header
/// @param control  0 current, 1 changeable, 2 default values
/// @return nothing if there is no such page
std::optional<Bytes> ModeData(const Identity& identity, const ModeState& state, bool ten,
                              bool without_descriptors, std::uint8_t page, std::uint8_t control);

/// READ TOC (MMC-6, 6.25): one data track. @return nothing for a format there is not
std::optional<Bytes> TableOfContents(std::uint64_t blocks, bool msf, std::uint8_t format,
                                     std::uint8_t first_track);
/// GET CONFIGURATION (MMC-6, 6.5): a CD or, above its size, a DVD. @param blocks  0: no medium
Bytes Configuration(std::uint64_t blocks, bool one_feature, std::uint16_t feature);
/// READ DISC INFORMATION (MMC-6, 6.22): finalised, one session.
Bytes DiscInformation();

}  // namespace holdfast::devices::scsi
