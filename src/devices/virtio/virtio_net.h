// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/unique_fd.h>

#include "base/event_loop.h"
#include "base/thread_annotations.h"
#include "devices/net/frame.h"
#include "devices/net/net_features.h"
#include "devices/net/network.h"
#include "devices/net/nic.h"
#include "devices/virtio/device.h"
#include "object/throttle.h"

namespace holdfast::devices {
struct DeviceModel;
}

namespace holdfast::devices::virtio {

/// A network card (virtio 1.2, 5.1), between a driver's queues and a network back end.
///
/// A frame that the driver has no buffers for stays with the back end; a frame that the back end
/// has no room for stays in the driver's queue. A buffer too short for the header, or a request
/// without room for its answer, puts the device into NEEDS_RESET.
///
/// Where the back end has vhost-net, the kernel serves receive and transmit queues, where it is
/// vhost-user another process does; what the driver says of the frames it wants has no effect
/// then, as in QEMU.
///
/// Thread-safety: as Device; what Nic adds belongs to the loop's thread.
class VirtioNet final : public Device, public net::Nic {
 public:
  struct Config {
    std::string name;            ///< for the control protocol
    bool named = true;           ///< the user chose it
    net::MacAddress mac = {};    ///< of the power-on state
    std::uint64_t features = 0;  ///< what is offered, as far as the back end can
    std::uint16_t rx_queue_size = 256;
    std::uint16_t tx_queue_size = 256;
    std::uint16_t mtu = 0;             ///< 0: not told
    std::uint32_t speed = 0xffffffff;  ///< in Mb/s; unknown
    std::uint8_t duplex = 0xff;        ///< 0 half, 1 full, 0xff unknown
    /// Limits: a frame to the guest is a read, one from it a write. Null: none.
    std::shared_ptr<object::Throttle> throttle = {};
  };

  /// `network` outlives the card; `backend` may be null, and then the link is down.
  /// @return an error if the back end has a card already
  static Result<std::unique_ptr<VirtioNet>> Create(EventLoop& loop, net::Network& network,
                                                   net::NetBackend* backend, Config config);
  ~VirtioNet() override;

