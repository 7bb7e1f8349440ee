// SPDX-License-Identifier: Apache-2.0
#include "migration/snapshot_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/units.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <utility>

#include "base/hash.h"

namespace holdfast::migration {
namespace {

std::string NextTo(const std::string& path, const std::string& name) {
  if (name.starts_with('/')) return name;
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? name : path.substr(0, slash + 1) + name;
}

// The first extent that ends behind `offset`.
std::span<const Extent>::iterator FirstAt(std::span<const Extent> extents, std::uint64_t offset) {
  return std::ranges::upper_bound(extents, offset, {}, &Extent::end);
}

}  // namespace

Result<SnapshotFile> SnapshotFile::Open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return FailErrno(fmt::format("the snapshot '{}' cannot be read", path));
  SnapshotFile file(path, std::move(fd));
  if (auto loaded = file.Load(); !loaded)
    return Fail(std::move(loaded).error().Wrap(fmt::format("the snapshot '{}'", path)));
  return file;
}

Status SnapshotFile::Load() {
  struct stat info{};
  if (::fstat(fd_.get(), &info) != 0) return FailErrno("fstat");
  if (!S_ISREG(info.st_mode)) return Fail(Errc::kInvalidArgument, "it is not a file");
  const auto size = static_cast<std::uint64_t>(info.st_size);
  std::vector<std::byte> first(std::min(size, kSnapshotHeaderSize));
  HF_TRY_STATUS(ReadAt(first, 0));
  HF_TRY(header_, DecodeHeader(first, size));
  HF_TRY(const std::vector<std::byte> directory,
         ReadPiece({header_.directory_offset, header_.directory_size, header_.directory_hash},
                   "its directory"));
  HF_TRY(directory_, DecodeDirectory(directory, header_));
  for (const BlockEntry& block : directory_.blocks) {
    auto& layers = layers_.emplace_back();
    for (const FilePiece& piece : block.layers) {
      HF_TRY(std::unique_ptr<Table> table, OpenTable(block, piece));
      layers.push_back(std::move(table));
    }
  }
  return {};
}

Result<std::unique_ptr<SnapshotFile::Table>> SnapshotFile::OpenTable(const BlockEntry& block,
                                                                     const FilePiece& piece) {
  // Tables that share bytes would take more memory than there is file.
  const auto count = [this](std::uint64_t size) {
    tables_ += size;
    if (tables_ <= header_.file_size) return Status();
    return Status(Fail(Errc::kMalformed, "its tables of memory overlap"));
  };
  HF_TRY_STATUS(count(piece.size));
  HF_TRY(const std::vector<std::byte> bytes,
         ReadPiece(piece, fmt::format("a table of its memory '{}'", block.id)));
  auto table = std::make_unique<Table>();
  const MutexLock lock(table->mutex);
  if ((header_.features & kSnapshotParts) != 0) {
    table->part_size = kSnapshotPart;
    HF_TRY(table->parts, DecodeParts(bytes, block.size, header_));
    for (const FilePiece& part : table->parts) HF_TRY_STATUS(count(part.size));
    table->extents.resize(table->parts.size());
    return table;
  }
  // As the first release wrote it: all in one.
  HF_TRY(std::vector<Extent> extents, DecodeExtents(bytes, block.size, header_));
  table->part_size = block.size;
  table->parts.push_back(piece);
  table->extents.push_back(std::make_unique<const std::vector<Extent>>(std::move(extents)));
  return table;
}

Result<std::span<const Extent>> SnapshotFile::Extents(std::size_t block, std::size_t layer,
                                                      std::uint64_t offset) const {
  Table& table = *layers_[block][layer];
  const std::size_t part = offset / table.part_size;
  const FilePiece& piece = table.parts[part];
  if (piece.size == 0) return std::span<const Extent>();
  {
    const MutexLock lock(table.mutex);
    if (table.extents[part] != nullptr) return std::span(*table.extents[part]);
  }
  // Without the lock: who needs another part need not wait. Two may read the same one.
  const BlockEntry& entry = directory_.blocks[block];
  const std::uint64_t begin = part * table.part_size;
  const std::uint64_t end = begin + std::min(table.part_size, entry.size - begin);
  HF_TRY(const std::vector<std::byte> bytes,
         ReadPiece(piece, fmt::format("its table of the memory from {:#x} on", begin)));
  HF_TRY(std::vector<Extent> extents, DecodeExtents(bytes, end, header_, begin));
  const MutexLock lock(table.mutex);
  auto& known = table.extents[part];
  if (known == nullptr) known = std::make_unique<const std::vector<Extent>>(std::move(extents));
  return std::span(*known);
}

