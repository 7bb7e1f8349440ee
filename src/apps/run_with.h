// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include <holdfast/error.h>

namespace holdfast::apps {

/// `-run-with`, and its older spellings `-chroot` and `-runas`.
struct RunWithOptions {
  std::string user;             ///< NAME or UID:GID; empty: stay who we are
  std::string chroot;           ///< a folder; empty: none
  bool async_teardown = false;  ///< a process of its own gives the guest's memory back
};

/// A user to become.
struct UserIds {
  uid_t uid = 0;
  gid_t gid = 0;
  std::string name;  ///< for its further groups; empty: none
};

/// Looks a user up. @return kInvalidArgument for one that does not exist
Result<UserIds> ResolveUser(std::string_view user);

/// Makes `folder` the root of what this process can see in the file system.
Status ChangeRoot(const std::string& folder);
/// Becomes the user, in all threads, with no way back.
Status BecomeUser(const UserIds& user);

/// Starts a process that shares this one's memory and does nothing but end after it. So the memory
/// is given back to the host, which takes long where there is much, after whoever waits for this
/// process has gone on. It holds no descriptors but one and may make hardly a system call.
Status StartAsyncTeardown();

}  // namespace holdfast::apps
