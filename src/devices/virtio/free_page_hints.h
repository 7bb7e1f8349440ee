// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/thread_annotations.h"
#include "devices/machine_services.h"
#include "devices/virtio/device.h"

namespace holdfast::devices::virtio {

/// The device's side of free page hinting (virtio 1.2, 5.5.6): which round the guest is in, and
/// to whom the pages go that it names. It touches none of them.
///
/// Each round has a command id, which the guest reads from configuration space and puts in front of
/// its hints; hints behind another one, or behind none, count for nothing.
///
/// Thread-safety: any thread.
class FreePageHints {
 public:
  using Sink = Balloon::FreePages;
  using State = Balloon::HintState;

  /// Begins a round; one that is under way ends.
  void Start(Sink sink) HF_EXCLUDES(mutex_);
  /// Ends it: when this returns, the sink runs no more. The guest keeps its pages.
  void Stop() HF_EXCLUDES(mutex_);
  /// The same, and the guest may use the pages again.
  void Finish() HF_EXCLUDES(mutex_);
  /// The guest is here from elsewhere, where somebody may have begun a round.
  void Forget() noexcept HF_EXCLUDES(mutex_);
  /// There is another guest.
  void Reset() noexcept HF_EXCLUDES(mutex_);

  /// What configuration space shows as free_page_hint_cmd_id.
  std::uint32_t command() const noexcept HF_EXCLUDES(mutex_);
  State state() const noexcept HF_EXCLUDES(mutex_);

  /// A buffer of the guest's: a command id, free pages, or both.
  /// @return kMalformed for something too short to be an id
  Status Take(const Chain& chain, const AddressSpace& memory) HF_EXCLUDES(mutex_);

 private:
  void End(State state, std::uint32_t command) noexcept HF_REQUIRES(mutex_);
  void Name(const Chain& chain, const AddressSpace& memory) const HF_REQUIRES(mutex_);

  mutable Mutex mutex_;
  State state_ HF_GUARDED_BY(mutex_) = State::kIdle;
  std::uint32_t command_ HF_GUARDED_BY(mutex_) = 0;
  std::uint32_t last_id_ HF_GUARDED_BY(mutex_) = 0;
  Sink sink_ HF_GUARDED_BY(mutex_);
};

}  // namespace holdfast::devices::virtio
