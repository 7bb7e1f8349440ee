// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include <holdfast/unique_fd.h>

#include "base/thread_annotations.h"
#include "devices/pci/interrupts.h"

/// A machine for functions under test: plain eventfds in the place of KVM's.
namespace holdfast::devices::pci::testing {

class FakeServices;

/// A message's way that ends in its eventfd. Thread-safety: any thread.
class FakeMsiRoute final : public MsiRoute {
 public:
  explicit FakeMsiRoute(FakeServices& services);
  ~FakeMsiRoute() override;

  Status SetMessage(const MsiMessage& message) override {
    const MutexLock lock(mutex_);
    message_ = message;
    return {};
  }
  Status Connect(bool on) override {
    const MutexLock lock(mutex_);
    connected_ = on;
    return {};
  }
  void Trigger() noexcept override { ::eventfd_write(event_.get(), 1); }
  int event_fd() const noexcept override { return event_.get(); }
  bool pending() const noexcept override {
    const MutexLock lock(mutex_);
    return !connected_ && Readable();
  }

  MsiMessage message() const {
    const MutexLock lock(mutex_);
    return message_;
  }
  bool connected() const {
    const MutexLock lock(mutex_);
    return connected_;
  }
  /// How often the guest was interrupted since the last call: triggers on a connected route.
  std::uint64_t TakeDelivered() {
    const MutexLock lock(mutex_);
    std::uint64_t count = 0;
    if (!connected_ || !Readable()) return 0;
    return ::eventfd_read(event_.get(), &count) == 0 ? count : 0;
  }

 private:
  bool Readable() const noexcept {
    pollfd ready{.fd = event_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&ready, 1, 0) == 1;
  }

  FakeServices& services_;
  const UniqueFd event_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  mutable Mutex mutex_;
  MsiMessage message_ HF_GUARDED_BY(mutex_);
  bool connected_ HF_GUARDED_BY(mutex_) = false;
};

/// Remembers what functions asked for. Thread-safety: any thread.
class FakeServices final : public PciServices {
 public:
  struct Doorbell {
    GuestAddress address;
    unsigned size;
    std::optional<std::uint64_t> match;
    int event_fd;
    bool operator==(const Doorbell&) const = default;
  };

  Result<std::unique_ptr<MsiRoute>> MakeMsiRoute() override {
    return std::make_unique<FakeMsiRoute>(*this);
  }
  void SetGsi(std::uint32_t gsi, bool level) noexcept override {
    const MutexLock lock(mutex_);
    gsis_[gsi] = level;
  }
  Status AddDoorbell(GuestAddress address, unsigned size, std::optional<std::uint64_t> match,
                     int event_fd) override {
    const MutexLock lock(mutex_);
    doorbells_.push_back({address, size, match, event_fd});
    return {};
  }
  void RemoveDoorbell(GuestAddress address, unsigned size, std::optional<std::uint64_t> match,
                      int event_fd) noexcept override {
    const MutexLock lock(mutex_);
    std::erase(doorbells_, Doorbell{address, size, match, event_fd});
  }

  bool gsi(std::uint32_t gsi) const {
    const MutexLock lock(mutex_);
    const auto found = gsis_.find(gsi);
    return found != gsis_.end() && found->second;
  }
  std::vector<Doorbell> doorbells() const {
    const MutexLock lock(mutex_);
    return doorbells_;
  }
  /// A guest's write of `size` bytes at `address`, where KVM would see it first. @return whether a
  /// doorbell took it; else the test calls WriteBar
  bool Ring(GuestAddress address, unsigned size, std::uint64_t value) const {
    const MutexLock lock(mutex_);
    for (const Doorbell& bell : doorbells_) {
      if (bell.address != address || (bell.size != 0 && bell.size != size) ||
          (bell.match && *bell.match != value))
        continue;
      ::eventfd_write(bell.event_fd, 1);
      return true;
    }
    return false;
  }
  /// The routes that exist, in the order they were made.
  std::vector<FakeMsiRoute*> routes() const {
    const MutexLock lock(mutex_);
    return routes_;
  }

 private:
  friend class FakeMsiRoute;
  mutable Mutex mutex_;
  std::map<std::uint32_t, bool> gsis_ HF_GUARDED_BY(mutex_);
  std::vector<Doorbell> doorbells_ HF_GUARDED_BY(mutex_);
  std::vector<FakeMsiRoute*> routes_ HF_GUARDED_BY(mutex_);
};

inline FakeMsiRoute::FakeMsiRoute(FakeServices& services) : services_(services) {
  const MutexLock lock(services_.mutex_);
  services_.routes_.push_back(this);
}
inline FakeMsiRoute::~FakeMsiRoute() {
  const MutexLock lock(services_.mutex_);
  std::erase(services_.routes_, this);
}

}  // namespace holdfast::devices::pci::testing
