// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/unique_fd.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <termios.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::test {

/// A running holdfast program with its standard streams in our hands.
///
/// Waits are bounded and poll; they are scaled by HOLDFAST_TEST_SLOWNESS (guest_vm.h). The
/// destructor kills the process if it still runs.
///
/// Thread-safety: one thread.
class MonitorProcess {
 public:
  struct Options {
    /// Standard input and output are a terminal (a pty) instead of pipes. Standard error is always
    /// a pipe of its own.
    bool terminal = false;
    std::vector<int> hidden_capabilities =
        {};  ///< KVM capabilities it shall not see (old_kernel.h)
    /// Root is refused files by their mode bits like everybody else (drops CAP_DAC_OVERRIDE).
    bool obey_file_modes = false;
    bool kill_on_destruction = true;
    /// Another program than the monitor: its path.
    std::string program = {};
  };
  /// How it ended.
  struct Exit {
    int status = -1;  ///< exit status, -1 if a signal ended it
    int signal = 0;
    rusage usage{};
  };

  /// Starts the program under test with these arguments. HOLDFAST names it; by default it lies in
  /// ../bin beside the folder of the tests.
  explicit MonitorProcess(std::vector<std::string> arguments) : MonitorProcess(arguments, {}) {}
  MonitorProcess(std::vector<std::string> arguments, const Options& options);
  MonitorProcess(const MonitorProcess&) = delete;
  MonitorProcess& operator=(const MonitorProcess&) = delete;
  ~MonitorProcess();

  pid_t pid() const { return pid_; }
  /// Whether it still runs; takes its exit status if not.
  bool running();

  /// Waits until standard output holds `text` behind what earlier waits found.
  /// @return false when the time is over or the program has ended without it
  bool WaitFor(std::string_view text, double seconds = kLong);
  /// The same for standard error.
  bool WaitForError(std::string_view text, double seconds = kLong);
  /// Waits for its end; empty when the time is over.
  std::optional<Exit> WaitForExit(double seconds = kLong);
  /// Reads along for a while: for "nothing more comes".
  void ReadFor(double seconds);

  /// Types on its standard input. False if the other end is closed.
  bool Send(std::string_view text);
  bool Signal(int signal);

  /// All that came so far.
  const std::string& output() const { return output_; }
  const std::string& errors() const { return errors_; }
  /// Standard output behind what the last successful WaitFor found.
  std::string_view unread() const { return std::string_view(output_).substr(output_seen_); }
  /// Whether the terminal is now as it was before the start. True without one.
  bool TerminalIsAsBefore() const;
  /// The command line and the ends of both streams, for a failure's message.
  std::string Describe() const;

  /// Enough for a guest kernel's boot.
  static constexpr double kLong = 60;

 private:
  void Start(const Options& options, int in, int out, int err);
  [[noreturn]] void Become(const Options& options, int in, int out, int err) const;
  // Reads what there is, waiting at most until `deadline` for the first of it. False: nothing more
  // will come or the time is over.
  bool ReadSome(double deadline);
  bool Wait(std::string& stream, std::size_t& seen, std::string_view text, double seconds);
  void Reap(bool wait);

  std::vector<std::string> arguments_;  // [0] is the program
  bool kill_on_destruction_;
  pid_t pid_ = -1;
  UniqueFd in_, out_, err_;
  UniqueFd terminal_;  // the slave side, for its attributes
  termios before_{};
  std::string output_, errors_;
  std::size_t output_seen_ = 0, errors_seen_ = 0;
  std::optional<Exit> exit_;
};

/// The program under test.
std::string MonitorPath();
/// holdfastctl of the build that the tests belong to, whatever HOLDFAST names.
std::string CtlPath();

}  // namespace holdfast::test
