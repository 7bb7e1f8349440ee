// SPDX-License-Identifier: Apache-2.0
#include "migration/exec_program.h"

#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <vector>

namespace holdfast::migration {
namespace {

// What posix_spawn takes, freed at the end.
class SpawnSettings {
 public:
  SpawnSettings() {
    ::posix_spawnattr_init(&attributes_);
    ::posix_spawn_file_actions_init(&actions_);
    // The monitor blocks signals and ignores SIGPIPE; a program expects neither.
    sigset_t none;
    ::sigemptyset(&none);
    sigset_t defaults = none;
    ::sigaddset(&defaults, SIGPIPE);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &defaults);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  void Duplicate(int fd, int as) { ::posix_spawn_file_actions_adddup2(&actions_, fd, as); }
  const posix_spawnattr_t* attributes() const { return &attributes_; }
  const posix_spawn_file_actions_t* actions() const { return &actions_; }

 private:
  posix_spawnattr_t attributes_;
  posix_spawn_file_actions_t actions_;
};

}  // namespace

Result<UniqueFd> StartProgram(std::span<const std::string> arguments) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return FailErrno("socketpair");
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  SpawnSettings settings;
  settings.Duplicate(theirs.get(), STDIN_FILENO);
  settings.Duplicate(theirs.get(), STDOUT_FILENO);
  std::vector<std::string> words(arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, pointers[0], settings.actions(), settings.attributes(),
                                    pointers.data(), environ);
  if (failed != 0) {
    return Fail(Error::FromErrno(fmt::format("cannot start '{}'", words.front()), failed)
                    .WithHint("Write a program that is in PATH, or its whole path."));
  }
  // It may outlive the migration: a compressor has to write its end.
  std::thread([child] {
    while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
  }).detach();
  return ours;
}

}  // namespace holdfast::migration
