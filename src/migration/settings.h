// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <utility>

#include <holdfast/error.h>

#include "migration/capabilities.h"
#include "migration/parameters.h"

namespace holdfast::migration {

/// What the next migration of a virtual machine may do and how: what users have set.
///
/// Thread-safety: the main thread; a migration copies what it needs when it starts.
class Settings {
 public:
  struct Hooks {
    /// Judges capabilities by host and machine: a dirty ring, memory that post-copy can fill.
    std::function<Status(const Capabilities& old, const Capabilities& wanted)> check = {};
    /// Parameters have changed, also of a migration under way.
    std::function<void()> changed = {};
  };
  struct ParameterChange {
    const ParameterInfo* info;
    ParameterValue value;
  };
  struct CapabilityChange {
    Capability capability;
    bool on;
  };

  Settings() = default;
  Settings(const Settings&) = delete;
  Settings& operator=(const Settings&) = delete;

  /// Whoever migrates; outlives the settings or takes its hooks back.
  void SetHooks(Hooks hooks) { hooks_ = std::move(hooks); }
  /// While a migration is under way capabilities cannot change.
  void set_running(bool running) noexcept { running_ = running; }

  const Parameters& parameters() const noexcept { return parameters_; }
  const Capabilities& capabilities() const noexcept { return capabilities_; }

  /// All changes or, with an error in QEMU's words, none.
  Status SetParameters(std::span<const ParameterChange> changes);
  Status SetCapabilities(std::span<const CapabilityChange> changes);

 private:
  Hooks hooks_;
  Parameters parameters_;
  Capabilities capabilities_;
  bool running_ = false;
};

}  // namespace holdfast::migration
