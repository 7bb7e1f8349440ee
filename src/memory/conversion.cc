// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/conversion.h>
#include <holdfast/units.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <vector>

#include "memory/page_pins.h"

namespace holdfast {
namespace {

// What Changing packs into a word; 16 TiB of 4 KiB pages.
constexpr std::uint64_t kMaxPages = std::numeric_limits<std::uint32_t>::max();
constexpr const char* kNotTakenBack = "a conversion failed half-way and could not be taken back";

}  // namespace

std::string_view ToString(ConversionEngineKind kind) noexcept {
  switch (kind) {
    case ConversionEngineKind::kKernel:
      return "kernel";
    case ConversionEngineKind::kGuard:
      return "guard";
    case ConversionEngineKind::kAttributes:
      break;
  }
  return "attributes";
}

// While it lives, `word` says that [first, last] is being converted. One word, so that who reads it
// sees both ends of the same range.
class BlockConversion::Changing {
 public:
  Changing(std::atomic<std::uint64_t>& word, std::uint64_t first, std::uint64_t last) noexcept
      : word_(word) {
    word_.store(Pack(first, last));
  }
  // Release: who finds that nothing changes sees the attributes as they are now.
  ~Changing() { word_.store(kNothing, std::memory_order_release); }
  Changing(const Changing&) = delete;
  Changing& operator=(const Changing&) = delete;

  static constexpr std::uint64_t kNothing = 1ULL << 32;  // first 1, last 0
  static constexpr std::uint64_t Pack(std::uint64_t first, std::uint64_t last) noexcept {
    return first << 32 | last;
  }
  static constexpr bool Overlaps(std::uint64_t word, std::uint64_t first,
                                 std::uint64_t last) noexcept {
    const std::uint64_t begin = word >> 32;
    const std::uint64_t end = word & 0xffffffffU;
    return begin <= end && begin <= last && first <= end;
  }

