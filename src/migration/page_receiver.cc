// SPDX-License-Identifier: Apache-2.0
#include "migration/page_receiver.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace holdfast::migration {

Result<PagesHead> PageReceiver::Receive(FrameReader& reader, const FrameHeader& header,
                                        const Place& place, const Zero& zero) {
  std::array<std::byte, PagesHead::kSize> front;
  HF_TRY_STATUS(reader.Read(front));
  HF_TRY(const PagesHead head, DecodePagesHead(front, header.size));
  if (head.block >= block_sizes_.size()) {
    return Fail(Errc::kMalformed,
                fmt::format("the other side of the migration sent pages of the memory {}, which "
                            "does not exist",
                            head.block));
  }
  std::array<std::byte, std::size_t{8} * kMostFramePages> listed;
  const auto list = std::span(listed).first(std::size_t{8} * head.count);
  HF_TRY_STATUS(reader.Read(list));
  HF_TRY(words_, DecodePageWords(list, head, block_sizes_[head.block]));
  HF_TRY_STATUS(head.encoding == PagesHead::Encoding::kRaw ? ReadRaw(reader, head, place)
                                                           : ReadPacked(reader, head, place));
  HF_TRY_STATUS(reader.End());
  for (const std::uint64_t word : words_) {
    if ((word & kZeroPage) != 0) HF_TRY_STATUS(zero(head, word & ~kZeroPage));
  }
  return head;
}

// Straight to where they belong: what turns out damaged ends the migration, or is asked for again.
Status PageReceiver::ReadRaw(FrameReader& reader, const PagesHead& head, const Place& place) {
  std::span<std::byte> run;  // pages that follow each other are read at once
  for (const std::uint64_t word : words_) {
    if ((word & kZeroPage) != 0) continue;
    std::span<std::byte> to = place(head, word);
    if (to.empty()) {
      contents_.resize(kPageSize);
      to = contents_;
    }
    if (!run.empty() && run.data() + run.size() == to.data() && to.data() != contents_.data()) {
      run = {run.data(), run.size() + to.size()};
      continue;
    }
    if (!run.empty()) HF_TRY_STATUS(reader.Read(run));
    run = to;
  }
  return run.empty() ? Status() : reader.Read(run);
}

Status PageReceiver::ReadPacked(FrameReader& reader, const PagesHead& head, const Place& place) {
  packed_.resize(head.stored);
  HF_TRY_STATUS(reader.Read(packed_));
  contents_.resize(kMostFrameBytes);
  const std::size_t size =
      ZSTD_decompress(contents_.data(), contents_.size(), packed_.data(), packed_.size());
  const auto with_contents = static_cast<std::size_t>(
      std::ranges::count_if(words_, [](std::uint64_t word) { return (word & kZeroPage) == 0; }));
  if (ZSTD_isError(size) != 0 || size != with_contents * kPageSize) {
    return Fail(Errc::kMalformed,
                "the other side of the migration sent pages that cannot be decompressed");
  }
  std::size_t at = 0;
  for (const std::uint64_t word : words_) {
    if ((word & kZeroPage) != 0) continue;
    const std::span<std::byte> to = place(head, word);
    if (!to.empty()) std::ranges::copy(std::span(contents_).subspan(at, kPageSize), to.begin());
    at += kPageSize;
  }
  return {};
}

Status PassBarrier::Arrive(std::uint64_t pass) {
  const MutexLock lock(mutex_);
  if (pass != pass_) {
    return Fail(
        Errc::kMalformed,
        fmt::format("the other side of the migration ended pass {} in pass {}", pass, pass_));
  }
  if (++arrived_ == connections_) {
    arrived_ = 0;
    ++pass_;
    changed_.notify_all();
    return {};
  }
  while (pass_ == pass && !cancelled_) changed_.wait(mutex_);
  if (pass_ != pass) return {};
  return Fail(Error(Errc::kInvalidArgument, "the migration has ended", {}, ECANCELED));
}

void PassBarrier::Cancel() {
  const MutexLock lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

}  // namespace holdfast::migration
