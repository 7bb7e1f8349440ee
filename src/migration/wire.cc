// SPDX-License-Identifier: Apache-2.0
#include "migration/wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>

#include "base/hash.h"

namespace holdfast::migration {
namespace {

constexpr std::uint64_t kHelloMagic = 0x0a'1a'0a'0d'4d'46'48'89;  // 89 'H' 'F' 'M' \r \n 1a \n
constexpr std::uint32_t kFrameMagic = 0x6d'72'66'48;              // "Hfrm"
constexpr std::size_t kMostBlocks = 64;
constexpr std::size_t kMostSections = 4096;
constexpr std::size_t kMostText = 4096;
constexpr std::uint32_t kMostSectionBytes = 16 * 1024 * 1024;
constexpr std::uint32_t kMostStateBytes = 64 * 1024 * 1024;
constexpr std::uint32_t kMostErrorBytes = 4096;
constexpr std::uint32_t kMostPageChannels = 255;

// Numbers are little-endian, and put where the tables of docs/formats/migration.md say.
void Put(std::span<std::byte> out, std::size_t at, std::uint64_t value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) out[at + i] = static_cast<std::byte>(value >> (8 * i));
}
std::uint64_t Get(std::span<const std::byte> in, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i)
    value |= std::to_integer<std::uint64_t>(in[at + i]) << (8 * i);
  return value;
}
std::uint32_t Get32(std::span<const std::byte> in, std::size_t at) {
  return static_cast<std::uint32_t>(Get(in, at, 4));
}

tl::unexpected<Error> Malformed(std::string_view what) {
  return Fail(Errc::kMalformed, fmt::format("the other side of the migration sent {}", what));
}

struct Sizes {
  std::uint32_t least;
  std::uint32_t most;
};

// What a frame's payload may have; the way to refuse a length before anything is made for it.
std::optional<Sizes> SizesOf(FrameType type) {
  constexpr auto kExact = [](std::size_t size) {
    const auto bytes = static_cast<std::uint32_t>(size);
    return Sizes{bytes, bytes};
  };
  switch (type) {
    case FrameType::kConfig:
    case FrameType::kState:
      return Sizes{1, kMostStateBytes};
    case FrameType::kPages:
      return Sizes{PagesHead::kSize + 8,
                   static_cast<std::uint32_t>(PagesHead::kSize + std::size_t{8} * kMostFramePages +
                                              kMostFrameBytes)};
    case FrameType::kMissing:
      return Sizes{
          MissingPages::kHeadSize + 8,
          static_cast<std::uint32_t>(MissingPages::kHeadSize + MissingPages::kMostPages / 8)};
    case FrameType::kPassEnd:
    case FrameType::kResumed:
      return kExact(8);
    case FrameType::kRequest:
      return kExact(PageRequest::kSize);
    case FrameType::kActivate:
    case FrameType::kRun:
    case FrameType::kAlive:
    case FrameType::kAccepted:
    case FrameType::kLoaded:
    case FrameType::kActive:
    case FrameType::kRunning:
    case FrameType::kComplete:
      return kExact(0);
    case FrameType::kError:
      return Sizes{1, kMostErrorBytes};
  }
  return std::nullopt;
}

void VisitSections(state::Fields& fields, std::vector<state::SavedSection>& sections) {
  fields.List("sections", sections, kMostSections,
              [](state::Fields& inner, state::SavedSection& section) {
                inner.Text("name", section.name, kMostText);
                inner.Value("version", section.version);
                inner.Blob("bytes", section.bytes, kMostSectionBytes);
              });
}

void VisitConfig(state::Fields& fields, MigrationConfig& config) {
  fields.Text("creator", config.creator, kMostText);
  fields.Text("name", config.name, kMostText);
  fields.Text("uuid", config.uuid, kMostText);
  fields.Value("page-channels", config.page_channels);
  fields.Check(config.page_channels <= kMostPageChannels, "it has too many connections");
  fields.Value("postcopy", config.postcopy);
  fields.Value("urgent-channel", config.urgent_channel);
  fields.Value("postcopy-bandwidth", config.postcopy_bandwidth);
  fields.List("blocks", config.blocks, kMostBlocks,
              [](state::Fields& inner, MigrationConfig::Block& block) {
                inner.Text("id", block.id, kMostText);
                inner.Value("size", block.size);
                inner.Check(block.size != 0 && block.size % kPageSize == 0,
                            "a memory is not a multiple of a page");
              });
  VisitSections(fields, config.sections);
}

