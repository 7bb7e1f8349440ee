// SPDX-License-Identifier: Apache-2.0
#include "control/qom_tree.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/qmp_commands.h"
#include "devices/machine_services.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

constexpr std::string_view kContainer = "container";
constexpr std::string_view kCpuType = "host-x86_64-cpu";

QomNode& Add(QomNode& parent, const std::string& name, std::string_view type) {
  QomNode& node = parent.children[name];
  node.path = parent.path == "/" ? "/" + name : parent.path + "/" + name;
  node.type = type;
  return node;
}

std::string MachineType(const VmContext& vm) {
  return vm.machine_type + "-machine";
}

void AddCpus(const VmContext& vm, QomNode& machine) {
  QomNode& unattached = Add(machine, "unattached", kContainer);
  for (const machine::VcpuInfo& cpu : vm.machine().vcpus()) {
    QomNode& node = Add(unattached, fmt::format("device[{}]", cpu.index), kCpuType);
    node.path = CpuPath(cpu.index);
    node.values = {{"apic-id", {"uint32", cpu.apic_id}},
                   {"socket-id", {"int32", cpu.socket_id}},
                   {"core-id", {"int32", cpu.core_id}},
                   {"thread-id", {"int32", cpu.thread_id}}};
    if (cpu.node_id) node.values["node-id"] = {"int32", *cpu.node_id};
  }
}

// Where QEMU has a device that the user made.
QomNode& AddPeripheral(QomNode& machine, std::string_view id, std::string_view type) {
  QomNode& all = Add(machine, id.empty() ? "peripheral-anon" : "peripheral", kContainer);
  return Add(all, id.empty() ? fmt::format("device[{}]", type) : std::string(id), type);
}

void AddBalloon(const VmContext& vm, QomNode& machine) {
  devices::Balloon* const balloon = vm.machine().services().balloon;
  if (balloon == nullptr) return;
  constexpr std::string_view kInterval = "guest-stats-polling-interval";
  QomNode& node = AddPeripheral(machine, balloon->id(), "virtio-balloon-pci");
  node.values["guest-stats"] = {"guest statistics", BalloonStats(*balloon)};
  node.values[std::string(kInterval)] = {"int", balloon->polling_interval()};
  node.set = [balloon, kInterval](std::string_view name, const Json& value) {
    if (name != kInterval || !value.is_number_unsigned()) return false;
    balloon->SetPollingInterval(value.get<std::uint64_t>());
    return true;
  };
}

void AddMachine(const VmContext& vm, QomNode& root) {
  QomNode& machine = Add(root, "machine", MachineType(vm));
  const machine::MachineConfig& config = vm.machine().config();
  machine.values = {{"kernel", {"string", config.kernel}},
                    {"initrd", {"string", config.initrd}},
                    {"append", {"string", config.cmdline}}};
  AddCpus(vm, machine);
  AddBalloon(vm, machine);
}

// Looks for nodes whose path ends in `path`, at a name's border.
void FindByEnd(const QomNode& node, std::string_view path, std::vector<const QomNode*>& found) {
  std::string_view own = node.path;
  if (own.ends_with(path) && own.size() > path.size() && own[own.size() - path.size() - 1] == '/') {
    found.push_back(&node);
  }
  for (const auto& [name, child] : node.children) FindByEnd(child, path, found);
}

}  // namespace

QomNode MakeQomTree(const VmContext& vm) {
  QomNode root{.path = "/", .type = std::string(kContainer)};
  QomNode& objects = Add(root, "objects", kContainer);
  for (const auto& object : vm.objects->objects()) {
    Add(objects, object->id(), object->type().name).object = object.get();
  }
  QomNode& chardevs = Add(root, "chardevs", kContainer);
  for (const ChardevInfo& chardev : vm.chardevs()) Add(chardevs, chardev.label, "chardev");
  AddMachine(vm, root);
  return root;
}

const QomNode* FindQomNode(const QomNode& root, std::string_view path) {
  if (!path.starts_with('/')) {
    std::vector<const QomNode*> found;
    if (!path.empty()) FindByEnd(root, path, found);
    return found.size() == 1 ? found.front() : nullptr;
  }
  const QomNode* node = &root;
  while (node != nullptr) {
    while (path.starts_with('/')) path.remove_prefix(1);
    if (path.empty()) return node;
    const std::string name(path.substr(0, path.find('/')));
    path.remove_prefix(name.size());
    const auto child = node->children.find(name);
    node = child == node->children.end() ? nullptr : &child->second;
  }
  return nullptr;
}

std::vector<QomType> QomTypes(const VmContext& vm) {
  std::vector<QomType> types = {
      {"object", "", true},         {"chardev", "object", true},
      {"container", "object"},      {"cpu", "device", true},
      {"device", "object", true},   {std::string(kCpuType), "x86_64-cpu"},
      {"machine", "object", true},  {"memory-backend", "object", true},
      {MachineType(vm), "machine"}, {"x86_64-cpu", "cpu", true},
  };
  for (const object::ObjectType* const type : object::ObjectTypes()) {
    const bool memory = type->name.starts_with("memory-backend-");
    types.push_back({std::string(type->name), memory ? "memory-backend" : "object"});
  }
  for (const DeviceType& device : vm.device_types) types.push_back({device.name, "device"});
  std::sort(types.begin(), types.end(),
            [](const QomType& left, const QomType& right) { return left.name < right.name; });
  return types;
}

bool QomTypeIs(const std::vector<QomType>& types, std::string_view name,
               std::string_view ancestor) {
  while (!name.empty()) {
    if (name == ancestor) return true;
    const auto found = std::find_if(types.begin(), types.end(),
                                    [&](const QomType& type) { return type.name == name; });
    if (found == types.end()) return false;
    name = found->parent;
  }
  return false;
}

}  // namespace holdfast::control
