// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "object/object.h"

namespace holdfast::control {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

// A schema with one of each.
struct Example : Schema {
  Example() {
    Enum("Color", {"red", "green"});
    Struct("Point", {{"x", "int"}, {"y?", "int"}});
    Struct("OfRed", {{"depth", "uint8"}});
    Union("Paint", {{"color", "Color"}, {"where?", "[Point]"}}, "color", {{"red", "OfRed"}});
    Alternate("Amount", {"uint64", "bool", "[uint64]"});
    Struct("Everything", {{"s?", "str"},
                          {"i?", "int"},
                          {"u8?", "uint8"},
                          {"size?", "size"},
                          {"n?", "number"},
                          {"b?", "bool"},
                          {"nothing?", "null"},
                          {"any?", "any"},
                          {"amount?", "Amount"},
                          {"paint?", "Paint"},
                          {"list?", "[uint16]"}});
    AddCommand("do-it", {.arguments = "Everything", .result = "Paint", .allow_oob = true});
    AddCommand("must", {.arguments = "Point"});
    AddEvent("DONE", "Point");
  }
};

TEST(Schema, TellsWhatIsWrongWithArgumentsAsQemuDoes) {
  const Example schema;
  const struct {
    const char* command;
    const char* arguments;
    const char* error;  // empty: right
  } cases[] = {
      {"do-it", "{}", ""},
      {"do-it", R"({"s": "x", "i": -1, "u8": 255, "size": 18446744073709551615, "n": 1.5})", ""},
      {"do-it", R"({"b": false, "nothing": null, "any": [{}], "amount": [1]})", ""},
      {"do-it", R"({"paint": {"color": "red", "depth": 1, "where": [{"x": 1}]}})", ""},
      {"do-it", R"({"paint": {"color": "green"}})", ""},
      {"must", "{}", "Parameter 'x' is missing"},
      {"must", R"({"x": 1, "z": 1})", "Parameter 'z' is unexpected"},
      {"must", R"({"x": "1"})", "Invalid parameter type for 'x', expected: integer"},
      {"must", R"({"x": 1.5})", "Invalid parameter type for 'x', expected: integer"},
      {"must", R"({"x": 9223372036854775808})",
       "Invalid parameter type for 'x', expected: integer"},
      {"do-it", R"({"s": 1})", "Invalid parameter type for 's', expected: string"},
      {"do-it", R"({"b": 1})", "Invalid parameter type for 'b', expected: boolean"},
      {"do-it", R"({"n": "1"})", "Invalid parameter type for 'n', expected: number"},
      {"do-it", R"({"nothing": 1})", "Invalid parameter type for 'nothing', expected: null"},
      {"do-it", R"({"size": "1"})", "Parameter 'size' expects uint64"},
      {"do-it", R"({"size": -1})", "Parameter 'size' expects uint64"},
      {"do-it", R"({"size": 1e30})", "Parameter 'size' expects uint64"},
      {"do-it", R"({"u8": 256})", "Parameter 'u8' expects uint8_t"},
      {"do-it", R"({"amount": "x"})", "Invalid parameter type for 'amount', expected: Amount"},
      {"do-it", R"({"paint": 1})", "Invalid parameter type for 'paint', expected: object"},
      {"do-it", R"({"paint": {}})", "Parameter 'paint.color' is missing"},
      {"do-it", R"({"paint": {"color": "blue"}})",
       "Parameter 'paint.color' does not accept value 'blue'"},
      {"do-it", R"({"paint": {"color": 1}})",
       "Invalid parameter type for 'paint.color', expected: string"},
      {"do-it", R"({"paint": {"color": "green", "depth": 1}})",
       "Parameter 'paint.depth' is unexpected"},
      {"do-it", R"({"paint": {"color": "red"}})", "Parameter 'paint.depth' is missing"},
      {"do-it", R"({"list": 1})", "Invalid parameter type for 'list', expected: array"},
      {"do-it", R"({"list": [1, 65536]})", "Parameter 'list[1]' expects uint16_t"},
      {"do-it", R"({"paint": {"color": "green", "where": [{"x": 1}, {}]}})",
       "Parameter 'paint.where[1].x' is missing"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.arguments);
    const auto arguments = ParseJson(c.arguments);
    ASSERT_TRUE(arguments);
    const Status status = schema.CheckArguments(*schema.FindCommand(c.command), *arguments);
    EXPECT_EQ(status ? "" : status.error().message(), c.error);
  }
}

TEST(Schema, FindsRepliesAndEventsThatBreakIt) {
  const Example schema;
  const Schema::Command& command = *schema.FindCommand("do-it");
  EXPECT_TRUE(schema.CheckResult(command, {{"color", "green"}}));
  EXPECT_FALSE(schema.CheckResult(command, Json::object()));
  EXPECT_TRUE(schema.CheckEvent("DONE", {{"x", 1}}));
  EXPECT_FALSE(schema.CheckEvent("DONE", Json::object()));
  EXPECT_FALSE(schema.CheckEvent("OTHER", Json::object()));
}

TEST(Schema, CheckNamesATypeThatIsMissing) {
  Schema schema;
  schema.AddCommand("c", {.result = "[[Nowhere]]"});
  const Status status = schema.Check();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "'c' uses the unknown type 'Nowhere'");
}