constexpr std::uint32_t kFieldsVersion = 1;

template <typename T, typename Visit>
std::vector<std::byte> EncodeFields(T& value, Visit&& visit) {
  state::Fields fields(kFieldsVersion);
  visit(fields, value);
  return std::move(fields).Take();
}

template <typename T, typename Visit>
Result<T> DecodeFields(std::span<const std::byte> bytes, std::string_view what, Visit&& visit) {
  T value;
  state::Fields fields(kFieldsVersion, bytes);
  visit(fields, value);
  if (auto status = fields.status(); !status)
    return Malformed(fmt::format("{} that is damaged: {}", what, status.error().message()));
  return value;
}

}  // namespace

// ---- Hello --------------------------------------------------------------------------------------

// 0 magic, 8 version, 12 kind, 16 id, 32 index, 36 zeroes, 56 hash of what is before it.
std::array<std::byte, Hello::kSize> EncodeHello(const Hello& hello) {
  std::array<std::byte, Hello::kSize> bytes{};
  Put(bytes, 0, kHelloMagic, 8);
  Put(bytes, 8, kWireVersion, 4);
  Put(bytes, 12, static_cast<std::uint32_t>(hello.kind), 4);
  std::ranges::copy(std::as_bytes(std::span(hello.id)), bytes.begin() + 16);
  Put(bytes, 32, hello.index, 4);
  Put(bytes, 56, Hash64(std::span(bytes).first(56)), 8);
  return bytes;
}

Result<Hello> DecodeHello(std::span<const std::byte> bytes) {
  if (bytes.size() != Hello::kSize || Get(bytes, 0, 8) != kHelloMagic) {
    return Fail(Errc::kMalformed, "what connects is no Holdfast that migrates",
                "Both sides have to be Holdfast, and both with TLS or both without.");
  }
  // Before the hash, whose place another version may have changed.
  if (const std::uint32_t version = Get32(bytes, 8); version != kWireVersion) {
    return Fail(Errc::kUnsupported,
                fmt::format("the other side of the migration speaks version {} of the protocol and "
                            "this one {}",
                            version, kWireVersion),
                "Take releases that follow each other.");
  }
  if (Get(bytes, 56, 8) != Hash64(bytes.first(56))) return Malformed("a damaged greeting");
  const std::uint32_t kind = Get32(bytes, 12);
  if (kind > static_cast<std::uint32_t>(ChannelKind::kRecover))
    return Malformed(fmt::format("a connection of the unknown kind {}", kind));
  Hello hello{.kind = static_cast<ChannelKind>(kind), .index = Get32(bytes, 32)};
  std::ranges::copy(bytes.subspan(16, hello.id.size()),
                    std::as_writable_bytes(std::span(hello.id)).begin());
  if (hello.index > kMostPageChannels) return Malformed("a connection with an impossible number");
  return hello;
}

// ---- Frames -------------------------------------------------------------------------------------

// 0 magic, 4 type, 6 zero, 8 size, 12 zero, 16 sequence, 24 hash of the payload, 32 hash of what is
// before it.
std::array<std::byte, FrameHeader::kSize> EncodeFrameHeader(const FrameHeader& header) {
  std::array<std::byte, FrameHeader::kSize> bytes{};
  Put(bytes, 0, kFrameMagic, 4);
  Put(bytes, 4, static_cast<std::uint16_t>(header.type), 2);
  Put(bytes, 8, header.size, 4);
  Put(bytes, 16, header.sequence, 8);
  Put(bytes, 24, header.hash, 8);
  Put(bytes, 32, Hash64(std::span(bytes).first(32)), 8);
  return bytes;
}

Result<FrameHeader> DecodeFrameHeader(std::span<const std::byte> bytes, std::uint64_t sequence) {
  if (bytes.size() != FrameHeader::kSize || Get32(bytes, 0) != kFrameMagic ||
      Get(bytes, 32, 8) != Hash64(bytes.first(32))) {
    return Malformed("a damaged frame");
  }
  const FrameHeader header{.type = static_cast<FrameType>(Get(bytes, 4, 2)),
                           .size = Get32(bytes, 8),
                           .sequence = Get(bytes, 16, 8),
                           .hash = Get(bytes, 24, 8)};
  if (Get(bytes, 6, 2) != 0 || Get(bytes, 12, 4) != 0)
    return Malformed("a frame with a flag that is not known");
  if (header.sequence != sequence) {
    return Malformed(fmt::format("frame {} where {} should be", header.sequence, sequence));
  }
  const auto type = static_cast<std::uint16_t>(header.type);
  const auto sizes = SizesOf(header.type);
  if (!sizes) return Malformed(fmt::format("a frame of the unknown type {}", type));
  if (header.size < sizes->least || header.size > sizes->most) {
    return Malformed(fmt::format("a frame of type {} with {} bytes; it has {} to {}", type,
                                 header.size, sizes->least, sizes->most));
  }
  return header;
}

