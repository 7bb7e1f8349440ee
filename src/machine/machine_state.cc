// SPDX-License-Identifier: Apache-2.0
// A machine's state: which parts it has, and saving and loading them.
#include <fmt/format.h>
#include <holdfast/vm.h>

#include <algorithm>

#include "machine/machine_impl.h"

namespace holdfast::machine {
namespace {

constexpr std::size_t kLongestStateName = 32;

// What a machine stands in for a reason that outlives a save.
constexpr RunState kKept[] = {RunState::kPaused,        RunState::kShutdown,
                              RunState::kGuestPanicked, RunState::kInternalError,
                              RunState::kIoError,       RunState::kWatchdog};

RunState StateToKeep(RunState state) {
  return std::ranges::find(kKept, state) != std::end(kKept) ? state : RunState::kPaused;
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

  bool running = state_ == RunState::kSaveVm;
  fields.Value("running", running);
  std::string name(RunStateName(StateToKeep(state_)));
  fields.Text("run-state", name, kLongestStateName);
  if (!fields.loading() || !fields.ok()) return;
  const auto kept = std::ranges::find(kKept, std::string_view(name), RunStateName);
  if (kept == std::end(kKept)) {
    return fields.Malformed(fmt::format("'{}' is no state to go on from", name));
  }
  saved_running_ = running;
  loaded_state_ = *kept;
}

// The order matters for loading. The platform's interrupt lines come before the controllers they
// lead to: a line that is set again makes an edge, and the controllers' own state then says what of
// it is true. The controllers come before the local APICs they deliver to, and PCI devices last:
// the message with which one of them speaks up must not be overwritten.
std::vector<state::Section> Machine::Impl::ListState() {
  std::vector<state::Section> sections;
  sections.push_back(
      {.name = "machine", .visit = [this](state::Fields& fields) { VisitState(fields); }});
  platform_->ListState(sections);
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
  Status loaded = RestorePowerOnState();
  if (loaded) loaded = state::Load(ListState(), saved);
  SetState(loaded ? loaded_state_ : RunState::kInternalError);
  return loaded;
}

}  // namespace holdfast::machine
