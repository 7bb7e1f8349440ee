// SPDX-License-Identifier: Apache-2.0
#include "apps/vm_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/text_table.h"
#include "apps/vm_top.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::Not;

VmState Sample() {
  VmState state;
  state.name = "vm1";
  state.run_state = "running";
  state.memory = 64 * kMiB;
  state.kvm = true;
  ReadCpus(Json::parse(R"([
    {"cpu-index": 1, "thread-id": 101, "qom-path": "/c1", "props": {"socket-id": 0, "core-id": 1,
     "thread-id": 0, "node-id": 1}},
    {"cpu-index": 0, "thread-id": 100, "qom-path": "/c0", "props": {"socket-id": 0}},
    {"cpu-index": "x"}, 3])"),
           state);
  ReadCpuStats(Json::parse(R"([
    {"provider": "kvm", "qom-path": "/c0", "stats": [{"name": "exits", "value": 1000}]},
    {"provider": "holdfast", "qom-path": "/c0", "stats": [{"name": "cpu-time",
     "value": 2500000000}]},
    {"provider": "kvm", "qom-path": "/c1", "stats": [{"name": "exits", "value": [1]}, 3]},
    {"provider": "kvm", "qom-path": "/nosuch", "stats": []}, 3])"),
               state);
  ReadBackends(Json::parse(R"([
    {"id": "m1", "size": 33554432, "policy": "bind", "host-nodes": [1, 3, "x"],
     "qom-type": "memory-backend-guest-memfd", "guest-memfd": true, "bound": false, "mapped": true,
     "placement": {"allocated": 16777216, "nodes": [{"node": 1, "bytes": 16777216}, {}]}},
    {"id": "m0\u001b", "size": 33554432, "policy": "default"}, {"size": -1}])"),
               state);
  ReadNodes(
      "2 nodes\r\nnode 0 cpus: 0\r\nnode 0 size: 32 MB\r\nnode 0 plugged: 0 MB\nnode 1 cpus:"
      "\nnode 1 size: 32 MB\nrubbish\nnode x\n",
      state);
  return state;
}

TEST(VmStateTest, AnswersAreReadAndOddPartsLeftOut) {
  const VmState state = Sample();
  ASSERT_EQ(state.cpus.size(), 2U);
  EXPECT_EQ(state.cpus[0].host_thread, 100U);
  EXPECT_EQ(state.cpus[0].exits, 1000U);
  EXPECT_EQ(state.cpus[0].seconds, 2.5);
  EXPECT_EQ(state.cpus[0].node, std::nullopt);
  EXPECT_EQ(state.cpus[1].node, 1U);
  EXPECT_EQ(state.cpus[1].exits, std::nullopt);
  ASSERT_EQ(state.backends.size(), 2U);
  EXPECT_EQ(state.backends[0].id, "m0?");
  EXPECT_EQ(state.backends[0].allocated, std::nullopt);
  EXPECT_EQ(state.backends[1].nodes.at(1), 16 * kMiB);
  EXPECT_EQ(state.Allocated(), 16 * kMiB);
  ASSERT_EQ(state.nodes.size(), 2U);
  EXPECT_EQ(state.nodes[0].cpus, "0");
  EXPECT_EQ(state.nodes[1].cpus, "");
  EXPECT_EQ(state.nodes[1].size, 32 * kMiB);
}

TEST(VmStateTest, AnswersOfAnotherTypeAreNoAnswers) {
  VmState state;
  for (const Json& odd : {Json(), Json(3), Json("x"), Json::object(), Json::array({Json()})}) {
    ReadCpus(odd, state);
    ReadCpuStats(odd, state);
    ReadBackends(odd, state);
  }
  EXPECT_TRUE(state.cpus.empty());
  EXPECT_TRUE(state.backends.empty());
  EXPECT_THAT(FormatVmInfo(state), HasSubstr("Memory   -\n"));
}

TEST(VmStateTest, PeopleSeeATable) {
  const std::string text = FormatVmInfo(Sample());
  EXPECT_THAT(text, HasSubstr("Name     vm1\n"));
  EXPECT_THAT(text, HasSubstr("Memory   64 MiB, 16 MiB allocated\n"));
  EXPECT_THAT(text, HasSubstr("   1          101       0     1       0     1\n"));
  EXPECT_THAT(text, HasSubstr("         0  32 MiB  0\n         1  32 MiB  -\n"));
  EXPECT_THAT(text, HasSubstr("m1              guest-memfd  32 MiB  16 MiB (50 %)  1: 16 MiB      "
                              "bind 1,3  yes          no     yes\n"));
}

