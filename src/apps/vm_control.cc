// SPDX-License-Identifier: Apache-2.0
// The part of VirtualMachine that connects the monitors' clients: chardevs, QMP and its events.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "apps/vm_builder.h"
#include "base/log.h"
#include "devices/socket_chardev.h"

namespace holdfast::apps {
namespace {

constexpr int kBacklog = 16;

// Whoever can connect can do with this process what its user can.
void WarnIfOpen(const devices::SocketAddress& address) {
  const std::string& host = address.host;
  const bool local = !address.path.empty() || host.empty() || host == "localhost" ||
                     host == "::1" || host.starts_with("127.");
  if (!local) {
    log::Warn(fmt::format("{} takes commands from the network without asking who sends them",
                          address.Describe()));
  }
}

}  // namespace

// Makes those that are one stream. A socket that QMP serves is made by BuildQmp.
Status VirtualMachine::BuildChardevs() {
  for (const ChardevRequest& request : options_.chardevs) {
    const bool is_control = std::any_of(options_.monitors.begin(), options_.monitors.end(),
                                        [&](const MonitorRequest& monitor) {
                                          return monitor.control && monitor.chardev == request.id;
                                        });
    if (request.socket && is_control) continue;
    auto made = request.socket ? devices::SocketChardev::Create(loop_, *request.socket)
                               : devices::MakeChardev(loop_, request.word, request.signals);
    if (!made) return Fail(std::move(made).error().Wrap(request.option));
    if (*made == nullptr) continue;
    backends_.push_back(*std::move(made));
    labels_.push_back(request.id);
  }
  return {};
}

devices::Chardev* VirtualMachine::FindChardev(std::string_view id) const {
  const auto found = std::find(labels_.begin(), labels_.end(), id);
  if (found == labels_.end()) return nullptr;
  return backends_[static_cast<std::size_t>(found - labels_.begin())].get();
}

Status VirtualMachine::BuildMonitors() {
  for (const MonitorRequest& monitor : options_.monitors) {
    const auto chardev =
        std::find_if(options_.chardevs.begin(), options_.chardevs.end(),
                     [&](const ChardevRequest& one) { return one.id == monitor.chardev; });
    if (monitor.control && chardev->socket) {
      Status built = BuildQmp(*chardev, monitor);
      if (!built) return Fail(std::move(built).error().Wrap(chardev->option));
      continue;
    }
    devices::Chardev* const front = FindChardev(monitor.chardev);
    if (front == nullptr) continue;
    (void)front->Take();  // it is free: the options were checked for it
    if (monitor.control) {
      qmp_->Serve(*front, monitor.pretty);
    } else {
      AddMonitor(*front).Greet();
    }
  }
  return {};
}

Status VirtualMachine::BuildQmp(const ChardevRequest& chardev, const MonitorRequest& monitor) {
  const devices::SocketSpec& spec = *chardev.socket;
  if (!spec.server) {
    HF_TRY(UniqueFd connected, devices::ConnectSocket(spec.address));
    HF_TRY_STATUS(qmp_->Serve(std::move(connected), monitor.pretty));
    qmp_chardevs_.push_back({chardev.id, spec.address.Describe(), true});
    return {};
  }
  HF_TRY(devices::ListeningSocket socket, devices::ListeningSocket::Create(spec.address, kBacklog));
  WarnIfOpen(socket.address());
  qmp_chardevs_.push_back(
      {chardev.id, fmt::format("{},server=on", socket.address().Describe()), true});
  if (spec.wait) {
    HF_TRY(UniqueFd first, socket.WaitForClient());
    HF_TRY_STATUS(qmp_->Serve(std::move(first), monitor.pretty));
  }
  return qmp_->Listen(std::move(socket), monitor.pretty);
}

machine::Machine::Events VirtualMachine::MachineEvents() {
  using machine::Machine;
  using machine::ShutdownCause;
  const auto cause_data = [](ShutdownCause cause) {
    return control::Json{{"guest", CausedByGuest(cause)}, {"reason", ShutdownCauseName(cause)}};
  };
  Machine::Events events;
  events.powerdown = [this] { qmp_->Emit("POWERDOWN"); };
  events.guest_panicked = [this](Machine::PanicAction action) {
    const char* const word = action == Machine::PanicAction::kRun     ? "run"
                             : action == Machine::PanicAction::kPause ? "pause"
                                                                      : "poweroff";
    qmp_->Emit("GUEST_PANICKED", {{"action", word}});
  };
  events.guest_crash_loaded = [this] { qmp_->Emit("GUEST_CRASHLOADED", {{"action", "run"}}); };
  events.reset = [this, cause_data](ShutdownCause cause) {
    qmp_->Emit("RESET", cause_data(cause));
  };
  events.shutdown = [this, cause_data](ShutdownCause cause) {
    qmp_->Emit("SHUTDOWN", cause_data(cause));
  };
  events.state_changed = [this](machine::RunState state) {
    const bool runs = state == machine::RunState::kRunning;
    // From one way of standing still to another is no event.
    if (runs != std::exchange(guest_runs_, runs)) qmp_->Emit(runs ? "RESUME" : "STOP");
    if (runs) block_graph_.MachineRuns();
    if (runs && snapshots_ != nullptr) snapshots_->Resumed();
  };
  events.device_event = [this](std::string_view name, const control::Json& data) {
    // Devices that end with the machine have nobody left to tell.
    if (qmp_ != nullptr) qmp_->Emit(name, data);
  };
  events.quit = [this](int status) { Quit(status); };
  return events;
}

}  // namespace holdfast::apps
