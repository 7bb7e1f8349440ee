// SPDX-License-Identifier: Apache-2.0
#include "migration/snapshot_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/units.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "base/hash.h"

namespace holdfast::migration {
namespace {

// Fast, and half the size of most memory.
constexpr int kZstdLevel = 1;
// The disk is given so much of the file at a time.
constexpr std::uint64_t kWriteBack = 16 * kMiB;

std::string FolderOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// The disk writes while memory is still looked at; else it would stand idle until the fsync at the
// end.
void WriteBack(int fd, const Extent& extent) noexcept {
  const std::uint64_t begin = AlignDown(extent.file_offset, kWriteBack);
  if (extent.file_offset + extent.stored < begin + kWriteBack) return;
  // A hint: what goes wrong, fsync says.
  (void)::sync_file_range(fd, static_cast<off_t>(begin), kWriteBack, SYNC_FILE_RANGE_WRITE);
}

// A new file is in its folder for good only when the folder says so.
Status SyncFolder(const std::string& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return FailErrno(fmt::format("fsync '{}'", folder));
  return {};
}

}  // namespace

Result<std::unique_ptr<SnapshotWriter>> SnapshotWriter::Create(Options options,
                                                               std::vector<Block> blocks) {
  struct stat existing{};
  if (::stat(options.path.c_str(), &existing) == 0 && !S_ISREG(existing.st_mode)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the snapshot '{}' cannot be written: it is not a file", options.path),
                "Name a file; it is made anew.");
  }
  std::string temporary = options.path + ".XXXXXX";
  UniqueFd file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file.valid())
    return FailErrno(fmt::format("the snapshot '{}' cannot be written", options.path));
  std::unique_ptr<SnapshotWriter> writer(new SnapshotWriter(std::move(options), std::move(blocks),
                                                            std::move(file), std::move(temporary)));
  if (::getrandom(writer->header_.id.data(), writer->header_.id.size(), 0) !=
      static_cast<ssize_t>(writer->header_.id.size())) {
    return FailErrno("getrandom");
  }
  return writer;
}

SnapshotWriter::SnapshotWriter(Options options, std::vector<Block> blocks, UniqueFd file,
                               std::string temporary)
    : options_(std::move(options)),
      blocks_(std::move(blocks)),
      file_(std::move(file)),
      temporary_(std::move(temporary)),
      index_(blocks_.size()) {
  header_.features = kSnapshotParts;
  if (options_.zstd) header_.features |= kSnapshotZstd;
  if (options_.parent) {
    header_.features |= kSnapshotDiff;
    header_.parent = *options_.parent;
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    index_[i].memory.resize((blocks_[i].size + kSnapshotChunk - 1) / kSnapshotChunk);
  }
}

SnapshotWriter::~SnapshotWriter() {
  if (!finished_) (void)::unlink(temporary_.c_str());
}

std::uint64_t SnapshotWriter::Allocate(std::uint64_t size, std::uint64_t alignment) {
  const MutexLock lock(mutex_);
  const std::uint64_t at = AlignUp(end_, alignment);
  end_ = at + size;
  return at;
}

Status SnapshotWriter::WriteAt(std::span<const std::byte> bytes, std::uint64_t offset) const {
  while (!bytes.empty()) {
    const ssize_t count =
        ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) continue;
      return FailErrno(fmt::format("the snapshot '{}' cannot be written", options_.path));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return {};
}

Status SnapshotWriter::Store(Extent& extent, std::span<const std::byte> bytes) {
  std::vector<std::byte> frame;
  if (options_.zstd) {
    frame.resize(ZSTD_compressBound(bytes.size()));
    const std::size_t size =
        ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), kZstdLevel);
    if (ZSTD_isError(size) == 0 && size < bytes.size()) {
      frame.resize(size);
      bytes = frame;
      extent.kind = Extent::Kind::kZstd;
    }
  }
  const bool raw = extent.kind == Extent::Kind::kRaw;
  // What a chunk had before is written over where it fits.
  if (!raw || extent.stored != bytes.size())
    extent.file_offset = Allocate(bytes.size(), raw ? kPageSize : 1);
  extent.stored = static_cast<std::uint32_t>(bytes.size());
  extent.hash = Hash64(bytes);
  HF_TRY_STATUS(WriteAt(bytes, extent.file_offset));
  WriteBack(file_.get(), extent);
  return {};
}

