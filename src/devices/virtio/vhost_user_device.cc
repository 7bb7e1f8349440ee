// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/vhost_user_device.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace holdfast::devices::virtio {
namespace {

using vhost_user::FrontEnd;

// Features of the ring, which the back end has to know as well as the driver.
constexpr std::uint64_t kRingFeatures = kFeatureIndirect | kFeatureEventIndex | kFeatureVersion1;
// A ring in another order or format could not be taken up where a lost back end left it.
constexpr std::uint64_t kNeverFeatures = kFeatureRingPacked | kFeatureInOrder;

constexpr std::uint8_t kDriverOk = 0x0f;  // ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK

}  // namespace

vhost_user::FrontEnd::Options VhostUserDevice::ConnectOptions(bool has_config) {
  using namespace vhost_user;
  std::uint64_t wanted = kProtocolMq | kProtocolLogShmfd | kProtocolReplyAck |
                         kProtocolInflightShmfd | kProtocolResetDevice | kProtocolStatus;
  // The back end's own channel serves to say that the configuration changed.
  if (has_config) wanted |= kProtocolConfig | kProtocolBackendReq;
  return {.protocol_features = wanted};
}

VhostUserDevice::VhostUserDevice(EventLoop& loop, Config config, vhost_user::Endpoint endpoint)
    : loop_(loop), config_(std::move(config)), endpoint_(std::move(endpoint)) {
  const MutexLock lock(mutex_);
  bytes_ = config_.own_config;
}

Result<std::unique_ptr<VhostUserDevice>> VhostUserDevice::Create(EventLoop& loop, Config config,
                                                                 vhost_user::Endpoint endpoint,
                                                                 std::unique_ptr<FrontEnd> front) {
  if (front->has(vhost_user::kProtocolMq) && config.queue_sizes.size() > front->max_queues()) {
    return Fail(Errc::kUnsupported,
                fmt::format("the vhost-user back end serves {} queues, not {}", front->max_queues(),
                            config.queue_sizes.size()),
                "Ask for fewer queues, or give the back end more.");
  }
  if ((front->features() & kFeatureVersion1) == 0) {
    return Fail(Errc::kUnsupported, "the vhost-user back end knows only legacy virtio",
                "Use one that offers VIRTIO_F_VERSION_1.");
  }
  std::unique_ptr<VhostUserDevice> device(
      new VhostUserDevice(loop, std::move(config), std::move(endpoint)));
  device->features_ = device->config_.features & front->features();
  device->refused_ = kNeverFeatures | (kRingFeatures & ~front->features());
  HF_TRY_STATUS(device->Adopt(std::move(front)));
  return device;
}

VhostUserDevice::~VhostUserDevice() {
  Reset();
  if (retry_) loop_.CancelTimer(*retry_);
  if (!front_) return;
  loop_.RemoveFd(front_->fd());
  if (front_->backend_fd() >= 0) loop_.RemoveFd(front_->backend_fd());
}

Status VhostUserDevice::Adopt(std::unique_ptr<FrontEnd> front) {
  // The driver keeps what it was offered, so a successor must have it all.
  const std::uint64_t needed = features_ | (kRingFeatures & ~refused_);
  if ((front->features() & needed) != needed) {
    return Fail(Errc::kUnsupported,
                fmt::format("the vhost-user back end lacks features {:#x} that its predecessor had",
                            needed & ~front->features()));
  }
  if (config_.config_size != 0 && !front->has(vhost_user::kProtocolConfig)) {
    return Fail(Errc::kUnsupported, "the vhost-user back end does not tell its configuration",
                "Use one with the protocol feature CONFIG.");
  }
  front_ = std::move(front);
  Status adopted = RestoreWrittenByte();
  if (adopted) adopted = ReadBackendConfig();
  if (adopted) adopted = Watch();
  if (!adopted) front_.reset();
  return adopted;
}