TEST(VmStateTest, ScriptsSeeTheSame) {
  const Json json = VmInfoJson(Sample());
  EXPECT_EQ(json["name"], "vm1");
  EXPECT_EQ(json["vcpus"][1]["node"], 1);
  EXPECT_TRUE(json["vcpus"][0]["node"].is_null());
  EXPECT_EQ(json["memory_backends"][1]["host_nodes_used"][0]["bytes"], 16777216);
}

TEST(VmStateTest, AThreadsNameCannotConfuseItsTimes) {
  const struct {
    const char* line;
    std::optional<double> seconds;
  } cases[] = {
      {"7 (CPU 0/KVM) S 1 2 3 4 5 6 7 8 9 10 150 50 0", 2.0},
      {"7 (a) 1 2) S 1 2 3 4 5 6 7 8 9 10 150 50 0", 2.0},
      {"7 (a) S 1 2", std::nullopt},
      {"", std::nullopt},
  };
  for (const auto& c : cases) EXPECT_EQ(ParseThreadStat(c.line, 100), c.seconds) << c.line;
}

TEST(VmTopTest, RatesAreDifferencesOverTime) {
  const VmState before = Sample();
  VmState now = before;
  now.taken = before.taken + std::chrono::seconds(2);
  now.cpus[0].exits = 1000 + 24690;
  now.cpus[0].seconds = 3.5;
  const TopView view = CompareReadings(before, now);
  EXPECT_EQ(view.seconds, 2);
  EXPECT_EQ(view.cpus[0].use, 0.5);
  EXPECT_EQ(view.cpus[0].exits_per_second, 12345);
  EXPECT_EQ(view.cpus[1].use, std::nullopt);
  const std::string text = DrawTop(view, 80, 24);
  EXPECT_THAT(text, HasSubstr("vm1 (running)  2 vCPUs  CPU 50.0 %  exits/s 12,345\n"));
  EXPECT_THAT(text, HasSubstr("memory 16 MiB of 64 MiB  dirty rate -  conversions/s -\n"));
  EXPECT_THAT(text, HasSubstr("   0     100  50.0 %  [##########..........]   12,345\n"));
  EXPECT_THAT(text, HasSubstr("   1     101       -  [....................]        -\n"));
  EXPECT_THAT(text,
              HasSubstr("m1      32 MiB     16 MiB  50 %  [##########..........]  1: 16 MiB"));
  const Json json = TopJson(view);
  EXPECT_EQ(json["exits_per_second"], 12345);
  EXPECT_TRUE(json["dirty_bytes_per_second"].is_null());
}

TEST(VmTopTest, CountersThatWentBackAreUnknown) {
  VmState before = Sample();
  VmState now = Sample();
  now.taken = before.taken + std::chrono::seconds(1);
  now.cpus[0].exits = 1;
  now.cpus[0].seconds = 0;
  EXPECT_EQ(CompareReadings(before, now).cpus[0].exits_per_second, std::nullopt);
  EXPECT_EQ(CompareReadings(before, now).cpus[0].use, std::nullopt);
  // No time in between: no rate.
  EXPECT_EQ(CompareReadings(before, before).cpus[0].use, std::nullopt);
}

TEST(VmTopTest, TheViewFitsTheTerminal) {
  VmState state = Sample();
  state.cpus.resize(255);
  state.backends.resize(40);
  const TopView view = CompareReadings(state, state);
  for (const std::size_t rows : {24U, 22U, 40U}) {
    std::istringstream lines(DrawTop(view, 80, rows));
    std::size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) EXPECT_LE(line.size(), 80U);
    EXPECT_LE(count, rows);
    EXPECT_GE(count, rows - 2);
  }
}

TEST(TextTableTest, NumbersStandBelowEachOther) {
  TextTable table("lr");
  table.Add({"NAME", "SIZE"});
  table.Add({"a", "1"});
  table.Add({"longer"});
  EXPECT_EQ(table.ToString(), "NAME    SIZE\na          1\nlonger\n");
  EXPECT_EQ(FormatPercent(1, 0), "-");
  EXPECT_EQ(FormatPercent(0, 5), "0 %");
  EXPECT_EQ(FormatPercent(1, 5000), "<0.1 %");
  EXPECT_EQ(FormatPercent(1, 30), "3.3 %");
  EXPECT_EQ(FormatPercent(1, 2), "50 %");
  EXPECT_EQ(FormatBar(3, 2, 6), "[####]");
  EXPECT_EQ(FormatBar(0, 0, 6), "[....]");
}

}  // namespace
}  // namespace holdfast::apps
