// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/kvm_system.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>

#include <limits>

#include "machine/boot/e820.h"
#include "machine/boot/guest_image.h"
#include "machine/boot/layout.h"
#include "machine/cpuid.h"
#include "machine/machine_impl.h"
#include "machine/topology.h"

namespace holdfast::machine {
namespace {

// Where QEMU puts them: below the BIOS, above every device. Only Intel hosts use the pages.
constexpr GuestAddress kIdentityMapPage{0xfeffc000};
constexpr GuestAddress kTssPages{0xfeffd000};

}  // namespace

Status Machine::Impl::Build(kvm::System& system, std::span<RamBlock* const> ram) {
  HF_TRY(source_, boot::OpenBootSource(config_.kernel, config_.initrd, config_.cmdline));
  HF_TRY(const std::vector<kvm_cpuid_entry2> cpuid, system.SupportedCpuid());
  HF_TRY_STATUS(MapRam(ram, GuestPhysBits(cpuid)));
  HF_TRY_STATUS(PrepareConversion());
  HF_TRY_STATUS(CreateChips());
  HF_TRY_STATUS(CreatePlatform());
  HF_TRY_STATUS(CreateDevices(GuestPhysBits(cpuid)));
  HF_TRY_STATUS(FillFwCfg());
  HF_TRY_STATUS(CreateVcpus(system, cpuid));
  HF_TRY_STATUS(PrepareSmbios(cpuid));
  HF_TRY_STATUS(PrepareAcpi());
  if (!config_.incoming) HF_TRY_STATUS(LoadAndEnter());
  for (const auto& vcpu : vcpus_) HF_TRY_STATUS(vcpu->Start());
  return {};
}

Status Machine::Impl::MapRam(std::span<RamBlock* const> blocks, unsigned guest_phys_bits) {
  std::uint64_t total = 0;
  std::vector<std::uint64_t> sizes;
  for (const RamBlock* block : blocks) {
    const auto sum = CheckedAdd(total, block->size());
    total = sum.value_or(std::numeric_limits<std::uint64_t>::max());
    sizes.push_back(block->size());
  }
  auto plan = boot::PlanRam(total, guest_phys_bits);
  if (!plan) return Fail(std::move(plan).error().Wrap(config_.ram_option));
  ram_ranges_ = *std::move(plan);
  for (const boot::RamPiece& piece : boot::SplitRam(ram_ranges_, sizes)) {
    HF_TRY_STATUS(ram_.AddRam(piece.base, piece.size, *blocks[piece.block], piece.block_offset));
  }
  source_.memory_map = boot::BuildMemoryMap(ram_ranges_);
  return {};
}

Status Machine::Impl::CreateChips() {
  HF_TRY_STATUS(vm_.SetIdentityMapAddress(kIdentityMapPage));
  HF_TRY_STATUS(vm_.SetTssAddress(kTssPages));
  HF_TRY_STATUS(vm_.CreateIrqchip());
  HF_TRY_STATUS(vm_.CreatePit());
  for (std::uint32_t chip = 0; chip < chips_.irqchips.size(); ++chip) {
    HF_TRY(chips_.irqchips[chip], vm_.GetIrqchip(chip));
  }
  HF_TRY(chips_.pit, vm_.GetPit());
  return {};
}

Status Machine::Impl::CreatePlatform() {
  devices::CmosConfig cmos;
  cmos.cpus = config_.smp.cpus;
  for (const boot::RamRange& range : ram_ranges_) {
    (range.base.value() < 4 * kGiB ? cmos.ram_below_4g : cmos.ram_above_4g) += range.size;
  }
  const Platform::Requests requests{
      .reset = [this] { RequestReset("guest-reset"); },
      .shutdown = [this] { RequestShutdown(); },
      .panic = [this](devices::Pvpanic::Event event) { RequestPanic(event); },
      .exit = [this](int status) { RequestExit(status); },
      .time_set = [this](std::int64_t seconds) { TellTimeSet(seconds); },
  };
  HF_TRY(platform_, Platform::Create(loop_, vm_, ram_, config_, cmos, requests));
  return {};
}

Status Machine::Impl::CreateVcpus(kvm::System& system, std::span<const kvm_cpuid_entry2> cpuid) {
  HF_TRY(abilities_, VcpuAbilities::Of(system, vm_));
  CpuidOptions options;
  options.topology = config_.smp;
  options.map_gpa_range = conversion_exits_.has_value();
  options.tsc_deadline_timer = vm_.CheckExtension(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  apic_ids_ = ApicIds(config_.smp);
  const VcpuThread::Events events{
      .triple_fault = [this] { RequestReset("guest-reset"); },
      .internal_error = [this](Error error) { RequestInternalError(std::move(error)); },
  };
  for (unsigned i = 0; i < config_.smp.cpus; ++i) {
    // The id of a vCPU is its APIC id: KVM takes it as the initial one.
    HF_TRY(kvm::Vcpu vcpu, kvm::Vcpu::Create(vm_, apic_ids_[i]));
    cpuid_.push_back(BuildCpuid(cpuid, options, apic_ids_[i]));
    HF_TRY_STATUS(vcpu.SetCpuid(cpuid_.back()));
    HF_TRY(PowerOnState state, PowerOnState::Take(vcpu, abilities_.msrs));
    power_on_.push_back(std::move(state));
    vcpus_.push_back(
        std::make_unique<VcpuThread>(i, std::move(vcpu), platform_->io(), platform_->mmio(), events,
                                     conversion_exits_ ? &*conversion_exits_ : nullptr));
  }
  return {};
}

Status Machine::Impl::PrepareAcpi() {
  acpi::AcpiConfig config;
  config.apic_ids = apic_ids_;
  config.enabled_cpus = config_.smp.cpus;
  for (std::size_t i = 0; i < config_.serial.size(); ++i)
    config.serial_ports[i] = config_.serial[i] != nullptr;
  if (config_.pvpanic) config.pvpanic_port = config_.pvpanic->ioport;
  config.room = smbios_.address.value() - boot::kAcpiArea.base.value();
  config.pci = devices_->pci().windows();
  HF_TRY(config.vm_generation_id, GenerationId());
  config.numa = config_.numa;
  std::vector<std::uint64_t> node_sizes;
  for (const NumaNode& node : config_.numa.nodes) node_sizes.push_back(node.size);
  config.memory = boot::SplitRam(ram_ranges_, node_sizes);
  HF_TRY(acpi_, acpi::BuildAcpi(config));
  source_.rsdp = acpi_.rsdp;
  generation_id_ = acpi_.generation_id;
  return {};
}

// Also what a guest reset does: everything is written and read anew.
Status Machine::Impl::LoadAndEnter() {
  HF_TRY_STATUS(TakeBackMemory());
  generation_id_ = acpi_.generation_id;
  HF_TRY_STATUS(ram_.Write(acpi_.address, acpi_.bytes));
  HF_TRY_STATUS(ram_.Write(smbios_.address, smbios_.bytes));
  HF_TRY(const boot::LoadedGuest guest, boot::LoadGuest(ram_, source_));
  HF_TRY_STATUS(EnterGuest(vcpus_.front()->vcpu(), guest));
  return LaunchConfidential();
}

}  // namespace holdfast::machine
