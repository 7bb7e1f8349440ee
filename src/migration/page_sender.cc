// SPDX-License-Identifier: Apache-2.0
#include "migration/page_sender.h"

#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <thread>
#include <utility>

#include "base/hash.h"
#include "memory/present_pages.h"

namespace holdfast::migration {

void RateLimit::Set(std::uint64_t bytes_per_second) {
  object::ThrottleLimits limits;
  limits[object::ThrottleKind::kBpsTotal].average = bytes_per_second;
  throttle_.Set(limits);
}

Status RateLimit::Wait(std::uint64_t bytes, const std::atomic<bool>& cancelled) {
  constexpr std::chrono::milliseconds kLook{50};  // for a cancellation
  while (throttle_.enabled()) {
    const auto wait = throttle_.Take(true, bytes, object::Throttle::Clock::now());
    if (wait <= object::Throttle::Clock::duration::zero()) break;
    if (cancelled) return Fail(Errc::kInvalidArgument, "it was cancelled");
    std::this_thread::sleep_for(std::min<object::Throttle::Clock::duration>(wait, kLook));
  }
  return {};
}

// ---- Which pages --------------------------------------------------------------------------------

// Asked for a block at once: a memory file looks for the end of its data each time.
Result<DirtyPages> FindPresent(const AddressSpace& memory, const DirtyPages& which) {
  DirtyPages present(memory);
  for (std::size_t i = 0; i < which.blocks().size(); ++i) {
    const PageBitmap& pages = which.blocks()[i].pages;
    const auto first = pages.NextRun(0);
    if (!first) continue;
    std::uint64_t end = 0;
    pages.ForEachRun([&](const PageBitmap::Run& run) { end = run.offset() + run.size(); });
    auto& [block, bits] = present.blocks()[i];
    HF_TRY_STATUS(ForEachPresent(*block, first->offset(), end - first->offset(),
                                 [&](std::uint64_t offset, std::uint64_t size) {
                                   bits.Set(offset / kPageSize, size / kPageSize);
                                   return true;
                                 }));
  }
  return present;
}

// Hands out the pages of a pass in batches, to one thread for each connection.
struct PageSender::Cursor {
  const DirtyPages& which;
  const DirtyPages& present;
  Mutex mutex = {};
  std::size_t block HF_GUARDED_BY(mutex) = 0;
  std::uint64_t page HF_GUARDED_BY(mutex) = 0;
  bool failed HF_GUARDED_BY(mutex) = false;

