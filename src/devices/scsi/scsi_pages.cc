// SPDX-License-Identifier: Apache-2.0
#include "devices/scsi/scsi_pages.h"

#include <algorithm>
#include <array>
#include <bit>

#include "devices/scsi/scsi_cdb.h"

namespace holdfast::devices::scsi {
namespace {

constexpr std::uint8_t kDiskType = 0x00;
constexpr std::uint8_t kCdType = 0x05;
constexpr std::uint8_t kRemovable = 0x80;
constexpr std::size_t kMostSerial = 36;
constexpr std::size_t kMostDeviceId = 255 - 8;
// A CD holds 80 minutes; what is larger is a DVD.
constexpr std::uint64_t kMostCdBlocks = 80ULL * 60 * 75;

std::uint8_t TypeOf(const Identity& identity) {
  return identity.cdrom ? kCdType : kDiskType;
}

// Text, filled up with blanks.
void PutText(Bytes& to, std::size_t offset, std::size_t size, std::string_view text) {
  for (std::size_t i = 0; i < size; ++i) {
    to[offset + i] = i < text.size() ? static_cast<std::uint8_t>(text[i]) : ' ';
  }
}

Bytes Page(const Identity& identity, std::uint8_t page, const Bytes& body) {
  Bytes data = {TypeOf(identity), page, 0, 0};
  StoreBig(data, 2, 2, body.size());
  data.insert(data.end(), body.begin(), body.end());
  return data;
}

void AddDesignator(Bytes& body, std::uint8_t code_set, std::uint8_t type, const Bytes& id) {
  body.insert(body.end(), {code_set, type, 0, static_cast<std::uint8_t>(id.size())});
  body.insert(body.end(), id.begin(), id.end());
}

Bytes DeviceIds(const Identity& identity) {
  Bytes body;
  if (!identity.device_id.empty()) {
    const std::string id = identity.device_id.substr(0, kMostDeviceId);
    AddDesignator(body, 0x02, 0x00, Bytes(id.begin(), id.end()));  // ASCII, vendor specific
  }
  if (identity.wwn != 0) {
    Bytes wwn(8);
    StoreBig(wwn, 0, 8, identity.wwn);
    AddDesignator(body, 0x01, 0x03, wwn);  // binary, NAA
  }
  return body;
}

// Block limits (SBC-3, 6.6.3).
Bytes BlockLimits(const Identity& identity) {
  Bytes body(60);
  body[0] = 0x01;  // WSNZ: WRITE SAME of 0 blocks is refused
  StoreBig(body, 2, 2, std::min<std::uint64_t>(identity.min_io_blocks, 0xffff));
  StoreBig(body, 8, 4, identity.opt_io_blocks);
  if (identity.unmaps) {
    StoreBig(body, 16, 4, (1ULL << 30) / identity.block_size);
    StoreBig(body, 20, 4, kMostUnmapRanges);
    StoreBig(body, 24, 4, identity.unmap_granularity_blocks);
  }
  StoreBig(body, 32, 8, (1ULL << 30) / identity.block_size);  // WRITE SAME
  return body;
}

Bytes Characteristics(const Identity& identity) {
  Bytes body(60);
  StoreBig(body, 0, 2, identity.rotation_rate);
  return body;
}

// Logical block provisioning (SBC-3, 6.6.4).
Bytes Provisioning(const Identity& identity) {
  Bytes body(4);
  if (identity.unmaps) {
    body[1] = 0xe0;  // UNMAP, WRITE SAME(16) and (10) with UNMAP
    body[2] = 0x02;  // thin
  }
  return body;
}

// ---- Mode pages ---------------------------------------------------------------------------------

Bytes ErrorRecoveryPage(std::uint8_t control) {
  Bytes page = {0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  if (control != 1) page[2] = 0x80;  // automatic reallocation of writes
  return page;
}

Bytes CachingPage(const ModeState& state, std::uint8_t control) {
  Bytes page(20);
  page[0] = 0x08;
  page[1] = 18;
  if (control == 1 || state.write_cache) page[2] = 0x04;
  return page;
}

Bytes CapabilitiesPage(const ModeState& state, std::uint8_t control) {
  Bytes page(22);
  page[0] = 0x2a;
  page[1] = 20;
  if (control == 1) return page;
  page[2] = 0x3b;  // reads CD-R, CD-RW, DVD-ROM, DVD-R
  page[4] = 0x70;  // multi-session, modes 2
  page[6] = static_cast<std::uint8_t>(0x29 | (state.locked ? 0x02 : 0));  // tray, eject, lock
  StoreBig(page, 8, 2, 50 * 176);
  StoreBig(page, 12, 2, 2048);
  StoreBig(page, 14, 2, 16 * 176);
  return page;
}

}  // namespace

Bytes InquiryData(const Identity& identity) {
  Bytes data(36);
  data[0] = TypeOf(identity);
  data[1] = identity.cdrom ? kRemovable : 0;
  data[2] = 0x05;  // SPC-3
  data[3] = 0x12;  // hierarchical LUNs, this format
  data[4] = static_cast<std::uint8_t>(data.size() - 5);
  data[7] = 0x02;  // command queueing
  PutText(data, 8, 8, identity.vendor);
  PutText(data, 16, 16, identity.product);
  PutText(data, 32, 4, identity.version);
  return data;
}

std::optional<Bytes> VitalProductData(const Identity& identity, std::uint8_t page) {
  switch (page) {
    case 0x00: {
      Bytes pages = {0x00};
      if (!identity.serial.empty()) pages.push_back(0x80);
      pages.push_back(0x83);
      if (!identity.cdrom) pages.insert(pages.end(), {0xb0, 0xb1, 0xb2});
      return Page(identity, page, pages);
    }
    case 0x80: {
      if (identity.serial.empty()) return std::nullopt;
      const std::string serial = identity.serial.substr(0, kMostSerial);
      return Page(identity, page, Bytes(serial.begin(), serial.end()));
    }
    case 0x83:
      return Page(identity, page, DeviceIds(identity));
    case 0xb0:
      if (identity.cdrom) return std::nullopt;
      return Page(identity, page, BlockLimits(identity));
    case 0xb1:
      if (identity.cdrom) return std::nullopt;
      return Page(identity, page, Characteristics(identity));
    case 0xb2:
      if (identity.cdrom) return std::nullopt;
      return Page(identity, page, Provisioning(identity));
    default:
      return std::nullopt;
  }
}

std::optional<Bytes> ModeData(const Identity& identity, const ModeState& state, bool ten,
                              bool without_descriptors, std::uint8_t page, std::uint8_t control) {
  constexpr std::uint8_t kAll = 0x3f;
  Bytes pages;
  bool found = false;
  const auto add = [&](std::uint8_t number, const Bytes& bytes) {
    if (page != number && page != kAll) return;
    pages.insert(pages.end(), bytes.begin(), bytes.end());
    found = true;
  };
  add(0x01, ErrorRecoveryPage(control));
  if (!identity.cdrom) add(0x08, CachingPage(state, control));
  if (identity.cdrom) add(0x2a, CapabilitiesPage(state, control));
  if (!found && page != 0) return std::nullopt;

  Bytes descriptor;
  if (!without_descriptors && !identity.cdrom) {
    descriptor.resize(8);
    StoreBig(descriptor, 1, 3, state.blocks > 0xffffff ? 0 : state.blocks);
    StoreBig(descriptor, 5, 3, identity.block_size);
  }
  Bytes data(ten ? 8 : 4);
  const std::size_t size = data.size() + descriptor.size() + pages.size();
  const auto specific =
      static_cast<std::uint8_t>(identity.cdrom ? 0 : (state.readonly ? 0x80 : 0) | 0x10);
  if (ten) {
    StoreBig(data, 0, 2, size - 2);
    data[3] = specific;
    StoreBig(data, 6, 2, descriptor.size());
  } else {
    data[0] = static_cast<std::uint8_t>(size - 1);
    data[2] = specific;
    data[3] = static_cast<std::uint8_t>(descriptor.size());
  }
  data.insert(data.end(), descriptor.begin(), descriptor.end());
  data.insert(data.end(), pages.begin(), pages.end());
  return data;
}

std::optional<Bytes> TableOfContents(std::uint64_t blocks, bool msf, std::uint8_t format,
                                     std::uint8_t first_track) {
  const auto address = [msf](Bytes& to, std::size_t at, std::uint64_t block) {
    if (!msf) return StoreBig(to, at, 4, block);
    const std::uint64_t frames = block + 150;  // the lead-in's two seconds
    to[at + 1] = static_cast<std::uint8_t>(std::min<std::uint64_t>(frames / 75 / 60, 255));
    to[at + 2] = static_cast<std::uint8_t>(frames / 75 % 60);
    to[at + 3] = static_cast<std::uint8_t>(frames % 75);
  };
  constexpr std::uint8_t kDataTrack = 0x14;
  constexpr std::uint8_t kLeadOut = 0xaa;
  if (format == 0) {
    if (first_track > 1 && first_track != kLeadOut) return std::nullopt;
    Bytes toc = {0, 0, 1, 1};
    for (const std::uint8_t track : {std::uint8_t{1}, kLeadOut}) {
      if (track < first_track) continue;
      const std::size_t at = toc.size();
      toc.resize(at + 8);
      toc[at + 1] = kDataTrack;
      toc[at + 2] = track;
      address(toc, at + 4, track == 1 ? 0 : blocks);
    }
    StoreBig(toc, 0, 2, toc.size() - 2);
    return toc;
  }
  if (format == 1) {  // sessions: one
    Bytes toc = {0, 10, 1, 1, 0, kDataTrack, 1, 0, 0, 0, 0, 0};
    address(toc, 8, 0);
    return toc;
  }
  return std::nullopt;
}

Bytes Configuration(std::uint64_t blocks, bool one_feature, std::uint16_t feature) {
  constexpr std::uint16_t kCdRom = 0x0008;
  constexpr std::uint16_t kDvdRom = 0x0010;
  const std::uint16_t current = blocks == 0 ? 0 : blocks > kMostCdBlocks ? kDvdRom : kCdRom;
  Bytes data(8);
  StoreBig(data, 6, 2, current);
  const auto wanted = [&](std::uint16_t number) {
    return one_feature ? number == feature : number >= feature;
  };
  if (wanted(0)) {  // profiles
    Bytes list = {0, 0, 0x03, 8, 0, 0x10, 0, 0, 0, 0x08, 0, 0};
    list[6] = current == kDvdRom ? 1 : 0;
    list[10] = current == kCdRom ? 1 : 0;
    data.insert(data.end(), list.begin(), list.end());
  }
  if (wanted(1)) {  // core: SCSI, device busy events
    const Bytes core = {0, 1, 0x0b, 8, 0, 0, 0, 1, 1, 0, 0, 0};
    data.insert(data.end(), core.begin(), core.end());
  }
  if (wanted(3)) {  // removable medium: a tray that locks and ejects
    const Bytes tray = {0, 3, 0x0b, 4, 0x29, 0, 0, 0};
    data.insert(data.end(), tray.begin(), tray.end());
  }
  StoreBig(data, 0, 4, data.size() - 4);
  return data;
}

Bytes DiscInformation() {
  Bytes data(34);
  data[1] = 32;
  data[2] = 0x0e;  // complete, last session complete
  data[3] = 1;     // first track
  data[4] = 1;     // sessions
  data[5] = 1;     // first and
  data[6] = 1;     // last track of the last session
  data[7] = 0x20;  // unrestricted use
  return data;
}

}  // namespace holdfast::devices::scsi
