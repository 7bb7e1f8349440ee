// SPDX-License-Identifier: Apache-2.0
#include "devices/block/drive.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <utility>

#include "base/event_loop.h"

namespace holdfast::devices::block {
namespace {

bool AllZero(std::span<const iovec> pieces) {
  static constexpr std::array<std::byte, 4096> kZeroes{};
  return std::all_of(pieces.begin(), pieces.end(), [](const iovec& piece) {
    const auto* at = static_cast<const std::byte*>(piece.iov_base);
    for (std::size_t left = piece.iov_len; left > 0;) {
      const std::size_t now = std::min(left, kZeroes.size());
      if (std::memcmp(at, kZeroes.data(), now) != 0) return false;
      at += now;
      left -= now;
    }
    return true;
  });
}

class DriveSubmitter final : public BlockDevice::Submitter {
 public:
  DriveSubmitter(Drive& drive, EventLoop& loop, std::unique_ptr<BlockDevice::Submitter> below)
      : drive_(drive), loop_(loop), throttle_(drive.throttle()), below_(std::move(below)) {
    below_->set_batch_end([this] { EndBatch(); });
  }
  ~DriveSubmitter() override {
    Drain();
    if (timer_ != 0) loop_.CancelTimer(timer_);
    if (refusal_ != 0) loop_.CancelTimer(refusal_);
  }
  DriveSubmitter(const DriveSubmitter&) = delete;
  DriveSubmitter& operator=(const DriveSubmitter&) = delete;

  void Submit(Request request) override {
    if (!drive_.active()) {
      refused_.push_back(std::move(request.done));
      if (refusal_ == 0) {
        refusal_ = loop_.AddTimer(object::Throttle::Clock::now(), [this] {
          refusal_ = 0;
          Refuse();
          EndBatch();
        });
      }
      return;
    }
    if (request.operation == Operation::kWrite) {
      request.fua = request.fua || !drive_.write_cache();
      if (drive_.detect_zeroes != DetectZeroes::kOff && AllZero(request.buffers)) {
        request.operation = Operation::kWriteZeroes;
        request.may_unmap = drive_.detect_zeroes == DetectZeroes::kUnmap;
      }
    } else if (request.operation == Operation::kWriteZeroes) {
      request.fua = request.fua || !drive_.write_cache();
    }
    if (request.operation != Operation::kFlush && (!waiting_.empty() || throttle_->enabled())) {
      waiting_.push_back(std::move(request));
      return;
    }
    below_->Submit(std::move(request));
  }

  void Kick() override {
    LetThrough();
    below_->Kick();
  }

  void Drain() override {
    do {
      for (; !waiting_.empty(); waiting_.pop_front()) below_->Submit(std::move(waiting_.front()));
      below_->Drain();
      Refuse();
    } while (!waiting_.empty());
  }

 private:
  void Refuse() {
    for (; !refused_.empty(); refused_.pop_front()) {
      if (const auto done = std::move(refused_.front()); done) done(EPERM);
    }
  }

  void LetThrough() {
    while (!waiting_.empty()) {
      const Request& next = waiting_.front();
      const auto now = object::Throttle::Clock::now();
      const auto wait = throttle_->Take(next.operation != Operation::kRead, next.length, now);
      if (wait.count() > 0) {
        if (timer_ == 0) {
          timer_ = loop_.AddTimer(now + wait, [this] {
            timer_ = 0;
            Kick();
          });
        }
        return;
      }
      below_->Submit(std::move(waiting_.front()));
      waiting_.pop_front();
    }
  }