 private:
  std::atomic<std::uint64_t>& word_;
};

BlockConversion::BlockConversion(std::uint64_t size, std::unique_ptr<ConversionEngine> engine,
                                 PagePins pins, MemoryAttribute initial)
    : size_(size),
      engine_(std::move(engine)),
      attributes_(size / kPageSize, initial),
      pins_(std::make_unique<PagePins>(std::move(pins))),
      changing_(Changing::kNothing) {}

BlockConversion::~BlockConversion() = default;

Result<std::unique_ptr<BlockConversion>> BlockConversion::Create(
    std::uint64_t size, std::unique_ptr<ConversionEngine> engine, MemoryAttribute initial) {
  if (size / kPageSize > kMaxPages) {
    return Fail(Errc::kUnsupported,
                fmt::format("a RAM block of {} cannot have private pages", FormatSize(size)),
                "Split the memory over several backends of less than 16 TiB.");
  }
  HF_TRY(PagePins pins, PagePins::Create(size / kPageSize));
  if (initial == MemoryAttribute::kPrivate)
    HF_TRY_STATUS(engine->Apply(0, size, MemoryAttribute::kPrivate));
  return std::unique_ptr<BlockConversion>(
      new BlockConversion(size, std::move(engine), std::move(pins), initial));
}

Status BlockConversion::Check(const ConversionRequest& request) const {
  const auto refuse = [&](std::string_view why) {
    return Fail(Errc::kInvalidArgument, fmt::format("cannot convert {:#x} bytes at {:#x}: {}",
                                                    request.size, request.offset, why));
  };
  if (request.flags != 0) return refuse(fmt::format("unknown flags {:#x}", request.flags));
  std::uint64_t reserved = 0;
  for (const std::uint64_t word : request.reserved) reserved |= word;
  if (reserved != 0) return refuse("a reserved field is not 0");
  if (!IsPageAligned(request.offset | request.size)) return refuse("the range is not page aligned");
  if (request.size == 0) return refuse("the range is empty");
  if (!CheckedAdd(request.offset, request.size)) return refuse("the range wraps");
  if (!RangeFits(request.offset, request.size, size_))
    return refuse(fmt::format("the block ends at {:#x}", size_));
  return {};
}

Result<ConversionOutcome> BlockConversion::Convert(const ConversionRequest& request) {
  HF_TRY_STATUS(Check(request));
  return ConvertOne(request.offset, request.size, request.to);
}

Result<ConversionOutcome> BlockConversion::ConvertAll(std::span<const Piece> pieces,
                                                      MemoryAttribute to) {
  if (pieces.size() == 1) return pieces[0].block->ConvertOne(pieces[0].offset, pieces[0].size, to);
  std::vector<BlockConversion*> blocks;
  for (const Piece& piece : pieces) blocks.push_back(piece.block);
  std::ranges::sort(blocks);
  blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
  std::vector<std::unique_lock<std::mutex>> locks;
  for (BlockConversion* block : blocks) locks.emplace_back(block->mutex_);
  return ConvertLocked(pieces, blocks, to);
}

// The same steps in the same order as ConvertLocked(). It is nearly all that guests ask for, and
// for a single page all that is done beside the system call shows.
Result<ConversionOutcome> BlockConversion::ConvertOne(std::uint64_t offset, std::uint64_t size,
                                                      MemoryAttribute to) {
  const std::uint64_t first = offset / kPageSize;
  const std::uint64_t count = size / kPageSize;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (attributes_.All(first, count, to)) return ConversionOutcome{};
  const Changing changing(changing_, first, first + count - 1);
  ConversionOutcome outcome;
  if (to == MemoryAttribute::kPrivate) {
    if (const auto pinned = pins_->FirstPinned(first, count)) {
      outcome.busy_offset = *pinned * kPageSize;
      return outcome;
    }
  }
  auto applied = engine_->Apply(offset, size, to);
  if (!applied) {
    if (auto restored = Restore(offset, size, to); !restored)
      return Fail(std::move(restored).error().Wrap(kNotTakenBack));
    return Fail(std::move(applied).error());
  }
  if (*applied) {
    outcome.busy_offset = **applied;
    return outcome;
  }
  outcome.changed_pages = attributes_.Set(first, count, to);
  return outcome;
}

// Gives the pages of the range that were not `to` before what they were back to the engine.
Status BlockConversion::Restore(std::uint64_t offset, std::uint64_t size, MemoryAttribute to) {
  for (const PageAttributes::Range& range :
       attributes_.Ranges(offset / kPageSize, size / kPageSize)) {
    if (range.attribute == to) continue;
    HF_TRY_STATUS(
        engine_->Apply(range.first * kPageSize, range.count * kPageSize, range.attribute));
  }
  return {};
}

Result<ConversionOutcome> BlockConversion::ConvertLocked(std::span<const Piece> pieces,
                                                         std::span<BlockConversion* const> blocks,
                                                         MemoryAttribute to) {
  const auto is_done = [&](const Piece& piece) {
    return piece.block->attributes_.All(piece.offset / kPageSize, piece.size / kPageSize, to);
  };
  if (std::ranges::all_of(pieces, is_done)) return ConversionOutcome{};

  // From here on nobody new gets at the pages; who comes waits for the locks. It ends before the
  // locks are given back.
  std::deque<Changing> changing;
  for (BlockConversion* block : blocks) {
    std::uint64_t first = kMaxPages;
    std::uint64_t last = 0;
    for (const Piece& piece : pieces) {
      if (piece.block != block) continue;
      first = std::min(first, piece.offset / kPageSize);
      last = std::max(last, (piece.offset + piece.size) / kPageSize - 1);
    }
    changing.emplace_back(block->changing_, first, last);
  }

  if (to == MemoryAttribute::kPrivate) {
    for (const Piece& piece : pieces) {
      const auto pinned =
          piece.block->pins_->FirstPinned(piece.offset / kPageSize, piece.size / kPageSize);
      if (pinned) {
        return ConversionOutcome{.busy_offset = *pinned * kPageSize,
                                 .busy_piece = static_cast<std::size_t>(&piece - pieces.data())};
      }
    }
  }

  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    auto applied = piece.block->engine_->Apply(piece.offset, piece.size, to);
    if (applied && !*applied) continue;
    // A piece that was busy has not changed; one that failed may be half-way.
    const std::size_t touched = applied ? i : i + 1;
    for (const Piece& undo : pieces.first(touched)) {
      if (auto restored = undo.block->Restore(undo.offset, undo.size, to); !restored) {
        return Fail(std::move(restored).error().Wrap(kNotTakenBack));
      }
    }
    if (!applied) return Fail(std::move(applied).error());
    return ConversionOutcome{.busy_offset = **applied, .busy_piece = i};
  }

  ConversionOutcome outcome;
  for (const Piece& piece : pieces) {
    outcome.changed_pages +=
        piece.block->attributes_.Set(piece.offset / kPageSize, piece.size / kPageSize, to);
  }
  return outcome;
}

Status BlockConversion::MemoryFreed(std::uint64_t offset, std::uint64_t size) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const PageAttributes::Range& range :
       attributes_.Ranges(offset / kPageSize, size / kPageSize)) {
    if (range.attribute != MemoryAttribute::kPrivate) continue;
    HF_TRY_STATUS(engine_->KeepClosed(range.first * kPageSize, range.count * kPageSize));
  }
  return {};
}

bool BlockConversion::TryPin(std::uint64_t offset, std::uint64_t size) noexcept {
  if (size == 0) return true;
  const std::uint64_t first = offset / kPageSize;
  const std::uint64_t last = (offset + size - 1) / kPageSize;
  // The pin before the look, as ConvertAll() announces before it looks for pins: of the two, one
  // sees the other (PagePins).
  pins_->Pin(first, last - first + 1);
  if (Changing::Overlaps(changing_.load(), first, last)) {
    const std::lock_guard<std::mutex> until_it_is_over(mutex_);
  }
  if (attributes_.All(first, last - first + 1, MemoryAttribute::kShared)) return true;
  pins_->Unpin(first, last - first + 1);
  return false;
}

void BlockConversion::Unpin(std::uint64_t offset, std::uint64_t size) noexcept {
  if (size == 0) return;
  const std::uint64_t first = offset / kPageSize;
  const std::uint64_t last = (offset + size - 1) / kPageSize;
  pins_->Unpin(first, last - first + 1);
}

}  // namespace holdfast