// A successor must not, for example, cache what the driver wants to be written through.
Status VhostUserDevice::RestoreWrittenByte() {
  std::optional<std::byte> written;
  {
    const MutexLock lock(mutex_);
    written = written_;
  }
  return written ? front_->SetConfig(*config_.writable_byte, {&*written, 1}) : Status{};
}

Status VhostUserDevice::ReadBackendConfig() {
  if (config_.config_size == 0) return {};
  HF_TRY(std::vector<std::byte> bytes, front_->GetConfig(config_.config_size));
  if (config_.edit_config) config_.edit_config(bytes);
  bool changed = false;
  {
    const MutexLock lock(mutex_);
    changed = bytes_ != bytes;
    bytes_ = std::move(bytes);
  }
  if (changed && transport_ != nullptr) transport_->ConfigChanged();
  return {};
}

Status VhostUserDevice::Watch() {
  // Between exchanges the back end has nothing to say here: whatever comes is its end.
  HF_TRY_STATUS(loop_.AddFd(front_->fd(), EPOLLIN, [this](std::uint32_t) {
    Lose(Error(Errc::kSystem, "the back end has closed the connection"));
  }));
  if (front_->backend_fd() < 0) return {};
  Status watched =
      loop_.AddFd(front_->backend_fd(), EPOLLIN, [this](std::uint32_t) { OnBackendRequest(); });
  if (!watched) loop_.RemoveFd(front_->fd());
  return watched;
}

void VhostUserDevice::OnBackendRequest() {
  const Result<bool> config_changed = front_->ServeBackend();
  if (!config_changed) return Lose(config_changed.error());
  if (!*config_changed) return;
  if (const Status read = ReadBackendConfig(); !read) Lose(read.error());
}

void VhostUserDevice::Lose(const Error& why) noexcept {
  if (front_) {
    loop_.RemoveFd(front_->fd());
    if (front_->backend_fd() >= 0) loop_.RemoveFd(front_->backend_fd());
  }
  front_.reset();
  started_.clear();
  if (!endpoint_.reconnect()) {
    const std::string text =
        fmt::format("vhost-user back end '{}' lost: {}", endpoint_.path(), why.message());
    if (transport_ != nullptr) {
      transport_->NeedsReset(Error(Errc::kSystem, text));
    } else {
      log::Warn(fmt::format("{}: {}", config_.name, text));
    }
    return;
  }
  if (!std::exchange(said_lost_, true)) {
    log::Warn(
        fmt::format("{}: vhost-user back end '{}' lost ({}); requests wait for it to come "
                    "back",
                    config_.name, endpoint_.path(), why.message()));
  }
  if (!retry_) {
    retry_ = loop_.AddTimer(EventLoop::Clock::now() + *endpoint_.reconnect(), [this] {
      retry_.reset();
      TryAgain();
    });
  }
}

void VhostUserDevice::TryAgain() {
  auto socket = endpoint_.Connect();
  if (!socket) return Lose(socket.error());
  auto front = FrontEnd::Connect(*std::move(socket), ConnectOptions(config_.config_size != 0));
  if (!front) return Lose(front.error());
  if (const Status adopted = Adopt(*std::move(front)); !adopted) return Lose(adopted.error());
  if (transport_ != nullptr) {
    if (const Status started = StartQueues(true); !started) return Lose(started.error());
  }
  said_lost_ = false;
  log::Info(fmt::format("{}: vhost-user back end '{}' is back", config_.name, endpoint_.path()));
}

Status VhostUserDevice::Activate(Transport& transport) {
  HF_TRY_STATUS(vhost_user::CheckMemory(transport.memory()));
  transport_ = &transport;
  inflight_.reset();
  // The kicks are the back end's, also those that come while there is none.
  for (unsigned i = 0; i < config_.queue_sizes.size(); ++i) {
    if (transport.queue(i).ready()) transport.queue(i).TakeKicks(true);
  }
  if (!front_) {
    if (endpoint_.reconnect()) return {};
    return Fail(Errc::kSystem,
                fmt::format("the vhost-user back end '{}' has gone", endpoint_.path()));
  }
  if (const Status started = StartQueues(false); !started) Lose(started.error());
  return {};
}