  Drive& drive_;
  EventLoop& loop_;
  const std::shared_ptr<object::Throttle> throttle_;
  std::unique_ptr<BlockDevice::Submitter> below_;
  std::deque<Request> waiting_;  // for the throttle, in order
  EventLoop::TimerId timer_ = 0;
  std::deque<std::function<void(int)>> refused_;  // of an inactive drive
  EventLoop::TimerId refusal_ = 0;
};

}  // namespace

std::string_view OnErrorName(OnError action) noexcept {
  constexpr std::array<std::string_view, 4> kNames = {"report", "ignore", "stop", "enospc"};
  return kNames[static_cast<std::size_t>(action)];
}

DriveStats::Counter& DriveStats::of(Operation operation) noexcept {
  switch (operation) {
    case Operation::kRead:
      return read;
    case Operation::kFlush:
      return flush;
    case Operation::kDiscard:
      return unmap;
    case Operation::kWrite:
    case Operation::kWriteZeroes:
      break;
  }
  return write;
}

Drive::Drive(std::string id, BlockDevice* medium, ErrorSink errors)
    : id_(std::move(id)),
      medium_(medium),
      errors_(std::move(errors)),
      throttle_(std::make_shared<object::Throttle>()) {}

Drive::~Drive() = default;

Status Drive::SetMedium(BlockDevice* medium) {
  if (user_ && medium != nullptr) HF_TRY_STATUS(medium->PrepareFor(block_size_, false));
  if (user_ && user_->medium_going) user_->medium_going();
  if (user_ && medium_ != nullptr) medium_->Release();
  medium_ = medium;
  if (user_ && user_->medium_changed) user_->medium_changed();
  return {};
}

Status Drive::Resize(std::uint64_t bytes) {
  if (medium_ == nullptr) return Fail(Errc::kInvalidArgument, "The drive has no medium");
  HF_TRY_STATUS(medium_->Resize(bytes));
  if (user_ && user_->resized) user_->resized();
  return {};
}

Status Drive::Attach(DriveUser user, std::uint32_t block_size, bool share_write) {
  if (user_) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Drive '{}' is already in use by another block device",
                            id_.empty() && medium_ != nullptr ? medium_->id() : id_),
                "Each device needs a drive of its own.");
  }
  if (medium_ != nullptr) HF_TRY_STATUS(medium_->PrepareFor(block_size, share_write));
  block_size_ = block_size;
  user_ = std::move(user);
  return {};
}

void Drive::Detach() noexcept {
  if (user_ && medium_ != nullptr) medium_->Release();
  user_.reset();
  tray_locked_ = false;
}

Result<std::unique_ptr<BlockDevice::Submitter>> Drive::MakeSubmitter(EventLoop& loop) {
  if (medium_ == nullptr) return Fail(Errc::kNotFound, "The drive has no medium");
  HF_TRY(auto below, medium_->MakeSubmitter(loop));
  return Result<std::unique_ptr<BlockDevice::Submitter>>(
      std::make_unique<DriveSubmitter>(*this, loop, std::move(below)));
}

OnError Drive::Failed(Operation operation, int error) {
  OnError action = operation == Operation::kRead ? on_read_error : on_write_error;
  if (action == OnError::kEnospc) action = error == ENOSPC ? OnError::kStop : OnError::kReport;
  if (errors_) errors_(*this, operation, error, action);
  return action;
}

void Drive::Account(Operation operation, std::uint64_t bytes,
                    std::chrono::steady_clock::time_point since, int error) noexcept {
  DriveStats::Counter& counter = stats_.of(operation);
  constexpr auto kRelaxed = std::memory_order_relaxed;
  if (error != 0) {
    counter.failed.fetch_add(1, kRelaxed);
  } else {
    counter.operations.fetch_add(1, kRelaxed);
    counter.bytes.fetch_add(bytes, kRelaxed);
  }
  const auto took = std::chrono::steady_clock::now() - since;
  counter.nanoseconds.fetch_add(
      static_cast<std::uint64_t>(
          std::chrono::duration_cast<std::chrono::nanoseconds>(took).count()),
      kRelaxed);
}

void Drive::set_throttle(std::shared_ptr<object::Throttle> throttle, std::string group) {
  throttle_ = std::move(throttle);
  throttle_group_ = std::move(group);
}

}  // namespace holdfast::devices::block
