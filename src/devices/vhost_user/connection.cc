// SPDX-License-Identifier: Apache-2.0
#include "devices/vhost_user/connection.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <span>
#include <utility>

#include "base/log.h"

namespace holdfast::devices::vhost_user {

Result<std::uint16_t> RingIndex(const AddressSpace& memory, GuestAddress ring) {
  constexpr std::uint64_t kIndex = 2;
  std::uint16_t index = 0;
  HF_TRY_STATUS(memory.Read(ring + kIndex, std::as_writable_bytes(std::span(&index, 1))));
  return index;
}

// A split ring's device answers in any order, but an entry of the available ring is passed over
// only when it is answered, or in memory for requests in flight.
Result<std::uint32_t> FirstUnanswered(const AddressSpace& memory,
                                      const virtio::QueueLayout& layout) {
  HF_TRY(const std::uint16_t used, RingIndex(memory, layout.device_area));
  return used;
}

Connection::~Connection() {
  if (retry_) loop_.CancelTimer(*retry_);
  Drop();
}

void Connection::Drop() noexcept {
  if (!front_) return;
  loop_.RemoveFd(front_->fd());
  if (front_->backend_fd() >= 0) loop_.RemoveFd(front_->backend_fd());
  front_.reset();
}

Status Connection::Begin(std::unique_ptr<FrontEnd> front) {
  front_ = std::move(front);
  Status adopted = hooks_.adopt(*front_);
  if (adopted) adopted = Watch();
  if (!adopted) front_.reset();
  return adopted;
}

Status Connection::Watch() {
  // Between exchanges the back end has nothing to say here: whatever comes is its end.
  HF_TRY_STATUS(loop_.AddFd(front_->fd(), EPOLLIN, [this](std::uint32_t) {
    Lose(Error(Errc::kSystem, "the back end has closed the connection"));
  }));
  if (front_->backend_fd() < 0) return {};
  Status watched =
      loop_.AddFd(front_->backend_fd(), EPOLLIN, [this](std::uint32_t) { OnRequest(); });
  if (!watched) loop_.RemoveFd(front_->fd());
  return watched;
}

void Connection::OnRequest() {
  const Result<bool> config_changed = front_->ServeBackend();
  if (!config_changed) return Lose(config_changed.error());
  if (!*config_changed || !hooks_.config_changed) return;
  if (const Status taken = hooks_.config_changed(); !taken) Lose(taken.error());
}

void Connection::Lose(const Error& why) noexcept {
  Drop();
  const std::optional<std::chrono::milliseconds> pace = endpoint_.reconnect();
  hooks_.gone(why, !pace);
  if (!pace) return;
  if (!std::exchange(said_lost_, true)) {
    log::Warn(fmt::format("{}: vhost-user back end '{}' lost ({}); {} for it to come back", name_,
                          endpoint_.path(), why.message(), pending_));
  }
  if (retry_) return;
  retry_ = loop_.AddTimer(EventLoop::Clock::now() + *pace, [this] {
    retry_.reset();
    TryAgain();
  });
}

void Connection::TryAgain() {
  auto socket = endpoint_.Connect();
  if (!socket) return Lose(socket.error());
  auto front = FrontEnd::Connect(*std::move(socket), options_);
  if (!front) return Lose(front.error());
  if (const Status begun = Begin(*std::move(front)); !begun) return Lose(begun.error());
  if (const Status back = hooks_.back(); !back) return Lose(back.error());
  if (!front_) return;  // lost again meanwhile
  said_lost_ = false;
  log::Info(fmt::format("{}: vhost-user back end '{}' is back", name_, endpoint_.path()));
}

}  // namespace holdfast::devices::vhost_user
