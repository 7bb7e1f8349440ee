// SPDX-License-Identifier: Apache-2.0
#include "devices/file_chardev.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <utility>

#include "base/log.h"

namespace holdfast::devices {

FileChardev::FileChardev(EventLoop& loop, std::string path, UniqueFd fd)
    : FdChardev(loop), path_(std::move(path)), fd_(std::move(fd)) {}

FileChardev::~FileChardev() {
  Disconnect();
}

Result<std::unique_ptr<Chardev>> FileChardev::Create(EventLoop& loop, std::string path) {
  // O_NONBLOCK is for a path that is a terminal or FIFO. A FIFO without reader fails (ENXIO): the
  // alternative would be to hang here.
  UniqueFd fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666));
  if (!fd) return FailErrno(fmt::format("cannot open '{}' for output", path));
  const int out = fd.get();
  std::unique_ptr<FileChardev> chardev(new FileChardev(loop, std::move(path), std::move(fd)));
  HF_TRY_STATUS(chardev->Start());
  HF_TRY_STATUS(chardev->Connect(kNone, out));
  return chardev;
}

void FileChardev::OnOutputError(int os_errno) {
  log::Warn(
      Error::FromErrno(
          fmt::format("writing '{}' failed; output to it is dropped from now on", path_), os_errno)
          .message());
}

std::string FileChardev::Describe() const {
  return "file:" + path_;
}

}  // namespace holdfast::devices
