// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <holdfast/error.h>

/// What the monitor says to people: messages on stderr, and the log items of `-d`.
///
/// Thread-safety: everything may be called from any thread; each line is written with one write(),
/// so lines never mix. The Set functions are meant for start-up.
namespace holdfast::log {

/// The name in front of every message; "holdfast" until set. `name` must live forever.
void SetProgramName(std::string_view name);
/// `-msg timestamp=on`: messages, log items and trace lines start with the time in UTC.
void SetTimestamps(bool on);
/// Whether SetTimestamps(true) holds.
bool timestamps() noexcept;
/// `-msg guest-name=on`: messages name the guest. Empty: no.
void SetGuestName(std::string name);

/// "holdfast: info: text".
void Info(std::string_view text);
/// "holdfast: warning: text".
void Warn(std::string_view text);
/// "holdfast: text"; for an Error its message and, as a second sentence, its hint.
void Error(std::string_view text);
void Error(const holdfast::Error& error);

/// The items `-d` turns on. They are bits.
enum class Item : std::uint32_t {
  kGuestErrors = 1U << 0,    ///< the guest did what no driver should do to a device
  kUnimplemented = 1U << 1,  ///< the guest asked for something Holdfast does not have
};

/// One row of `-d help`.
struct ItemInfo {
  Item item;
  std::string_view name;
  std::string_view description;
};
/// All items there are.
std::span<const ItemInfo> Items() noexcept;

/// Turns items on, all at once: an or of Item bits.
void EnableItems(std::uint32_t items) noexcept;

namespace internal {
extern std::atomic<std::uint32_t> g_items;
void WriteLine(std::string_view text);
}  // namespace internal

/// Whether an item is on. Cheap: one relaxed load.
inline bool Enabled(Item item) noexcept {
  return (internal::g_items.load(std::memory_order_relaxed) & static_cast<std::uint32_t>(item)) !=
         0;
}
/// Writes a line of an item to the log (stderr, or the file of `-D`), if the item is on. Callers
/// that format text should ask Enabled() first.
inline void Write(Item item, std::string_view text) {
  if (Enabled(item)) internal::WriteLine(text);
}

/// `-D FILE`: log items and trace lines go there instead of stderr. The file is truncated.
/// An empty path is stderr again.
/// @return the open's error, naming the file; the log then stays where it was.
Status SetFile(const std::string& path);
/// Whether the log goes to stderr (then `-daemonize` must leave stderr open).
bool GoesToStderr() noexcept;

/// The time now as `2026-01-31T12:00:00.000000Z`.
std::string TimestampNow();

}  // namespace holdfast::log
