// SPDX-License-Identifier: Apache-2.0
#include "object/property.h"

#include <gtest/gtest.h>

#include <array>

namespace holdfast::object {
namespace {

enum class Colour : std::uint8_t { kRed, kGreen };
constexpr std::array<std::string_view, 2> kColours = {"red", "green"};
constexpr std::array<std::string_view, 1> kQemuOnly = {"prealloc"};

struct Thing {
  bool flag = false;
  std::uint64_t size = 0;
  std::uint8_t small = 0;
  std::string name;
  Colour colour = Colour::kRed;
  std::vector<std::uint64_t> list;
};

constexpr Property<Thing> kThing[] = {
    {{.name = "flag", .type = PropertyType::kBool, .default_text = "off", .description = "a flag"},
     SetField<&Thing::flag>},
    {{.name = "size", .type = PropertyType::kSize}, SetField<&Thing::size>},
    {{.name = "small", .type = PropertyType::kUint, .max = 255}, SetField<&Thing::small>},
    {{.name = "name"}, SetField<&Thing::name>},
    {{.name = "colour", .type = PropertyType::kEnum, .choices = kColours},
     SetField<&Thing::colour>},
    {{.name = "fixed", .type = PropertyType::kEnum, .choices = std::span(kColours).first(1)},
     nullptr},
    {{.name = "list", .type = PropertyType::kUint16List},
     SetField<&Thing::list>,
     GetField<&Thing::list>},
};

Result<Thing> Parse(std::string_view text) {
  Thing thing;
  HF_TRY(const KeyValues values, ParseKeyValues(text));
  HF_TRY_STATUS(SetProperties<Thing>(kThing, kQemuOnly, thing, values));
  return thing;
}

TEST(PropertyTest, EachTypeIsStoredInItsField) {
  const auto thing = Parse("flag,size=1.5k,small=0x10,name=a,,b,colour=green,fixed=red");
  ASSERT_TRUE(thing);
  EXPECT_TRUE(thing->flag);
  EXPECT_EQ(thing->size, 1536U);
  EXPECT_EQ(thing->small, 16);
  EXPECT_EQ(thing->name, "a,b");
  EXPECT_EQ(thing->colour, Colour::kGreen);
}

TEST(PropertyTest, BooleansHaveQemusWords) {
  for (const char* on : {"on", "yes", "true", "y"}) {
    EXPECT_TRUE(Parse(std::string("flag=") + on)->flag);
  }
  for (const char* off : {"off", "no", "false", "n"}) {
    EXPECT_FALSE(Parse(std::string("flag=") + off)->flag);
  }
}

TEST(PropertyTest, BadValuesAreRefusedInQemusWords) {
  const struct {
    const char* text;
    const char* message;
  } cases[] = {
      {"flag=maybe", "Parameter 'flag' expects 'on' or 'off'"},
      {"flag=", "Parameter 'flag' expects 'on' or 'off'"},
      {"size=-1", "Parameter 'size' expects a size value"},
      {"size=abc", "Parameter 'size' expects a size value"},
      {"size=", "Parameter 'size' expects a size value"},
      {"size=99999999999999999999", "Parameter 'size' expects a size value"},
      {"size", "Expected '=' after parameter 'size'"},
      {"small=x", "Parameter 'small' expects a uint64 value"},
      {"small=0x", "Parameter 'small' expects a uint64 value"},
      {"small=-1", "Parameter 'small' expects a uint64 value"},
      {"small=256", "Value '256' is out of range for parameter 'small'"},
      {"colour=blue", "Parameter 'colour' does not accept value 'blue'"},
      {"list=x", "Parameter 'list' expects a uint64 value or range"},
      {"list=", "Parameter 'list' expects a uint64 value or range"},
      {"list=3-1", "Parameter 'list' expects a uint64 value or range"},
      {"list=1-", "Parameter 'list' expects a uint64 value or range"},
      {"list=-1", "Parameter 'list' expects a uint64 value or range"},
      {"list=70000", "Parameter 'null' expects uint16_t"},
      {"list=0-18446744073709551615", "Parameter 'null' expects uint16_t"},
      {"fixed=green", "Parameter 'fixed' does not accept value 'green'"},
      {"prealloc=on", "QEMU has the parameter 'prealloc', Holdfast does not have it yet"},
      {"zzz=1", "Invalid parameter 'zzz'"},
  };
  for (const auto& c : cases) {
    const auto thing = Parse(c.text);
    ASSERT_FALSE(thing) << c.text;
    EXPECT_EQ(thing.error().message(), c.message) << c.text;
  }
  EXPECT_EQ(Parse("siez=1").error().hint(), "Did you mean 'size'?");
}

TEST(PropertyTest, AListIsANumberOrARange) {
  using List = std::vector<std::uint64_t>;
  EXPECT_EQ(Parse("list=7")->list, List({7}));
  EXPECT_EQ(Parse("list=0-3")->list, List({0, 1, 2, 3}));
  const Property<Thing>& list = kThing[6];
  EXPECT_EQ(list.get(*Parse("list=65535")), PropertyValue(List({65535})));
  EXPECT_EQ(FormatProperty(list, PropertyValue(List({0, 2}))), "0,2");
}

TEST(PropertyTest, HelpShowsTypeDescriptionAndDefault) {
  const std::string text = DescribeProperties<Thing>("thing", kThing);
  EXPECT_TRUE(
      text.starts_with("thing options:\n  flag=<bool>              - a flag (default: off)\n"))
      << text;
  EXPECT_NE(text.find("colour=<red|green>"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::object
