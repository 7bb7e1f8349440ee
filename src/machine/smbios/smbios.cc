// SPDX-License-Identifier: Apache-2.0
#include "machine/smbios/smbios.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <string>

#include <holdfast/units.h>

#include "base/read_file.h"
#include "base/uuid.h"
#include "machine/boot/layout.h"
#include "machine/smbios/structure_writer.h"

namespace holdfast::machine::smbios {
namespace {

// The first handles of the structures, by type, as in QEMU: type 4's are 0x400 and so on.
constexpr std::uint16_t kChassisHandle = 0x300;
constexpr std::uint16_t kMemoryArrayHandle = 0x1000;
constexpr std::uint16_t kNoHandle = 0xffff;
constexpr std::uint16_t kNoErrorInformation = 0xfffe;

constexpr std::size_t kEntrySize = 24;
constexpr std::size_t kEntryRoom = 32;  // a scan looks at multiples of 16
constexpr std::size_t kMostBytes = boot::kSmbiosMost;
constexpr std::size_t kMostOemStrings = 255;
constexpr std::uint64_t kMemoryDeviceSize = 16 * kGiB;

std::uint8_t Byte(std::uint64_t value) {
  return static_cast<std::uint8_t>(std::min<std::uint64_t>(value, 0xff));
}

Result<std::vector<std::byte>> ReadFor(std::string_view key, const std::string& path) {
  auto bytes = ReadWholeFile(path, kMostBytes);
  if (!bytes) return Fail(std::move(bytes).error().Wrap(fmt::format("-smbios {}={}", key, path)));
  return bytes;
}

Bytes BuildBios(const SmbiosConfig::Bios& bios) {
  constexpr std::uint64_t kNoCharacteristics = 1 << 3;
  constexpr std::uint8_t kTargetedContent = 1 << 2;
  constexpr std::uint8_t kUefi = 1 << 3;
  constexpr std::uint8_t kVirtualMachine = 1 << 4;
  StructureWriter w(0, 0);
  w.Text(bios.vendor).Text(bios.version).U16(0xe800 /* segment */).Text(bios.date).U8(0);
  w.U64(kNoCharacteristics).U8(0);
  w.U8(static_cast<std::uint8_t>(kTargetedContent | kVirtualMachine | (bios.uefi ? kUefi : 0)));
  w.U8(bios.major).U8(bios.minor).U8(0xff).U8(0xff);  // no embedded controller
  return w.Finish();
}

Bytes BuildSystem(const SmbiosConfig::System& system) {
  constexpr std::uint8_t kPowerSwitch = 6;
  StructureWriter w(1, 0x100);
  w.Text(system.manufacturer).Text(system.product).Text(system.version).Text(system.serial);
  for (const std::uint8_t byte : FirmwareUuid(system.uuid)) w.U8(byte);
  w.U8(kPowerSwitch).Text(system.sku).Text(system.family);
  return w.Finish();
}

Bytes BuildBoard(const SmbiosConfig::Board& board) {
  constexpr std::uint8_t kHostingBoard = 1;
  constexpr std::uint8_t kMotherboard = 10;
  StructureWriter w(2, 0x200);
  w.Text(board.manufacturer).Text(board.product).Text(board.version).Text(board.serial);
  w.Text(board.asset).U8(kHostingBoard).Text(board.location).U16(kChassisHandle);
  w.U8(kMotherboard).U8(0);
  return w.Finish();
}

Bytes BuildChassis(const SmbiosConfig::Chassis& chassis) {
  constexpr std::uint8_t kOther = 1;
  constexpr std::uint8_t kSafe = 3;
  constexpr std::uint8_t kUnknown = 2;
  StructureWriter w(3, kChassisHandle);
  w.Text(chassis.manufacturer).U8(kOther).Text(chassis.version).Text(chassis.serial);
  w.Text(chassis.asset).U8(kSafe).U8(kSafe).U8(kSafe).U8(kUnknown);
  w.U32(0).U8(0).U8(0).U8(0).U8(0).Text(chassis.sku);
  return w.Finish();
}

Bytes BuildProcessor(const SmbiosConfig::Processor& processor, const Facts& facts,
                     unsigned socket) {
  constexpr std::uint8_t kCentral = 3;
  constexpr std::uint8_t kSeeFamily2 = 0xfe;
  constexpr std::uint8_t kPopulatedAndEnabled = 0x41;
  constexpr std::uint8_t kOther = 1;
  constexpr std::uint16_t kUnknown = 1 << 1;
  const std::uint64_t cores = facts.smp.cores;
  const std::uint64_t threads = cores * facts.smp.threads;
  StructureWriter w(4, static_cast<std::uint16_t>(0x400 + socket));
  w.Text(fmt::format("{} {}", processor.socket_prefix, socket)).U8(kCentral).U8(kSeeFamily2);
  w.Text(processor.manufacturer).U64(processor.id.value_or(facts.processor_id));
  w.Text(processor.version).U8(0).U16(0).U16(processor.max_speed).U16(processor.current_speed);
  w.U8(kPopulatedAndEnabled).U8(kOther).U16(kNoHandle).U16(kNoHandle).U16(kNoHandle);
  w.Text(processor.serial).Text(processor.asset).Text(processor.part);
  // 255 says: more, see the fields of 16 bits.
  w.U8(Byte(cores)).U8(Byte(cores)).U8(Byte(threads)).U16(kUnknown).U16(processor.family);
  w.U16(static_cast<std::uint16_t>(cores)).U16(static_cast<std::uint16_t>(cores));
  w.U16(static_cast<std::uint16_t>(threads));
  return w.Finish();
}

Result<Bytes> BuildOemStrings(const std::vector<SmbiosConfig::OemString>& strings) {
  if (strings.size() > kMostOemStrings) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("-smbios type=11: {} values are more than {}", strings.size(), kMostOemStrings),
        "Give fewer.");
  }
  StructureWriter w(11, 0xe00);
  w.U8(static_cast<std::uint8_t>(strings.size()));
  for (const SmbiosConfig::OemString& string : strings) {
    std::string text = string.value;
    if (!string.path.empty()) {
      HF_TRY(const std::vector<std::byte> bytes, ReadFor("type=11,path", string.path));
      text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
    if (text.empty() || text.front() == '\0') {
      // An empty text would end the list of them.
      return Fail(Errc::kInvalidArgument, "-smbios type=11: a value is empty",
                  "Leave it out, or give it something to say.");
    }
    w.UnnamedText(text);
  }
  return w.Finish();
}

Bytes BuildMemoryArray(std::uint64_t total, std::size_t devices) {
  constexpr std::uint8_t kOther = 1;
  constexpr std::uint8_t kSystemMemory = 3;
  constexpr std::uint8_t kMultiBitEcc = 6;
  constexpr std::uint32_t kSeeExtended = 0x80000000;
  StructureWriter w(16, kMemoryArrayHandle);
  const std::uint64_t kib = total / kKiB;
  const bool extended = kib >= kSeeExtended;
  w.U8(kOther).U8(kSystemMemory).U8(kMultiBitEcc);
  w.U32(extended ? kSeeExtended : static_cast<std::uint32_t>(kib)).U16(kNoErrorInformation);
  w.U16(static_cast<std::uint16_t>(devices)).U64(extended ? total : 0);
  return w.Finish();
}

Bytes BuildMemoryDevice(const SmbiosConfig::MemoryDevice& device, std::size_t index,
                        std::uint64_t size) {
  constexpr std::uint16_t kUnknown = 0xffff;
  constexpr std::uint8_t kDimm = 9;
  constexpr std::uint8_t kRam = 7;
  constexpr std::uint16_t kOtherDetail = 1 << 1;
  constexpr std::uint64_t kSeeExtended = 0x7fff;
  StructureWriter w(17, static_cast<std::uint16_t>(0x1100 + index));
  const std::uint64_t mib = size / kMiB;
  w.U16(kMemoryArrayHandle).U16(kNoErrorInformation).U16(kUnknown).U16(kUnknown);
  w.U16(static_cast<std::uint16_t>(std::min(mib, kSeeExtended))).U8(kDimm).U8(0);
  w.Text(fmt::format("{} {}", device.locator_prefix, index)).Text(device.bank);
  w.U8(kRam).U16(kOtherDetail).U16(device.speed);
  w.Text(device.manufacturer).Text(device.serial).Text(device.asset).Text(device.part);
  w.U8(0).U32(mib >= kSeeExtended ? static_cast<std::uint32_t>(mib) : 0).U16(device.speed);
  w.U16(0).U16(0).U16(0);
  return w.Finish();
}

Bytes BuildMappedRange(const boot::RamRange& range, std::size_t index) {
  constexpr std::uint32_t kSeeExtended = 0xffffffff;
  const std::uint64_t start = range.base.value();
  const std::uint64_t last = range.end() - 1;
  const bool extended = last / kKiB >= kSeeExtended;
  StructureWriter w(19, static_cast<std::uint16_t>(0x1300 + index));
  w.U32(extended ? kSeeExtended : static_cast<std::uint32_t>(start / kKiB));
  w.U32(extended ? kSeeExtended : static_cast<std::uint32_t>(last / kKiB));
  w.U16(kMemoryArrayHandle).U8(1).U64(extended ? start : 0).U64(extended ? last : 0);
  return w.Finish();
}

// A file is one structure: the formatted part, then texts, then an empty one.
Status CheckStructure(const std::string& path, std::span<const std::byte> bytes) {
  const auto bad = [&](std::string_view why) {
    return Fail(Errc::kMalformed, fmt::format("-smbios file={}: {}", path, why),
                "The file holds one raw SMBIOS structure with its texts, as in "
                "/sys/firmware/dmi/entries/*/raw.");
  };
  constexpr std::size_t kHeader = 4;
  if (bytes.size() < kHeader) return bad("it ends within the header");
  const auto length = std::to_integer<std::size_t>(bytes[1]);
  if (length < kHeader) return bad("its length field is less than the header's");
  if (length + 2 > bytes.size()) return bad("it ends before its length field says");
  const bool ended = bytes.back() == std::byte{0} && bytes[bytes.size() - 2] == std::byte{0};
  if (!ended) return bad("it does not end in two zero bytes");
  for (std::size_t i = length; i + 2 < bytes.size(); ++i) {
    if (bytes[i] == std::byte{0} && bytes[i + 1] == std::byte{0}) {
      return bad("there is something behind its texts");
    }
  }
  return {};
}

/// The structures, each added unless a file has one of its type.
struct Collection {
  Bytes bytes = {};
  std::set<std::uint8_t> from_files = {};

