// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/boot_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <fmt/format.h>

namespace holdfast::machine::boot {
namespace {

const char* KindOf(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISFIFO(mode)) return "a pipe";
  return "not a regular file";
}

}  // namespace

Result<BootFile> OpenBootFile(const char* role, const std::string& path) {
  BootFile file;
  file.name = fmt::format("{} '{}'", role, path);
  // O_NONBLOCK: opening a pipe without a writer must not hang before it can be refused.
  file.fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.fd) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR)
      return Fail(Errc::kNotFound, fmt::format("{} does not exist", file.name),
                  fmt::format("Check the path given with -{}.", role));
    if (error == EACCES || error == EPERM)
      return Fail(Errc::kPermission, fmt::format("{} may not be read by this user", file.name),
                  "Debian's files in /boot may need: chmod a+r.");
    return Fail(Error::FromErrno(fmt::format("{} cannot be opened", file.name), error));
  }
  struct stat info{};
  if (::fstat(file.fd.get(), &info) != 0)
    return FailErrno(fmt::format("{} cannot be examined", file.name));
  if (!S_ISREG(info.st_mode))
    return Fail(Errc::kInvalidArgument,
                fmt::format("{} is {}, not a file to boot from", file.name, KindOf(info.st_mode)),
                "Give a regular file: it is read again when the guest resets.");
  if (info.st_size <= 0) return Fail(Errc::kInvalidArgument, fmt::format("{} is empty", file.name));
  file.size = static_cast<std::uint64_t>(info.st_size);
  return file;
}

Result<BootSource> OpenBootSource(const std::string& kernel_path, const std::string& initrd_path,
                                  std::string cmdline) {
  BootSource source;
  HF_TRY(source.kernel, OpenBootFile("kernel", kernel_path));
  if (!initrd_path.empty()) {
    HF_TRY(source.initrd, OpenBootFile("initrd", initrd_path));
  }
  if (cmdline.find('\0') != std::string::npos)
    return Fail(Errc::kInvalidArgument, "the kernel command line has a zero byte in it");
  source.cmdline = std::move(cmdline);
  return source;
}

Result<std::size_t> ReadSome(const BootFile& file, std::uint64_t offset, std::span<std::byte> to) {
  std::size_t done = 0;
  while (done < to.size()) {
    const auto position = static_cast<off_t>(offset + done);
    const ssize_t n = ::pread(file.fd.get(), to.data() + done, to.size() - done, position);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FailErrno(fmt::format("{} cannot be read", file.name));
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

}  // namespace holdfast::machine::boot
