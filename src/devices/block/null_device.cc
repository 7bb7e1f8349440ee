// SPDX-License-Identifier: Apache-2.0
#include "devices/block/null_device.h"

#include <cstring>
#include <utility>
#include <vector>

#include "base/event_loop.h"

namespace holdfast::devices::block {
namespace {

class NullSubmitter final : public BlockDevice::Submitter {
 public:
  NullSubmitter(EventLoop& loop, bool read_zeroes)
      : loop_(loop), read_zeroes_(read_zeroes), self_(std::make_shared<NullSubmitter*>(this)) {}
  ~NullSubmitter() override {
    Drain();
    *self_ = nullptr;
  }
  NullSubmitter(const NullSubmitter&) = delete;
  NullSubmitter& operator=(const NullSubmitter&) = delete;

  void Submit(Request request) override {
    if (request.operation == Operation::kRead && read_zeroes_) {
      for (const iovec& piece : request.buffers) std::memset(piece.iov_base, 0, piece.iov_len);
    }
    done_.push_back(std::move(request.done));
  }
  void Kick() override {
    if (done_.empty() || posted_) return;
    posted_ = true;
    // The submitter may be gone by the time the loop comes to it.
    loop_.Post([self = self_] {
      if (*self == nullptr) return;
      (*self)->posted_ = false;
      (*self)->Deliver();
    });
  }
  void Drain() override {
    while (!done_.empty()) Deliver();
  }

 private:
  void Deliver() {
    std::vector<std::function<void(int)>> done;
    done.swap(done_);
    for (const auto& finished : done) {
      if (finished) finished(0);
    }
    if (!done.empty()) EndBatch();
    Kick();
  }

  EventLoop& loop_;
  const bool read_zeroes_;
  bool posted_ = false;
  std::vector<std::function<void(int)>> done_;
  std::shared_ptr<NullSubmitter*> self_;
};

}  // namespace

Status NullDevice::Resize(std::uint64_t) {
  return Fail(Errc::kUnsupported, "Image format driver does not support resize");
}

Result<std::unique_ptr<BlockDevice::Submitter>> NullDevice::MakeSubmitter(EventLoop& loop) {
  return Result<std::unique_ptr<Submitter>>(std::make_unique<NullSubmitter>(loop, read_zeroes_));
}

}  // namespace holdfast::devices::block
