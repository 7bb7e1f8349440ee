// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <holdfast/error.h>
#include <tl/expected.hpp>

#include "control/qmp_json.h"

namespace holdfast::control {

struct VmContext;

/// QEMU's error classes.
enum class QmpErrorClass {
  kGenericError,
  kCommandNotFound,
  kDeviceNotActive,
  kDeviceNotFound,
  kKvmMissingCap,
};
std::string_view QmpErrorClassName(QmpErrorClass error_class) noexcept;

/// What a failed command answers.
struct QmpError {
  /// Any error of the program is a GenericError; its hint goes along.
  QmpError(const Error& error)  // NOLINT(google-explicit-constructor): HF_QMP_TRY needs it
      : desc(error.message()), hint(error.hint()) {}
  QmpError(QmpErrorClass which, std::string text, std::string remedy = {})
      : error_class(which), desc(std::move(text)), hint(std::move(remedy)) {}

  QmpErrorClass error_class = QmpErrorClass::kGenericError;
  std::string desc;
  std::string hint;
};

using QmpResult = tl::expected<Json, QmpError>;
using QmpHandler = QmpResult (*)(VmContext& vm, const Json& arguments);

/// The interface of QMP: each command and event with its types. This one definition checks what
/// clients send, answers `query-qmp-schema`, and in debug builds and tests checks what is sent to
/// them; so these cannot disagree.
///
/// Types are named. Built in are str, int, number, bool, null, any, and the integers int8 to
/// uint64 and size, which know their range; "[T]" is the array of T.
///
/// Thread-safety: built once, constant from then on.
class Schema {
 public:
  /// A member of an object; `name` ends in "?" where it may be left out.
  struct Member {
    std::string name;
    std::string type;
  };
  /// A value of a union's tag, and the object whose members come in with it.
  struct Case {
    std::string value;
    std::string type;
  };
  struct CommandOptions {
    std::string arguments = {};  ///< an object; empty: none
    std::string result = {};     ///< empty: the empty object
    /// There may be arguments beside those of `arguments`; the handler judges them.
    bool more_arguments = false;
    bool allow_oob = false;    ///< may be run with exec-oob
    QmpHandler run = nullptr;  ///< null: the session itself does it
  };

  struct Command : CommandOptions {
    std::string name;
  };

  Schema();
  Schema(const Schema&) = delete;
  Schema& operator=(const Schema&) = delete;
  ~Schema() = default;

  void Enum(std::string name, std::vector<std::string> values);
  void Struct(std::string name, std::vector<Member> members);
  /// An object whose member `tag`, an enum, decides which further members there are. A value of
  /// the enum without case adds none.
  void Union(std::string name, std::vector<Member> members, std::string tag,
             std::vector<Case> cases);
  /// A value that has one of several types, told apart by their JSON type.
  void Alternate(std::string name, std::vector<std::string> types);
  void AddCommand(std::string name, CommandOptions options);
  void AddEvent(std::string name, std::string data = {});

  /// Whether every name used above is defined; the error names one that is not. For tests.
  Status Check() const;

  const Command* FindCommand(std::string_view name) const noexcept;
  std::vector<std::string> CommandNames() const;

  /// Checks a client's arguments. The texts are QEMU's.
  Status CheckArguments(const Command& command, const Json& arguments) const;
  /// Check what is sent: a mistake of the program's own.
  Status CheckResult(const Command& command, const Json& result) const;
  Status CheckEvent(std::string_view name, const Json& data) const;

  /// The answer to `query-qmp-schema`: a list of SchemaInfo.
  Json Introspect() const;

 private:
  struct Type {
    enum class Kind { kString, kInteger, kNumber, kBool, kNull, kAny, kEnum, kObject, kAlternate };

    std::string name = {};
    Kind kind = Kind::kObject;
    // kInteger: the range, and what an error calls it.
    std::int64_t min = 0;
    std::uint64_t max = 0;
    std::string_view range = {};
    std::vector<std::string> words = {};  // kEnum: values; kAlternate: types
    std::vector<Member> members = {};     // kObject
    std::string tag = {};
    std::vector<Case> cases = {};

    bool HasWord(std::string_view word) const;
    static bool Optional(const Member& member) { return member.name.ends_with('?'); }
    static std::string_view NameOf(const Member& member);
  };

  Type& Define(std::string name);
  const Type* Find(std::string_view name) const;
  Status Validate(std::string_view type, const Json& value, const std::string& path) const;
  Status ValidateInteger(const Type& type, const Json& value, const std::string& path) const;
  Status ValidateEnum(const Type& type, const Json& value, const std::string& path) const;
  Status ValidateObject(const Type& type, const Json& value, const std::string& path) const;
  Status ValidateMembers(const Type& type, const Json& value, const std::string& path,
                         std::size_t& known) const;
  Status ValidateAlternate(const Type& type, const Json& value, const std::string& path) const;
  static constexpr std::string_view kEmptyObject = "Empty";

  std::string PublicName(std::string_view name) const;
  Json Describe(const Type& type, std::vector<std::string>& used) const;

  std::map<std::string, Type, std::less<>> types_;
  std::map<std::string, Command, std::less<>> commands_;
  std::map<std::string, std::string, std::less<>> events_;  // name to type of the data
};

/// Holdfast's QMP. Made at the first call.
const Schema& QmpSchema();

}  // namespace holdfast::control
