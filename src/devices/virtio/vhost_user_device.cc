// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/vhost_user_device.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <chrono>
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
    : loop_(loop),
      config_(std::move(config)),
      connection_(
          loop_, config_.name, "requests wait", std::move(endpoint),
          ConnectOptions(config_.config_size != 0),
          {.adopt = [this](FrontEnd& front) { return Adopt(front); },
           .back = [this] { return transport_ != nullptr && running_ ? StartQueues() : Status{}; },
           .gone = [this](const Error& why, bool final) { OnGone(why, final); },
           .config_changed = [this] { return ReadBackendConfig(*front()); }}) {
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
  HF_TRY_STATUS(device->connection_.Begin(std::move(front)));
  return device;
}

VhostUserDevice::~VhostUserDevice() {
  Reset();
}

Status VhostUserDevice::Adopt(FrontEnd& front) {
  // The driver keeps what it was offered, so a successor must have it all.
  const std::uint64_t needed = features_ | (kRingFeatures & ~refused_);
  if ((front.features() & needed) != needed) {
    return Fail(Errc::kUnsupported,
                fmt::format("the vhost-user back end lacks features {:#x} that its predecessor had",
                            needed & ~front.features()));
  }
  if (config_.config_size != 0 && !front.has(vhost_user::kProtocolConfig)) {
    return Fail(Errc::kUnsupported, "the vhost-user back end does not tell its configuration",
                "Use one with the protocol feature CONFIG.");
  }
  HF_TRY_STATUS(RestoreWrittenByte(front));
  return ReadBackendConfig(front);
}

// A successor must not, for example, cache what the driver wants to be written through.
Status VhostUserDevice::RestoreWrittenByte(FrontEnd& front) {
  std::optional<std::byte> written;
  {
    const MutexLock lock(mutex_);
    written = written_;
  }
  return written ? front.SetConfig(*config_.writable_byte, {&*written, 1}) : Status{};
}

