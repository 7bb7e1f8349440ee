// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace holdfast::apps {

class QmpClient;

/// What a QMP server says about its commands and their arguments: enough to complete what a person
/// types and to give values their type.
///
/// Whatever is odd in it (the server is not trusted) counts as unknown. Thread-safety: constant
/// after creation.
class QmpTypes {
 public:
  enum class Kind { kUnknown, kString, kInteger, kNumber, kBool, kEnum, kObject, kArray };
  /// An argument of a command or a member of one.
  struct Member {
    std::string name;
    std::string type;
    bool optional = false;
  };
  /// Values given so far, by name: the value of a tag decides which other arguments there are.
  using Given = std::map<std::string, std::string, std::less<>>;

  /// Knows nothing.
  QmpTypes() = default;
  /// Asks for `query-qmp-schema`, or where there is none for `query-commands`.
  static QmpTypes Ask(QmpClient& client);
  /// From the answer to `query-qmp-schema`.
  static QmpTypes FromSchema(const nlohmann::ordered_json& schema);
  /// From the answer to `query-commands`.
  static QmpTypes FromCommands(const nlohmann::ordered_json& commands);

  /// The names of all commands, sorted.
  std::vector<std::string> Commands() const;
  /// The arguments of a command.
  std::vector<Member> Arguments(std::string_view command, const Given& given) const;
  /// The type of the argument `key`, which may be dotted (`a.b` is member b of a); empty if
  /// unknown.
  std::string TypeOf(std::string_view command, std::string_view key, const Given& given) const;
  Kind KindOf(std::string_view type) const;
  /// The words of an enum, and of a bool.
  std::vector<std::string> Values(std::string_view type) const;
  /// The type of an array's elements; empty if unknown.
  std::string ElementType(std::string_view type) const;
  /// What a type is called for people: "integer", "on|off|auto", "list of string".
  std::string Describe(std::string_view type) const;

 private:
  struct Type {
    Kind kind = Kind::kUnknown;
    std::vector<std::string> words = {};
    std::string element = {};
    std::vector<Member> members = {};
    std::string tag = {};
    std::map<std::string, std::string, std::less<>> variants = {};  // value of the tag, type
  };

  std::vector<Member> MembersOf(std::string_view type, const Given& given) const;
  const Type* Find(std::string_view type) const;
  std::string DescribeTo(std::string_view type, int depth) const;

  std::map<std::string, std::string, std::less<>> commands_;  // name, type of the arguments
  std::map<std::string, Type, std::less<>> types_;
};

}  // namespace holdfast::apps
