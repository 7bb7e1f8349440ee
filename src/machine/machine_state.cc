// SPDX-License-Identifier: Apache-2.0
// A machine's state: which parts it has, and saving and loading them.
#include <fmt/format.h>
#include <holdfast/vm.h>

#include <algorithm>

#include "machine/machine_impl.h"
#include "machine/numa_state.h"

namespace holdfast::machine {
namespace {

constexpr std::size_t kLongestStateName = 32;
// Of the section `machine`.
constexpr state::Since kSinceNuma{2};
// Nanoseconds, a hundred years: sums with it stay far from overflow.
constexpr std::uint64_t kLongestTime = 3'155'760'000ULL * 1'000'000'000;

// What a machine stands in for a reason that outlives a save.
constexpr RunState kKept[] = {RunState::kPaused,        RunState::kShutdown,
                              RunState::kGuestPanicked, RunState::kInternalError,
                              RunState::kIoError,       RunState::kWatchdog};

RunState StateToKeep(RunState state) {
  return std::ranges::find(kKept, state) != std::end(kKept) ? state : RunState::kPaused;
}

void Refuse(state::Fields& fields, const Status& status) {
  if (!status) fields.Malformed(status.error().ToString());
}

}  // namespace

// What the command line says is not loaded but compared: a machine of another shape cannot take
// this state.
void Machine::Impl::VisitState(state::Fields& fields) {
  std::uint64_t ram_size = ram_.total_size();
  fields.Value("ram-size", ram_size);
  fields.Check(ram_size == ram_.total_size(),
               fmt::format("the saved machine has {} bytes of RAM and this one {}; give it as much "
                           "with -m",
                           ram_size, ram_.total_size()));
  std::vector<std::uint32_t> apic_ids = apic_ids_;
  fields.List("apic-ids", apic_ids, kMaxCpus,
              [](state::Fields& inner, std::uint32_t& id) { inner.Value("apic-id", id); });
  fields.Check(apic_ids == apic_ids_,
               "the saved machine has another CPU topology; give this one the same -smp");
  std::uint32_t cpus = config_.smp.cpus;
  fields.Value("cpus", cpus);
  fields.Check(cpus == config_.smp.cpus,
               fmt::format("the saved machine has {} CPUs and this one {}; give it as many with "
                           "-smp",
                           cpus, config_.smp.cpus));

  bool running = state_ == RunState::kSaveVm || state_ == RunState::kFinishMigrate;
  fields.Value("running", running);
  std::string name(RunStateName(StateToKeep(state_)));
  fields.Text("run-state", name, kLongestStateName);
  VisitNuma(fields, config_.numa, kSinceNuma);
  if (!fields.loading() || !fields.ok()) return;
  const auto kept = std::ranges::find(kKept, std::string_view(name), RunStateName);
  if (kept == std::end(kKept)) {
    return fields.Malformed(fmt::format("'{}' is no state to go on from", name));
  }
  saved_running_ = running;
  loaded_state_ = *kept;
}

void Machine::Impl::VisitIrqchips(state::Fields& fields) {
  constexpr std::string_view kNames[] = {"pic-master", "pic-slave", "ioapic"};
  for (std::uint32_t id = 0; id < std::size(kNames); ++id) {
    kvm_irqchip chip{};
    if (!fields.loading()) {
      auto now = vm_.GetIrqchip(id);
      if (!now) return fields.Malformed(now.error().ToString());
      chip = *now;
    }
    fields.Struct(kNames[id], chip.chip);
    if (!fields.loading() || !fields.ok()) continue;
    chip.chip_id = id;
    Refuse(fields, vm_.SetIrqchip(chip));
  }
}

void Machine::Impl::VisitPit(state::Fields& fields) {
  kvm_pit_state2 pit{};
  if (!fields.loading()) {
    auto now = vm_.GetPit();
    if (!now) return fields.Malformed(now.error().ToString());
    pit = *now;
  }
  fields.Struct("pit", pit);
  if (fields.loading() && fields.ok()) Refuse(fields, vm_.SetPit(pit));
}

// ---- Clocks -----------------------------------------------------------------------------------

void Machine::Impl::VisitClock(state::Fields& fields) {
  if (!fields.loading() && !clock_ns_) StopClock();
  std::uint64_t now = clock_ns_.value_or(0);
  fields.Value("kvmclock", now);
  fields.Check(now <= kLongestTime, "no guest has run for so long");
  if (!fields.loading() || !fields.ok()) return;
  clock_ns_ = now;
  Refuse(fields, vm_.SetClock(now));
}

void Machine::Impl::StopClock() {
  // Fails on no KVM that Holdfast runs on; then the clock goes on.
  if (const auto now = vm_.GetClock()) clock_ns_ = *now;
}

// As QEMU: for the guest no time has passed while it stood, and it is told that it has stood.
Status Machine::Impl::ContinueClock() {
  if (!clock_ns_) return {};
  HF_TRY_STATUS(vm_.SetClock(*clock_ns_));
  // Refused where the guest does not use kvmclock.
  for (const auto& vcpu : vcpus_) (void)vcpu->vcpu().NotifyPaused();
  return {};
}

// ---- vCPUs --------------------------------------------------------------------------------------

void Machine::Impl::VisitVcpu(std::size_t index, state::Fields& fields) {
  const kvm::Vcpu& vcpu = vcpus_[index]->vcpu();
  SavedVcpu saved;
  if (!fields.loading()) {
    auto taken = SavedVcpu::Take(vcpu, abilities_, cpuid_[index]);
    if (!taken) return fields.Malformed(taken.error().ToString());
    saved = *std::move(taken);
  }
  saved.VisitState(fields);
  if (fields.loading() && fields.ok())
    Refuse(fields, saved.Restore(vcpu, abilities_, cpuid_[index], tsc_reference_));
}

// ---- All of it ------------------------------------------------------------------------------

// The order matters for loading. The platform's interrupt lines come before the controllers they
// lead to: a line that is set again makes an edge, and the controllers' own state then says what of
// it is true. The controllers come before the local APICs they deliver to, and PCI devices last:
// the message with which one of them speaks up must not be overwritten.
std::vector<state::Section> Machine::Impl::ListState() {
  std::vector<state::Section> sections;
  sections.push_back({.name = "machine",
                      .version = kSinceNuma.version,
                      .visit = [this](state::Fields& fields) { VisitState(fields); }});
  platform_->ListState(sections);
  sections.push_back(
      {.name = "irqchips", .visit = [this](state::Fields& fields) { VisitIrqchips(fields); }});
  sections.push_back({.name = "pit", .visit = [this](state::Fields& fields) { VisitPit(fields); }});
  sections.push_back(
      {.name = "clock", .visit = [this](state::Fields& fields) { VisitClock(fields); }});
  if (config_.vmgenid) {
    sections.push_back(
        {.name = "vmgenid", .visit = [this](state::Fields& fields) { VisitGeneration(fields); }});
  }
  for (std::size_t i = 0; i < vcpus_.size(); ++i) {
    sections.push_back({.name = fmt::format("vcpu/{}", i),
                        .visit = [this, i](state::Fields& fields) { VisitVcpu(i, fields); }});
  }
  devices_->ListState(sections);
  return sections;
}

Result<std::vector<state::SavedSection>> Machine::Impl::SaveState() {
  if (state_ == RunState::kRunning || state_ == RunState::kInMigrate) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("a machine that is '{}' has no state to save", RunStateName(state_)),
                "Stop it first.");
  }
  if (config_.confidential != nullptr) {
    return Fail(Errc::kUnsupported,
                fmt::format("a machine with confidential-guest-support={} cannot be saved",
                            config_.confidential->id()),
                "Its memory is the guest's alone.");
  }
  HF_TRY_STATUS(devices_->Migratable());
  return state::Save(ListState());
}