Status SnapshotWriter::WriteChunk(std::size_t block, std::uint64_t offset,
                                  std::span<const std::byte> pages, std::uint32_t which,
                                  Layer layer) {
  const std::size_t chunk = offset / kSnapshotChunk;
  Extents before;
  {
    const MutexLock lock(mutex_);
    auto& chunks = layer == Layer::kMemory ? index_[block].memory : index_[block].rewritten;
    if (chunk < chunks.size()) before = chunks[chunk];
  }
  // A page that is zero hides what the parent, or this chunk before, had there; in a full snapshot
  // there is nothing to hide.
  const bool keep_zeroes = options_.parent.has_value() || layer == Layer::kRewritten;
  Extents extents;
  const std::size_t count = pages.size() / kPageSize;
  for (std::size_t first = 0; first < count;) {
    const auto zero = [&](std::size_t page) {
      return AllZero(pages.subspan(page * kPageSize, kPageSize));
    };
    if ((which >> first & 1) == 0) {
      ++first;
      continue;
    }
    const bool zeroes = zero(first);
    std::size_t last = first + 1;
    while (last < count && (which >> last & 1) != 0 && zero(last) == zeroes) ++last;
    const std::size_t bytes = (last - first) * kPageSize;
    Extent extent{.offset = offset + first * kPageSize,
                  .length = static_cast<std::uint32_t>(bytes)};
    if (zeroes) {
      extent.kind = Extent::Kind::kZero;
      if (keep_zeroes) extents.push_back(extent);
    } else {
      for (const Extent& old : before) {
        if (old.kind != Extent::Kind::kRaw || old.offset != extent.offset ||
            old.length != extent.length) {
          continue;
        }
        extent.file_offset = old.file_offset;
        extent.stored = old.stored;
      }
      HF_TRY_STATUS(Store(extent, pages.subspan(first * kPageSize, bytes)));
      extents.push_back(extent);
    }
    first = last;
  }
  const MutexLock lock(mutex_);
  auto& chunks = layer == Layer::kMemory ? index_[block].memory : index_[block].rewritten;
  if (chunks.size() <= chunk) chunks.resize(index_[block].memory.size());
  chunks[chunk] = std::move(extents);
  return {};
}

Result<FilePiece> SnapshotWriter::Append(std::span<const std::byte> bytes) {
  const FilePiece piece{
      .offset = Allocate(bytes.size(), 8), .size = bytes.size(), .hash = Hash64(bytes)};
  HF_TRY_STATUS(WriteAt(bytes, piece.offset));
  return piece;
}

Result<FilePiece> SnapshotWriter::AppendTable(const std::vector<Extents>& chunks) {
  constexpr std::size_t kChunks = kSnapshotPart / kSnapshotChunk;
  std::vector<FilePiece> parts;
  for (std::size_t first = 0; first < chunks.size(); first += kChunks) {
    Extents all;
    const std::size_t count = std::min(kChunks, chunks.size() - first);
    for (const Extents& extents : std::span(chunks).subspan(first, count))
      all.insert(all.end(), extents.begin(), extents.end());
    FilePiece part;
    if (!all.empty()) {
      HF_TRY(part, Append(EncodeExtents(all)));
    }
    parts.push_back(part);
  }
  return Append(EncodeParts(parts));
}

Status SnapshotWriter::Finish(SnapshotDirectory directory,
                              std::span<const state::SavedSection> sections) {
  directory.created = static_cast<std::uint64_t>(::time(nullptr));
  directory.parent_file = options_.parent_file;
  for (const state::SavedSection& section : sections) {
    HF_TRY(const FilePiece piece, Append(section.bytes));
    directory.sections.push_back({section.name, section.version, piece});
  }
  std::vector<BlockIndex> index;
  {
    const MutexLock lock(mutex_);
    index = std::move(index_);
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    BlockEntry entry{.id = blocks_[i].id, .size = blocks_[i].size, .layers = {}};
    HF_TRY(const FilePiece memory, AppendTable(index[i].memory));
    entry.layers.push_back(memory);
    if (!index[i].rewritten.empty()) {
      HF_TRY(const FilePiece rewritten, AppendTable(index[i].rewritten));
      entry.layers.push_back(rewritten);
    }
    directory.blocks.push_back(std::move(entry));
  }
  HF_TRY(const FilePiece piece, Append(EncodeDirectory(std::move(directory))));
  header_.directory_offset = piece.offset;
  header_.directory_size = piece.size;
  header_.directory_hash = piece.hash;
  header_.file_size = piece.offset + piece.size;
  // Nothing else says that the file is one, so it comes last.
  HF_TRY_STATUS(WriteAt(EncodeHeader(header_), 0));
  const std::string failed = fmt::format("the snapshot '{}' cannot be written", options_.path);
  if (::fsync(file_.get()) != 0) return FailErrno(failed);
  if (::rename(temporary_.c_str(), options_.path.c_str()) != 0) return FailErrno(failed);
  finished_ = true;
  return SyncFolder(FolderOf(options_.path));
}

}  // namespace holdfast::migration
