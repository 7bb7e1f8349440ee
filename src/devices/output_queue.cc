// SPDX-License-Identifier: Apache-2.0
#include "devices/output_queue.h"

#include <algorithm>
#include <cstring>

namespace holdfast::devices {

OutputQueue::Appended OutputQueue::Append(std::span<const std::byte> data) noexcept {
  const MutexLock lock(mutex_);
  if (!open_) return {.taken = data.size(), .wake = false};
  const std::size_t capacity = bytes_.size();
  const std::size_t taken = std::min(data.size(), capacity - size_);
  if (taken < data.size()) wants_room_ = true;
  if (taken == 0) return {.taken = 0, .wake = false};  // full, so the loop is awake

  const std::size_t tail = (head_ + size_) % capacity;
  const std::size_t run = std::min(taken, capacity - tail);
  std::memcpy(bytes_.data() + tail, data.data(), run);
  std::memcpy(bytes_.data(), data.data() + run, taken - run);

  const std::size_t urgent = capacity / 4 * 3;
  const bool filling_up = size_ < urgent && size_ + taken >= urgent;
  size_ += taken;
  const bool wake = !awake_ || filling_up;
  awake_ = true;
  return {.taken = taken, .wake = wake};
}

void OutputQueue::Close() noexcept {
  const MutexLock lock(mutex_);
  open_ = false;
  head_ = 0;
  size_ = 0;
}

void OutputQueue::Open() noexcept {
  const MutexLock lock(mutex_);
  open_ = true;
  awake_ = false;
}

int OutputQueue::Peek(std::array<iovec, 2>& pieces) const noexcept {
  const MutexLock lock(mutex_);
  if (size_ == 0) return 0;
  // writev() takes pointers to mutable bytes and does not change them.
  auto* const bytes = const_cast<std::byte*>(bytes_.data());
  const std::size_t run = std::min(size_, bytes_.size() - head_);
  pieces[0] = {.iov_base = bytes + head_, .iov_len = run};
  if (run == size_) return 1;
  pieces[1] = {.iov_base = bytes, .iov_len = size_ - run};
  return 2;
}

void OutputQueue::Consume(std::size_t count) noexcept {
  const MutexLock lock(mutex_);
  count = std::min(count, size_);
  head_ = (head_ + count) % bytes_.size();
  size_ -= count;
}

bool OutputQueue::TakeWantsRoom() noexcept {
  const MutexLock lock(mutex_);
  if (!wants_room_ || size_ > bytes_.size() / 2) return false;
  wants_room_ = false;
  return true;
}

bool OutputQueue::TrySleep() noexcept {
  const MutexLock lock(mutex_);
  if (size_ != 0) return false;
  awake_ = false;
  return true;
}

}  // namespace holdfast::devices
