// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include <holdfast/error.h>

#include <nlohmann/json_fwd.hpp>

namespace holdfast {
class EventLoop;
}
namespace holdfast::devices::vhost {
class KernelVhost;
}

namespace holdfast::devices::net {

class VhostUserBackend;

/// Sends an event of the control protocol.
using EmitEvent = std::function<void(std::string_view name, const nlohmann::json& data)>;

/// The host's end of a guest's network card: NAT, tap, a socket. Carries Ethernet frames, each
/// behind a virtio_net_hdr_v1 (virtio 1.2, 5.1.6) of 12 bytes: all zero where the backend knows no
/// offloads.
///
/// Thread-safety: one queue pair is one thread's, that of the loop it was attached to.
class NetBackend {
 public:
  virtual ~NetBackend() = default;
  virtual const std::string& id() const noexcept = 0;
  /// For `info network`: "net=10.0.2.0,restrict=off".
  virtual std::string Describe() const = 0;
  virtual unsigned queue_pairs() const noexcept { return 1; }
  /// The VIRTIO_NET_F_… offload bits it can carry in headers, for both directions.
  virtual std::uint64_t offloads() const noexcept { return 0; }
  /// What the driver agreed to. Before frames flow.
  virtual Status SetOffloads(std::uint64_t) { return {}; }

  /// What arrives for the guest: header and frame. @return whether it was taken; if not, the
  /// backend keeps or drops it and goes on after ReceiverReady().
  using Receiver = std::function<bool(std::span<const iovec> header_and_frame)>;
  /// Frames of `pair` go to `receiver`, on `loop`'s thread, from now on.
  virtual Status Attach(unsigned pair, EventLoop& loop, Receiver receiver) = 0;
  virtual void Detach(unsigned pair) = 0;
  virtual void ReceiverReady(unsigned pair) = 0;
  /// Sends one frame (header first). @return false if it must be offered again: `writable`, given
  /// to SetWritable(), says when. A frame that cannot be sent at all is dropped, and true.
  virtual bool Send(unsigned pair, std::span<const iovec> header_and_frame) = 0;
  virtual void SetWritable(unsigned pair, std::function<void()> writable) = 0;

  /// Where the kernel carries the frames of `pair` by itself (vhost-net): its device, which serves
  /// the pair's two queues. Null, the default: they go through Attach() and Send().
  virtual vhost::KernelVhost* vhost(unsigned) const noexcept { return nullptr; }
  /// Instead of Attach() where there is vhost(): the pair is in use until Detach().
  /// @return the descriptor that the kernel takes the frames to and from
  virtual int AttachKernel(unsigned) noexcept { return -1; }
  /// Where another process carries the frames of all pairs (vhost-user): this, as what it is.
  virtual VhostUserBackend* vhost_user() noexcept { return nullptr; }
  /// False while that process is away: the card's link is down then.
  virtual bool available() const noexcept { return true; }
};

}  // namespace holdfast::devices::net
