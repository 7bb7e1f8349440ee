// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/transport_queue.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/event_loop.h"

namespace holdfast::devices::virtio {
namespace {

Result<UniqueFd> MakeEventFd() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.valid()) return FailErrno("making an eventfd for a virtqueue");
  return fd;
}

// Back to 0; says whether it was something else.
bool Drain(const UniqueFd& fd) noexcept {
  eventfd_t count = 0;
  return ::eventfd_read(fd.get(), &count) == 0;
}

}  // namespace

Result<std::unique_ptr<TransportQueue>> TransportQueue::Create(EventLoop& loop, Hooks hooks) {
  HF_TRY(UniqueFd kick, MakeEventFd());
  return std::unique_ptr<TransportQueue>(
      new TransportQueue(loop, std::move(kick), std::move(hooks)));
}

TransportQueue::~TransportQueue() {
  Stop();
  if (call_.valid()) loop_.RemoveFd(call_.get());
}

Status TransportQueue::Start(const AddressSpace& memory, const QueueLayout& layout,
                             const QueueState* from) {
  layout_ = layout;
  again_.clear();
  std::deque<Chain> again;
  if (from != nullptr) {
    for (const SavedChain& saved : from->again) {
      HF_TRY(Chain chain, saved.Pin(memory));
      again.push_back(std::move(chain));
    }
  }
  HF_TRY(ring_, Queue::Create(memory, layout));
  if (from != nullptr) {
    ring_->set_position(from->position);
    ring_->set_in_flight(layout.packed ? from->EntriesUsed()
                                       : static_cast<unsigned>(from->again.size()));
    again_ = std::move(again);
  }
  TakeKicks(false);
  return {};
}

void TransportQueue::Stop() noexcept {
  TakeKicks(true);
  ring_.reset();
  again_.clear();
  requeued_ = 0;
  (void)Drain(kick_);
}

void TransportQueue::Hold(bool held) noexcept {
  held_ = held;
  requeued_ = 0;
}

Result<QueueState> TransportQueue::Save(const AddressSpace& memory) const {
  QueueState saved;
  if (!ring_) return saved;
  saved.position = ring_->position();
  for (const Chain& chain : again_) {
    HF_TRY(SavedChain one, SavedChain::From(memory, chain));
    saved.again.push_back(std::move(one));
  }
  const unsigned held = layout_.packed ? saved.EntriesUsed() : static_cast<unsigned>(again_.size());
  if (held == ring_->in_flight() || ring_->broken()) return saved;
  return Fail(Errc::kSystem, "requests are under way although the machine stands");
}

std::optional<Chain> TransportQueue::Pop() {
  if (!ring_ || held_) return std::nullopt;
  popped_again_ = !again_.empty();
  if (popped_again_) {
    Chain chain = std::move(again_.front());
    again_.pop_front();
    return chain;
  }
  auto chain = ring_->Pop();
  if (chain) return *std::move(chain);
  hooks_.broken(chain.error());
  return std::nullopt;
}

void TransportQueue::Unpop(Chain chain) {
  if (!ring_) return;
  if (popped_again_) {
    again_.push_front(std::move(chain));
  } else {
    ring_->Unpop(std::move(chain));
  }
}

void TransportQueue::Requeue(Chain chain) {
  if (!ring_) return;
  const auto at = static_cast<std::ptrdiff_t>(std::min(requeued_++, again_.size()));
  again_.insert(again_.begin() + at, std::move(chain));
}

void TransportQueue::Push(const Chain& chain, std::uint32_t written) {
  if (ring_) ring_->Push(chain, written);
}

void TransportQueue::Notify() {
  if (ring_ && ring_->NeedsNotification()) hooks_.interrupt();
}

void TransportQueue::DisableKicks() {
  if (ring_ && !held_) ring_->DisableKicks();
}

bool TransportQueue::EnableKicks() {
  if (!ring_ || held_) return false;
  return ring_->EnableKicks() || !again_.empty();
}

void TransportQueue::set_position(std::uint32_t position) {
  if (ring_) ring_->set_position(position);
}

void TransportQueue::TakeKicks(bool taken) {
  if (taken == !listening_) return;
  listening_ = !taken;
  if (taken) {
    loop_.RemoveFd(kick_.get());
    return;
  }
  // Fails only when the host is out of memory. Nobody would hear a kick, so the driver must know.
  auto watched = loop_.AddFd(kick_.get(), EPOLLIN, [this](std::uint32_t) {
    if (Drain(kick_)) hooks_.kicked();
  });
  if (!watched) hooks_.broken(watched.error());
}

Result<int> TransportQueue::call_fd() {
  if (!call_.valid()) {
    HF_TRY(UniqueFd call, MakeEventFd());
    HF_TRY_STATUS(loop_.AddFd(call.get(), EPOLLIN, [this](std::uint32_t) {
      if (Drain(call_)) hooks_.interrupt();
    }));
    call_ = std::move(call);
  }
  return call_.get();
}

}  // namespace holdfast::devices::virtio