  std::uint16_t type() const noexcept override { return 1; }
  std::string_view name() const noexcept override { return "virtio-net"; }
  std::uint64_t features() const noexcept override { return features_; }
  std::uint64_t refused_common_features() const noexcept override { return refused_; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  EventLoop& loop() const noexcept override { return loop_; }
  void ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept override
      HF_EXCLUDES(mutex_);
  Status Activate(Transport& transport) override;
  void HandleQueue(unsigned index) override;
  /// While the machine stands, no frame goes either way, whoever serves the queues.
  void SetRunning(bool running) noexcept override;
  void VisitState(state::Fields& fields) override HF_EXCLUDES(mutex_);
  void Reset() noexcept override;

  const std::string& nic_name() const noexcept override { return config_.name; }
  std::string_view model() const noexcept override { return "virtio-net-pci"; }
  net::MacAddress mac() const override { return mac_; }
  void SetMac(const net::MacAddress& mac) override HF_EXCLUDES(mutex_);
  net::NetBackend* backend() const noexcept override { return backend_; }
  bool link() const noexcept override {
    return link_ && backend_ != nullptr && backend_->available();
  }
  void SetLink(bool up) override;
  void DropBackend() override;
  net::RxFilter rx_filter() override;
  bool Announce() override;

 private:
  struct Pair {
    bool attached = false;
    std::vector<Chain> buffers;  // taken from the receive queue, not yet filled
    std::uint64_t room = 0;      // bytes in them
    bool tx_waits = false;       // a frame waits for room in the back end, or for its turn
    bool tx_counted = false;     // and the throttle has let it through
    std::optional<EventLoop::TimerId> rx_turn, tx_turn;  // when the throttle is asked again
  };
  using Ack = std::uint8_t;

  VirtioNet(EventLoop& loop, net::Network& network, net::NetBackend* backend, Config config);

  DeviceQueue& RxQueue(unsigned pair) const { return transport_->queue(2 * pair); }
  DeviceQueue& TxQueue(unsigned pair) const { return transport_->queue(2 * pair + 1); }
  Status AttachPairs(unsigned count);
  void DetachPair(unsigned pair) noexcept;
  void DetachPairs() noexcept;
  void StandStill() noexcept;
  void DropWaiting();
  void Broken(std::string_view why);
  bool Receive(unsigned pair, std::span<const iovec> header_and_frame);
  enum class Room { kEnough, kLater, kNever };
  Room TakeBuffers(unsigned pair, std::size_t needed);
  void Fill(unsigned pair, std::size_t count);
  void Transmit(unsigned pair);
  bool SendOne(unsigned pair, const Chain& chain);
  void ContinueLater(unsigned pair);
  bool MustWait(unsigned pair, bool transmit, std::uint64_t bytes);
  void ForgetTurns(Pair& pair) noexcept;
  void TellStatus() HF_EXCLUDES(mutex_);
  void ResetFilter();

  // virtio_net_state.cc
  void GiveBuffersBack();
  void VisitFilter(state::Fields& fields);

  // virtio_net_vhost.cc
  bool UsesKernel() const noexcept { return kernel_; }
  void AgreeWithKernel() noexcept;
  Status StartKernel(unsigned pair);
  void StopKernel(unsigned pair) noexcept;
  void TakeMemoryBack() noexcept;
  Status WatchForErrors();

  // virtio_net_vhost_user.cc
  net::VhostUserBackend* Process() const noexcept {
    return backend_ == nullptr ? nullptr : backend_->vhost_user();
  }
  bool ServedElsewhere() const noexcept { return kernel_ || Process() != nullptr; }
  void SetServedLink(bool up);
  void AgreeWithProcess() noexcept;
  void AttachToProcess(unsigned count);
  void OnProcessChange();

  // virtio_net_control.cc
  bool Passes(std::span<const iovec> header_and_frame) const;
  void HandleControl();
  Ack Control(const Chain& request);
  Ack ControlRx(std::uint8_t command, std::span<const std::byte> data);
  Ack ControlMac(std::uint8_t command, const Chain& request);
  Ack ControlVlan(std::uint8_t command, std::span<const std::byte> data);
  Ack ControlAnnounce(std::uint8_t command) HF_EXCLUDES(mutex_);
  Ack ControlQueues(std::uint8_t command, std::span<const std::byte> data);
  Ack ControlOffloads(std::uint8_t command, std::span<const std::byte> data);
  void FilterChanged();

  EventLoop& loop_;
  net::Network& network_;
  net::NetBackend* backend_;
  const Config config_;
  net::MacAddress mac_;  // of the power-on state
  unsigned most_pairs_ = 1;
  std::uint64_t features_ = 0;              // constant
  std::uint64_t refused_ = 0;               // constant
  bool kernel_ = false;                     // constant: the back end has vhost()
  std::vector<std::uint16_t> queue_sizes_;  // constant
  bool registered_ = false;

  Transport* transport_ = nullptr;  // while active
  unsigned control_index_ = 0;
  std::vector<Pair> pairs_;
  unsigned active_pairs_ = 0;
  std::uint64_t offloads_ = 0;  // what the driver wants of kNetGuestOffloads
  bool link_ = true;
  bool running_ = true;        // the machine does
  std::shared_ptr<int> life_;  // of posted work: gone with a reset
  std::vector<iovec> pieces_;  // of the frame under way
  UniqueFd kernel_error_;      // eventfd: the kernel found a queue broken

  net::RxFilter filter_;
  std::vector<bool> vlans_;       // by number
  bool filter_notified_ = false;  // until somebody asks, one event is enough

  Mutex mutex_;
  net::MacAddress driver_mac_ HF_GUARDED_BY(mutex_);
  std::uint16_t status_ HF_GUARDED_BY(mutex_) = 0;
};

extern const DeviceModel kVirtioNetPci;

}  // namespace holdfast::devices::virtio
