// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/unique_fd.h>

#include <initializer_list>
#include <string>
#include <string_view>

#include "system/fixture.h"

namespace holdfast::test {

/// Tests in which a guest moves from one native monitor to another. Its memory is written over and
/// over, and what it finds there is checked (guests/pattern.cc).
class NativeMigration : public NativeTest {
 protected:
  /// The line for the guest with 8 MiB of its 64. `name` is the control socket's.
  Arguments Guest(const std::string& name, const Arguments& rest = {}) const;
  /// The same, waiting at Uri().
  Arguments Waiting(const std::string& name, const Arguments& rest = {}) const;
  std::string Uri() const { return "unix:" + Path("wire"); }

  struct Outcome {
    std::string words;
    int status = -1;
  };
  /// Runs holdfastctl to its end.
  static Outcome Ctl(const Arguments& line);
  /// `holdfastctl qmp` of a monitor that may just have been started.
  std::string Qmp(const std::string& name, const Arguments& command) const;
  void WaitUntilItListens(std::string_view socket = "wire") const;
  /// Until query-migrate says one of these words. @return all that it said
  std::string WaitForStatus(const std::string& name,
                            std::initializer_list<std::string_view> words) const;
  /// Passes it under the name "wire", by a client that stays for this command only.
  /// @return what the monitor says to it
  std::string PassFd(const std::string& name, const UniqueFd& fd) const;
  void Enable(const std::string& name, std::initializer_list<std::string_view> capabilities) const;
  void Move(const std::string& from, const Arguments& how = {}) const;
  /// That the guest gets on: two more rounds, no page wrong.
  static void ExpectRight(MonitorProcess& monitor);
  void ExpectStands(const std::string& name) const;
};

}  // namespace holdfast::test
