// SPDX-License-Identifier: Apache-2.0
#include "object/object.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "object/file_backend.h"
#include "object/iothread.h"
#include "object/json_value.h"
#include "object/memory_backend.h"
#include "object/rng_object.h"
#include "object/sev_snp_guest.h"
#include "object/suggest.h"
#include "object/sw_protected_guest.h"
#include "object/tdx_guest.h"
#include "object/throttle_group.h"
#include "object/tls_credentials.h"

namespace holdfast::object {
namespace {

constexpr std::array kTypes = {
    &IoThread::kType,      &FileBackend::kType,    &GuestMemfdBackend::kType,
    &MemfdBackend::kType,  &RamBackend::kType,     &ShmBackend::kType,
    &RngBuiltin::kType,    &RngRandom::kType,      &SwProtectedGuest::kType,
    &SevSnpGuest::kType,   &TdxGuest::kType,       &ThrottleGroup::kType,
    &TlsSharedKeys::kType, &TlsCertificates::kType};

// Object types of QEMU 11 (user creatable ones) that have no counterpart here yet.
constexpr std::array<std::string_view, 39> kQemuTypes = {
    "acpi-generic-initiator",
    "acpi-generic-port",
    "authz-list",
    "authz-list-file",
    "authz-pam",
    "authz-simple",
    "can-bus",
    "can-host-socketcan",
    "colo-compare",
    "cryptodev-backend",
    "cryptodev-backend-builtin",
    "cryptodev-backend-lkcf",
    "cryptodev-vhost-user",
    "dbus-vmstate",
    "filter-buffer",
    "filter-dump",
    "filter-mirror",
    "filter-redirector",
    "filter-replay",
    "filter-rewriter",
    "igvm-cfg",
    "input-barrier",
    "input-linux",
    "iommufd",
    "main-loop",
    "memory-backend-epc",
    "pef-guest",
    "pr-manager-helper",
    "qtest",
    "rng-egd",
    "s390-pv-guest",
    "secret",
    "secret_keyring",
    "sev-guest",
    "thread-context",
    "tls-cipher-suites",
    "tls-creds-anon",
    "tls-creds-psk",
    "tls-creds-x509",
};

Error UnknownType(std::string_view name) {
  if (std::find(kQemuTypes.begin(), kQemuTypes.end(), name) != kQemuTypes.end()) {
    return Error(Errc::kUnsupported,
                 fmt::format("QEMU has the object type '{}', Holdfast does not have it yet", name),
                 name.starts_with("memory-backend-")
                     ? "Use memory-backend-guest-memfd or memory-backend-memfd."
                     : "Leave it out; -object help lists the types there are.");
  }
  std::array<std::string_view, kTypes.size()> names;
  std::transform(kTypes.begin(), kTypes.end(), names.begin(),
                 [](const ObjectType* type) { return type->name; });
  const std::string_view nearest = Nearest(name, names);
  return Error(Errc::kInvalidArgument,
               fmt::format("Parameter 'qom-type' does not accept value '{}'", name),
               nearest.empty() ? "-object help lists the types there are."
                               : fmt::format("Did you mean '{}'?", nearest));
}

Result<const ObjectType*> FindType(std::string_view name) {
  for (const ObjectType* type : kTypes) {
    if (type->name == name) return type;
  }
  return Fail(UnknownType(name));
}

Error DuplicateId(std::string_view id) {
  return Error(
      Errc::kInvalidArgument,
      fmt::format("attempt to add duplicate property '{}' to object (type 'container')", id),
      fmt::format("Two objects have the id '{}': give each its own.", id));
}

Error TypeIsMissing() {
  return Error(Errc::kInvalidArgument, "Parameter 'qom-type' is missing",
               "The argument starts with the object's type; -object help lists them.");
}
Error IdIsMissing() {
  return Error(Errc::kInvalidArgument, "Parameter 'id' is missing",
               "Name the object, for example id=ram0.");
}

const Property<Object>* FindIn(const ObjectType& type, std::string_view name) noexcept {
  for (const Property<Object>& property : type.properties) {
    if (property.name == name) return &property;
  }
  return nullptr;
}

Error NoSuchProperty(const ObjectType& type, std::string_view name) {
  return Error(Errc::kNotFound, fmt::format("Property '{}.{}' not found", type.name, name));
}

Error UnknownKey(const ObjectType& type, std::string_view key) {
  std::vector<std::string_view> known;
  for (const Property<Object>& property : type.properties) {
    if (property.set != nullptr) known.push_back(property.name);
  }
  return UnknownProperty(key, known, type.qemu_only);
}

// The parts of one list, which may be spread over the argument.
struct ListParts {
  const Property<Object>* property;
  bool indexed;  // name.0=, name.1= …
  std::size_t parts;
  std::vector<std::uint64_t> values;
};

// The list that `key`, "name" or "name.INDEX", is a part of; nullptr if it is none.
const Property<Object>* FindList(const ObjectType& type, std::string_view key) noexcept {
  for (const Property<Object>& property : type.properties) {
    if (property.type != PropertyType::kUint16List || !key.starts_with(property.name)) continue;
    const std::string_view rest = key.substr(property.name.size());
    if (rest.empty() || (rest.size() > 1 && rest.front() == '.')) return &property;
  }
  return nullptr;
}

Status AddPart(const Property<Object>& property, const KeyValue& entry,
               std::vector<ListParts>& lists) {
  if (entry.bare) {
    return Fail(Errc::kInvalidArgument, fmt::format("Expected '=' after parameter '{}'", entry.key),
                fmt::format("Write {}=NUMBER or a range such as 0-3.", entry.key));
  }
  const bool indexed = entry.key.size() > property.name.size();
  auto list = std::find_if(lists.begin(), lists.end(),
                           [&](const ListParts& known) { return known.property == &property; });
  if (list == lists.end()) {
    list =
        lists.insert(list, {.property = &property, .indexed = indexed, .parts = 0, .values = {}});
  }
  const std::string expected =
      indexed ? fmt::format("{}.{}", property.name, list->parts) : std::string(property.name);
  if (list->indexed != indexed) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameters '{}.*' used inconsistently", property.name),
                fmt::format("Write either {0}=A,{0}=B or {0}.0=A,{0}.1=B.", property.name));
  }
  if (entry.key != expected) {
    return Fail(Errc::kInvalidArgument, fmt::format("Parameter '{}' missing", expected),
                fmt::format("'{}' came instead; the parts are numbered from 0 on.", entry.key));
  }
  HF_TRY(const PropertyValue part, ParseProperty(property, entry.value));
  const auto& numbers = std::get<std::vector<std::uint64_t>>(part);
  constexpr std::size_t kMost = kLargestListNumber + 1;
  if (list->values.size() + numbers.size() > kMost) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameter '{}' has more than {} members", property.name, kMost));
  }
  list->values.insert(list->values.end(), numbers.begin(), numbers.end());
  ++list->parts;
  return {};
}

