// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/unique_fd.h>

#include "devices/vhost_user/channel.h"
#include "devices/virtio/queue.h"

namespace holdfast::devices::vhost_user {

/// A back end of network cards for tests, on a thread of its own: it maps the memory that it is
/// given and serves the rings in it. To each frame of the guest it has an answer, or none.
///
/// Thread-safety: any thread; `answer` is called on its own.
class TestNetBackend {
 public:
  using Frame = std::vector<std::byte>;  ///< without the header in front
  struct Options {
    std::uint64_t features = 0;  ///< of the card; those of the ring are added
    std::uint64_t protocol = 0;  ///< of Protocol
    std::uint64_t pairs = 1;     ///< what it says that it serves
    bool connects = false;       ///< to a monitor that listens, again and again
    std::function<std::optional<Frame>(const Frame& frame)> answer;
  };
  /// What it was told so far.
  struct Seen {
    unsigned connections = 0;
    unsigned starts = 0;           ///< of queues
    unsigned stops = 0;            ///< with GET_VRING_BASE
    std::vector<unsigned> served;  ///< queues that are started and enabled
    std::uint64_t features = 0;
    std::uint64_t mtu = 0;
    std::optional<std::uint64_t> rarp;               ///< six bytes of address
    std::vector<std::pair<unsigned, Frame>> frames;  ///< by pair
  };

  /// Listens at `path`, or connects to it.
  TestNetBackend(std::string path, Options options);
  TestNetBackend(const TestNetBackend&) = delete;
  TestNetBackend& operator=(const TestNetBackend&) = delete;
  ~TestNetBackend();

  Seen seen() const;
  /// Waits, a minute at most, until what it was told is as `is` wants it. @return whether it is
  bool WaitFor(const std::function<bool(const Seen&)>& is) const;
  /// Dies: whatever it has taken stays unanswered. Nobody listens until Revive().
  void Kill();
  void Revive();

 private:
  struct Vring {
    virtio::QueueLayout layout;
    std::uint32_t base = 0;
    UniqueFd kick;
    UniqueFd call;
    bool enabled = false;
    std::optional<virtio::Queue> ring;  // while started
  };
  struct Session;

  void Listen();
  UniqueFd NextSocket(int listener) const;
  void Run(int listener);
  bool Handle(Session& session);
  void Serve(Session& session, unsigned index);
  void Deliver(Session& session, unsigned pair, const Frame& frame);
  void Note(const std::function<void(Seen&)>& change) const;
  void NoteServed(const Session& session) const;

  const std::string path_;
  const Options options_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable Seen seen_;
  UniqueFd stop_;  // eventfd
  UniqueFd listener_;
  std::thread thread_;
};

}  // namespace holdfast::devices::vhost_user