  // The next pages, all of one block; empty at the end.
  std::size_t Next(std::vector<std::uint64_t>& pages) HF_EXCLUDES(mutex) {
    pages.clear();
    const MutexLock lock(mutex);
    while (!failed && block < which.blocks().size()) {
      const PageBitmap& bits = which.blocks()[block].pages;
      while (pages.size() < kMostFramePages) {
        const auto run = bits.NextRun(page, kMostFramePages - pages.size());
        if (!run) break;
        for (std::uint64_t i = 0; i < run->count; ++i) pages.push_back(run->first + i);
        page = run->first + run->count;
      }
      if (!pages.empty()) return block;
      ++block;
      page = 0;
    }
    return block;
  }
  // Adds to `rest` what nobody was given. No thread is at work any more.
  void Rest(DirtyPages& rest) HF_EXCLUDES(mutex) {
    const MutexLock lock(mutex);
    for (std::size_t i = block; i < which.blocks().size(); ++i) {
      const std::uint64_t from = i == block ? page : 0;
      PageBitmap& to = rest.blocks()[i].pages;
      const PageBitmap& bits = which.blocks()[i].pages;
      for (auto run = bits.NextRun(from); run; run = bits.NextRun(run->first + run->count))
        to.Set(run->first, run->count);
    }
  }
  void Fail() HF_EXCLUDES(mutex) {
    const MutexLock lock(mutex);
    failed = true;
  }
};

// What one connection's thread works with.
struct PageSender::Buffers {
  std::vector<std::byte> copy = std::vector<std::byte>(kMostFrameBytes);
  std::vector<std::byte> packed = {};
  std::vector<std::uint64_t> pages = {};
};

PageSender::PageSender(const AddressSpace& memory, std::vector<FrameWriter*> channels,
                       const Options& options, RateLimit& limit, const std::atomic<bool>& cancelled)
    : memory_(memory),
      channels_(std::move(channels)),
      options_(options),
      limit_(limit),
      cancelled_(cancelled),
      unsent_(memory) {}

Status PageSender::SendAll() {
  DirtyPages all(memory_);
  all.SetAll();
  HF_TRY(const DirtyPages present, FindPresent(memory_, all));
  return RunPass(present, present);
}

Status PageSender::Send(const DirtyPages& pages) {
  HF_TRY(const DirtyPages present, FindPresent(memory_, pages));
  return RunPass(pages, present);
}

// A pass ends on every connection, so that the receiver knows which of two contents of a page is
// the later one whatever way they took.
Status PageSender::RunPass(const DirtyPages& which, const DirtyPages& present) {
  remaining_ = which.count();
  Cursor cursor{.which = which, .present = present};
  std::vector<Status> results(channels_.size());
  const auto work = [&](std::size_t i) {
    results[i] = SendFrom(cursor, *channels_[i]);
    if (!results[i]) cursor.Fail();
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < channels_.size(); ++i) {
    try {
      threads.emplace_back(work, i);
    } catch (const std::system_error& error) {
      results[i] = Fail(Error::FromErrno("a thread for the migration", error.code().value()));
      cursor.Fail();
      break;
    }
  }
  work(0);
  for (std::thread& thread : threads) thread.join();
  for (Status& result : results) HF_TRY_STATUS(std::move(result));
  if (interrupted_) cursor.Rest(unsent_);
  const std::uint64_t pass = ++pass_;
  for (FrameWriter* const channel : channels_)
    HF_TRY_STATUS(channel->Write(FrameType::kPassEnd, EncodeNumber(pass)));
  return {};
}

Status PageSender::SendFrom(Cursor& cursor, FrameWriter& channel) {
  Buffers buffers;
  while (!interrupted_) {
    const std::size_t block = cursor.Next(buffers.pages);
    if (buffers.pages.empty()) return {};
    if (cancelled_) return Fail(Errc::kInvalidArgument, "it was cancelled");
    HF_TRY_STATUS(SendBatch(channel, static_cast<std::uint32_t>(block),
                            cursor.present.blocks()[block].pages, buffers.pages, buffers));
    remaining_ -= buffers.pages.size();
  }
  return {};
}

// The pages are copied, so that checksum and contents are of one moment: the guest runs.
Status PageSender::SendBatch(FrameWriter& channel, std::uint32_t block, const PageBitmap& present,
                             std::span<const std::uint64_t> pages, Buffers& buffers) {
  const DirtyPages all(memory_);
  const auto memory = all.blocks()[block].block->host_view();
  std::array<std::uint64_t, kMostFramePages> words;
  std::size_t used = 0;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    words[i] = pages[i] * kPageSize;
    const auto to = std::span(buffers.copy).subspan(used, kPageSize);
    bool zero = !present.Test(pages[i]);
    if (!zero) {
      std::ranges::copy(memory.subspan(words[i], kPageSize), to.begin());
      zero = AllZero(to);
    }
    if (zero) {
      words[i] |= kZeroPage;
    } else {
      used += kPageSize;
    }
  }
  const std::size_t with_contents = used / kPageSize;
  PagesHead head{.block = block,
                 .count = static_cast<std::uint32_t>(pages.size()),
                 .stored = static_cast<std::uint32_t>(used)};
  Channel::Bytes contents = std::span(buffers.copy).first(used);
  if (options_.zstd && used != 0) {
    buffers.packed.resize(ZSTD_compressBound(used));
    const std::size_t packed = ZSTD_compress(buffers.packed.data(), buffers.packed.size(),
                                             buffers.copy.data(), used, options_.zstd_level);
    if (ZSTD_isError(packed) == 0 && packed < used) {
      head.encoding = PagesHead::Encoding::kZstd;
      head.stored = static_cast<std::uint32_t>(packed);
      contents = std::span(buffers.packed).first(packed);
    }
  }
  const auto front = EncodePagesHead(head);
  const auto listed = EncodePageWords(std::span(words).first(pages.size()));
  HF_TRY_STATUS(
      limit_.Wait(FrameHeader::kSize + front.size() + listed.size() + contents.size(), cancelled_));
  const Channel::Bytes parts[] = {front, listed, contents};
  HF_TRY_STATUS(channel.Write(FrameType::kPages, parts));
  sent_.normal += with_contents;
  sent_.zero += pages.size() - with_contents;
  return {};
}

}  // namespace holdfast::migration
