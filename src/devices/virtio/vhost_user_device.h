// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/thread_annotations.h"
#include "devices/vhost_user/connection.h"
#include "devices/vhost_user/endpoint.h"
#include "devices/vhost_user/front_end.h"
#include "devices/virtio/device.h"

namespace holdfast::devices::virtio {

/// A virtio device whose queues another process serves, over vhost-user. It maps the guest's memory
/// itself and is kicked and interrupts without this process; here are only configuration, start and
/// stop, and what happens when it goes and comes back.
///
/// A back end that goes is looked for again at the endpoint's pace. The driver sees nothing but a
/// delay: what was in flight is in memory that the next back end gets (INFLIGHT_SHMFD), or else is
/// done again, from the first request that was not answered.
///
/// Thread-safety: as Device; all on the loop's thread.
class VhostUserDevice final : public Device {
 public:
  struct Config {
    std::string name;            ///< for messages
    std::uint16_t type = 0;      ///< virtio 1.2, 5
    std::uint64_t features = 0;  ///< of the type's, those the driver may have if the back end can
    std::vector<std::uint16_t> queue_sizes;
    /// Bytes of configuration space that the back end knows, 0 for none.
    std::uint32_t config_size = 0;
    /// Configuration space where it is ours to say.
    std::vector<std::byte> own_config;
    /// Changes what the back end says before the driver reads it; may be empty.
    std::function<void(std::span<std::byte>)> edit_config;
    /// Bytes of configuration space that the driver may write: the offset, or nothing.
    std::optional<std::uint32_t> writable_byte;
    /// Each request is answered in a time of its own, whatever else happens: a stop waits for
    /// them, because not every back end does.
    bool requests_end = false;
    /// What a back end remembers of the guest that nobody here knows, to complete "its back end has
    /// "; empty: nothing.
    std::string unsaved_state = {};
  };
  /// Connects. `front` has greeted the back end already. @return kUnsupported for a back end that
  /// cannot do what is needed
  static Result<std::unique_ptr<VhostUserDevice>> Create(
      EventLoop& loop, Config config, vhost_user::Endpoint endpoint,
      std::unique_ptr<vhost_user::FrontEnd> front);
  /// What Create() wants from the back end.
  static vhost_user::FrontEnd::Options ConnectOptions(bool has_config);
  ~VhostUserDevice() override;

  std::uint16_t type() const noexcept override { return config_.type; }
  std::string_view name() const noexcept override { return config_.name; }
  std::uint64_t features() const noexcept override { return features_; }
  std::uint64_t refused_common_features() const noexcept override { return refused_; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override {
    return config_.queue_sizes;
  }
  EventLoop& loop() const noexcept override { return loop_; }
  void ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept override
      HF_EXCLUDES(mutex_);
  void WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept override
      HF_EXCLUDES(mutex_);
  Status Activate(Transport& transport) override;
  void HandleQueue(unsigned index) override;
  void SetRunning(bool running) noexcept override;
  void VisitState(state::Fields& fields) override HF_EXCLUDES(mutex_);
  Status Migratable() const override;
  void Reset() noexcept override;

 private:
  VhostUserDevice(EventLoop& loop, Config config, vhost_user::Endpoint endpoint);
  Status Adopt(vhost_user::FrontEnd& front);
  Status ReadBackendConfig(vhost_user::FrontEnd& front) HF_EXCLUDES(mutex_);
  Status RestoreWrittenByte(vhost_user::FrontEnd& front) HF_EXCLUDES(mutex_);
  Status StartQueues();
  Status StopQueues();
  void WaitForAnswers() const;
  bool AllAnswered() const;
  void OnGone(const Error& why, bool final);
  void SendConfig(std::uint32_t offset, std::byte value);
  vhost_user::FrontEnd* front() const noexcept { return connection_.front(); }

  EventLoop& loop_;
  const Config config_;
  std::uint64_t features_ = 0;  // constant after Create()
  std::uint64_t refused_ = 0;   // constant after Create()
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);

  vhost_user::Connection connection_;
  Transport* transport_ = nullptr;  // while active
  bool running_ = true;             // the machine does
  bool lost_ = false;               // a back end, and with it where its queues stood
  std::vector<unsigned> started_;   // queues that the back end serves
  std::optional<vhost_user::Inflight> inflight_;

  Mutex mutex_;
  std::vector<std::byte> bytes_ HF_GUARDED_BY(mutex_);      // configuration space
  std::optional<std::byte> written_ HF_GUARDED_BY(mutex_);  // the driver's byte in it
};

}  // namespace holdfast::devices::virtio