Status Machine::Impl::CheckState(std::span<const state::SavedSection> saved) {
  const std::vector<state::Section> sections = ListState();
  HF_TRY_STATUS(state::CheckNames(sections, saved));
  for (const state::SavedSection& one : saved) {
    state::Fields fields(one.version, one.bytes);
    if (one.name == "machine") {
      VisitState(fields);
      HF_TRY_STATUS(fields.status());
    } else if (one.name == "vcpu/0") {
      SavedVcpu vcpu;
      vcpu.VisitState(fields);
      HF_TRY_STATUS(fields.status());
      HF_TRY_STATUS(vcpu.CheckProcessor(cpuid_[0]));
    }
  }
  return {};
}

Status Machine::Impl::LoadState(std::span<const state::SavedSection> saved) {
  if (state_ == RunState::kRunning) {
    return Fail(Errc::kInvalidArgument, "a machine that runs cannot take over a state",
                "Stop it first.");
  }
  if (config_.confidential != nullptr) {
    return Fail(Errc::kUnsupported,
                fmt::format("a machine with confidential-guest-support={} cannot take over a state",
                            config_.confidential->id()),
                "Start it without.");
  }
  // What the guest before asked for is no longer of interest.
  epoch_.fetch_add(1, std::memory_order_relaxed);
  saved_running_ = false;
  tsc_reference_.reset();
  Status loaded;
  if (state_ != RunState::kInMigrate) loaded = RestorePowerOnState();
  if (loaded) loaded = state::Load(ListState(), saved);
  SetState(loaded ? loaded_state_ : RunState::kInternalError);
  return loaded;
}

}  // namespace holdfast::machine
