// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/vhost_user/channel.h"
#include "devices/virtio/queue.h"

namespace holdfast::devices::vhost_user {

/// Whether another process can be given this memory: it has a descriptor, writes to it are shared,
/// and there are no more pieces than the protocol can name.
/// @return kInvalidArgument, with the name of the backend and a remedy
Status CheckMemory(const AddressSpace& memory);

/// Which requests a back end has taken and not answered, kept in memory of its making that outlives
/// it: the next one begins with them.
struct Inflight {
  UniqueFd fd;
  InflightLayout layout;
};

/// The front end's side of one connection to a vhost-user back end. Each function is one exchange;
/// after an error the connection is of no use any more.
///
/// Thread-safety: one thread at a time.
class FrontEnd {
 public:
  struct Options {
    std::uint64_t protocol_features = 0;  ///< of Protocol; what is agreed on at most
    std::chrono::milliseconds patience = Channel::kPatience;
  };
  /// Greets the back end: features, protocol features, its queues, its own channel.
  static Result<std::unique_ptr<FrontEnd>> Connect(UniqueFd socket, const Options& options);

  /// What the back end offers: virtio feature bits.
  std::uint64_t features() const noexcept { return features_; }
  bool has(Protocol feature) const noexcept { return (protocol_ & feature) != 0; }
  /// The most queues it serves.
  std::uint64_t max_queues() const noexcept { return max_queues_; }
  int fd() const noexcept { return channel_.fd(); }
  /// Where the back end's own requests come in; -1 without.
  int backend_fd() const noexcept { return backend_ ? backend_->fd() : -1; }

  /// The first `size` bytes of the device's configuration, at most kMaxConfig.
  Result<std::vector<std::byte>> GetConfig(std::uint32_t size);
  Status SetConfig(std::uint32_t offset, std::span<const std::byte> data);

  Status SetFeatures(std::uint64_t features);
  /// Gives the back end all of the guest's RAM, which it may write until ForgetMemory().
  Status SetMemory(const AddressSpace& memory);
  /// No queue is served any more, and none will be before SetMemory().
  void ForgetMemory() noexcept { access_ = {}; }
  /// Fresh memory for requests in flight.
  Result<Inflight> GetInflight(std::uint16_t queues, std::uint16_t queue_size);
  Status SetInflight(const Inflight& inflight);
  /// @param base  the first entry of the available ring to look at
  /// @param enable  false: EnableQueue() comes later
  Status StartQueue(std::uint32_t index, const virtio::QueueLayout& layout, std::uint32_t base,
                    int kick_fd, int call_fd, bool enable = true);
  /// Whether the back end serves a queue that was started; what is not enabled is left alone. A
  /// back end without protocol features serves all that are started.
  Status EnableQueue(std::uint32_t index, bool enable);
  /// When it returns, the back end uses the queue no more.
  /// @return the next entry of the available ring that it would have looked at, which is its word
  Result<std::uint32_t> StopQueue(std::uint32_t index);
  /// The virtio device status; nothing where the back end does not want to know.
  Status SetStatus(std::uint8_t status);
  Status ResetDevice();

  // Of network devices.
  /// The largest packet that the driver was told. Nothing where the back end does not want to know
  /// (NET_MTU); an error where it cannot.
  Status SetMtu(std::uint16_t mtu);
  /// Lets the back end announce a driver's address that does not do so itself. To be called where
  /// has(kProtocolRarp).
  Status SendRarp(std::span<const std::uint8_t, 6> mac);

  /// Answers one request of the back end. @return whether the configuration has changed
  Result<bool> ServeBackend();

 private:
  FrontEnd(UniqueFd socket, const Options& options)
      : channel_(std::move(socket), options.patience), patience_(options.patience) {}
  Status Greet(std::uint64_t wanted);
  Status MakeBackendChannel();

  template <typename T>
  Status Tell(Request request, const T& payload, std::span<const int> fds = {});
  // With an answer where the back end gives answers.
  Status TellAndCheck(Request request, std::span<const std::byte> payload,
                      std::span<const int> fds = {});
  Result<Message> Ask(Request request, std::span<const std::byte> payload);
  Result<std::uint64_t> AskNumber(Request request);
  Result<Message> ReceiveReply(Request request);

  Channel channel_;
  std::chrono::milliseconds patience_;
  std::optional<Channel> backend_;
  std::uint64_t features_ = 0;
  std::uint64_t protocol_ = 0;
  std::uint64_t max_queues_ = 1;
  ExternalAccess access_;
};

}  // namespace holdfast::devices::vhost_user
