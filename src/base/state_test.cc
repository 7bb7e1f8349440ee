// SPDX-License-Identifier: Apache-2.0
#include "base/state.h"

#include <gtest/gtest.h>

#include <array>

namespace holdfast::state {
namespace {

enum class Colour : std::uint8_t { kRed, kGreen };

struct Part {
  std::uint16_t id = 0;
  bool on = false;
};

// A device with a field of each kind.
struct Thing {
  std::uint8_t small = 0;
  std::int64_t offset = 0;
  bool flag = false;
  Colour colour = Colour::kRed;
  std::array<std::byte, 4> registers{};
  std::vector<std::byte> queue;
  std::string label;
  std::vector<Part> parts;
  std::uint32_t later = 77;

  void Visit(Fields& fields) {
    fields.Value("small", small);
    fields.Value("offset", offset);
    fields.Value("flag", flag);
    fields.Enum("colour", colour, Colour::kGreen);
    fields.Bytes("registers", registers);
    fields.Blob("queue", queue, 16);
    fields.Text("label", label, 16);
    fields.List("parts", parts, 4, [](Fields& inner, Part& part) {
      inner.Value("id", part.id);
      inner.Value("on", part.on);
    });
    fields.Value("later", later, Since{2});
  }
  Section section(std::uint32_t version = 2) {
    return {
        .name = "thing", .version = version, .visit = [this](Fields& fields) { Visit(fields); }};
  }
};

Thing Example() {
  return {.small = 200,
          .offset = -5,
          .flag = true,
          .colour = Colour::kGreen,
          .registers = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}},
          .queue = {std::byte{9}, std::byte{8}},
          .label = "disk0",
          .parts = {{1, true}, {2, false}},
          .later = 5};
}

std::vector<SavedSection> SavedExample(std::uint32_t version = 2) {
  Thing thing = Example();
  const std::vector<Section> sections{thing.section(version)};
  return Save(sections).value();
}

Status LoadInto(Thing& thing, const std::vector<SavedSection>& saved) {
  const std::vector<Section> sections{thing.section()};
  return Load(sections, saved);
}

TEST(State, EveryKindOfFieldComesBackAsItWas) {
  Thing loaded;
  ASSERT_TRUE(LoadInto(loaded, SavedExample()));
  EXPECT_EQ(loaded.small, 200);
  EXPECT_EQ(loaded.offset, -5);
  EXPECT_TRUE(loaded.flag);
  EXPECT_EQ(loaded.colour, Colour::kGreen);
  EXPECT_EQ(loaded.registers, Example().registers);
  EXPECT_EQ(loaded.queue, Example().queue);
  EXPECT_EQ(loaded.label, "disk0");
  ASSERT_EQ(loaded.parts.size(), 2U);
  EXPECT_EQ(loaded.parts[1].id, 2);
  EXPECT_TRUE(loaded.parts[0].on);
  EXPECT_EQ(loaded.later, 5U);
}

TEST(State, AFieldThatAnOlderStreamLacksKeepsItsDefault) {
  Thing loaded;
  ASSERT_TRUE(LoadInto(loaded, SavedExample(1)));
  EXPECT_EQ(loaded.label, "disk0");
  EXPECT_EQ(loaded.later, 77U);
}

TEST(State, EverySectionCutShortIsRefused) {
  const std::vector<SavedSection> whole = SavedExample();
  for (std::size_t size = 0; size < whole[0].bytes.size(); ++size) {
    std::vector<SavedSection> cut = whole;
    cut[0].bytes.resize(size);
    Thing loaded;
    const Status status = LoadInto(loaded, cut);
    ASSERT_FALSE(status) << size;
    EXPECT_EQ(status.error().code(), Errc::kMalformed);
    EXPECT_NE(status.error().message().find("section 'thing'"), std::string::npos);
  }
}

TEST(State, BytesThatNobodyReadsAreRefused) {
  std::vector<SavedSection> longer = SavedExample();
  longer[0].bytes.push_back(std::byte{0});
  Thing loaded;
  const Status status = LoadInto(loaded, longer);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "section 'thing': 1 bytes are left over");
}

TEST(State, AFlippedByteIsRefusedOrGivesAnotherValueButNeverMore) {
  const std::vector<SavedSection> whole = SavedExample();
  for (std::size_t at = 0; at < whole[0].bytes.size(); ++at) {
    std::vector<SavedSection> flipped = whole;
    flipped[0].bytes[at] ^= std::byte{0xff};
    Thing loaded;
    (void)LoadInto(loaded, flipped);
    EXPECT_LE(loaded.parts.size(), 4U) << at;
    EXPECT_LE(loaded.queue.size(), 16U) << at;
    EXPECT_LE(loaded.colour, Colour::kGreen) << at;
  }
}

TEST(State, ANumberThatDoesNotFitIsRefusedByName) {
  std::uint64_t large = 256;
  const std::vector<Section> writer{
      {.name = "thing", .visit = [&](Fields& fields) { fields.Value("small", large); }}};
  std::uint8_t small = 3;
  const std::vector<Section> reader{
      {.name = "thing", .visit = [&](Fields& fields) { fields.Value("small", small); }}};
  const Status status = Load(reader, Save(writer).value());
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(),
            "section 'thing': field 'small' has the impossible value 256");
  EXPECT_EQ(small, 3);
}

TEST(State, MachinesOfDifferentPartsAreToldApartBeforeAnythingIsLoaded) {
  std::uint8_t a = 1;
  const auto one = [&a](std::string name, std::uint32_t version = 1) {
    return Section{.name = std::move(name), .version = version, .visit = [&a](Fields& fields) {
                     fields.Value("a", a);
                   }};
  };
  const std::vector<Section> here{one("rtc"), one("serial")};
  struct Case {
    const char* what;
    std::vector<Section> saved;
    const char* says;
  };
  const Case cases[] = {
      {"missing", {one("rtc")}, "the state has no section 'serial', which this machine needs"},
      {"more",
       {one("rtc"), one("serial"), one("disk")},
       "the state has a section 'disk', which this machine has not"},
      {"newer",
       {one("rtc", 2), one("serial")},
       "section 'rtc' has version 2; versions 1 to 1 are known"},
      {"twice", {one("rtc"), one("rtc"), one("serial")}, "the state has section 'rtc' twice"},
  };
  for (const Case& test : cases) {
    a = 7;
    const auto saved = Save(test.saved).value();
    a = 1;
    const Status status = Load(here, saved);
    ASSERT_FALSE(status) << test.what;
    EXPECT_EQ(status.error().message(), test.says);
    EXPECT_EQ(a, 1) << test.what;
  }
}

}  // namespace
}  // namespace holdfast::state