Status SnapshotFile::ReadAt(std::span<std::byte> to, std::uint64_t offset) const {
  while (!to.empty()) {
    const ssize_t count = ::pread(fd_.get(), to.data(), to.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FailErrno("read");
    if (count == 0) return Fail(Errc::kMalformed, "it was cut short while it was read");
    to = to.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return {};
}

Result<std::vector<std::byte>> SnapshotFile::ReadPiece(const FilePiece& piece,
                                                       std::string_view what) const {
  // The piece lies inside the file, so that no more is allocated than there is.
  std::vector<std::byte> bytes(piece.size);
  HF_TRY_STATUS(ReadAt(bytes, piece.offset));
  if (Hash64(bytes) != piece.hash)
    return Fail(Errc::kMalformed, fmt::format("{} is damaged", what));
  return bytes;
}

Result<std::vector<state::SavedSection>> SnapshotFile::ReadSections() const {
  std::vector<state::SavedSection> sections;
  for (const SectionEntry& entry : directory_.sections) {
    auto bytes = ReadPiece(entry.piece, fmt::format("its section '{}'", entry.name));
    if (!bytes) return Fail(std::move(bytes).error().Wrap(fmt::format("the snapshot '{}'", path_)));
    sections.push_back({entry.name, entry.version, *std::move(bytes)});
  }
  return sections;
}

Result<std::uint64_t> SnapshotFile::Stored() const {
  std::uint64_t bytes = 0;
  for (std::size_t block = 0; block < layers_.size(); ++block) {
    for (std::size_t layer = 0; layer < layers_[block].size(); ++layer) {
      const Table& table = *layers_[block][layer];
      for (std::size_t part = 0; part < table.parts.size(); ++part) {
        auto extents = Extents(block, layer, part * table.part_size);
        if (!extents) {
          return Fail(std::move(extents).error().Wrap(
              fmt::format("the snapshot '{}', memory '{}'", path_, directory_.blocks[block].id)));
        }
        for (const Extent& extent : *extents) bytes += extent.stored;
      }
    }
  }
  return bytes;
}

Result<SnapshotChain> SnapshotChain::Open(const std::string& path) {
  std::vector<SnapshotFile> files;
  HF_TRY(SnapshotFile newest, SnapshotFile::Open(path));
  files.push_back(std::move(newest));
  while (files.back().header().diff()) {
    const SnapshotFile& child = files.back();
    if (files.size() >= kMostSnapshotFiles) {
      return Fail(Errc::kMalformed, fmt::format("the snapshot '{}' has more than {} parents", path,
                                                kMostSnapshotFiles - 1));
    }
    auto parent = SnapshotFile::Open(NextTo(child.path(), child.directory().parent_file));
    if (!parent) {
      return Fail(std::move(parent).error().Wrap(
          fmt::format("the snapshot '{}' needs its parent", child.path())));
    }
    // Ids are random, so that a file cannot become its own ancestor by accident; one that was made
    // so ends at the limit above.
    if (parent->header().id != child.header().parent) {
      return Fail(Errc::kMalformed,
                  fmt::format("the snapshot '{}' was taken on top of snapshot {}; '{}' is another "
                              "one ({})",
                              child.path(), ToString(child.header().parent), parent->path(),
                              ToString(parent->header().id)));
    }
    const auto same = [](const BlockEntry& a, const BlockEntry& b) {
      return a.id == b.id && a.size == b.size;
    };
    if (!std::ranges::equal(parent->directory().blocks, child.directory().blocks, same)) {
      return Fail(Errc::kMalformed, fmt::format("the snapshot '{}' is of other memory than its "
                                                "parent '{}'",
                                                child.path(), parent->path()));
    }
    files.push_back(*std::move(parent));
  }
  return SnapshotChain(std::move(files));
}

SnapshotChain::SnapshotChain(std::vector<SnapshotFile> files) : files_(std::move(files)) {
  layers_.resize(blocks().size());
  for (std::size_t block = 0; block < layers_.size(); ++block) {
    for (std::size_t file = 0; file < files_.size(); ++file) {
      for (std::size_t layer = files_[file].layers(block); layer-- > 0;)
        layers_[block].push_back({file, layer});
    }
  }
}

std::optional<std::size_t> SnapshotChain::FindBlock(std::string_view id) const noexcept {
  const auto& all = blocks();
  const auto found = std::ranges::find(all, id, &BlockEntry::id);
  if (found == all.end()) return std::nullopt;
  return static_cast<std::size_t>(found - all.begin());
}

bool SnapshotChain::HasChunk(std::size_t block, std::uint64_t offset) const noexcept {
  return std::ranges::any_of(layers_[block], [&](const Layer& layer) {
    const auto extents = files_[layer.file].Extents(block, layer.layer, offset);
    if (!extents) return true;
    const auto extent = FirstAt(*extents, offset);
    return extent != extents->end() && extent->offset < offset + kSnapshotChunk;
  });
}

std::vector<SnapshotChain::Chunk> SnapshotChain::Chunks() const {
  std::vector<Chunk> chunks;
  for (std::size_t block = 0; block < blocks().size(); ++block) {
    const std::uint64_t size = blocks()[block].size;
    for (std::uint64_t at = 0; at < size; at += kSnapshotChunk) {
      if (HasChunk(block, at)) chunks.push_back({block, at, std::min(kSnapshotChunk, size - at)});
    }
  }
  return chunks;
}

std::span<std::byte> SnapshotChain::PageRead::Whole(std::span<std::byte> chunk) const noexcept {
  if (std::uint64_t(std::popcount(pages)) * kPageSize != extent.length) return {};
  return chunk.subspan(extent.offset % kSnapshotChunk, extent.length);
}

std::span<std::byte> SnapshotChain::PageRead::InPlace(std::span<std::byte> chunk) const noexcept {
  return extent.kind == Extent::Kind::kRaw ? Whole(chunk) : std::span<std::byte>();
}

Status SnapshotChain::PageRead::Put(std::span<const std::byte> stored,
                                    std::span<std::byte> chunk) const {
  if (Hash64(stored) != extent.hash) return Fail(Errc::kMalformed, "its checksum is wrong");
  const std::span<std::byte> place = Whole(chunk);
  std::array<std::byte, kSnapshotChunk> buffer;
  std::span<const std::byte> contents = stored;
  if (extent.kind == Extent::Kind::kZstd) {
    const auto target = place.empty() ? std::span(buffer).first(extent.length) : place;
    const std::size_t size =
        ZSTD_decompress(target.data(), target.size(), stored.data(), stored.size());
    if (ZSTD_isError(size) != 0 || size != target.size())
      return Fail(Errc::kMalformed, "it does not decompress to its size");
    contents = target;
  }
  if (contents.data() == place.data()) return {};
  const std::size_t first = extent.offset % kSnapshotChunk / kPageSize;
  for (std::size_t page = first; pages >> page != 0; ++page) {
    if ((pages >> page & 1) == 0) continue;
    std::ranges::copy(contents.subspan((page - first) * kPageSize, kPageSize),
                      chunk.subspan(page * kPageSize, kPageSize).begin());
  }
  return {};
}

void SnapshotChain::Plan::PutZeroes(std::span<std::byte> chunk) const noexcept {
  for (std::size_t page = 0; zero_pages >> page != 0; ++page) {
    if ((zero_pages >> page & 1) != 0)
      std::ranges::fill(chunk.subspan(page * kPageSize, kPageSize), std::byte{0});
  }
}

Error SnapshotChain::Explain(Error error, const SnapshotFile& file, std::size_t block,
                             std::uint64_t offset) const {
  return std::move(error).Wrap(fmt::format("the snapshot '{}', memory '{}' at {:#x}", file.path(),
                                           blocks()[block].id, offset));
}

Result<SnapshotChain::Plan> SnapshotChain::PlanChunk(std::size_t block, std::uint64_t offset,
                                                     std::uint64_t size) const {
  Plan plan;
  std::uint32_t missing = (std::uint32_t{1} << size / kPageSize) - 1;
  // From the newest layer on: each page is taken where it is found first.
  for (const Layer& layer : layers_[block]) {
    if (missing == 0) break;
    const SnapshotFile& file = files_[layer.file];
    auto extents = file.Extents(block, layer.layer, offset);
    if (!extents) return Fail(Explain(std::move(extents).error(), file, block, offset));
    for (auto extent = FirstAt(*extents, offset);
         extent != extents->end() && extent->offset < offset + size; ++extent) {
      if (extent->end() > offset + size) continue;  // of a block's last, shorter chunk
      const std::size_t first = (extent->offset - offset) / kPageSize;
      const std::size_t count = extent->length / kPageSize;
      const std::uint32_t pages = missing & (((std::uint32_t{1} << count) - 1) << first);
      if (pages == 0) continue;
      missing &= ~pages;
      if (extent->kind == Extent::Kind::kZero) {
        plan.zero_pages |= pages;
      } else {
        plan.reads.push_back({&file, *extent, pages});
      }
    }
  }
  plan.zero_pages |= missing;
  return plan;
}

Status SnapshotChain::ReadChunk(std::size_t block, std::uint64_t offset, std::span<std::byte> to,
                                bool skip_absent) const {
  HF_TRY(const Plan plan, PlanChunk(block, offset, to.size()));
  std::array<std::byte, kSnapshotChunk> buffer;
  for (const PageRead& read : plan.reads) {
    const auto place = read.InPlace(to);
    const auto stored = place.empty() ? std::span(buffer).first(read.extent.stored) : place;
    Status status = read.file->ReadAt(stored, read.extent.file_offset);
    if (status) status = read.Put(stored, to);
    if (!status)
      return Fail(Explain(std::move(status).error(), *read.file, block, read.extent.offset));
  }
  if (!skip_absent) plan.PutZeroes(to);
  return {};
}

}  // namespace holdfast::migration
