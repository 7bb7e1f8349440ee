// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <holdfast/error.h>

#include "devices/net/net_backend.h"
#include "devices/vhost_user/connection.h"
#include "devices/virtio/device.h"

namespace holdfast::devices::net {

/// `-netdev vhost-user`, as it was written.
struct VhostUserConfig {
  std::string chardev;  ///< id of a -chardev socket
  unsigned queues = 1;  ///< pairs of queues
};

/// A network that another process carries (OVS, DPDK, passt): it serves the card's receive and
/// transmit queues in the guest's memory, over vhost-user. No frame comes through here.
///
/// A back end that goes is looked for again at the endpoint's pace; the card's link is down until
/// it is back, as in QEMU. Frames that were under way may be lost, as on any network.
///
/// Thread-safety: the loop's thread, which is the card's.
class VhostUserBackend final : public NetBackend {
 public:
  /// Connects, and waits for the back end's greeting. `loop` is the card's.
  /// @param emit  sends NETDEV_VHOST_USER_CONNECTED and _DISCONNECTED
  /// @return an error in a sentence: no back end there, or one that serves fewer queues or knows
  ///         only legacy virtio
  static Result<std::unique_ptr<VhostUserBackend>> Create(EventLoop& loop, std::string id,
                                                          VhostUserConfig config,
                                                          vhost_user::Endpoint endpoint,
                                                          EmitEvent emit);
  VhostUserBackend(const VhostUserBackend&) = delete;
  VhostUserBackend& operator=(const VhostUserBackend&) = delete;
  ~VhostUserBackend() override;

  const std::string& id() const noexcept override { return id_; }
  std::string Describe() const override;
  unsigned queue_pairs() const noexcept override;
  std::uint64_t offloads() const noexcept override;
  bool available() const noexcept override { return connection_.front() != nullptr; }
  VhostUserBackend* vhost_user() noexcept override { return this; }
  Status Attach(unsigned pair, EventLoop& loop, Receiver receiver) override;
  void Detach(unsigned) override {}
  void ReceiverReady(unsigned) override {}
  /// Only announcements (reverse ARP) can be sent, and the back end is asked to send them.
  bool Send(unsigned pair, std::span<const iovec> header_and_frame) override;
  void SetWritable(unsigned, std::function<void()>) override {}

  /// Feature bits that the back end, and each successor, has.
  std::uint64_t features() const noexcept { return features_; }
  /// For virtio::Device::refused_common_features().
  std::uint64_t refused_ring_features() const noexcept { return refused_; }
  /// The card's, called after the back end went or came: available() says which. Null: nobody's.
  void SetOnChange(std::function<void()> changed) { changed_ = std::move(changed); }

  /// Hands the queues of the first `pairs` pairs over, as far as the driver has set them up; none
  /// is served before Enable(). On a failure the back end counts as gone. While available().
  /// @param mtu  that the driver was told, 0 for none
  void Start(virtio::Transport& transport, unsigned pairs, std::uint16_t mtu);
  bool started() const noexcept { return transport_ != nullptr; }
  /// Whether a pair is served, between Start() and Stop().
  void Enable(unsigned pair, bool enable);
  /// Takes the queues back: afterwards they are as if they had been served here.
  void Stop() noexcept;
  /// After Stop(): it is not to write the guest's memory before Start().
  void ForgetMemory() noexcept;

 private:
  VhostUserBackend(EventLoop& loop, std::string id, VhostUserConfig config,
                   vhost_user::Endpoint endpoint, EmitEvent emit);
  Status Adopt(const vhost_user::FrontEnd& front) const;
  Status HandOver(unsigned pairs, std::uint16_t mtu);
  Status TakeBack();
  void OnConnected();
  void OnGone(const Error& why, bool final);
  void Tell(std::string_view event) const;

  const std::string id_;
  const VhostUserConfig config_;
  const EmitEvent emit_;
  std::uint64_t features_ = 0;  // constant after Create()
  std::uint64_t refused_ = 0;   // constant after Create()
  std::function<void()> changed_;
  bool announced_ = false;  // the event that it is connected was sent

  virtio::Transport* transport_ = nullptr;  // while started
  std::vector<unsigned> queues_;            // that were handed over
  vhost_user::Connection connection_;
};

}  // namespace holdfast::devices::net