// ---- Pages --------------------------------------------------------------------------------------

// 0 request, 8 block, 12 count, 16 encoding, 20 stored.
std::array<std::byte, PagesHead::kSize> EncodePagesHead(const PagesHead& head) {
  std::array<std::byte, PagesHead::kSize> bytes{};
  Put(bytes, 0, head.request, 8);
  Put(bytes, 8, head.block, 4);
  Put(bytes, 12, head.count, 4);
  Put(bytes, 16, static_cast<std::uint32_t>(head.encoding), 4);
  Put(bytes, 20, head.stored, 4);
  return bytes;
}

Result<PagesHead> DecodePagesHead(std::span<const std::byte> bytes, std::uint32_t frame_size) {
  if (bytes.size() != PagesHead::kSize) return Malformed("a frame of pages that is too short");
  const std::uint32_t encoding = Get32(bytes, 16);
  const PagesHead head{.request = Get(bytes, 0, 8),
                       .block = Get32(bytes, 8),
                       .count = Get32(bytes, 12),
                       .encoding = static_cast<PagesHead::Encoding>(encoding),
                       .stored = Get32(bytes, 20)};
  if (head.count == 0 || head.count > kMostFramePages)
    return Malformed(fmt::format("a frame of {} pages", head.count));
  if (encoding > static_cast<std::uint32_t>(PagesHead::Encoding::kZstd))
    return Malformed(fmt::format("pages in the unknown encoding {}", encoding));
  if (head.stored > kMostFrameBytes ||
      frame_size != PagesHead::kSize + std::uint64_t{8} * head.count + head.stored) {
    return Malformed("a frame of pages whose parts are not as long as it is");
  }
  return head;
}

Result<std::vector<std::uint64_t>> DecodePageWords(std::span<const std::byte> bytes,
                                                   const PagesHead& head,
                                                   std::uint64_t block_size) {
  std::vector<std::uint64_t> words(head.count);
  std::uint64_t with_contents = 0;
  std::uint64_t least = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::uint64_t word = Get(bytes, 8 * i, 8);
    const std::uint64_t offset = word & ~kZeroPage;
    if (offset % kPageSize != 0 || offset < least || offset >= block_size)
      return Malformed(fmt::format("a page at {:#x}, where none can be", offset));
    if ((word & kZeroPage) == 0) ++with_contents;
    words[i] = word;
    least = offset + kPageSize;
  }
  const std::uint64_t bytes_of_them = with_contents * kPageSize;
  const bool fits = head.encoding == PagesHead::Encoding::kRaw
                        ? head.stored == bytes_of_them
                        : head.stored != 0 && head.stored < bytes_of_them;
  if (!fits) return Malformed("a frame with more or less contents than its pages have");
  return words;
}

std::vector<std::byte> EncodePageWords(std::span<const std::uint64_t> words) {
  std::vector<std::byte> bytes(8 * words.size());
  for (std::size_t i = 0; i < words.size(); ++i) Put(bytes, 8 * i, words[i], 8);
  return bytes;
}

// 0 id, 8 block, 12 count, 16 offset, 24 urgent, 32 wanted.
std::array<std::byte, PageRequest::kSize> EncodeRequest(const PageRequest& request) {
  std::array<std::byte, PageRequest::kSize> bytes{};
  Put(bytes, 0, request.id, 8);
  Put(bytes, 8, request.block, 4);
  Put(bytes, 12, request.count, 4);
  Put(bytes, 16, request.offset, 8);
  Put(bytes, 24, request.urgent ? 1 : 0, 8);
  for (std::size_t i = 0; i < request.wanted.size(); ++i)
    Put(bytes, 32 + 8 * i, request.wanted[i], 8);
  return bytes;
}

