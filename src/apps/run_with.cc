// SPDX-License-Identifier: Apache-2.0
#include "apps/run_with.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <charconv>
#include <optional>
#include <vector>

namespace holdfast::apps {
namespace {

constexpr const char* kNeedsRoot = "This needs a start as root.";

std::optional<unsigned> ReadId(std::string_view text) {
  unsigned id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  // The largest number means "leave as it is" to the kernel.
  if (error != std::errc() || end != text.data() + text.size() || id == ~0U) return std::nullopt;
  return id;
}

}  // namespace

Result<UserIds> ResolveUser(std::string_view user) {
  const std::string name(user);
  std::vector<char> buffer(16384);
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) == 0 &&
      found != nullptr) {
    return UserIds{.uid = entry.pw_uid, .gid = entry.pw_gid, .name = name};
  }
  const std::size_t colon = user.find(':');
  if (colon != std::string_view::npos) {
    const std::optional<unsigned> uid = ReadId(user.substr(0, colon));
    const std::optional<unsigned> gid = ReadId(user.substr(colon + 1));
    if (uid && gid) return UserIds{.uid = *uid, .gid = *gid, .name = {}};
  }
  return Fail(Errc::kInvalidArgument,
              fmt::format("User \"{}\" doesn't exist (and is not <uid>:<gid>)", user),
              "Name a user of this host, or write numbers, for example 65534:65534.");
}

Status ChangeRoot(const std::string& folder) {
  if (::chroot(folder.c_str()) != 0) {
    const int os_errno = errno;
    Error error = Error::FromErrno(fmt::format("chroot to '{}' failed", folder), os_errno);
    return Fail(os_errno == EPERM ? std::move(error).WithHint(kNeedsRoot) : std::move(error));
  }
  if (::chdir("/") != 0) return FailErrno("not able to chdir to / after chroot");
  return {};
}

Status BecomeUser(const UserIds& user) {
  const std::string who = user.name.empty() ? fmt::format("{}:{}", user.uid, user.gid) : user.name;
  const auto failed = [&](std::string_view call) {
    return Fail(Error::FromErrno(fmt::format("cannot become the user '{}': {}", who, call), errno)
                    .WithHint(kNeedsRoot));
  };
  if (user.name.empty()) {
    if (::setgroups(1, &user.gid) != 0) return failed("setgroups");
  } else if (::initgroups(user.name.c_str(), user.gid) != 0) {
    return failed("initgroups");
  }
  if (::setgid(user.gid) != 0) return failed("setgid");
  if (::setuid(user.uid) != 0) return failed("setuid");
  // Root's rights must be gone, whatever the kernel's modules think of it.
  if (user.uid != 0 && ::setuid(0) == 0) {
    return Fail(Errc::kSystem, fmt::format("became the user '{}', but root's rights stayed", who));
  }
  return {};
}

}  // namespace holdfast::apps
