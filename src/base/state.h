// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <holdfast/error.h>

namespace holdfast::state {

/// The section version that a field came with.
struct Since {
  std::uint32_t version;
};

/// The fields of one section of a machine's state, visited in a fixed order. The same function
/// that names them saves and loads them, so that the two cannot drift apart:
///
///     void Clock::VisitState(state::Fields& fields) {
///       fields.Value("seconds", seconds_);
///       fields.Value("rate", rate_, state::Since{2});  // new in version 2: older streams keep it
///     }
///
/// Everything read is checked for its name, its type and its range. After the first thing that is
/// wrong nothing more is read and the fields keep what they had; status() then says what it was.
/// How it looks in bytes is in docs/formats/snapshot.md.
///
/// Thread-safety: one thread.
class Fields {
 public:
  /// Saves: fields are appended.
  explicit Fields(std::uint32_t version) noexcept : version_(version) {}
  /// Loads from `bytes`, which a section of `version` has and which outlive the object.
  Fields(std::uint32_t version, std::span<const std::byte> bytes) noexcept
      : version_(version), in_(bytes), loading_(true) {}

  bool loading() const noexcept { return loading_; }
  /// When saving the current version, when loading the stream's.
  std::uint32_t version() const noexcept { return version_; }
  /// Whether a field of that version is in the stream.
  bool has(Since since) const noexcept { return version_ >= since.version; }

  /// A number. A signed one keeps its sign; one that does not fit into T is malformed.
  template <std::integral T>
  void Value(std::string_view name, T& value, Since since = {0}) {
    if (!has(since)) return;
    if (!loading_) {
      PutNumber(name, Widen(value));
      return;
    }
    std::uint64_t number = 0;
    if (!GetNumber(name, number)) return;
    T narrow{};
    if (!Narrow(number, narrow)) return FailRange(name, number);
    value = narrow;
  }
  /// An enumeration whose values are 0 to `last`; others are malformed.
  template <typename T>
    requires std::is_enum_v<T>
  void Enum(std::string_view name, T& value, T last, Since since = {0}) {
    if (!has(since)) return;
    auto number = static_cast<std::uint64_t>(value);
    if (!loading_) return PutNumber(name, number);
    if (!GetNumber(name, number)) return;
    if (number > static_cast<std::uint64_t>(last)) return FailRange(name, number);
    value = static_cast<T>(number);
  }
  /// Bytes of a length that both sides know.
  void Bytes(std::string_view name, std::span<std::byte> bytes, Since since = {0});
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void Struct(std::string_view name, T& value, Since since = {0}) {
    Bytes(name, std::as_writable_bytes(std::span(&value, 1)), since);
  }
  /// Bytes of any length up to `most`.
  void Blob(std::string_view name, std::vector<std::byte>& bytes, std::size_t most,
            Since since = {0});
  void Text(std::string_view name, std::string& text, std::size_t most, Since since = {0});
  /// A list of up to `most` elements, each visited by `each(fields, element)`. Elements that are
  /// loaded start as T{}.
  template <typename T, typename Each>
  void List(std::string_view name, std::vector<T>& list, std::size_t most, Each&& each,
            Since since = {0}) {
    if (!has(since)) return;
    std::uint64_t count = list.size();
    if (!Count(name, count, most)) return;
    if (loading_) {
      // Each element takes bytes, so that a count alone allocates nothing.
      std::vector<T> loaded;
      for (std::uint64_t i = 0; i < count && ok(); ++i) each(*this, loaded.emplace_back());
      if (ok()) list = std::move(loaded);
      return;
    }
    for (T& element : list) each(*this, element);
  }

  /// What was loaded must not be: `why` completes "section 'x': ". Only the first one counts.
  void Malformed(std::string why);
  /// While loading: Malformed(`why`) unless `good`.
  void Check(bool good, std::string_view why) {
    if (loading_ && !good) Malformed(std::string(why));
  }

  bool ok() const noexcept { return why_.empty(); }
  /// After loading: kMalformed with what was wrong, bytes left over among it.
  Status status() const;
  /// What was saved.
  std::vector<std::byte> Take() && { return std::move(out_); }

 private:
  template <std::integral T>
  static std::uint64_t Widen(T value) noexcept {
    return static_cast<std::uint64_t>(value);
  }
  template <std::integral T>
  static bool Narrow(std::uint64_t number, T& value) noexcept {
    if constexpr (std::is_same_v<T, bool>) {
      value = number != 0;
      return number <= 1;
    } else {
      value = static_cast<T>(number);
      return Widen(value) == number;
    }
  }
  void PutNumber(std::string_view name, std::uint64_t value);
  bool GetNumber(std::string_view name, std::uint64_t& value);
  bool Count(std::string_view name, std::uint64_t& count, std::size_t most);
  void FailRange(std::string_view name, std::uint64_t number);
  void PutHead(std::string_view name, std::uint8_t type);
  bool GetHead(std::string_view name, std::uint8_t type);
  void PutBytes(std::string_view name, std::span<const std::byte> bytes);
  /// The bytes of a field of any length; empty after a failure.
  std::span<const std::byte> GetBytes(std::string_view name);
  bool Need(std::string_view name, std::size_t size);

  const std::uint32_t version_;
  std::vector<std::byte> out_;
  std::span<const std::byte> in_;
  std::size_t at_ = 0;
  const bool loading_ = false;
  std::string why_;  // empty: all is well
};

/// One part of a machine that has a state: saved under its name and loaded by it.
struct Section {
  std::string name;           ///< unique in the machine: "pci/00:03.0/virtio-blk-pci"
  std::uint32_t version = 1;  ///< what is saved; everything from `oldest` on can be loaded
  std::uint32_t oldest = 1;
  std::function<void(Fields&)> visit;  ///< saves or loads
};

/// A section in a stream.
struct SavedSection {
  std::string name;
  std::uint32_t version = 1;
  std::vector<std::byte> bytes;
};

/// Saves every section, in order. @return an error that a section gave through Malformed()
Result<std::vector<SavedSection>> Save(std::span<const Section> sections);
/// Whether `saved` has exactly the names of `sections`, in versions that they know.
/// @return kMalformed naming the section that is missing, not there, or too new
Status CheckNames(std::span<const Section> sections, std::span<const SavedSection> saved);
/// Loads `saved` into `sections`, in the order of `sections`. Both must have the same names.
/// @return kMalformed naming the section that is missing, not there, too new, or wrong in itself.
///         What was loaded before it stays loaded.
Status Load(std::span<const Section> sections, std::span<const SavedSection> saved);

}  // namespace holdfast::state