Result<PageRequest> DecodeRequest(std::span<const std::byte> bytes,
                                  std::span<const std::uint64_t> block_sizes) {
  if (bytes.size() != PageRequest::kSize) return Malformed("a request of the wrong size");
  PageRequest request{.id = Get(bytes, 0, 8),
                      .block = Get32(bytes, 8),
                      .count = Get32(bytes, 12),
                      .offset = Get(bytes, 16, 8)};
  const std::uint64_t urgent = Get(bytes, 24, 8);
  request.urgent = urgent != 0;
  for (std::size_t i = 0; i < request.wanted.size(); ++i)
    request.wanted[i] = Get(bytes, 32 + 8 * i, 8);
  if (request.id == 0 || urgent > 1) return Malformed("a request that is damaged");
  if (request.block >= block_sizes.size())
    return Malformed(
        fmt::format("a request for the memory {}, which does not exist", request.block));
  const std::uint64_t size = block_sizes[request.block];
  if (request.count == 0 || request.count > kMostFramePages || request.offset % kPageSize != 0 ||
      request.offset >= size || request.count > (size - request.offset) / kPageSize) {
    return Malformed(fmt::format("a request for {} pages at {:#x}, where they cannot be",
                                 request.count, request.offset));
  }
  bool any = false;
  for (std::uint32_t page = 0; page < kMostFramePages; ++page) {
    if ((request.wanted[page / 64] >> page % 64 & 1) == 0) continue;
    if (page >= request.count) return Malformed("a request for pages beyond its end");
    any = true;
  }
  if (!any) return Malformed("a request for no page");
  return request;
}

// ---- What is made of fields ---------------------------------------------------------------------

std::vector<std::byte> EncodeConfig(MigrationConfig config) {
  return EncodeFields(config, VisitConfig);
}
Result<MigrationConfig> DecodeConfig(std::span<const std::byte> bytes) {
  return DecodeFields<MigrationConfig>(bytes, "a configuration", VisitConfig);
}
std::vector<std::byte> EncodeSections(std::vector<state::SavedSection> sections) {
  return EncodeFields(sections, VisitSections);
}
Result<std::vector<state::SavedSection>> DecodeSections(std::span<const std::byte> bytes) {
  return DecodeFields<std::vector<state::SavedSection>>(bytes, "a state", VisitSections);
}

std::array<std::byte, 8> EncodeNumber(std::uint64_t number) {
  std::array<std::byte, 8> bytes{};
  Put(bytes, 0, number, 8);
  return bytes;
}
Result<std::uint64_t> DecodeNumber(std::span<const std::byte> bytes) {
  if (bytes.size() != 8) return Malformed("a number of the wrong size");
  return Get(bytes, 0, 8);
}

// 0 block, 4 zero, 8 first page, 16 words.
std::vector<std::byte> EncodeMissing(const MissingPages& missing) {
  std::vector<std::byte> bytes(MissingPages::kHeadSize + 8 * missing.words.size());
  Put(bytes, 0, missing.block, 4);
  Put(bytes, 8, missing.first, 8);
  for (std::size_t i = 0; i < missing.words.size(); ++i)
    Put(bytes, MissingPages::kHeadSize + 8 * i, missing.words[i], 8);
  return bytes;
}

Result<MissingPages> DecodeMissing(std::span<const std::byte> bytes,
                                   std::span<const std::uint64_t> block_sizes) {
  if (bytes.size() <= MissingPages::kHeadSize || bytes.size() % 8 != 0)
    return Malformed("a list of missing pages of the wrong size");
  MissingPages missing{.block = Get32(bytes, 0), .first = Get(bytes, 8, 8)};
  if (missing.block >= block_sizes.size() || Get32(bytes, 4) != 0)
    return Malformed("missing pages of a memory that does not exist");
  const std::uint64_t pages = block_sizes[missing.block] / kPageSize;
  missing.words.resize((bytes.size() - MissingPages::kHeadSize) / 8);
  for (std::size_t i = 0; i < missing.words.size(); ++i) {
    const std::uint64_t word = Get(bytes, MissingPages::kHeadSize + 8 * i, 8);
    missing.words[i] = word;
    if (word == 0) continue;
    const auto last = static_cast<std::uint64_t>(63 - std::countl_zero(word));
    if (missing.first >= pages || i * 64 + last >= pages - missing.first)
      return Malformed("missing pages beyond a memory's end");
  }
  return missing;
}

}  // namespace holdfast::migration
