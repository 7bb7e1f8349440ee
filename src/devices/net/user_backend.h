// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <holdfast/error.h>

#include "base/event_loop.h"
#include "devices/net/net_backend.h"
#include "devices/net/user_config.h"

struct Slirp;

namespace holdfast::devices::net {

struct SlirpLibrary;

/// `-netdev user`: a network of its own, with DHCP and a name server, whose connections leave as
/// this process's own (libslirp). Needs no rights.
///
/// Thread-safety: the loop's thread.
class UserBackend final : public NetBackend {
 public:
  /// Makes the network and its `config.forwards`. @return the failing bind's error, naming the rule
  static Result<std::unique_ptr<UserBackend>> Create(EventLoop& loop, std::string id,
                                                     UserConfig config);
  UserBackend(const UserBackend&) = delete;
  UserBackend& operator=(const UserBackend&) = delete;
  ~UserBackend() override;

  const std::string& id() const noexcept override { return id_; }
  std::string Describe() const override;
  Status Attach(unsigned pair, EventLoop& loop, Receiver receiver) override;
  void Detach(unsigned pair) override;
  void ReceiverReady(unsigned pair) override;
  bool Send(unsigned pair, std::span<const iovec> header_and_frame) override;
  void SetWritable(unsigned pair, std::function<void()> writable) override;

  /// From now on the host's port leads to the guest's. @return the bind's error
  Status AddForward(const HostForward& forward);
  /// Takes a rule away; connections stay. @return whether there was one
  bool RemoveForward(const HostForward& forward);
  /// What `info usernet` shows: a table of connections and rules.
  std::string ConnectionInfo() const;

 private:
  struct Library;  // libslirp's callbacks
  struct Timer;

  UserBackend(EventLoop& loop, std::string id, UserConfig config);
  Status Start();
  void BeforeWait();
  void Watch(int fd, std::uint32_t events);
  void Deliver(std::span<const std::byte> frame);
  bool Offer(std::span<const std::byte> frame);

  EventLoop& loop_;
  const std::string id_;
  const UserConfig config_;
  const SlirpLibrary* library_ = nullptr;
  Slirp* slirp_ = nullptr;  // owned; libslirp frees it
  Receiver receiver_;

  // Frames that the guest has no room for. Bounded; what comes beyond is lost, as on a wire.
  std::deque<std::vector<std::byte>> held_;
  std::size_t held_bytes_ = 0;
  std::vector<std::byte> sending_;

  // libslirp says before each wait which fds it waits for, and until when.
  struct Wanted {
    int fd;
    std::uint32_t events;
  };
  std::vector<Wanted> wanted_;             // in the order libslirp named them
  std::map<int, std::uint32_t> watched_;   // fd to epoll events
  std::map<int, std::uint32_t> happened_;  // fd to what epoll reported since the last wait
  bool changed_ = true;                    // whether libslirp's wishes may have changed
  bool due_ = false;                       // whether its time is up
  EventLoop::TimerId deadline_ = 0;
  EventLoop::HookId hook_ = 0;
  std::vector<std::unique_ptr<Timer>> timers_;
};

}  // namespace holdfast::devices::net
