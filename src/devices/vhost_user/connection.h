// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <holdfast/address_space.h>
#include <holdfast/error.h>

#include "base/event_loop.h"
#include "devices/vhost_user/endpoint.h"
#include "devices/vhost_user/front_end.h"

namespace holdfast::devices::vhost_user {

/// The index in a split ring's available or used part at `ring` (virtio 1.2, 2.7.6 and 2.7.8),
/// which is the guest's or the back end's word. @return kMalformed if the ring is not RAM
Result<std::uint16_t> RingIndex(const AddressSpace& memory, GuestAddress ring);
/// Where a queue goes on whose back end has gone without a word: behind the last answer, which is
/// the used index of its split ring. @return kMalformed if the ring is not RAM
Result<std::uint32_t> FirstUnanswered(const AddressSpace& memory,
                                      const virtio::QueueLayout& layout);

/// The way to a back end that may go and come back: it is listened to, and looked for again at the
/// endpoint's pace when it has gone.
///
/// Thread-safety: the loop's thread.
class Connection {
 public:
  struct Hooks {
    /// A back end, the first or a successor, has been greeted: whether it will do.
    std::function<Status(FrontEnd& front)> adopt;
    /// A successor was adopted, front() is there again. An error loses it.
    std::function<Status()> back;
    /// It has gone, and front() with it. @param final  there will be no other
    std::function<void(const Error& why, bool final)> gone;
    /// It says that its configuration changed. An error loses it. May be empty for one without
    /// a channel of its own.
    std::function<Status()> config_changed;
  };
  /// @param name  of the device, for messages
  /// @param pending  what waits while the back end is away, for messages: "requests wait"
  Connection(EventLoop& loop, std::string name, std::string pending, Endpoint endpoint,
             FrontEnd::Options options, Hooks hooks)
      : loop_(loop),
        name_(std::move(name)),
        pending_(std::move(pending)),
        endpoint_(std::move(endpoint)),
        options_(options),
        hooks_(std::move(hooks)) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  /// Begins with a back end that has been greeted. @return what `adopt` says; the failed call
  Status Begin(std::unique_ptr<FrontEnd> front);
  /// Null while there is no back end.
  FrontEnd* front() const noexcept { return front_.get(); }
  const Endpoint& endpoint() const noexcept { return endpoint_; }
  /// After an exchange that failed: the back end is of no use any more.
  void Lose(const Error& why) noexcept;

 private:
  Status Watch();
  void OnRequest();
  void TryAgain();
  void Drop() noexcept;

  EventLoop& loop_;
  const std::string name_;
  const std::string pending_;
  Endpoint endpoint_;
  const FrontEnd::Options options_;
  const Hooks hooks_;
  std::unique_ptr<FrontEnd> front_;
  std::optional<EventLoop::TimerId> retry_;
  bool said_lost_ = false;
};

}  // namespace holdfast::devices::vhost_user
