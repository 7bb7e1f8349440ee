// SPDX-License-Identifier: Apache-2.0
#include "migration/return_path.h"

#include <fmt/format.h>

#include <cerrno>
#include <system_error>

#include "migration/patience.h"

namespace holdfast::migration {

Result<std::unique_ptr<ReturnPath>> ReturnPath::Start(Channel& channel,
                                                      std::span<const std::uint64_t> block_sizes,
                                                      Events events) {
  std::unique_ptr<ReturnPath> path(new ReturnPath(channel, block_sizes, std::move(events)));
  try {
    path->thread_ = std::thread([raw = path.get()] { raw->Hear(); });
  } catch (const std::system_error& error) {
    return Fail(Error::FromErrno("a thread for the migration", error.code().value()));
  }
  return path;
}

ReturnPath::~ReturnPath() {
  if (thread_.joinable()) thread_.join();
}

void ReturnPath::Hear() {
  while (true) {
    const Status heard = HearOne();
    if (heard) continue;
    {
      const MutexLock lock(mutex_);
      error_ = heard.error();
      changed_.notify_all();
    }
    if (events_.ended) events_.ended(heard.error());
    return;
  }
}

Status ReturnPath::HearOne() {
  HF_TRY(const FrameHeader header, reader_.Next(kNoLimit));
  std::uint64_t missing = 0;
  switch (header.type) {
    case FrameType::kAccepted:
    case FrameType::kLoaded:
    case FrameType::kActive:
    case FrameType::kRunning:
    case FrameType::kComplete:
      HF_TRY_STATUS(reader_.End());
      break;
    case FrameType::kResumed: {
      HF_TRY(const auto bytes, reader_.Payload());
      HF_TRY(missing, DecodeNumber(bytes));
      break;
    }
    case FrameType::kRequest: {
      HF_TRY(const auto bytes, reader_.Payload());
      HF_TRY(const PageRequest request, DecodeRequest(bytes, block_sizes_));
      if (events_.request) events_.request(request);
      return {};
    }
    default:
      return Fail(Unexpected(header.type));
  }
  const MutexLock lock(mutex_);
  // More than there are would be a peer that fills memory.
  constexpr std::size_t kMost = 16;
  if (answers_.size() == kMost) return Fail(Unexpected(header.type));
  answers_.push_back(header.type);
  missing_ = missing;
  changed_.notify_all();
  return {};
}

Status ReturnPath::Wait(FrameType type, std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  const MutexLock lock(mutex_);
  while (answers_.empty()) {
    if (error_) return Fail(*error_);
    if (changed_.wait_until(mutex_, until) == std::cv_status::no_timeout) continue;
    if (!answers_.empty() || error_) continue;
    return Fail(
        Error(Errc::kSystem,
              fmt::format("the other side of the migration has not answered for {} s",
                          std::chrono::duration_cast<std::chrono::seconds>(patience).count()),
              {}, ETIMEDOUT));
  }
  const FrameType first = answers_.front();
  answers_.erase(answers_.begin());
  if (first != type) return Fail(Unexpected(first));
  return {};
}

std::uint64_t ReturnPath::missing() const {
  const MutexLock lock(mutex_);
  return missing_;
}

std::optional<Error> ReturnPath::error() const {
  const MutexLock lock(mutex_);
  return error_;
}

}  // namespace holdfast::migration
