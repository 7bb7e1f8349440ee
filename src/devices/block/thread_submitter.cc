// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include <holdfast/unique_fd.h>

#include "base/event_loop.h"
#include "base/thread_annotations.h"
#include "base/thread_role.h"
#include "devices/block/file_device.h"
#include "devices/block/file_op.h"
#include "devices/block/file_submitters.h"

namespace holdfast::devices::block {
namespace {

constexpr std::size_t kMostThreads = 8;

std::int64_t Run(const FileDevice& device, const FileOp::Step& step) {
  std::int64_t result = 0;
  const auto offset = static_cast<off_t>(step.offset);
  switch (step.call) {
    case FileOp::Call::kNothing:
      return 0;
    case FileOp::Call::kReadv:
      result = ::preadv(device.fd(), step.iov.data(), static_cast<int>(step.iov.size()), offset);
      break;
    case FileOp::Call::kWritev:
      result = ::pwritev2(device.fd(), step.iov.data(), static_cast<int>(step.iov.size()), offset,
                          step.dsync ? RWF_DSYNC : 0);
      break;
    case FileOp::Call::kDataSync:
      result = ::fdatasync(device.fd());
      break;
    case FileOp::Call::kFallocate:
      result = ::fallocate(device.fd(), step.mode, offset, static_cast<off_t>(step.length));
      break;
    case FileOp::Call::kDiscard: {
      std::array<std::uint64_t, 2> range = {step.offset, step.length};
      result = ::ioctl(device.fd(), BLKDISCARD, range.data());
      break;
    }
  }
  return result < 0 ? -errno : result;
}

// Threads of its own, made when there is work for one more.
class ThreadSubmitter final : public BlockDevice::Submitter {
 public:
  ThreadSubmitter(FileDevice& device, EventLoop& loop) : device_(device), loop_(loop) {}

  ~ThreadSubmitter() override {
    Drain();
    {
      const MutexLock lock(mutex_);
      stop_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    if (wake_) loop_.RemoveFd(wake_.get());
  }
  ThreadSubmitter(const ThreadSubmitter&) = delete;
  ThreadSubmitter& operator=(const ThreadSubmitter&) = delete;

  Status Open() {
    UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake) return FailErrno("eventfd");
    HF_TRY_STATUS(loop_.AddFd(wake.get(), EPOLLIN, [this](std::uint32_t) {
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
      Deliver();
    }));
    wake_ = std::move(wake);
    return {};
  }

  void Submit(Request request) override {
    auto op = std::make_unique<FileOp>();
    op->Start(device_, std::move(request));
    ++in_flight_;
    bool more = false;
    {
      const MutexLock lock(mutex_);
      queue_.push_back(std::move(op));
      more = queue_.size() > idle_ && threads_.size() < kMostThreads;
    }
    if (more) {
      threads_.emplace_back([this, confined = IsThreadConfined()] {
        if (confined) InheritConfinement();
        Work();
      });
    }
    work_.notify_one();
  }

  void Kick() override {}

  void Drain() override {
    while (in_flight_ > 0) {
      {
        const MutexLock lock(mutex_);
        while (done_.empty()) finished_.wait(mutex_);
      }
      Deliver();
    }
  }

 private:
  void Work() HF_EXCLUDES(mutex_) {
    ConfineThread(ThreadRole::kWorker);
    mutex_.lock();
    while (true) {
      ++idle_;
      while (!stop_ && queue_.empty()) work_.wait(mutex_);
      --idle_;
      if (queue_.empty()) break;
      std::unique_ptr<FileOp> op = std::move(queue_.front());
      queue_.pop_front();
      mutex_.unlock();
      while (!op->Advance(Run(device_, op->step()))) {
      }
      mutex_.lock();
      done_.push_back(std::move(op));
      if (done_.size() > 1) continue;
      finished_.notify_all();
      const std::uint64_t one = 1;
      [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
    }
    mutex_.unlock();
  }

  void Deliver() {
    std::vector<std::unique_ptr<FileOp>> done;
    {
      const MutexLock lock(mutex_);
      done.swap(done_);
    }
    for (const std::unique_ptr<FileOp>& op : done) {
      --in_flight_;
      const int error = op->error();
      const std::function<void(int)> finished = op->Finished();
      if (finished) finished(error);
    }
    if (!done.empty()) EndBatch();
  }

  FileDevice& device_;
  EventLoop& loop_;
  UniqueFd wake_;
  std::size_t in_flight_ = 0;         // the loop's thread
  std::vector<std::thread> threads_;  // the loop's thread

  Mutex mutex_;
  std::condition_variable_any work_;
  std::condition_variable_any finished_;
  std::deque<std::unique_ptr<FileOp>> queue_ HF_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<FileOp>> done_ HF_GUARDED_BY(mutex_);
  std::size_t idle_ HF_GUARDED_BY(mutex_) = 0;
  bool stop_ HF_GUARDED_BY(mutex_) = false;
};

}  // namespace

Result<std::unique_ptr<BlockDevice::Submitter>> MakeThreadSubmitter(FileDevice& device,
                                                                    EventLoop& loop) {
  auto submitter = std::make_unique<ThreadSubmitter>(device, loop);
  HF_TRY_STATUS(submitter->Open());
  return Result<std::unique_ptr<BlockDevice::Submitter>>(std::move(submitter));
}

}  // namespace holdfast::devices::block
