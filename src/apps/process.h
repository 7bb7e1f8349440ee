// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "apps/options.h"

namespace holdfast {
class EventLoop;
}

namespace holdfast::apps {

/// `-daemonize`. A VM belongs to the process that made it, so this comes before anything else: no
/// KVM descriptor and no thread may exist.
class Daemon {
 public:
  /// Forks into the background. The original process never returns from this: it waits until the
  /// new one is ready or has ended, and exits with 0 or 1.
  static Result<Daemon> Enter();
  /// Lets go of the terminal and sends the waiting parent home with status 0.
  Status Ready();

 private:
  Daemon(UniqueFd parent, UniqueFd null) : parent_(std::move(parent)), null_(std::move(null)) {}
  UniqueFd parent_;  // a pipe; closed without a word it means failure
  UniqueFd null_;    // /dev/null, which a new root folder need not have
};

/// `-pidfile`: the file is locked while the process lives and removed with this object.
class PidFile {
 public:
  /// @return "cannot create PID file" and why; a lock held by another process among the reasons.
  static Result<PidFile> Create(const std::string& path);
  PidFile(PidFile&&) = default;
  PidFile(const PidFile&) = delete;
  PidFile& operator=(PidFile&&) = delete;
  PidFile& operator=(const PidFile&) = delete;
  ~PidFile();

 private:
  PidFile(UniqueFd fd, UniqueFd folder, std::string name)
      : fd_(std::move(fd)), folder_(std::move(folder)), name_(std::move(name)) {}
  UniqueFd fd_;
  UniqueFd folder_;  // open: the process may leave the folder and even the root it was started in
  std::string name_;
};

/// SIGTERM, SIGINT and SIGHUP as events of the main loop.
class Signals {
 public:
  /// Called with the signal's number and the process that sent it.
  using Handler = std::function<void(int signal, int sender)>;

  /// Blocks the three in the calling thread, and so in all that it starts from then on; ignores
  /// SIGPIPE. Call it before any thread exists.
  static Result<std::unique_ptr<Signals>> Create(EventLoop& loop, Handler handler);
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  ~Signals();

  /// Whether one has come that the loop has not served yet: for long work outside of the loop.
  bool pending() const noexcept;

 private:
  Signals(EventLoop& loop, UniqueFd fd, Handler handler)
      : loop_(loop), fd_(std::move(fd)), handler_(std::move(handler)) {}
  void OnReadable();

  EventLoop& loop_;  // outlives this
  UniqueFd fd_;
  Handler handler_;
};

/// `-sandbox` and `-run-with`: what the process gives up once everything is open.
class Confinement {
 public:
  /// Looks up who to become, so that a wrong name is known before anything is built.
  static Result<Confinement> Prepare(const Options& options);
  /// Gives it all up: root folder, user, then the rest. Main thread, everything open, no guest
  /// running.
  Status Enter() const;

 private:
  Confinement(SandboxOptions sandbox, RunWithOptions run_with, std::optional<UserIds> user)
      : sandbox_(sandbox), run_with_(std::move(run_with)), user_(std::move(user)) {}
  SandboxOptions sandbox_;
  RunWithOptions run_with_;
  std::optional<UserIds> user_;
};

/// Does what -D, -d, -trace, -msg and -name process= ask for, and prints the warnings.
Status SetUpProcess(const Options& options);

}  // namespace holdfast::apps