Status VhostUserDevice::ReadBackendConfig(FrontEnd& front) {
  if (config_.config_size == 0) return {};
  HF_TRY(std::vector<std::byte> bytes, front.GetConfig(config_.config_size));
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

void VhostUserDevice::OnGone(const Error& why, bool final) {
  started_.clear();
  lost_ = true;
  if (!final) return;
  const std::string text = fmt::format("vhost-user back end '{}' lost: {}",
                                       connection_.endpoint().path(), why.message());
  if (transport_ != nullptr) {
    transport_->NeedsReset(Error(Errc::kSystem, text));
  } else {
    log::Warn(fmt::format("{}: {}", config_.name, text));
  }
}

Status VhostUserDevice::Activate(Transport& transport) {
  HF_TRY_STATUS(vhost_user::CheckMemory(transport.memory()));
  transport_ = &transport;
  inflight_.reset();
  // Which requests a back end had before the guest was saved, this one does not know.
  lost_ = transport.restored();
  // The kicks are the back end's, also those that come while there is none.
  for (unsigned i = 0; i < config_.queue_sizes.size(); ++i) {
    if (transport.queue(i).ready()) transport.queue(i).TakeKicks(true);
  }
  if (front() == nullptr) {
    if (connection_.endpoint().reconnect()) return {};
    return Fail(Errc::kSystem, fmt::format("the vhost-user back end '{}' has gone",
                                           connection_.endpoint().path()));
  }
  if (const Status started = StartQueues(); !started) connection_.Lose(started.error());
  return {};
}

Status VhostUserDevice::StartQueues() {
  FrontEnd& front = *connection_.front();
  // Addresses in rings are the guest's physical ones, whatever the driver calls them.
  const std::uint64_t agreed = transport_->features() & (features_ | kRingFeatures);
  HF_TRY_STATUS(front.SetFeatures(agreed & front.features()));
  HF_TRY_STATUS(front.SetMemory(transport_->memory()));
  const auto& sizes = config_.queue_sizes;
  if (front.has(vhost_user::kProtocolInflightShmfd)) {
    if (!inflight_) {
      HF_TRY(inflight_, front.GetInflight(static_cast<std::uint16_t>(sizes.size()),
                                          *std::ranges::max_element(sizes)));
    }
    HF_TRY_STATUS(front.SetInflight(*inflight_));
  }
  for (unsigned i = 0; i < sizes.size(); ++i) {
    DeviceQueue& queue = transport_->queue(i);
    if (!queue.ready()) continue;
    HF_TRY(const int call, queue.call_fd());
    std::uint32_t base = queue.position();
    if (lost_) {
      HF_TRY(base, vhost_user::FirstUnanswered(transport_->memory(), queue.layout()));
    }
    HF_TRY_STATUS(front.StartQueue(i, queue.layout(), base, queue.kick_fd(), call));
    started_.push_back(i);
  }
  HF_TRY_STATUS(front.SetStatus(kDriverOk));
  // Whatever happened before anybody listened: both sides look once.
  for (const unsigned i : started_) {
    HandleQueue(i);
    HF_TRY(const int call, transport_->queue(i).call_fd());
    if (lost_) (void)::eventfd_write(call, 1);
  }
  lost_ = false;
  return {};
}

// Where each queue goes on is what the back end says; what it has taken and not answered stands in
// the memory for requests in flight.
Status VhostUserDevice::StopQueues() {
  if (config_.requests_end) WaitForAnswers();
  for (const unsigned i : std::exchange(started_, {})) {
    HF_TRY(const std::uint32_t position, front()->StopQueue(i));
    transport_->queue(i).set_position(position);
  }
  return front()->SetStatus(0);
}

bool VhostUserDevice::AllAnswered() const {
  return std::ranges::all_of(started_, [this](unsigned i) {
    const QueueLayout& layout = transport_->queue(i).layout();
    const auto available = vhost_user::RingIndex(transport_->memory(), layout.driver_area);
    const auto used = vhost_user::RingIndex(transport_->memory(), layout.device_area);
    return !available || !used || *available == *used;
  });
}

// While no vCPU runs. The limit is for a guest whose rings never come out even, and for a back end
// whose storage hangs.
void VhostUserDevice::WaitForAnswers() const {
  constexpr std::chrono::seconds kLimit{10};
  const auto deadline = std::chrono::steady_clock::now() + kLimit;
  // A vCPU may have stood still before it kicked.
  for (const unsigned i : started_) (void)::eventfd_write(transport_->queue(i).kick_fd(), 1);
  while (!AllAnswered() && std::chrono::steady_clock::now() < deadline) {
    pollfd gone{.fd = front()->fd(), .events = POLLIN, .revents = 0};
    if (::poll(&gone, 1, 1) != 0) return;
  }
}

void VhostUserDevice::VisitState(state::Fields& fields) {
  bool written = false;
  std::uint8_t value = 0;
  {
    const MutexLock lock(mutex_);
    written = written_.has_value();
    value = written ? std::to_integer<std::uint8_t>(*written_) : std::uint8_t{0};
  }
  fields.Value("config-written", written);
  fields.Value("config-byte", value);
  fields.Check(!written || config_.writable_byte.has_value(),
               "the driver has written where it cannot");
  if (!fields.loading() || !fields.ok()) return;
  if (!written) {
    const MutexLock lock(mutex_);
    written_.reset();
    return;
  }
  WriteConfig(*config_.writable_byte, std::as_bytes(std::span(&value, 1)));
}

Status VhostUserDevice::Migratable() const {
  if (config_.unsaved_state.empty()) return {};
  return Fail(Errc::kUnsupported,
              fmt::format("it cannot be saved: its back end has {}", config_.unsaved_state),
              "Take the device away first.");
}

void VhostUserDevice::SetRunning(bool running) noexcept {
  running_ = running;
  if (transport_ == nullptr || front() == nullptr) return;
  if (!running && started_.empty()) return;
  const Status done = running ? StartQueues() : StopQueues();
  if (!done) connection_.Lose(done.error());
}

void VhostUserDevice::HandleQueue(unsigned index) {
  if (transport_ == nullptr || !transport_->queue(index).ready()) return;
  (void)::eventfd_write(transport_->queue(index).kick_fd(), 1);
}

void VhostUserDevice::Reset() noexcept {
  if (front() != nullptr && !started_.empty()) {
    Status stopped;
    for (const unsigned i : started_) {
      const Result<std::uint32_t> position = front()->StopQueue(i);
      if (!position) stopped = Fail(position.error());
      if (!stopped) break;
    }
    if (stopped) stopped = front()->ResetDevice();
    if (stopped) stopped = front()->SetStatus(0);
    transport_ = nullptr;
    if (!stopped) connection_.Lose(stopped.error());
  }
  if (front() != nullptr) front()->ForgetMemory();
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
  if (front() == nullptr) return;  // its successor hears of it first
  if (const Status sent = front()->SetConfig(offset, {&value, 1}); !sent) {
    connection_.Lose(sent.error());
  }
}

}  // namespace holdfast::devices::virtio