// A property that is an object, like an address, has its members as properties NAME.MEMBER.
nlohmann::json Flatten(const ObjectType& type, const nlohmann::json& properties) {
  nlohmann::json flat = nlohmann::json::object();
  for (const auto& [key, json] : properties.items()) {
    const std::string prefix = key + ".";
    const bool nested =
        json.is_object() &&
        std::any_of(type.properties.begin(), type.properties.end(),
                    [&](const auto& property) { return property.name.starts_with(prefix); });
    if (!nested) {
      flat[key] = json;
      continue;
    }
    for (const auto& [member, value] : json.items()) flat[prefix + member] = value;
  }
  return flat;
}

}  // namespace

std::span<const ObjectType* const> ObjectTypes() noexcept {
  return kTypes;
}

Result<std::string> ObjectHelp(std::string_view type) {
  if (!type.empty()) {
    HF_TRY(const ObjectType* found, FindType(type));
    return DescribeProperties(found->name, found->properties);
  }
  std::string text = "List of user creatable objects:\n";
  for (const ObjectType* known : kTypes) {
    text += fmt::format("  {:<30} {}\n", known->name, known->description);
  }
  return text;
}

const PropertyInfo* Object::FindProperty(std::string_view property) const noexcept {
  return FindIn(type(), property);
}

Result<PropertyValue> Object::Get(std::string_view property) const {
  const Property<Object>* found = FindIn(type(), property);
  if (found == nullptr || found->get == nullptr) return Fail(NoSuchProperty(type(), property));
  return found->get(*this);
}

Status Object::Set(std::string_view property, const PropertyValue& value) {
  const Property<Object>* found = FindIn(type(), property);
  if (found == nullptr) return Fail(NoSuchProperty(type(), property));
  if (found->set == nullptr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Property '{}.{}' is not writable", type().name, property));
  }
  HF_TRY_STATUS(MayChange(*found, value));
  HF_TRY_STATUS(found->set(*this, value));
  return Changed(*found);
}

