// SPDX-License-Identifier: Apache-2.0
// The part of Outgoing for a guest that runs at the other side before all of its memory is there.
#include <algorithm>

#include "migration/outgoing.h"

namespace holdfast::migration {

Status Outgoing::StartPostcopy() {
  if (!Is(Capability::kPostcopyRam)) {
    return Fail(Errc::kInvalidArgument,
                "Enable postcopy with migrate_set_capability before the start of migration");
  }
  const MutexLock lock(mutex_);
  postcopy_wanted_ = true;
  if (interruptible_ != nullptr) interruptible_->Interrupt();
  return {};
}

// On the return path's thread. @return false for a peer that asks when there is nobody to ask
bool Outgoing::Serve(const PageRequest& request) {
  const MutexLock lock(mutex_);
  if (server_ == nullptr || !server_->Add(request)) return false;
  urgent_requests_ = server_->urgent_requests();
  return true;
}

bool Outgoing::PostcopyWanted() const {
  const MutexLock lock(mutex_);
  return postcopy_wanted_;
}

Status Outgoing::SendMissing(const DirtyPages& missing) {
  const auto blocks = missing.blocks();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto words = blocks[i].pages.words();
    constexpr std::size_t kMost = MissingPages::kMostPages / 64;
    for (std::size_t at = 0; at < words.size(); at += kMost) {
      const auto part = words.subspan(at, std::min(kMost, words.size() - at));
      MissingPages frame{.block = static_cast<std::uint32_t>(i), .first = at * 64};
      frame.words.assign(part.begin(), part.end());
      HF_TRY_STATUS(writers_.front()->Write(FrameType::kMissing, EncodeMissing(frame)));
    }
  }
  return {};
}

}  // namespace holdfast::migration
