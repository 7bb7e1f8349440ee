// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/transport_queue.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

Status TransportQueue::Start(const AddressSpace& memory, const QueueLayout& layout) {
  layout_ = layout;
  HF_TRY(ring_, Queue::Create(memory, layout));
  TakeKicks(false);
  return {};
}

void TransportQueue::Stop() noexcept {
  TakeKicks(true);
  ring_.reset();
  (void)Drain(kick_);
}

std::optional<Chain> TransportQueue::Pop() {
  if (!ring_) return std::nullopt;
  auto chain = ring_->Pop();
  if (chain) return *std::move(chain);
  hooks_.broken(chain.error());
  return std::nullopt;
}

void TransportQueue::Unpop(Chain chain) {
  if (ring_) ring_->Unpop(std::move(chain));
}

void TransportQueue::Push(const Chain& chain, std::uint32_t written) {
  if (ring_) ring_->Push(chain, written);
}

void TransportQueue::Notify() {
  if (ring_ && ring_->NeedsNotification()) hooks_.interrupt();
}

void TransportQueue::DisableKicks() {
  if (ring_) ring_->DisableKicks();
}

bool TransportQueue::EnableKicks() {
  return ring_ && ring_->EnableKicks();
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
