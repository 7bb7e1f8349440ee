// SPDX-License-Identifier: Apache-2.0
#include "base/read_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <holdfast/unique_fd.h>
#include <holdfast/units.h>

namespace holdfast {

Result<std::vector<std::byte>> ReadWholeFile(const std::string& path, std::uint64_t most) {
  // O_NONBLOCK: a pipe without a writer must not hang the start.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return FailErrno(fmt::format("opening '{}'", path));
  constexpr std::size_t kStep = 64 * kKiB;
  std::vector<std::byte> bytes;
  for (;;) {
    const std::size_t had = bytes.size();
    bytes.resize(had + kStep);
    const ssize_t got = ::read(fd.get(), bytes.data() + had, kStep);
    if (got < 0 && errno != EINTR) return FailErrno(fmt::format("reading '{}'", path));
    bytes.resize(had + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got == 0) return bytes;
    if (bytes.size() > most) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("'{}' is longer than {}", path, FormatSize(most)),
                  "Name a smaller file.");
    }
  }
}

}  // namespace holdfast
