// SPDX-License-Identifier: Apache-2.0
// object-add, object-del, the tree of objects and their types.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>

#include "control/qmp_commands.h"
#include "control/qom_tree.h"
#include "machine/machine.h"
#include "object/json_value.h"
#include "object/memory_backend.h"

namespace holdfast::control {
namespace {

using object::ObjectType;
using object::PropertyInfo;

tl::unexpected<QmpError> NoDevice(std::string_view path) {
  return QmpFail(QmpErrorClass::kDeviceNotFound, fmt::format("Device '{}' not found", path));
}

QmpResult ObjectAdd(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY(object::Object* const added, vm.objects->AddJson(arguments));
  auto* const backend = dynamic_cast<object::MemoryBackend*>(added);
  if (backend == nullptr) return Json::object();
  const Status allocated =
      backend->Allocate(vm.vm(), {.prealloc_threads = vm.machine().config().smp.cpus,
                                  .progress = {},
                                  .merge = vm.machine().config().mem_merge,
                                  .dump = vm.machine().config().dump_guest_core});
  if (!allocated) {
    HF_QMP_TRY_STATUS(vm.objects->Remove(backend->id()));
    return tl::unexpected<QmpError>(allocated.error());
  }
  return Json::object();
}

QmpResult ObjectDel(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY_STATUS(vm.objects->Remove(arguments["id"].get_ref<const std::string&>()));
  return Json::object();
}

// ---- The tree -----------------------------------------------------------------------------------

QmpResult QomList(VmContext& vm, const Json& arguments) {
  const QomNode root = MakeQomTree(vm);
  const auto& path = arguments["path"].get_ref<const std::string&>();
  const QomNode* const node = FindQomNode(root, path);
  if (node == nullptr) return NoDevice(path);
  Json list = Json::array({{{"name", "type"}, {"type", "string"}}});
  for (const auto& [name, value] : node->values) {
    list.push_back({{"name", name}, {"type", value.type}});
  }
  if (node->object != nullptr) {
    for (const auto& property : node->object->type().properties) {
      list.push_back({{"name", property.name}, {"type", QomTypeName(property)}});
    }
  }
  for (const auto& [name, child] : node->children) {
    list.push_back({{"name", name}, {"type", fmt::format("child<{}>", child.type)}});
  }
  return list;
}

tl::unexpected<QmpError> NoProperty(const QomNode& node, std::string_view property) {
  return QmpFail(fmt::format("Property '{}.{}' not found", node.type, property),
                 "qom-list lists the properties.");
}

QmpResult QomGet(VmContext& vm, const Json& arguments) {
  const QomNode root = MakeQomTree(vm);
  const auto& path = arguments["path"].get_ref<const std::string&>();
  const auto& property = arguments["property"].get_ref<const std::string&>();
  const QomNode* const node = FindQomNode(root, path);
  if (node == nullptr) return NoDevice(path);
  if (property == "type") return Json(node->type);
  if (const auto child = node->children.find(property); child != node->children.end()) {
    return Json(child->second.path);
  }
  if (const auto value = node->values.find(property); value != node->values.end()) {
    return value->second.value;
  }
  if (node->object == nullptr) return NoProperty(*node, property);
  HF_QMP_TRY(const object::PropertyValue value, node->object->Get(property));
  return PropertyToJson(*node->object->FindProperty(property), value);
}

QmpResult QomSet(VmContext& vm, const Json& arguments) {
  const QomNode root = MakeQomTree(vm);
  const auto& path = arguments["path"].get_ref<const std::string&>();
  const auto& property = arguments["property"].get_ref<const std::string&>();
  const QomNode* const node = FindQomNode(root, path);
  if (node == nullptr) return NoDevice(path);
  const PropertyInfo* const info =
      node->object == nullptr ? nullptr : node->object->FindProperty(property);
  if (info != nullptr) {
    HF_QMP_TRY(const object::PropertyValue value, PropertyFromJson(*info, arguments["value"]));
    HF_QMP_TRY_STATUS(node->object->Set(property, value));
    return Json::object();
  }
  if (node->set && node->set(property, arguments["value"])) return Json::object();
  if (property == "type" || node->values.contains(property) || node->children.contains(property)) {
    return QmpFail(fmt::format("Property '{}.{}' is not writable", node->type, property));
  }
  return NoProperty(*node, property);
}

// ---- Types --------------------------------------------------------------------------------------

QmpResult QomListTypes(VmContext& vm, const Json& arguments) {
  const std::vector<QomType> types = QomTypes(vm);
  const bool abstract = arguments.value("abstract", false);
  const std::string implements = arguments.value("implements", std::string());
  Json list = Json::array();
  for (const QomType& type : types) {
    if (type.abstract && !abstract) continue;
    if (!implements.empty() && !QomTypeIs(types, type.name, implements)) continue;
    Json one = {{"name", type.name}};
    if (type.abstract) one["abstract"] = true;
    if (!type.parent.empty()) one["parent"] = type.parent;
    list.push_back(std::move(one));
  }
  return list;
}

Json PropertyDescription(const PropertyInfo& property) {
  Json one = {{"name", property.name}, {"type", QomTypeName(property)}};
  if (!property.description.empty()) one["description"] = property.description;
  return one;
}

// What every memory backend has: the properties of the abstract type.
bool HaveAllBackends(std::string_view property) {
  const auto types = object::ObjectTypes();
  return std::all_of(types.begin(), types.end(), [&](const ObjectType* type) {
    if (!type->name.starts_with("memory-backend-")) return true;
    return std::any_of(type->properties.begin(), type->properties.end(),
                       [&](const PropertyInfo& one) { return one.name == property; });
  });
}

QmpResult QomListProperties(VmContext& vm, const Json& arguments) {
  const auto& name = arguments["typename"].get_ref<const std::string&>();
  const std::vector<QomType> types = QomTypes(vm);
  if (std::none_of(types.begin(), types.end(),
                   [&](const QomType& type) { return type.name == name; })) {
    return QmpFail(QmpErrorClass::kDeviceNotFound, fmt::format("Class '{}' not found", name));
  }
  Json list = Json::array({{{"name", "type"}, {"type", "string"}}});
  for (const ObjectType* const type : object::ObjectTypes()) {
    if (type->name == name) {
      for (const auto& property : type->properties) list.push_back(PropertyDescription(property));
    }
  }
  if (name == "memory-backend") {
    for (const auto& property : object::ObjectTypes().front()->properties) {
      if (HaveAllBackends(property.name)) list.push_back(PropertyDescription(property));
    }
  }
  for (const DeviceType& device : vm.device_types) {
    if (device.name != name) continue;
    for (const PropertyInfo& property : device.properties) {
      list.push_back(PropertyDescription(property));
    }
  }
  return list;
}

QmpResult DeviceListProperties(VmContext& vm, const Json& arguments) {
  const auto& name = arguments["typename"].get_ref<const std::string&>();
  for (const DeviceType& device : vm.device_types) {
    if (device.name != name) continue;
    Json list = Json::array();
    for (const PropertyInfo& property : device.properties) {
      Json one = PropertyDescription(property);
      if (const auto value = ParseProperty(property, property.default_text)) {
        one["default-value"] = PropertyToJson(property, *value);
      }
      list.push_back(std::move(one));
    }
    return list;
  }
  const std::vector<QomType> types = QomTypes(vm);
  if (std::none_of(types.begin(), types.end(),
                   [&](const QomType& type) { return type.name == name; })) {
    return NoDevice(name);
  }
  return QmpFail("Parameter 'typename' expects a non-abstract device type",
                 "qom-list-types with \"implements\": \"device\" lists them.");
}

// ---- object-add's arguments, which the object types themselves define ---------------------------

std::string SchemaType(const PropertyInfo& property, Schema& schema) {
  switch (property.type) {
    case object::PropertyType::kBool:
      return "bool";
    case object::PropertyType::kSize:
      return "size";
    case object::PropertyType::kUint:
      return property.max <= 0xffffffff ? "uint32" : "uint64";
    case object::PropertyType::kUint16List:
      return "[uint16]";
    case object::PropertyType::kString:
      return "str";
    case object::PropertyType::kEnum:
      break;
  }
  std::string name = property.qom_type.empty() ? fmt::format("Property-{}", property.name)
                                               : std::string(property.qom_type);
  schema.Enum(name, {property.choices.begin(), property.choices.end()});
  return name;
}

void DefineObjectAdd(Schema& schema) {
  std::vector<std::string> names;
  std::vector<Schema::Case> cases;
  for (const ObjectType* const type : object::ObjectTypes()) {
    std::vector<Schema::Member> members;
    std::map<std::string, std::vector<Schema::Member>> nested;
    for (const auto& property : type->properties) {
      if (property.set == nullptr) continue;  // only to be read
      // Members of a property that is an object, like an address, are named NAME.MEMBER.
      if (const std::size_t dot = property.name.find('.'); dot != std::string_view::npos) {
        nested[std::string(property.name.substr(0, dot))].push_back(
            {fmt::format("{}?", property.name.substr(dot + 1)), SchemaType(property, schema)});
        continue;
      }
      const bool required = property.name == "size" || property.name == "mem-path" ||
                            property.name == "reduced-phys-bits";
      members.push_back(
          {fmt::format("{}{}", property.name, required ? "" : "?"), SchemaType(property, schema)});
    }
    for (auto& [name, of_it] : nested) {
      std::string nested_name = fmt::format("{}-{}", type->name, name);
      schema.Struct(nested_name, std::move(of_it));
      members.push_back({fmt::format("{}?", name), std::move(nested_name)});
    }
    std::string struct_name = fmt::format("{}-properties", type->name);
    schema.Struct(struct_name, std::move(members));
    names.emplace_back(type->name);
    cases.push_back({std::string(type->name), std::move(struct_name)});
  }
  schema.Enum("ObjectType", std::move(names));
  schema.Union("ObjectOptions", {{"qom-type", "ObjectType"}, {"id", "str"}}, "qom-type",
               std::move(cases));
  schema.AddCommand("object-add", {.arguments = "ObjectOptions", .run = ObjectAdd});
}

}  // namespace

void DefineObjectCommands(Schema& schema) {
  DefineObjectAdd(schema);
  schema.Struct("ObjectDelArguments", {{"id", "str"}});
  schema.AddCommand("object-del", {.arguments = "ObjectDelArguments", .run = ObjectDel});

  schema.Struct(
      "ObjectPropertyInfo",
      {{"name", "str"}, {"type", "str"}, {"description?", "str"}, {"default-value?", "any"}});
  schema.Struct("QomListArguments", {{"path", "str"}});
  schema.AddCommand(
      "qom-list",
      {.arguments = "QomListArguments", .result = "[ObjectPropertyInfo]", .run = QomList});
  schema.Struct("QomGetArguments", {{"path", "str"}, {"property", "str"}});
  schema.AddCommand("qom-get", {.arguments = "QomGetArguments", .result = "any", .run = QomGet});
  schema.Struct("QomSetArguments", {{"path", "str"}, {"property", "str"}, {"value", "any"}});
  schema.AddCommand("qom-set", {.arguments = "QomSetArguments", .run = QomSet});

  schema.Struct("QomListTypesArguments", {{"implements?", "str"}, {"abstract?", "bool"}});
  schema.Struct("ObjectTypeInfo", {{"name", "str"}, {"abstract?", "bool"}, {"parent?", "str"}});
  schema.AddCommand(
      "qom-list-types",
      {.arguments = "QomListTypesArguments", .result = "[ObjectTypeInfo]", .run = QomListTypes});
  schema.Struct("TypenameArguments", {{"typename", "str"}});
  schema.AddCommand("qom-list-properties", {.arguments = "TypenameArguments",
                                            .result = "[ObjectPropertyInfo]",
                                            .run = QomListProperties});
  schema.AddCommand("device-list-properties", {.arguments = "TypenameArguments",
                                               .result = "[ObjectPropertyInfo]",
                                               .run = DeviceListProperties});
}

}  // namespace holdfast::control