  void Add(const Bytes& structure) {
    if (from_files.contains(structure[0])) return;
    bytes.insert(bytes.end(), structure.begin(), structure.end());
  }
};

Result<Collection> ReadFiles(const std::vector<std::string>& files) {
  Collection all;
  for (const std::string& path : files) {
    HF_TRY(const std::vector<std::byte> bytes, ReadFor("file", path));
    HF_TRY_STATUS(CheckStructure(path, bytes));
    all.from_files.insert(std::to_integer<std::uint8_t>(bytes[0]));
    for (const std::byte byte : bytes) all.bytes.push_back(std::to_integer<std::uint8_t>(byte));
  }
  return all;
}

void AddMemory(Collection& all, const SmbiosConfig& config, const Facts& facts) {
  std::uint64_t total = 0;
  for (const boot::RamRange& range : facts.ram) total += range.size;
  const std::uint64_t devices = (total + kMemoryDeviceSize - 1) / kMemoryDeviceSize;
  all.Add(BuildMemoryArray(total, devices));
  for (std::uint64_t i = 0; i < devices; ++i) {
    const std::uint64_t left = total - i * kMemoryDeviceSize;
    all.Add(BuildMemoryDevice(config.memory_device, i, std::min(left, kMemoryDeviceSize)));
  }
  for (std::size_t i = 0; i < facts.ram.size(); ++i) all.Add(BuildMappedRange(facts.ram[i], i));
}

Bytes BuildEntry(std::uint64_t address, std::size_t size) {
  Bytes entry = {'_', 'S', 'M', '3', '_', 0 /* checksum */, kEntrySize, 3, 0, 0, 1, 0};
  const auto number = [&](std::uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) entry.push_back(static_cast<std::uint8_t>(value >> 8 * i));
  };
  number(size, 4);
  number(address, 8);
  entry[5] = static_cast<std::uint8_t>(-std::accumulate(entry.begin(), entry.end(), 0U));
  return entry;
}

}  // namespace

