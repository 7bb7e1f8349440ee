// SPDX-License-Identifier: Apache-2.0
#include "devices/stdio_chardev.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <utility>

namespace holdfast::devices {
namespace {

// The process has one standard input, whoever the users are; hence a global.
std::atomic<bool> g_in_use = false;

}  // namespace

StdioChardev::~StdioChardev() {
  Disconnect();
  terminal_.reset();
  // In the reverse order: where both are one open file, the input's flags are the original ones.
  CloseStream(output_);
  CloseStream(input_);
  g_in_use = false;
}

void StdioChardev::CloseStream(Stream& stream) {
  if (stream.fd && stream.saved_flags >= 0) ::fcntl(stream.fd.get(), F_SETFL, stream.saved_flags);
  stream.fd.reset();
}

Result<StdioChardev::Stream> StdioChardev::OpenStream(int fd, int access) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return FailErrno("standard input or output");
  Stream stream;
  const bool blocks = !S_ISREG(info.st_mode) && !S_ISSOCK(info.st_mode);
  if (blocks) {
    stream.fd.reset(::open(fmt::format("/proc/self/fd/{}", fd).c_str(),
                           access | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (stream.fd) return stream;
    // Not permitted (a terminal taken over with su), no other end, no /proc.
  }
  stream.fd.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!stream.fd) return FailErrno("standard input or output");
  if (blocks) {
    stream.saved_flags = ::fcntl(fd, F_GETFL);
    if (stream.saved_flags < 0 || ::fcntl(fd, F_SETFL, stream.saved_flags | O_NONBLOCK) != 0)
      return FailErrno("O_NONBLOCK on standard input or output");
  }
  return stream;
}

Result<std::unique_ptr<Chardev>> StdioChardev::Create(EventLoop& loop, bool terminal_signals) {
  return CreateOn(loop, STDIN_FILENO, STDOUT_FILENO, terminal_signals);
}

Result<std::unique_ptr<Chardev>> StdioChardev::CreateOn(EventLoop& loop, int input, int output,
                                                        bool terminal_signals) {
  if (g_in_use.exchange(true)) {
    return Fail(Errc::kInvalidArgument, "cannot use stdio by multiple character devices",
                "Give all but one another character device, or none.");
  }
  // From here on its destructor gives stdio back.
  std::unique_ptr<StdioChardev> chardev(new StdioChardev(loop));
  HF_TRY(chardev->input_, OpenStream(input, O_RDONLY));
  HF_TRY(chardev->output_, OpenStream(output, O_WRONLY));
  HF_TRY(chardev->terminal_, Terminal::MakeRaw(input, terminal_signals));
  HF_TRY_STATUS(chardev->Start());
  HF_TRY_STATUS(chardev->Connect(chardev->input_.fd.get(), chardev->output_.fd.get()));
  return chardev;
}

}  // namespace holdfast::devices
