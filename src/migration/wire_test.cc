// SPDX-License-Identifier: Apache-2.0
#include "migration/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/hash.h"

namespace holdfast::migration {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kBlockSizes[] = {4 * kPageSize, 1 * kGiB};
constexpr std::uint64_t kMost64 = std::numeric_limits<std::uint64_t>::max();

// A number at its place, as in the tables of docs/formats/migration.md.
void Put(std::span<std::byte> bytes, std::size_t at, std::uint64_t value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
}

// The hash of all before it made right again, as whoever forges a message does.
void Seal(std::span<std::byte> bytes) {
  const std::size_t at = bytes.size() - 8;
  Put(bytes, at, Hash64(bytes.first(at)), 8);
}

template <typename T>
std::string Why(const Result<T>& result) {
  return result ? std::string("it was taken") : result.error().message();
}

// ---- Hello --------------------------------------------------------------------------------------

TEST(Wire, AHelloComesBackAsItWas) {
  for (const ChannelKind kind :
       {ChannelKind::kMain, ChannelKind::kPages, ChannelKind::kUrgent, ChannelKind::kRecover}) {
    Hello hello{.kind = kind, .index = 254};
    std::ranges::generate(hello.id, [n = std::uint8_t{0}]() mutable { return n += 3; });
    const auto decoded = DecodeHello(EncodeHello(hello));
    ASSERT_TRUE(decoded) << Why(decoded);
    EXPECT_EQ(decoded->kind, hello.kind);
    EXPECT_EQ(decoded->id, hello.id);
    EXPECT_EQ(decoded->index, hello.index);
  }
}

TEST(Wire, AHelloWithAnyByteChangedIsRefused) {
  for (std::size_t at = 0; at < Hello::kSize; ++at) {
    auto bytes = EncodeHello({.id = {1, 2, 3}});
    bytes[at] ^= std::byte{0x10};
    EXPECT_FALSE(DecodeHello(bytes)) << "byte " << at;
  }
}

TEST(Wire, AHelloThatCannotBeIsRefusedInASentence) {
  struct Case {
    std::size_t at;
    std::uint64_t value;
    Errc code;
    const char* says;
  };
  const Case cases[] = {
      {0, 0x0a0d4d4648, Errc::kMalformed, "no Holdfast that migrates"},
      {8, 2, Errc::kUnsupported, "speaks version 2"},
      {8, 0, Errc::kUnsupported, "speaks version 0"},
      {12, 4, Errc::kMalformed, "unknown kind 4"},
      {12, 0xffffffff, Errc::kMalformed, "unknown kind"},
      {32, 256, Errc::kMalformed, "impossible number"},
      {32, 0xffffffff, Errc::kMalformed, "impossible number"},
  };
  for (const Case& test : cases) {
    auto bytes = EncodeHello({});
    Put(bytes, test.at, test.value, 4);
    Seal(bytes);
    const auto hello = DecodeHello(bytes);
    ASSERT_FALSE(hello) << test.says;
    EXPECT_EQ(hello.error().code(), test.code) << test.says;
    EXPECT_THAT(Why(hello), HasSubstr(test.says));
  }
  const auto whole = EncodeHello({});
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(DecodeHello(std::span(whole).first(size))) << size;
}

// ---- Frames -------------------------------------------------------------------------------------

TEST(Wire, AFrameHeaderWithAnyByteChangedIsRefused) {
  const FrameHeader header{.type = FrameType::kConfig, .size = 300, .sequence = 7, .hash = 9};
  const auto good = EncodeFrameHeader(header);
  const auto decoded = DecodeFrameHeader(good, 7);
  ASSERT_TRUE(decoded) << Why(decoded);
  EXPECT_EQ(decoded->type, header.type);
  EXPECT_EQ(decoded->size, header.size);
  EXPECT_EQ(decoded->sequence, header.sequence);
  EXPECT_EQ(decoded->hash, header.hash);
  for (std::size_t at = 0; at < good.size(); ++at) {
    auto bytes = good;
    bytes[at] ^= std::byte{0x01};
    EXPECT_FALSE(DecodeFrameHeader(bytes, 7)) << "byte " << at;
  }
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(DecodeFrameHeader(std::span(good).first(size), 7)) << size;
}

TEST(Wire, AFrameHeaderThatCannotBeIsRefusedInASentence) {
  struct Case {
    std::size_t at;
    std::uint64_t value;
    std::size_t size;
    const char* says;
  };
  const Case cases[] = {
      {4, 0, 2, "unknown type 0"},
      {4, 9, 2, "unknown type 9"},
      {4, 33, 2, "unknown type 33"},
      {4, 0xffff, 2, "unknown type 65535"},
      {6, 1, 2, "a flag that is not known"},
      {12, 1, 4, "a flag that is not known"},
      {8, 0, 4, "with 0 bytes"},
      {8, 0xffffffff, 4, "with 4294967295 bytes"},
      {16, 6, 8, "frame 6 where 7 should be"},  // said again
      {16, 8, 8, "frame 8 where 7 should be"},  // left out
      {16, kMost64, 8, "where 7 should be"},
  };
  for (const Case& test : cases) {
    auto bytes = EncodeFrameHeader({.type = FrameType::kConfig, .size = 300, .sequence = 7});
    Put(bytes, test.at, test.value, test.size);
    Seal(bytes);
    EXPECT_THAT(Why(DecodeFrameHeader(bytes, 7)), HasSubstr(test.says));
  }
}

// The length of a frame is what memory is made for: each type has its own limits.
TEST(Wire, AFrameHasAsManyBytesAsItsTypeMayHave) {
  constexpr std::uint32_t kMostPages = 24 + 8 * 128 + 128 * 4096;
  struct Case {
    FrameType type;
    std::uint32_t least;
    std::uint32_t most;
  };
  const Case cases[] = {
      {FrameType::kConfig, 1, 64 << 20}, {FrameType::kPages, 32, kMostPages},
      {FrameType::kPassEnd, 8, 8},       {FrameType::kMissing, 24, 16 + (1 << 20)},
      {FrameType::kState, 1, 64 << 20},  {FrameType::kActivate, 0, 0},
      {FrameType::kRun, 0, 0},           {FrameType::kAlive, 0, 0},
      {FrameType::kAccepted, 0, 0},      {FrameType::kLoaded, 0, 0},
      {FrameType::kActive, 0, 0},        {FrameType::kRunning, 0, 0},
      {FrameType::kRequest, 48, 48},     {FrameType::kComplete, 0, 0},
      {FrameType::kResumed, 8, 8},       {FrameType::kError, 1, 4096},
  };
  const auto taken = [](FrameType type, std::uint32_t size) {
    return DecodeFrameHeader(EncodeFrameHeader({.type = type, .size = size}), 0).has_value();
  };
  for (const Case& test : cases) {
    const auto type = static_cast<unsigned>(test.type);
    EXPECT_TRUE(taken(test.type, test.least)) << "type " << type;
    EXPECT_TRUE(taken(test.type, test.most)) << "type " << type;
    EXPECT_FALSE(taken(test.type, test.most + 1)) << "type " << type;
    EXPECT_FALSE(taken(test.type, 0xffffffff)) << "type " << type;
    if (test.least != 0) {
      EXPECT_FALSE(taken(test.type, test.least - 1)) << "type " << type;
    }
  }
}

// ---- Pages --------------------------------------------------------------------------------------

TEST(Wire, TheHeadOfPagesSaysWhatTheFrameHolds) {
  const PagesHead good{.request = 5, .block = 1, .count = 2, .stored = kPageSize};
  constexpr std::uint32_t kFrame = PagesHead::kSize + 2 * 8 + kPageSize;
  const auto decoded = DecodePagesHead(EncodePagesHead(good), kFrame);
  ASSERT_TRUE(decoded) << Why(decoded);
  EXPECT_EQ(decoded->request, 5U);
  EXPECT_EQ(decoded->block, 1U);
  EXPECT_EQ(decoded->count, 2U);
  EXPECT_EQ(decoded->stored, kPageSize);

  struct Case {
    std::size_t at;
    std::uint32_t value;
    std::uint32_t frame;
    const char* says;
  };
  const Case cases[] = {
      {12, 0, kFrame, "a frame of 0 pages"},
      {12, 129, kFrame, "a frame of 129 pages"},
      {12, 0xffffffff, kFrame, "a frame of 4294967295 pages"},
      {12, 3, kFrame, "parts are not as long"},
      {16, 2, kFrame, "unknown encoding 2"},
      {20, kPageSize - 1, kFrame, "parts are not as long"},
      {20, 0xffffffff, kFrame, "parts are not as long"},
      // 24 + 8 * 2 + stored, were it counted in 32 bits.
      {20, 0xffffffff - 39, 0, "parts are not as long"},
      {20, kPageSize, kFrame + 1, "parts are not as long"},
      {20, kPageSize, kFrame - 1, "parts are not as long"},
  };
  for (const Case& test : cases) {
    auto bytes = EncodePagesHead(good);
    Put(bytes, test.at, test.value, 4);
    EXPECT_THAT(Why(DecodePagesHead(bytes, test.frame)), HasSubstr(test.says));
  }
  const auto whole = EncodePagesHead(good);
  EXPECT_FALSE(DecodePagesHead(std::span(whole).first(23), kFrame));
}

TEST(Wire, PagesAreInsideTheirBlockAndInOrder) {
  struct Case {
    std::vector<std::uint64_t> words;
    PagesHead::Encoding encoding;
    std::uint32_t stored;
    const char* says;  // null: they are good
  };
  constexpr auto kRaw = PagesHead::Encoding::kRaw;
  constexpr auto kZstd = PagesHead::Encoding::kZstd;
  constexpr std::uint32_t kPage = kPageSize;
  const Case cases[] = {
      {{0, 1 * kPageSize | kZeroPage, 3 * kPageSize}, kRaw, 2 * kPage, nullptr},
      {{kZeroPage, 1 * kPageSize | kZeroPage}, kRaw, 0, nullptr},
      {{0, 1 * kPageSize}, kZstd, 100, nullptr},
      {{4 * kPageSize}, kRaw, kPage, "a page at 0x4000"},
      {{kMost64 & ~kZeroPage}, kRaw, kPage, "where none can be"},
      {{kMost64 - kPageSize + 1}, kRaw, kPage, "where none can be"},
      {{0, kMost64 - kPageSize + 1, 0}, kRaw, 3 * kPage, "where none can be"},
      {{2}, kRaw, kPage, "a page at 0x2"},
      {{kPageSize + 8}, kRaw, kPage, "where none can be"},
      {{kPageSize, kPageSize}, kRaw, 2 * kPage, "a page at 0x1000"},
      {{kPageSize, kPageSize | kZeroPage}, kRaw, kPage, "a page at 0x1000"},
      {{2 * kPageSize, kPageSize}, kRaw, 2 * kPage, "a page at 0x1000"},
      {{0}, kRaw, 0, "more or less contents"},
      {{0}, kRaw, 2 * kPage, "more or less contents"},
      {{kZeroPage}, kRaw, kPage, "more or less contents"},
      {{0}, kZstd, 0, "more or less contents"},
      {{0}, kZstd, kPage, "more or less contents"},
      {{kZeroPage}, kZstd, 100, "more or less contents"},
      {{kZeroPage}, kZstd, 0, "more or less contents"},
  };
  for (const Case& test : cases) {
    const PagesHead head{.count = static_cast<std::uint32_t>(test.words.size()),
                         .encoding = test.encoding,
                         .stored = test.stored};
    const auto words = DecodePageWords(EncodePageWords(test.words), head, kBlockSizes[0]);
    if (test.says == nullptr) {
      ASSERT_TRUE(words) << Why(words);
      EXPECT_EQ(*words, test.words);
    } else {
      EXPECT_THAT(Why(words), HasSubstr(test.says));
    }
  }
}

TEST(Wire, ARequestIsForPagesThatExist) {
  const PageRequest good{
      .id = 3, .block = 0, .count = 2, .offset = 2 * kPageSize, .urgent = true, .wanted = {3, 0}};
  const auto decoded = DecodeRequest(EncodeRequest(good), kBlockSizes);
  ASSERT_TRUE(decoded) << Why(decoded);
  EXPECT_EQ(decoded->id, good.id);
  EXPECT_EQ(decoded->block, good.block);
  EXPECT_EQ(decoded->count, good.count);
  EXPECT_EQ(decoded->offset, good.offset);
  EXPECT_TRUE(decoded->urgent);
  EXPECT_EQ(decoded->wanted, good.wanted);

  struct Case {
    std::size_t at;
    std::uint64_t value;
    std::size_t size;
    const char* says;
  };
  const Case cases[] = {
      {0, 0, 8, "damaged"},
      {8, 2, 4, "the memory 2, which does not exist"},
      {8, 0xffffffff, 4, "which does not exist"},
      {12, 0, 4, "for 0 pages"},
      {12, 3, 4, "for 3 pages at 0x2000"},
      {12, 129, 4, "for 129 pages"},
      {12, 0xffffffff, 4, "where they cannot be"},
      {16, kPageSize + 1, 8, "where they cannot be"},
      {16, 4 * kPageSize, 8, "where they cannot be"},
      {16, kMost64 - kPageSize + 1, 8, "where they cannot be"},
      {24, 2, 8, "damaged"},
      {24, 1ULL << 32, 8, "damaged"},
      {32, 0, 8, "for no page"},
      {32, 4, 8, "beyond its end"},
      {40, 1ULL << 63, 8, "beyond its end"},
  };
  for (const Case& test : cases) {
    auto bytes = EncodeRequest(good);
    Put(bytes, test.at, test.value, test.size);
    EXPECT_THAT(Why(DecodeRequest(bytes, kBlockSizes)), HasSubstr(test.says)) << test.at;
  }
  const auto whole = EncodeRequest(good);
  EXPECT_FALSE(DecodeRequest(std::span(whole).first(47), kBlockSizes));
  EXPECT_FALSE(DecodeRequest(EncodeRequest(good), {}));
}

TEST(Wire, MissingPagesLieInTheirBlock) {
  const MissingPages good{.block = 0, .first = 1, .words = {0b111, 0}};
  const auto decoded = DecodeMissing(EncodeMissing(good), kBlockSizes);
  ASSERT_TRUE(decoded) << Why(decoded);
  EXPECT_EQ(decoded->block, good.block);
  EXPECT_EQ(decoded->first, good.first);
  EXPECT_EQ(decoded->words, good.words);

  const MissingPages wrong[] = {
      {.block = 2, .first = 0, .words = {1}},
      {.block = 0xffffffff, .first = 0, .words = {1}},
      {.block = 0, .first = 0, .words = {0b10000}},
      {.block = 0, .first = 1, .words = {0b1000}},
      {.block = 0, .first = 4, .words = {1}},
      {.block = 0, .first = 0, .words = {1, 1}},
      {.block = 0, .first = kMost64, .words = {0b10}},
      {.block = 0, .first = kMost64 - 63, .words = {0, 1}},
      {.block = 0, .first = 0, .words = {}},
  };
  for (const MissingPages& missing : wrong) {
    EXPECT_FALSE(DecodeMissing(EncodeMissing(missing), kBlockSizes))
        << missing.block << " " << missing.first;
  }
  auto flag = EncodeMissing(good);
  flag[4] = std::byte{1};
  EXPECT_FALSE(DecodeMissing(flag, kBlockSizes));
  const auto whole = EncodeMissing(good);
  EXPECT_FALSE(DecodeMissing(std::span(whole).first(whole.size() - 1), kBlockSizes));
  EXPECT_FALSE(DecodeMissing({}, kBlockSizes));
}

// ---- What is made of fields ---------------------------------------------------------------------

MigrationConfig Config() {
  return {.creator = "holdfast 9",
          .name = "vm",
          .uuid = "u",
          .page_channels = 4,
          .postcopy = true,
          .urgent_channel = true,
          .postcopy_bandwidth = 1000,
          .blocks = {{"pc.ram", kGiB}, {"pc.rom", kPageSize}},
          .sections = {{"rtc", 3, {std::byte{7}}}}};
}

TEST(Wire, AConfigurationComesBackAsItWas) {
  const auto bytes = EncodeConfig(Config());
  const auto decoded = DecodeConfig(bytes);
  ASSERT_TRUE(decoded) << Why(decoded);
  EXPECT_EQ(decoded->creator, "holdfast 9");
  EXPECT_EQ(decoded->page_channels, 4U);
  EXPECT_TRUE(decoded->postcopy);
  EXPECT_EQ(decoded->blocks.at(1).id, "pc.rom");
  EXPECT_EQ(decoded->blocks[1].size, kPageSize);
  EXPECT_EQ(decoded->sections.at(0).version, 3U);
  EXPECT_EQ(EncodeConfig(*decoded), bytes);
}

TEST(Wire, AConfigurationThatCannotBeIsRefused) {
  struct Case {
    const char* what;
    void (*change)(MigrationConfig&);
  };
  const Case cases[] = {
      {"too many connections", [](MigrationConfig& c) { c.page_channels = 256; }},
      {"too many connections", [](MigrationConfig& c) { c.page_channels = 0xffffffff; }},
      {"multiple of a page", [](MigrationConfig& c) { c.blocks[0].size = 0; }},
      {"multiple of a page", [](MigrationConfig& c) { c.blocks[0].size = kPageSize + 1; }},
      {"blocks", [](MigrationConfig& c) { c.blocks.assign(65, {"b", kPageSize}); }},
      {"sections", [](MigrationConfig& c) { c.sections.assign(4097, {"s", 1, {}}); }},
      {"name", [](MigrationConfig& c) { c.name.assign(4097, 'x'); }},
      {"bytes", [](MigrationConfig& c) { c.sections[0].bytes.resize((16 << 20) + 1); }},
  };
  for (const Case& test : cases) {
    MigrationConfig config = Config();
    test.change(config);
    EXPECT_THAT(Why(DecodeConfig(EncodeConfig(config))), HasSubstr(test.what));
  }
  const auto whole = EncodeConfig(Config());
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(DecodeConfig(std::span(whole).first(size))) << size;
  auto more = whole;
  more.push_back(std::byte{0});
  EXPECT_THAT(Why(DecodeConfig(more)), HasSubstr("left over"));
}

TEST(Wire, AStateCutShortAnywhereIsRefused) {
  const auto whole = EncodeSections({{"rtc", 3, {std::byte{7}}}, {"cpu", 1, {}}});
  const auto decoded = DecodeSections(whole);
  ASSERT_TRUE(decoded) << Why(decoded);
  ASSERT_EQ(decoded->size(), 2U);
  EXPECT_EQ(decoded->at(1).name, "cpu");
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(DecodeSections(std::span(whole).first(size))) << size;
}

TEST(Wire, ANumberHasEightBytes) {
  EXPECT_EQ(DecodeNumber(EncodeNumber(kMost64 - 1)).value(), kMost64 - 1);
  const auto whole = EncodeNumber(1);
  EXPECT_FALSE(DecodeNumber(std::span(whole).first(7)));
  EXPECT_FALSE(DecodeNumber({}));
}

}  // namespace
}  // namespace holdfast::migration
