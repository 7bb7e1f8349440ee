// SPDX-License-Identifier: Apache-2.0
#include "apps/qmp_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::ElementsAre;

QmpTypes Types() {
  return QmpTypes::FromSchema(Json::parse(R"([
    {"name": "str", "meta-type": "builtin", "json-type": "string"},
    {"name": "int", "meta-type": "builtin", "json-type": "int"},
    {"name": "number", "meta-type": "builtin", "json-type": "number"},
    {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
    {"name": "[int]", "meta-type": "array", "element-type": "int"},
    {"name": "0", "meta-type": "object", "members": []},
    {"name": "Type", "meta-type": "enum", "members": [{"name": "ram"}, {"name": "file"}]},
    {"name": "File", "meta-type": "object", "members": [{"name": "path", "type": "str"}]},
    {"name": "Add", "meta-type": "object", "tag": "type",
     "members": [{"name": "type", "type": "Type"}, {"name": "id", "type": "str"},
                 {"name": "size", "type": "int"}, {"name": "share", "type": "bool", "default": null},
                 {"name": "nodes", "type": "[int]"}, {"name": "sub", "type": "File"},
                 {"name": "rate", "type": "number"}],
     "variants": [{"case": "file", "type": "File"}]},
    {"name": "add", "meta-type": "command", "arg-type": "Add", "ret-type": "0"},
    {"name": "query-name", "meta-type": "command", "arg-type": "0", "ret-type": "0"},
    {"name": "query-status", "meta-type": "command", "arg-type": "0", "ret-type": "0"},
    {"name": "STOP", "meta-type": "event", "arg-type": "0"}, 3, {"name": 4}, {}])"));
}

TEST(QmpLineTest, ALineBecomesARequest) {
  const struct {
    const char* line;
    const char* request;
  } cases[] = {
      {"query-status", R"({"execute":"query-status"})"},
      {"  query-status  ", R"({"execute":"query-status"})"},
      {R"({"execute": "x", "arguments": {"a": [1]}})", R"({"execute":"x","arguments":{"a":[1]}})"},
      // The server's types decide.
      {"add id=1 size=1M share=on nodes=0,1 rate=1.5",
       R"({"execute":"add","arguments":{"id":"1","size":1048576,"share":true,)"
       R"("nodes":[0,1],"rate":1.5}})"},
      {"add size=-1 nodes=[0,1] share=false",
       R"({"execute":"add","arguments":{"size":-1,"nodes":[0,1],"share":false}})"},
      {"add size=lots share=maybe",
       R"({"execute":"add","arguments":{"size":"lots","share":"maybe"}})"},
      {"add type=file path=1 sub.path=2",
       R"({"execute":"add","arguments":{"type":"file","path":"1","sub":{"path":"2"}}})"},
      {R"(add id="a b" size="1")", R"({"execute":"add","arguments":{"id":"a b","size":"1"}})"},
      // Nobody knows: by the look.
      {"x a=1 b=-2 c=0x10 d=64K e=1.5 f=true g=on h=text i=1x j=",
       R"({"execute":"x","arguments":{"a":1,"b":-2,"c":16,"d":65536,"e":1.5,"f":true,)"
       R"("g":"on","h":"text","i":"1x","j":""}})"},
      {R"(x a='1' b="say \"hi\"" c={"d": ["]", 1]} e.f.g=1 e.f.h=2)",
       R"({"execute":"x","arguments":{"a":"1","b":"say \"hi\"","c":{"d":["]",1]},)"
       R"("e":{"f":{"g":1,"h":2}}}})"},
      {"x a=18446744073709551615 b=[1", nullptr},
      {"x a=18446744073709551615", R"({"execute":"x","arguments":{"a":18446744073709551615}})"},
      {"", nullptr},
      {"a=1", nullptr},
      {"x y", nullptr},
      {"x =1", nullptr},
      {"x a.=1", nullptr},
      {"x a=1 a=2", nullptr},
      {"x a=1 a.b=2", nullptr},
      {"x a='1", nullptr},
      {"x a.b.c.d.e.f.g.h.i=1", nullptr},
      {"{\"execute\": ", nullptr},
  };
  const QmpTypes types = Types();
  for (const auto& c : cases) {
    const auto request = ParseQmpLine(c.line, types);
    ASSERT_EQ(request.has_value(), c.request != nullptr) << c.line;
    if (request) {
      EXPECT_EQ(request->dump(), c.request) << c.line;
    } else {
      EXPECT_NE(request.error().hint(), "") << c.line;
    }
  }
}

TEST(QmpLineTest, TabCompletesCommandsArgumentsAndValues) {
  const struct {
    const char* line;
    std::size_t from;
    std::vector<std::string> words;
  } cases[] = {
      {"qu", 0, {"query-name ", "query-status ", "quit "}},
      {"", 0, {"add ", "help ", "query-name ", "query-status ", "quit "}},
      {"query-st", 0, {"query-status "}},
      {"help q", 5, {"query-name ", "query-status ", "quit "}},
      {"add s", 4, {"size=", "share=", "sub="}},
      {"add size=1 s", 11, {"share=", "sub="}},
      {"add p", 4, {}},
      {"add type=file p", 14, {"path="}},
      {"add type=", 4, {"type=ram ", "type=file "}},
      {"add type=f", 4, {"type=file "}},
      {"add share=t", 4, {"share=true "}},
      {"add id=", 4, {}},
      {"nosuch a", 7, {}},
      {"{\"exec", 0, {}},
  };
  const QmpTypes types = Types();
  const std::string_view own[] = {"help", "quit"};
  for (const auto& c : cases) {
    const auto completion = CompleteQmpLine(c.line, types, own);
    EXPECT_EQ(completion.from, c.from) << c.line;
    EXPECT_EQ(completion.words, c.words) << c.line;
  }
}

TEST(QmpTypesTest, ServersWithoutSchemaStillNameTheirCommands) {
  const QmpTypes types =
      QmpTypes::FromCommands(Json::parse(R"([{"name": "stop"}, {"name": "cont"}, 1])"));
  EXPECT_THAT(types.Commands(), ElementsAre("cont", "stop"));
  EXPECT_TRUE(types.Arguments("stop", {}).empty());
  EXPECT_TRUE(QmpTypes::FromCommands(3).Commands().empty());
  EXPECT_TRUE(QmpTypes::FromSchema("x").Commands().empty());
}

TEST(QmpTypesTest, TypesAreDescribedForPeople) {
  const QmpTypes types =
      QmpTypes::FromSchema(Json::parse(R"([{"name": "E", "meta-type": "enum", "values": ["a", "b"]},
                      {"name": "L", "meta-type": "array", "element-type": "E"},
                      {"name": "O", "meta-type": "array", "element-type": "O"}])"));
  EXPECT_EQ(types.Describe("L"), "list of a|b");
  EXPECT_EQ(types.Describe("O"), "list of list of list of list of list");
  EXPECT_EQ(types.Describe("nosuch"), "value");
}

}  // namespace
}  // namespace holdfast::apps
