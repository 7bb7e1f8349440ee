// SPDX-License-Identifier: Apache-2.0
#include "migration/ring_reader.h"

#include <holdfast/units.h>
#include <liburing.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

namespace holdfast::migration {
namespace {

constexpr unsigned kDepth = 16;

}  // namespace

Result<std::unique_ptr<RingReader>> RingReader::Create(const SnapshotChain& chain) {
  // One thread uses it, and completions need not interrupt that while it compares checksums.
  HF_TRY(devices::UniqueUring ring,
         devices::MakeUring(kDepth, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN));
  return std::unique_ptr<RingReader>(new RingReader(chain, std::move(ring)));
}

RingReader::RingReader(const SnapshotChain& chain, devices::UniqueUring ring)
    : chain_(chain), ring_(std::move(ring)), slots_(kDepth) {
  for (Slot& slot : slots_) free_.push_back(&slot);
}

Status RingReader::ReadAll(const std::function<std::optional<Target>()>& next, Progress& progress) {
  progress_ = &progress;
  status_ = {};
  Target target;
  SnapshotChain::Plan plan;  // of `target`
  std::size_t planned = 0;   // of plan.reads
  for (bool more = true; more || in_flight_ > 0 || !prepared_.empty();) {
    while (more && !free_.empty()) {
      if (planned < plan.reads.size()) {
        Slot& slot = *free_.back();
        free_.pop_back();
        slot.read = plan.reads[planned++];
        slot.target = target;
        Prepare(slot);
        continue;
      }
      const auto taken = status_ ? next() : std::nullopt;
      if (!taken) {
        more = false;
        break;
      }
      target = *taken;
      planned = 0;
      auto made = chain_.PlanChunk(target.block, target.offset, target.to.size());
      if (!made) {
        status_ = Fail(std::move(made).error());
        more = false;
        break;
      }
      plan = *std::move(made);
      if (!target.zeroed) plan.PutZeroes(target.to);
      progress.done += static_cast<std::uint64_t>(std::popcount(plan.zero_pages)) * kPageSize;
    }
    Submit();
    Reap();
    more = more && status_;
  }
  return status_;
}

void RingReader::Prepare(Slot& slot) {
  slot.stored = slot.read.InPlace(slot.target.to);
  if (slot.stored.empty()) {
    slot.buffer.resize(kSnapshotChunk);
    slot.stored = std::span(slot.buffer).first(slot.read.extent.stored);
  }
  // As many submissions as slots fit in: there is room.
  io_uring_sqe* const sqe = refused_ ? nullptr : io_uring_get_sqe(ring_.get());
  if (sqe == nullptr) {
    Complete(slot, -EAGAIN);
    return;
  }
  io_uring_prep_read(sqe, slot.read.file->fd(), slot.stored.data(),
                     static_cast<unsigned>(slot.stored.size()), slot.read.extent.file_offset);
  io_uring_sqe_set_data(sqe, &slot);
  prepared_.push_back(&slot);
}

void RingReader::Submit() {
  if (in_flight_ == 0 && prepared_.empty()) return;
  const int result = io_uring_submit_and_wait(ring_.get(), 1);
  for (int i = 0; i < result && !prepared_.empty(); ++i) {
    prepared_.pop_front();
    ++in_flight_;
  }
  if (result >= 0 || result == -EINTR) return;
  if (in_flight_ > 0) {
    // Out of memory, perhaps: there is more of it when one is done.
    io_uring_cqe* cqe = nullptr;
    io_uring_wait_cqe(ring_.get(), &cqe);
    return;
  }
  // What stands in the ring stays there for good.
  refused_ = true;
  for (Slot* const slot : std::exchange(prepared_, {})) Complete(*slot, -EAGAIN);
}

void RingReader::Reap() {
  io_uring_cqe* cqe = nullptr;
  while (in_flight_ > 0 && io_uring_peek_cqe(ring_.get(), &cqe) == 0 && cqe != nullptr) {
    Slot& slot = *static_cast<Slot*>(io_uring_cqe_get_data(cqe));
    const int result = cqe->res;
    io_uring_cqe_seen(ring_.get(), cqe);
    --in_flight_;
    Complete(slot, result);
  }
}

void RingReader::Complete(Slot& slot, std::int64_t result) {
  const auto& [file, extent, pages] = slot.read;
  Status status;
  if (status_) {
    // A short read, an interrupted one, an error: a plain read does the rest, or says what is
    // wrong.
    const auto got =
        std::min(static_cast<std::size_t>(std::max<std::int64_t>(result, 0)), slot.stored.size());
    if (got < slot.stored.size())
      status = file->ReadAt(slot.stored.subspan(got), extent.file_offset + got);
    if (status) status = slot.read.Put(slot.stored, slot.target.to);
    if (!status)
      status_ =
          Fail(chain_.Explain(std::move(status).error(), *file, slot.target.block, extent.offset));
  }
  progress_->done += static_cast<std::uint64_t>(std::popcount(pages)) * kPageSize;
  free_.push_back(&slot);
}

}  // namespace holdfast::migration
