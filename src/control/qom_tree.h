// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/context.h"
#include "control/qmp_json.h"
#include "object/object.h"

namespace holdfast::control {

/// A node of the tree that QEMU shows its objects in: "/objects/ram0". Made anew for each question
/// from the objects that are there.
struct QomNode {
  /// What a node knows besides the properties of its object.
  struct Value {
    std::string type;  ///< "string", "int" …
    Json value;
  };

  std::string path;
  std::string type;  ///< "container", "memory-backend-ram" …
  object::Object* object = nullptr;
  /// Sets one of `values`; null where none can be set. False: that one cannot.
  std::function<bool(std::string_view name, const Json& value)> set = {};
  std::map<std::string, Value> values = {};
  std::map<std::string, QomNode> children = {};
};

/// The tree of this machine, from its root on.
QomNode MakeQomTree(const VmContext& vm);

/// The node a path means: from the root ("/objects/ram0"), or the end of one ("ram0").
/// @return nullptr if there is none, or more than one by that end.
const QomNode* FindQomNode(const QomNode& root, std::string_view path);

/// A type as qom-list-types shows it.
struct QomType {
  std::string name;
  std::string parent;  ///< empty for the root
  bool abstract = false;
};
/// All types there are.
std::vector<QomType> QomTypes(const VmContext& vm);
/// Whether `name` is `ancestor` or descends from it.
bool QomTypeIs(const std::vector<QomType>& types, std::string_view name, std::string_view ancestor);

}  // namespace holdfast::control
