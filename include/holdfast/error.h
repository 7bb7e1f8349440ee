// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace holdfast {

/// What a caller can do about a failure. A code exists only where some caller branches on it.
enum class Errc : std::uint8_t {
  kInvalidArgument,  ///< The caller's mistake: an option, a size, a range.
  kNotFound,         ///< A name that nobody made: file, object, machine type.
  kUnsupported,      ///< The host's kernel or CPU lacks the feature.
  kPermission,       ///< The host refuses this user.
  kExhausted,        ///< Out of memory, slots or file descriptors.
  kMalformed,        ///< Untrusted input that breaks its format.
  kPrivate,          ///< Guest memory that the host must not touch.
  kSystem,           ///< Any other failed system call; see os_errno().
};

/// A failure: a code for the program, an errno for the log, sentences for people.
///
/// message() says what is wrong and names the option and value; hint(), if not empty, says what
/// to do about it. Neither ends with a newline; message() has no full stop, hint() has one.
class [[nodiscard]] Error {
 public:
  Error(Errc code, std::string message, std::string hint = {}, int os_errno = 0)
      : message_(std::move(message)), hint_(std::move(hint)), os_errno_(os_errno), code_(code) {}

  /// The error of a system call that has just failed: "`what`: <text of errno>". The code is
  /// derived from errno (EACCES and EPERM are kPermission, ENOMEM and EMFILE kExhausted …).
  static Error FromErrno(std::string_view what, int os_errno);

  /// Puts `outer` in front: "outer: message". Code, errno and hint stay.
  Error Wrap(std::string_view outer) &&;

  /// Replaces the hint.
  Error WithHint(std::string hint) &&;

  Errc code() const noexcept { return code_; }
  int os_errno() const noexcept { return os_errno_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& hint() const noexcept { return hint_; }

  /// "message" or "message. hint", as printed on one line.
  std::string ToString() const;

 private:
  std::string message_;
  std::string hint_;
  int os_errno_;
  Errc code_;
};

/// A value or an Error. tl::expected 1.0.0 lacks [[nodiscard]]; this subclass adds it.
template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using Base = tl::expected<T, Error>;
  using Base::Base;
};

/// Success or an Error.
using Status = Result<void>;

/// The failing return value: `return Fail(Errc::kNotFound, "...", "...")`.
inline tl::unexpected<Error> Fail(Errc code, std::string message, std::string hint = {}) {
  return tl::unexpected<Error>(Error(code, std::move(message), std::move(hint)));
}
inline tl::unexpected<Error> Fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}
/// `return FailErrno("open 'x'")` right after the failed call; reads errno.
tl::unexpected<Error> FailErrno(std::string_view what);

}  // namespace holdfast

// NOLINTBEGIN(bugprone-macro-parentheses): `decl` is a declaration and cannot be parenthesised.
#define HOLDFAST_CONCAT_(a, b) a##b
#define HOLDFAST_CONCAT(a, b) HOLDFAST_CONCAT_(a, b)
#define HOLDFAST_TRY_(tmp, decl, expr)                                          \
  auto tmp = (expr);                                                            \
  if (!tmp) return ::tl::unexpected<::holdfast::Error>(std::move(tmp).error()); \
  decl = *std::move(tmp)
/// `HF_TRY(auto fd, Open(path));` returns the error to the caller or declares the value.
#define HF_TRY(decl, expr) HOLDFAST_TRY_(HOLDFAST_CONCAT(hf_try_, __LINE__), decl, expr)
/// `HF_TRY_STATUS(Bind());` the same for a Status.
#define HF_TRY_STATUS(expr)                                                                   \
  do {                                                                                        \
    auto hf_status = (expr);                                                                  \
    if (!hf_status) return ::tl::unexpected<::holdfast::Error>(std::move(hf_status).error()); \
  } while (false)
// NOLINTEND(bugprone-macro-parentheses)