Result<Object*> ObjectStore::AddFromOption(std::string_view argument) {
  if (argument.starts_with('{')) {
    HF_TRY(const nlohmann::json json, ParseJsonObject(argument));
    return AddJson(json);
  }
  HF_TRY(const KeyValues values, ParseKeyValues(argument, "qom-type"));
  return Add(values);
}

Result<std::unique_ptr<Object>> ObjectStore::Make(std::string_view type,
                                                  std::string_view id) const {
  HF_TRY(const ObjectType* found, FindType(type));
  if (!IsWellFormedId(id)) {
    return Fail(Errc::kInvalidArgument, "Parameter 'id' expects an identifier",
                "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
  }
  if (Find(id) != nullptr) return Fail(DuplicateId(id));
  return found->make(std::string(id));
}

Result<Object*> ObjectStore::Add(const KeyValues& values) {
  const std::string* type_name = FindValue(values, "qom-type");
  if (type_name == nullptr) return Fail(TypeIsMissing());
  HF_TRY([[maybe_unused]] const ObjectType* known, FindType(*type_name));
  const std::string* id = FindValue(values, "id");
  if (id == nullptr) return Fail(IdIsMissing());
  HF_TRY(std::unique_ptr<Object> object, Make(*type_name, *id));
  const ObjectType& type = object->type();
  std::vector<ListParts> lists;
  for (const KeyValue& entry : values) {
    if (entry.key == "qom-type" || entry.key == "id") continue;
    if (const Property<Object>* list = FindList(type, entry.key)) {
      HF_TRY_STATUS(AddPart(*list, entry, lists));
    } else {
      HF_TRY_STATUS(SetProperty(type.properties, type.qemu_only, *object, entry));
    }
  }
  for (const ListParts& list : lists) {
    HF_TRY_STATUS(list.property->set(*object, PropertyValue(list.values)));
  }
  HF_TRY_STATUS(object->Complete());
  return Add(std::move(object));
}

Result<Object*> ObjectStore::AddJson(const nlohmann::json& properties) {
  constexpr PropertyInfo kTypeWord{.name = "qom-type"};
  constexpr PropertyInfo kIdWord{.name = "id"};
  if (!properties.is_object()) {
    return Fail(Errc::kInvalidArgument, "Invalid parameter type for 'arguments', expected: object");
  }
  if (!properties.contains(kTypeWord.name)) return Fail(TypeIsMissing());
  HF_TRY(const PropertyValue type_name, PropertyFromJson(kTypeWord, properties[kTypeWord.name]));
  HF_TRY([[maybe_unused]] const ObjectType* known, FindType(std::get<std::string>(type_name)));
  if (!properties.contains(kIdWord.name)) return Fail(IdIsMissing());
  HF_TRY(const PropertyValue id, PropertyFromJson(kIdWord, properties[kIdWord.name]));
  HF_TRY(std::unique_ptr<Object> object,
         Make(std::get<std::string>(type_name), std::get<std::string>(id)));
  const nlohmann::json flat = Flatten(object->type(), properties);
  for (const auto& [key, json] : flat.items()) {
    if (key == kTypeWord.name || key == kIdWord.name) continue;
    const Property<Object>* property = FindIn(object->type(), key);
    if (property == nullptr || property->set == nullptr) {
      const Error unknown = UnknownKey(object->type(), key);
      if (unknown.code() == Errc::kUnsupported) return Fail(unknown);
      return Fail(Errc::kInvalidArgument, fmt::format("Parameter '{}' is unexpected", key),
                  unknown.hint());
    }
    HF_TRY(const PropertyValue value, PropertyFromJson(*property, json));
    HF_TRY_STATUS(property->set(*object, value));
  }
  HF_TRY_STATUS(object->Complete());
  return Add(std::move(object));
}

Result<Object*> ObjectStore::Add(std::unique_ptr<Object> object) {
  if (Find(object->id()) != nullptr) return Fail(DuplicateId(object->id()));
  objects_.push_back(std::move(object));
  return objects_.back().get();
}

Status ObjectStore::Remove(std::string_view id) {
  const auto found = std::find_if(objects_.begin(), objects_.end(),
                                  [&](const auto& object) { return object->id() == id; });
  if (found == objects_.end()) {
    return Fail(Errc::kNotFound, fmt::format("object '{}' not found", id));
  }
  HF_TRY_STATUS((*found)->CanDelete());
  objects_.erase(found);
  return {};
}

Object* ObjectStore::Find(std::string_view id) const noexcept {
  for (const auto& object : objects_) {
    if (object->id() == id) return object.get();
  }
  return nullptr;
}

}  // namespace holdfast::object