TEST(Schema, IntrospectionHidesTheRangesOfIntegers) {
  const Json infos = Example().Introspect();
  std::set<std::string> names;
  for (const Json& info : infos) EXPECT_TRUE(names.insert(info["name"]).second) << info;
  EXPECT_THAT(names, IsSupersetOf({"int", "[int]", "Point", "Empty", "DONE", "do-it"}));
  for (const char* hidden : {"uint8", "size", "[uint16]", "uint64"}) {
    EXPECT_FALSE(names.contains(hidden)) << hidden;
  }
  const Json command = {{"name", "do-it"},
                        {"meta-type", "command"},
                        {"arg-type", "Everything"},
                        {"ret-type", "Paint"},
                        {"allow-oob", true}};
  EXPECT_THAT(infos, Contains(command));
  const Json paint = {
      {"name", "Paint"},
      {"meta-type", "object"},
      {"tag", "color"},
      {"members",
       {{{"name", "color"}, {"type", "Color"}},
        {{"name", "where"}, {"type", "[Point]"}, {"default", nullptr}}}},
      {"variants", {{{"case", "red"}, {"type", "OfRed"}}, {{"case", "green"}, {"type", "Empty"}}}}};
  EXPECT_THAT(infos, Contains(paint));
}

TEST(QmpSchema, UsesNoTypeThatIsNotThere) {
  const Status status = QmpSchema().Check();
  EXPECT_TRUE(status) << status.error().message();
}

TEST(QmpSchema, DescribesItself) {
  const Schema& schema = QmpSchema();
  const Status status =
      schema.CheckResult(*schema.FindCommand("query-qmp-schema"), schema.Introspect());
  EXPECT_TRUE(status) << status.error().message();
}

TEST(QmpSchema, HasTheCommandsOfQemu) {
  EXPECT_THAT(QmpSchema().CommandNames(), IsSupersetOf({"qmp_capabilities",
                                                        "query-version",
                                                        "query-name",
                                                        "query-uuid",
                                                        "query-status",
                                                        "query-commands",
                                                        "query-cpus-fast",
                                                        "query-hotpluggable-cpus",
                                                        "query-machines",
                                                        "query-kvm",
                                                        "query-memdev",
                                                        "query-memory-devices",
                                                        "query-memory-size-summary",
                                                        "query-current-machine",
                                                        "object-add",
                                                        "object-del",
                                                        "qom-list",
                                                        "qom-get",
                                                        "qom-set",
                                                        "qom-list-types",
                                                        "qom-list-properties",
                                                        "device-list-properties",
                                                        "query-iothreads",
                                                        "query-chardev",
                                                        "query-qmp-schema",
                                                        "stop",
                                                        "cont",
                                                        "system_powerdown",
                                                        "system_reset",
                                                        "quit",
                                                        "human-monitor-command",
                                                        "trace-event-get-state",
                                                        "trace-event-set-state",
                                                        "pmemsave",
                                                        "memsave",
                                                        "query-stats",
                                                        "query-stats-schemas"}));
}

TEST(QmpSchema, ChecksTheArgumentsOfCommands) {
  const struct {
    const char* command;
    const char* arguments;
    const char* error;
  } cases[] = {
      {"object-add", R"({"qom-type": "memory-backend-memfd", "id": "h0"})",
       "Parameter 'size' is missing"},
      {"object-add", R"({"qom-type": "memory-backend-memfd", "id": "h0", "size": "1G"})",
       "Parameter 'size' expects uint64"},
      {"object-add", R"({"qom-type": "memory-backend-foo", "id": "h0", "size": 1})",
       "Parameter 'qom-type' does not accept value 'memory-backend-foo'"},
      {"object-add", R"({"qom-type": "memory-backend-memfd", "id": "h0", "size": 1, "bogus": 1})",
       "Parameter 'bogus' is unexpected"},
      {"object-add", R"({"id": "h0"})", "Parameter 'qom-type' is missing"},
      {"object-del", "{}", "Parameter 'id' is missing"},
      {"query-status", R"({"a": 1})", "Parameter 'a' is unexpected"},
      {"qmp_capabilities", R"({"enable": ["foo"]})",
       "Parameter 'enable[0]' does not accept value 'foo'"},
      {"query-stats", R"({"target": "foo"})", "Parameter 'target' does not accept value 'foo'"},
      {"query-stats", R"({"target": "vm", "vcpus": []})", "Parameter 'vcpus' is unexpected"},
      {"query-stats", R"({"target": "vcpu", "vcpus": [1]})",
       "Invalid parameter type for 'vcpus[0]', expected: string"},
      {"memsave", R"({"val": 1, "size": "a", "filename": "/x"})",
       "Invalid parameter type for 'size', expected: integer"},
      {"trace-event-set-state", R"({"name": "x", "enable": 1})",
       "Invalid parameter type for 'enable', expected: boolean"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.arguments);
    const auto arguments = ParseJson(c.arguments);
    ASSERT_TRUE(arguments);
    const Schema::Command* command = QmpSchema().FindCommand(c.command);
    ASSERT_NE(command, nullptr);
    const Status status = QmpSchema().CheckArguments(*command, *arguments);
    EXPECT_EQ(status ? "" : status.error().message(), c.error);
  }
}

}  // namespace
}  // namespace holdfast::control
