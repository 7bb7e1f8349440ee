// SPDX-License-Identifier: Apache-2.0
#include <holdfast/error.h>
#include <cerrno>
#include <system_error>

namespace holdfast {
namespace {

Errc CodeFor(int os_errno) {
  switch (os_errno) {
    case ENOENT:
      return Errc::kNotFound;
    case EACCES:
    case EPERM:
      return Errc::kPermission;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOSPC:
      return Errc::kExhausted;
    case EINVAL:
      return Errc::kInvalidArgument;
    default:
      return Errc::kSystem;
  }
}

}  // namespace

Error Error::FromErrno(std::string_view what, int os_errno) {
  std::string message(what);
  message += ": ";
  // std::generic_category is thread-safe where strerror is not.
  message += std::generic_category().message(os_errno);
  return Error(CodeFor(os_errno), std::move(message), {}, os_errno);
}

Error Error::Wrap(std::string_view outer) && {
  std::string message(outer);
  message += ": ";
  message += message_;
  return Error(code_, std::move(message), std::move(hint_), os_errno_);
}

Error Error::WithHint(std::string hint) && {
  hint_ = std::move(hint);
  return std::move(*this);
}

std::string Error::ToString() const {
  if (hint_.empty()) return message_;
  // Some of QEMU's sentences have their full stop already.
  return message_ + (message_.ends_with('.') ? " " : ". ") + hint_;
}

tl::unexpected<Error> FailErrno(std::string_view what) {
  const int saved = errno;
  return tl::unexpected<Error>(Error::FromErrno(what, saved));
}

}  // namespace holdfast
