// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <liburing.h>
#include <sys/epoll.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <vector>

#include "base/event_loop.h"
#include "base/log.h"
#include "devices/block/file_device.h"
#include "devices/block/file_op.h"
#include "devices/block/file_submitters.h"
#include "devices/block/uring.h"

namespace holdfast::devices::block {
namespace {

constexpr unsigned kEntries = 256;
// Completions never outnumber the completion queue, so that the kernel never has to keep any aside.
constexpr std::size_t kMostInFlight = std::size_t{2} * kEntries;
constexpr std::chrono::milliseconds kRetry{1};

// Since Linux 6.12; our header is older.
constexpr std::uint32_t kUringCmdDiscard = _IO(0x12, 0);
constexpr std::uint8_t kOpUringCmd = 46;

class UringSubmitter final : public BlockDevice::Submitter {
 public:
  UringSubmitter(FileDevice& device, EventLoop& loop) : device_(device), loop_(loop) {}

  ~UringSubmitter() override {
    if (!ready_) return;
    Drain();
    if (retry_timer_ != 0) loop_.CancelTimer(retry_timer_);
    loop_.RemoveFd(ring_->ring_fd);
  }
  UringSubmitter(const UringSubmitter&) = delete;
  UringSubmitter& operator=(const UringSubmitter&) = delete;

  Status Open() {
    HF_TRY(ring_, MakeUring(kEntries));
    // The ring's own descriptor is readable while there are completions: no eventfd is needed.
    HF_TRY_STATUS(loop_.AddFd(ring_->ring_fd, EPOLLIN, [this](std::uint32_t) { Reap(); }));
    ready_ = true;
    const int fd = device_.fd();
    fixed_file_ = io_uring_register_files(ring_.get(), &fd, 1) == 0;
    return {};
  }

  void Submit(Request request) override {
    std::unique_ptr<FileOp> op;
    if (idle_.empty()) {
      op = std::make_unique<FileOp>();
    } else {
      op = std::move(idle_.back());
      idle_.pop_back();
    }
    op->Start(device_, std::move(request));
    Enqueue(op.release());
  }

  void Kick() override {
    while (io_uring_sq_ready(ring_.get()) > 0) {
      const int result = io_uring_submit(ring_.get());
      if (result > 0 || result == -EINTR) continue;
      // Out of memory or the like: the entries stay in the ring and are offered again.
      if (retry_timer_ == 0) {
        retry_timer_ = loop_.AddTimer(EventLoop::Clock::now() + kRetry, [this] {
          retry_timer_ = 0;
          Kick();
        });
      }
      return;
    }
  }

  void Drain() override {
    while (in_flight_ > 0 || !waiting_.empty()) {
      Kick();
      io_uring_cqe* cqe = nullptr;
      const int result = io_uring_wait_cqe(ring_.get(), &cqe);
      if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
        log::Error(fmt::format("io_uring: waiting for '{}' failed: {}", device_.id(),
                               std::strerror(-result)));
      }
      Reap();
    }
  }

 private:
  // Owns `op` until Finish(): in between the kernel carries the pointer.
  void Enqueue(FileOp* op) {
    if (in_flight_ >= kMostInFlight) {
      waiting_.push_back(op);
      return;
    }
    io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
    if (sqe == nullptr) {
      Kick();
      sqe = io_uring_get_sqe(ring_.get());
    }
    if (sqe == nullptr) {
      waiting_.push_back(op);
      return;
    }
    ++in_flight_;
    Prepare(*sqe, op->step());
    if (fixed_file_ && op->step().call != FileOp::Call::kNothing) {
      io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    }
    io_uring_sqe_set_data(sqe, op);
  }

  void Prepare(io_uring_sqe& sqe, const FileOp::Step& step) const {
    const int fd = fixed_file_ ? 0 : device_.fd();
    switch (step.call) {
      case FileOp::Call::kNothing:
        io_uring_prep_nop(&sqe);
        return;
      case FileOp::Call::kReadv:
        if (step.iov.size() == 1) {
          io_uring_prep_read(&sqe, fd, step.iov[0].iov_base,
                             static_cast<unsigned>(step.iov[0].iov_len), step.offset);
          return;
        }
        io_uring_prep_readv(&sqe, fd, step.iov.data(), static_cast<unsigned>(step.iov.size()),
                            step.offset);
        return;
      case FileOp::Call::kWritev:
        io_uring_prep_writev2(&sqe, fd, step.iov.data(), static_cast<unsigned>(step.iov.size()),
                              step.offset, step.dsync ? RWF_DSYNC : 0);
        return;
      case FileOp::Call::kDataSync:
        io_uring_prep_fsync(&sqe, fd, IORING_FSYNC_DATASYNC);
        return;
      case FileOp::Call::kFallocate:
        io_uring_prep_rw(IORING_OP_FALLOCATE, &sqe, fd, nullptr, static_cast<unsigned>(step.mode),
                         step.offset);
        sqe.addr = step.length;
        return;
      case FileOp::Call::kDiscard:
        io_uring_prep_nop(&sqe);
        sqe.opcode = kOpUringCmd;
        sqe.fd = fd;
        sqe.off = kUringCmdDiscard;  // cmd_op lies there
        sqe.addr = step.offset;
        sqe.addr3 = step.length;
        return;
    }
  }

  void Reap() {
    bool any = false;
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(ring_.get(), &cqe) == 0 && cqe != nullptr) {
      std::unique_ptr<FileOp> op(static_cast<FileOp*>(io_uring_cqe_get_data(cqe)));
      const int result = cqe->res;
      io_uring_cqe_seen(ring_.get(), cqe);
      --in_flight_;
      if (!op->Advance(result)) {
        Enqueue(op.release());
        continue;
      }
      any = true;
      const int error = op->error();
      const std::function<void(int)> done = op->Finished();
      idle_.push_back(std::move(op));
      if (done) done(error);
    }
    while (!waiting_.empty() && in_flight_ < kMostInFlight) {
      FileOp* const op = waiting_.front();
      waiting_.pop_front();
      Enqueue(op);
      if (!waiting_.empty() && waiting_.back() == op) break;  // no room yet
    }
    Kick();
    if (any) EndBatch();
  }

  FileDevice& device_;
  EventLoop& loop_;
  UniqueUring ring_;
  bool ready_ = false;
  bool fixed_file_ = false;
  std::size_t in_flight_ = 0;
  EventLoop::TimerId retry_timer_ = 0;
  std::deque<FileOp*> waiting_;  // owned, as those in flight are
  std::vector<std::unique_ptr<FileOp>> idle_;
};

}  // namespace

Result<std::unique_ptr<BlockDevice::Submitter>> MakeUringSubmitter(FileDevice& device,
                                                                   EventLoop& loop) {
  auto submitter = std::make_unique<UringSubmitter>(device, loop);
  HF_TRY_STATUS(submitter->Open());
  return Result<std::unique_ptr<BlockDevice::Submitter>>(std::move(submitter));
}

}  // namespace holdfast::devices::block
