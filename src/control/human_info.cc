// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>

#include <holdfast/address_space.h>
#include <holdfast/units.h>

#include "base/trace.h"
#include "control/context.h"
#include "control/human_commands.h"
#include "control/human_format.h"
#include "devices/bus.h"
#include "machine/machine.h"
#include "object/memory_backend.h"

// The `info` commands that tell of one thing each; those of memory are in human_memory.cc.
namespace holdfast::control {
namespace {

// A property as the human monitor writes it; nothing where the type has none of this name.
std::string PropertyText(const object::Object& object, std::string_view name) {
  const object::PropertyInfo* const info = object.FindProperty(name);
  const auto value = object.Get(name);
  return info != nullptr && value ? object::FormatProperty(*info, *value) : std::string();
}

bool PropertyIsOn(const object::Object& object, std::string_view name) {
  const auto value = object.Get(name);
  const bool* const on = value ? std::get_if<bool>(&*value) : nullptr;
  return on != nullptr && *on;
}

}  // namespace

Result<std::string> HumanCommands::InfoChardev(std::string_view) {
  std::string text;
  for (const ChardevInfo& chardev : context_.chardevs()) {
    text += fmt::format("{}: filename={}\n", chardev.label, chardev.filename);
  }
  return text;
}

Result<std::string> HumanCommands::InfoCpus(std::string_view) {
  std::string text;
  for (const machine::VcpuInfo& vcpu : context_.machine().vcpus()) {
    // The star is for the CPU that commands refer to, which is always the first here.
    text += fmt::format("{} CPU #{}: thread_id={}\n", vcpu.index == 0 ? '*' : ' ', vcpu.index,
                        vcpu.tid);
  }
  return text;
}

Result<std::string> HumanCommands::InfoKvm(std::string_view) {
  return std::string("kvm support: enabled\n");
}

Result<std::string> HumanCommands::InfoMemdev(std::string_view) {
  std::string text;
  for (const auto& object : context_.objects->objects()) {
    const auto* const backend = dynamic_cast<const object::MemoryBackend*>(object.get());
    if (backend == nullptr) continue;
    text += fmt::format("memory backend: {}\n  size:  {}\n", backend->id(), backend->size());
    for (const std::string_view name : {"merge", "dump", "prealloc", "share", "reserve"}) {
      text += fmt::format("  {}: {}\n", name, PropertyIsOn(*backend, name));
    }
    text += fmt::format("  policy: {}\n  host nodes: {}\n\n", PropertyText(*backend, "policy"),
                        PropertyText(*backend, "host-nodes"));
  }
  return text;
}

Result<std::string> HumanCommands::InfoMemorySizeSummary(std::string_view) {
  return fmt::format("base memory: {}\nplugged memory: 0\n",
                     context_.machine().memory().total_size());
}

Result<std::string> HumanCommands::InfoName(std::string_view) {
  return context_.name.empty() ? std::string() : context_.name + "\n";
}

Result<std::string> HumanCommands::InfoNuma(std::string_view) {
  const machine::Machine& machine = context_.machine();
  const machine::NumaConfig& numa = machine.config().numa;
  std::string text = fmt::format("{} nodes\n", numa.nodes.size());
  for (std::size_t id = 0; id < numa.nodes.size(); ++id) {
    text += fmt::format("node {} cpus:", id);
    for (const machine::VcpuInfo& vcpu : machine.vcpus()) {
      if (vcpu.node_id == id) text += fmt::format(" {}", vcpu.index);
    }
    text += fmt::format("\nnode {} size: {} MB\nnode {} plugged: 0 MB\n", id,
                        numa.nodes[id].size / kMiB, id);
  }
  return text;
}

Result<std::string> HumanCommands::InfoRegisters(std::string_view arguments) {
  machine::Machine& machine = context_.machine();
  const auto count = static_cast<unsigned>(machine.vcpus().size());
  unsigned first = 0;
  unsigned last = 0;
  if (arguments == "-a") {
    last = count - 1;
  } else if (!arguments.empty()) {
    const char* const end = arguments.data() + arguments.size();
    const auto [rest, error] = std::from_chars(arguments.data(), end, first);
    if (error != std::errc{} || rest != end || first >= count) {
      return Fail(Errc::kInvalidArgument, fmt::format("CPU#{} not available", arguments),
                  fmt::format("The vCPUs are 0 to {}; -a shows all.", count - 1));
    }
    last = first;
  }
  std::string text;
  for (unsigned index = first; index <= last; ++index) {
    HF_TRY(const machine::VcpuRegisters registers, machine.Registers(index));
    text += FormatRegisters(index, registers);
  }
  return text;
}

Result<std::string> HumanCommands::InfoStatus(std::string_view) {
  const std::string_view state = machine::RunStateName(context_.machine().state());
  if (state == "running" || state == "paused") return fmt::format("VM status: {}\n", state);
  return fmt::format("VM status: paused ({})\n", state);
}

Result<std::string> HumanCommands::InfoTraceEvents(std::string_view arguments) {
  std::string text;
  for (const trace::Event* const event : trace::Find(arguments.empty() ? "*" : arguments)) {
    text += fmt::format("{} : state {}\n", event->name(), event->enabled() ? 1 : 0);
  }
  if (text.empty()) {
    return Fail(Errc::kInvalidArgument, fmt::format("unknown event \"{}\"", arguments),
                "'info trace-events' lists them.");
  }
  return text;
}

Result<std::string> HumanCommands::InfoUuid(std::string_view) {
  return context_.uuid + "\n";
}

Result<std::string> HumanCommands::InfoVersion(std::string_view) {
  return context_.version + "\n";
}

}  // namespace holdfast::control