// What is not answered starts behind the used index: a split ring's device answers in any order,
// but an entry of the available ring is passed over only when it is answered or in the inflight
// memory.
Result<std::uint32_t> VhostUserDevice::FirstUnanswered(const DeviceQueue& queue) const {
  std::uint16_t used = 0;
  HF_TRY_STATUS(transport_->memory().Read(queue.layout().device_area + 2,
                                          std::as_writable_bytes(std::span(&used, 1))));
  return used;
}

Status VhostUserDevice::StartQueues(bool again) {
  // Addresses in rings are the guest's physical ones, whatever the driver calls them.
  const std::uint64_t agreed = transport_->features() & (features_ | kRingFeatures);
  HF_TRY_STATUS(front_->SetFeatures(agreed & front_->features()));
  HF_TRY_STATUS(front_->SetMemory(transport_->memory()));
  const auto& sizes = config_.queue_sizes;
  if (front_->has(vhost_user::kProtocolInflightShmfd)) {
    if (!inflight_) {
      HF_TRY(inflight_, front_->GetInflight(static_cast<std::uint16_t>(sizes.size()),
                                            *std::ranges::max_element(sizes)));
    }
    HF_TRY_STATUS(front_->SetInflight(*inflight_));
  }
  for (unsigned i = 0; i < sizes.size(); ++i) {
    DeviceQueue& queue = transport_->queue(i);
    if (!queue.ready()) continue;
    HF_TRY(const int call, queue.call_fd());
    std::uint32_t base = queue.position();
    if (again) {
      HF_TRY(base, FirstUnanswered(queue));
    }
    HF_TRY_STATUS(front_->StartQueue(i, queue.layout(), base, queue.kick_fd(), call));
    started_.push_back(i);
  }
  HF_TRY_STATUS(front_->SetStatus(kDriverOk));
  // Whatever happened before anybody listened: both sides look once.
  for (const unsigned i : started_) {
    HandleQueue(i);
    HF_TRY(const int call, transport_->queue(i).call_fd());
    if (again) (void)::eventfd_write(call, 1);
  }
  return {};
}

void VhostUserDevice::HandleQueue(unsigned index) {
  if (transport_ == nullptr || !transport_->queue(index).ready()) return;
  (void)::eventfd_write(transport_->queue(index).kick_fd(), 1);
}

void VhostUserDevice::Reset() noexcept {
  if (front_ && !started_.empty()) {
    Status stopped;
    for (const unsigned i : started_) {
      stopped = front_->StopQueue(i);
      if (!stopped) break;
    }
    if (stopped) stopped = front_->ResetDevice();
    if (stopped) stopped = front_->SetStatus(0);
    transport_ = nullptr;
    if (!stopped) Lose(stopped.error());
  }
  transport_ = nullptr;
  started_.clear();
  inflight_.reset();
}

void VhostUserDevice::ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept {
  const MutexLock lock(mutex_);
  for (std::size_t i = 0; i < data.size(); ++i) {
    const bool inside = offset < bytes_.size() && i < bytes_.size() - offset;
    data[i] = inside ? bytes_[offset + i] : std::byte{0};
  }
}

void VhostUserDevice::WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  if (!config_.writable_byte || offset != *config_.writable_byte || data.size() != 1) return;
  {
    const MutexLock lock(mutex_);
    if (offset >= bytes_.size()) return;
    bytes_[offset] = data[0];
    written_ = data[0];
  }
  loop_.Post(
      [this, alive = std::weak_ptr<int>(alive_), at = *config_.writable_byte, value = data[0]] {
        if (!alive.expired()) SendConfig(at, value);
      });
}

void VhostUserDevice::SendConfig(std::uint32_t offset, std::byte value) {
  if (!front_) return;  // its successor hears of it first
  if (const Status sent = front_->SetConfig(offset, {&value, 1}); !sent) Lose(sent.error());
}

}  // namespace holdfast::devices::virtio
