// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "devices/fd_chardev.h"
#include "devices/terminal.h"

namespace holdfast::devices {

/// `stdio`: the process's standard input and output; a terminal is put into raw mode.
///
/// The end of the input ends only the input. The descriptors must not block, and O_NONBLOCK belongs
/// to the open file, which the shell and others share; so they are opened a second time where that
/// works, and otherwise get the flag until the chardev goes.
class StdioChardev final : public FdChardev {
 public:
  /// @param terminal_signals  Ctrl-C on a terminal is SIGINT (true) or a byte for the guest
  /// @return kInvalidArgument if there is one already.
  static Result<std::unique_ptr<Chardev>> Create(EventLoop& loop, bool terminal_signals);
  /// The same on other descriptors than 0 and 1, which it leaves open.
  static Result<std::unique_ptr<Chardev>> CreateOn(EventLoop& loop, int input, int output,
                                                   bool terminal_signals);
  StdioChardev(const StdioChardev&) = delete;
  StdioChardev& operator=(const StdioChardev&) = delete;
  ~StdioChardev() override;

  std::string Describe() const override { return "stdio"; }

 private:
  // One descriptor that does not block.
  struct Stream {
    UniqueFd fd;
    int saved_flags = -1;  // to put back, if O_NONBLOCK had to be set on the shared open file
  };
  static Result<Stream> OpenStream(int fd, int access);
  static void CloseStream(Stream& stream);

  explicit StdioChardev(EventLoop& loop) : FdChardev(loop) {}

  Stream input_;
  Stream output_;
  std::unique_ptr<Terminal> terminal_;
};

}  // namespace holdfast::devices
