// SPDX-License-Identifier: Apache-2.0
#include "base/write_all.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

namespace holdfast {

Status WriteAll(int fd, std::span<const std::byte> data, std::string_view what) {
  while (!data.empty()) {
    const ssize_t written = ::write(fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FailErrno(fmt::format("writing {} failed", what));
    data = data.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace holdfast
