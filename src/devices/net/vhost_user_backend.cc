// SPDX-License-Identifier: Apache-2.0
#include "devices/net/vhost_user_backend.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "devices/net/frame.h"
#include "devices/net/net_features.h"

namespace holdfast::devices::net {
namespace {

using vhost_user::FrontEnd;

// Features of the ring, which the back end has to know as well as the driver.
constexpr std::uint64_t kRingFeatures =
    virtio::kFeatureIndirect | virtio::kFeatureEventIndex | virtio::kFeatureVersion1;
// A ring in another order or format could not be taken up where a lost back end left it.
constexpr std::uint64_t kNeverFeatures = virtio::kFeatureRingPacked | virtio::kFeatureInOrder;
// Those of the device that the back end has to know; the others are the card's own.
constexpr std::uint64_t kCardFeatures = kNetHostOffloads | kNetGuestOffloads |
                                        kNetMergeableBuffers | kNetMtu | kNetMultiQueue |
                                        kNetGuestAnnounce;

constexpr std::uint8_t kDriverOk = 0x0f;  // ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK

FrontEnd::Options ConnectOptions() {
  using namespace vhost_user;
  return {.protocol_features = kProtocolMq | kProtocolLogShmfd | kProtocolRarp | kProtocolReplyAck |
                               kProtocolNetMtu | kProtocolStatus};
}

}  // namespace

VhostUserBackend::VhostUserBackend(EventLoop& loop, std::string id, VhostUserConfig config,
                                   vhost_user::Endpoint endpoint, EmitEvent emit)
    : id_(std::move(id)),
      config_(std::move(config)),
      emit_(std::move(emit)),
      connection_(loop, fmt::format("netdev '{}'", id_), "the link is down and waits",
                  std::move(endpoint), ConnectOptions(),
                  {.adopt = [this](const FrontEnd& front) { return Adopt(front); },
                   .back =
                       [this] {
                         OnConnected();
                         return Status{};
                       },
                   .gone = [this](const Error& why, bool final) { OnGone(why, final); },
                   .config_changed = {}}) {}

Result<std::unique_ptr<VhostUserBackend>> VhostUserBackend::Create(EventLoop& loop, std::string id,
                                                                   VhostUserConfig config,
                                                                   vhost_user::Endpoint endpoint,
                                                                   EmitEvent emit) {
  HF_TRY(UniqueFd socket, endpoint.Connect());
  HF_TRY(auto front, FrontEnd::Connect(std::move(socket), ConnectOptions()));
  if (config.queues > front->max_queues()) {
    return Fail(Errc::kUnsupported,
                fmt::format("you are asking more queues than supported: {}", front->max_queues()),
                fmt::format("Write a smaller queues=, or give the back end more than {}.",
                            front->max_queues()));
  }
  if ((front->features() & virtio::kFeatureVersion1) == 0) {
    return Fail(Errc::kUnsupported, "the vhost-user back end knows only legacy virtio",
                "Use one that offers VIRTIO_F_VERSION_1.");
  }
  std::unique_ptr<VhostUserBackend> backend(new VhostUserBackend(
      loop, std::move(id), std::move(config), std::move(endpoint), std::move(emit)));
  backend->features_ = front->features() & (kCardFeatures | kRingFeatures);
  backend->refused_ = kNeverFeatures | (kRingFeatures & ~front->features());
  HF_TRY_STATUS(backend->connection_.Begin(std::move(front)));
  backend->OnConnected();
  return backend;
}

VhostUserBackend::~VhostUserBackend() = default;

Status VhostUserBackend::Adopt(const FrontEnd& front) const {
  // The driver keeps what it was offered, so a successor must have it all.
  if ((front.features() & features_) != features_) {
    return Fail(Errc::kUnsupported,
                fmt::format("the vhost-user back end lacks features {:#x} that its predecessor had",
                            features_ & ~front.features()));
  }
  if (config_.queues > front.max_queues()) {
    return Fail(Errc::kUnsupported,
                fmt::format("the vhost-user back end serves {} pairs of queues, not {}",
                            front.max_queues(), config_.queues));
  }
  return {};
}

std::string VhostUserBackend::Describe() const {
  return fmt::format("vhost-user to {}{}", config_.chardev, available() ? "" : " (disconnected)");
}

unsigned VhostUserBackend::queue_pairs() const noexcept {
  return (features_ & kNetMultiQueue) != 0 ? config_.queues : 1;
}

std::uint64_t VhostUserBackend::offloads() const noexcept {
  return features_ & (kNetHostOffloads | kNetGuestOffloads);
}

Status VhostUserBackend::Attach(unsigned, EventLoop&, Receiver) {
  return Fail(Errc::kUnsupported, fmt::format("netdev '{}' carries no frames itself", id_),
              "Only cards with virtio queues can use vhost-user.");
}

bool VhostUserBackend::Send(unsigned, std::span<const iovec> header_and_frame) {
  constexpr std::size_t kRarpSize = 60;
  constexpr std::size_t kMacOffset = 6;
  FrontEnd* const front = connection_.front();
  // A driver that announces itself needs nobody to do so in its name.
  const bool announces_itself = transport_ != nullptr && transport_->has(kNetGuestAnnounce);
  if (front == nullptr || !front->has(vhost_user::kProtocolRarp) || announces_itself ||
      SizeOf(header_and_frame) != kHeaderSize + kRarpSize) {
    return true;
  }
  std::vector<std::byte> frame;
  AppendBytes(header_and_frame, kHeaderSize, frame);
  std::array<std::uint8_t, 6> mac{};
  for (std::size_t i = 0; i < mac.size(); ++i) {
    mac.at(i) = std::to_integer<std::uint8_t>(frame.at(kMacOffset + i));
  }
  if (const Status sent = front->SendRarp(mac); !sent) connection_.Lose(sent.error());
  return true;
}

void VhostUserBackend::Start(virtio::Transport& transport, unsigned pairs, std::uint16_t mtu) {
  transport_ = &transport;
  if (const Status given = HandOver(pairs, mtu); !given) connection_.Lose(given.error());
}

Status VhostUserBackend::HandOver(unsigned pairs, std::uint16_t mtu) {
  FrontEnd& front = *connection_.front();
  // Addresses in rings are the guest's physical ones, whatever the driver calls them.
  HF_TRY_STATUS(front.SetFeatures(transport_->features() & features_));
  HF_TRY_STATUS(front.SetMemory(transport_->memory()));
  if (mtu != 0) HF_TRY_STATUS(front.SetMtu(mtu));
  for (unsigned i = 0; i < 2 * pairs; ++i) {
    virtio::DeviceQueue& queue = transport_->queue(i);
    if (!queue.ready()) continue;
    HF_TRY(const int call, queue.call_fd());
    queue.TakeKicks(true);
    queues_.push_back(i);
    HF_TRY_STATUS(front.StartQueue(i, queue.layout(), queue.position(), queue.kick_fd(), call,
                                   /*enable=*/false));
  }
  return front.SetStatus(kDriverOk);
}

void VhostUserBackend::Enable(unsigned pair, bool enable) {
  for (const unsigned i : queues_) {
    if (i / 2 != pair) continue;
    if (const Status done = connection_.front()->EnableQueue(i, enable); !done) {
      return connection_.Lose(done.error());
    }
    // Whatever the driver did before anybody listened.
    if (enable) (void)::eventfd_write(transport_->queue(i).kick_fd(), 1);
  }
}

void VhostUserBackend::Stop() noexcept {
  if (transport_ == nullptr) return;
  if (const Status stopped = TakeBack(); !stopped) return connection_.Lose(stopped.error());
  transport_ = nullptr;
  queues_.clear();
}

void VhostUserBackend::ForgetMemory() noexcept {
  if (connection_.front() != nullptr) connection_.front()->ForgetMemory();
}

Status VhostUserBackend::TakeBack() {
  FrontEnd& front = *connection_.front();
  for (const unsigned i : queues_) {
    HF_TRY(const std::uint32_t position, front.StopQueue(i));
    transport_->queue(i).set_position(position);
  }
  HF_TRY_STATUS(front.SetStatus(0));
  for (const unsigned i : queues_) transport_->queue(i).TakeKicks(false);
  return {};
}

void VhostUserBackend::OnConnected() {
  announced_ = true;
  Tell("NETDEV_VHOST_USER_CONNECTED");
  if (changed_) changed_();
}

void VhostUserBackend::OnGone(const Error& why, bool final) {
  // Nobody serves the queues any more: they go on where the driver has had its last answer, of
  // which it may not have heard.
  for (const unsigned i : std::exchange(queues_, {})) {
    virtio::DeviceQueue& queue = transport_->queue(i);
    const auto position = vhost_user::FirstUnanswered(transport_->memory(), queue.layout());
    if (position) queue.set_position(*position);
    queue.TakeKicks(false);
    if (const Result<int> call = queue.call_fd(); call) (void)::eventfd_write(*call, 1);
  }
  transport_ = nullptr;
  if (final) {
    log::Warn(fmt::format("netdev '{}': vhost-user back end '{}' lost ({}); the link stays down",
                          id_, connection_.endpoint().path(), why.message()));
  }
  if (!std::exchange(announced_, false)) return;  // it was away already
  Tell("NETDEV_VHOST_USER_DISCONNECTED");
  if (changed_) changed_();
}

void VhostUserBackend::Tell(std::string_view event) const {
  if (!emit_) return;
  nlohmann::json data = {{"netdev-id", id_}};
  if (event == "NETDEV_VHOST_USER_CONNECTED") data["chardev-id"] = config_.chardev;
  emit_(event, data);
}

}  // namespace holdfast::devices::net