Result<Tables> Build(const SmbiosConfig& config, const Facts& facts) {
  HF_TRY(Collection all, ReadFiles(config.files));
  all.Add(BuildBios(config.bios));
  all.Add(BuildSystem(config.system));
  if (config.board) all.Add(BuildBoard(*config.board));
  all.Add(BuildChassis(config.chassis));
  for (unsigned i = 0; i < facts.smp.sockets; ++i) {
    all.Add(BuildProcessor(config.processor, facts, i));
  }
  if (!config.oem_strings.empty()) {
    HF_TRY(const Bytes strings, BuildOemStrings(config.oem_strings));
    all.Add(strings);
  }
  AddMemory(all, config, facts);
  all.Add(StructureWriter(32, 0x2000).U16(0).U32(0).U8(0 /* no error */).Finish());
  all.Add(StructureWriter(127, 0x7f00).Finish());

  const std::size_t room = AlignUp(all.bytes.size(), 16);
  if (room + kEntryRoom > kMostBytes) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the SMBIOS tables need {}, more than the {} there are",
                            FormatSize(AlignUp(room + kEntryRoom, kKiB)), FormatSize(kMostBytes)),
                "Give -smbios less text, or -smp fewer sockets.");
  }
  const std::uint64_t address = boot::kAcpiArea.end() - kEntryRoom - room;
  const Bytes entry = BuildEntry(address, all.bytes.size());
  all.bytes.resize(room);
  all.bytes.insert(all.bytes.end(), entry.begin(), entry.end());
  all.bytes.resize(room + kEntryRoom);
  const auto bytes = std::as_bytes(std::span(all.bytes));
  return Tables{GuestAddress(address), {bytes.begin(), bytes.end()}};
}

}  // namespace holdfast::machine::smbios
