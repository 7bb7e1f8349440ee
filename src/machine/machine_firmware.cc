// SPDX-License-Identifier: Apache-2.0
// What a guest would hear from firmware: fw_cfg items and SMBIOS tables.
#include <fmt/format.h>
#include <holdfast/units.h>

#include <cctype>

#include "base/read_file.h"
#include "base/uuid.h"
#include "machine/machine_impl.h"

namespace holdfast::machine {
namespace {

// They are held in this process for as long as it runs.
constexpr std::uint64_t kLongestFwCfgFile = 256 * kMiB;
constexpr std::size_t kUuidLength = 36;

}  // namespace

Status Machine::Impl::FillFwCfg() {
  using Key = devices::FwCfg::Key;
  devices::FwCfg& fw_cfg = platform_->fw_cfg();
  fw_cfg.SetNumber(Key::kRamSize, ram_.total_size(), 8);
  fw_cfg.SetNumber(Key::kCpus, config_.smp.cpus, 2);
  fw_cfg.SetNumber(Key::kMaxCpus, config_.smp.max_cpus, 2);
  for (const FwCfgFile& file : config_.fw_cfg) {
    const auto text = std::as_bytes(std::span(file.text));
    std::vector<std::byte> contents(text.begin(), text.end());
    if (!file.path.empty()) {
      auto read = ReadWholeFile(file.path, kLongestFwCfgFile);
      if (!read) return Fail(std::move(read).error().Wrap(fmt::format("-fw_cfg {}", file.name)));
      contents = *std::move(read);
    }
    HF_TRY_STATUS(fw_cfg.AddFile(file.name, std::move(contents)));
  }
  return {};
}

// The same for as long as this process lives: to a guest a reset is no new generation.
Result<std::optional<std::array<std::uint8_t, 16>>> Machine::Impl::GenerationId() {
  if (!config_.vmgenid) return std::nullopt;
  std::string& guid = services_.vm_generation_id;
  guid = config_.vmgenid->guid;
  if (guid == "auto") {
    HF_TRY(guid, RandomUuid());
  }
  return FirmwareUuid(guid);
}

Status Machine::Impl::NewGeneration() {
  if (!config_.vmgenid) return {};
  std::string guid = config_.vmgenid->guid;
  if (guid == "auto") {
    HF_TRY(guid, RandomUuid());
  }
  if (guid == services_.vm_generation_id) return {};
  const auto bytes = FirmwareUuid(guid);
  HF_TRY_STATUS(ram_.Write(generation_id_, std::as_bytes(std::span(bytes))));
  services_.vm_generation_id = std::move(guid);
  platform_->TellNewGeneration();
  return {};
}

// Where the guest's number is and what it is: both are in its memory, with its tables.
void Machine::Impl::VisitGeneration(state::Fields& fields) {
  std::string guid = services_.vm_generation_id;
  std::uint64_t address = generation_id_.value();
  fields.Text("guid", guid, kUuidLength);
  fields.Value("address", address);
  fields.Check(boot::kAcpiArea.base.value() <= address &&
                   address <= boot::kAcpiArea.base.value() + boot::kAcpiArea.size - 16,
               "its address is not among the firmware's tables");
  const auto fits = [&guid](std::size_t i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    return dash ? guid[i] == '-' : std::isxdigit(static_cast<unsigned char>(guid[i])) != 0;
  };
  bool well_formed = guid.size() == kUuidLength;
  for (std::size_t i = 0; i < kUuidLength && well_formed; ++i) well_formed = fits(i);
  fields.Check(well_formed, "its number is no UUID");
  if (!fields.loading() || !fields.ok()) return;
  services_.vm_generation_id = std::move(guid);
  generation_id_ = GuestAddress(address);
}

Status Machine::Impl::PrepareSmbios(std::span<const kvm_cpuid_entry2> cpuid) {
  smbios::Facts facts{.smp = config_.smp, .ram = ram_ranges_};
  for (const kvm_cpuid_entry2& leaf : cpuid) {
    if (leaf.function == 1) facts.processor_id = std::uint64_t{leaf.edx} << 32 | leaf.eax;
  }
  HF_TRY(smbios_, smbios::Build(config_.smbios, facts));
  return {};
}

}  // namespace holdfast::machine
