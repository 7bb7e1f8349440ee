// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include <holdfast/error.h>

#include "object/property.h"

namespace holdfast::object {

struct ObjectType;

/// Something a user makes with `-object` or with QMP's object-add and names by its id.
///
/// Thread-safety: one thread, the main loop's.
class Object {
 public:
  explicit Object(std::string id) : id_(std::move(id)) {}
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

  const std::string& id() const noexcept { return id_; }
  virtual const ObjectType& type() const noexcept = 0;
  /// Called once all properties are set: judges what only all of them together can tell.
  virtual Status Complete() = 0;

  /// What the property tells about itself, or nullptr if the type has none of this name.
  const PropertyInfo* FindProperty(std::string_view property) const noexcept;
  /// The property's value as it is now.
  /// @return kNotFound as QEMU words it: "Property 'TYPE.PROPERTY' not found".
  Result<PropertyValue> Get(std::string_view property) const;
  /// Changes a property of a finished object; `value` is of the property's type (ParseProperty and
  /// PropertyFromJson make such). @return kNotFound as Get; else what MayChange or the property's
  /// own check refuses with, and then nothing has changed.
  Status Set(std::string_view property, const PropertyValue& value);
  /// Whether the object may go. @return why not, e.g. memory that a guest uses.
  virtual Status CanDelete() const { return {}; }

 protected:
  /// Whether this property of a finished object may still change to `value`.
  virtual Status MayChange(const PropertyInfo& /*property*/, const PropertyValue& /*value*/) const {
    return {};
  }
  /// Called after Set has changed a property.
  virtual Status Changed(const PropertyInfo& /*property*/) { return {}; }

 private:
  std::string id_;
};

/// A type of objects: its name, its properties and how one is made.
struct ObjectType {
  std::string_view name;
  std::string_view description;
  std::unique_ptr<Object> (*make)(std::string id);
  std::span<const Property<Object>> properties;
  /// Properties that QEMU's types of this kind have and this one has not yet.
  std::span<const std::string_view> qemu_only;
};

/// All types there are, by name.
std::span<const ObjectType* const> ObjectTypes() noexcept;

/// Help for `-object help` (type empty) and `-object TYPE,help`.
/// @return kInvalidArgument for an unknown type.
Result<std::string> ObjectHelp(std::string_view type);

/// The objects of a virtual machine by id.
///
/// Thread-safety: one thread, the main loop's.
class ObjectStore {
 public:
  /// Makes an object from `-object`'s argument: `TYPE,id=ID,key=value…` or the same as JSON.
  /// @return the object, owned by the store; kInvalidArgument as QEMU words it.
  Result<Object*> AddFromOption(std::string_view argument);
  /// Makes an object from its properties; `qom-type` and `id` are among them. The parts of a list
  /// may come as `name=0,name=2-3` or as `name.0=0,name.1=2`.
  Result<Object*> Add(const KeyValues& values);
  /// The same from a JSON object, typed as strictly as QMP is: numbers are numbers, lists arrays.
  /// For a memory backend that is added to a running machine, MemoryBackend::Allocate follows; if
  /// it fails, Remove takes the object away again.
  Result<Object*> AddJson(const nlohmann::json& properties);
  /// Takes an object over that the monitor itself made; its id must be free.
  Result<Object*> Add(std::unique_ptr<Object> object);

  /// Destroys an object and what it owns. @return kNotFound "object 'ID' not found", or what
  /// Object::CanDelete says; then nothing has changed.
  Status Remove(std::string_view id);

  /// The object with this id, or nullptr.
  Object* Find(std::string_view id) const noexcept;
  const std::vector<std::unique_ptr<Object>>& objects() const noexcept { return objects_; }

 private:
  // Judges type and id; the object is not in the store yet.
  Result<std::unique_ptr<Object>> Make(std::string_view type, std::string_view id) const;
  std::vector<std::unique_ptr<Object>> objects_;  // in the order they were made
};

}  // namespace holdfast::object
