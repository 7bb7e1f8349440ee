// SPDX-License-Identifier: Apache-2.0
#include "apps/prealloc_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <holdfast/units.h>

namespace holdfast::apps {

PreallocProgress::PreallocProgress(std::function<bool()> interrupted, int fd,
                                   std::chrono::steady_clock::time_point started)
    : interrupted_(std::move(interrupted)),
      fd_(fd),
      terminal_(::isatty(fd) == 1),
      started_(started) {}

PreallocProgress::~PreallocProgress() {
  if (shown_) Write("\r\x1b[K");
}

bool PreallocProgress::Report(const object::AllocateProgress& progress) {
  if (interrupted_ && interrupted_()) return false;
  if (!terminal_ || std::chrono::steady_clock::now() - started_ < std::chrono::seconds(1))
    return true;
  shown_ = true;
  const double share = progress.total == 0 ? 1
                                           : static_cast<double>(progress.done) /
                                                 static_cast<double>(progress.total);
  Write(fmt::format("\rpreallocating '{}': {:3.0f} % of {}\x1b[K", progress.id, share * 100,
                    FormatSize(progress.total)));
  return true;
}

void PreallocProgress::Write(std::string_view text) const {
  // A line that a terminal does not take is no reason to stop.
  [[maybe_unused]] const ssize_t written = ::write(fd_, text.data(), text.size());
}

}  // namespace holdfast::apps
