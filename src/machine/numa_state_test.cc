// SPDX-License-Identifier: Apache-2.0
#include "machine/numa_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace holdfast::machine {
namespace {

using ::testing::HasSubstr;

constexpr state::Since kSince{2};

NumaConfig TwoNodes() {
  return {.nodes = {{.size = 1 << 20, .memdev = "ram0", .cpus = {0, 1}},
                    {.size = 1 << 20, .memdev = "ram1", .cpus = {2}}},
          .distances = {10, 21, 21, 10}};
}

std::vector<std::byte> Saved(const NumaConfig& numa) {
  state::Fields fields(kSince.version);
  VisitNuma(fields, numa, kSince);
  return std::move(fields).Take();
}

std::string Refusal(const NumaConfig& saved, const NumaConfig& here) {
  const std::vector<std::byte> bytes = Saved(saved);
  state::Fields fields(kSince.version, bytes);
  VisitNuma(fields, here, kSince);
  const Status status = fields.status();
  return status ? "" : status.error().message();
}

TEST(NumaState, TheSameNodesAreTaken) {
  EXPECT_EQ(Refusal(TwoNodes(), TwoNodes()), "");
  EXPECT_EQ(Refusal({}, {}), "");
  NumaConfig defaults = TwoNodes();
  defaults.distances = {};
  NumaConfig spelled = TwoNodes();
  spelled.distances = {10, 20, 20, 10};
  EXPECT_EQ(Refusal(defaults, spelled), "") << "what a machine has without any";
}

TEST(NumaState, OthersAreRefusedInASentence) {
  NumaConfig swapped = TwoNodes();
  std::swap(swapped.nodes[0].memdev, swapped.nodes[1].memdev);
  NumaConfig sizes = TwoNodes();
  sizes.nodes[1].size = 2 << 20;
  NumaConfig cpus = TwoNodes();
  cpus.nodes[0].cpus = {0};
  cpus.nodes[1].cpus = {1, 2};
  NumaConfig distances = TwoNodes();
  distances.distances = {10, 31, 31, 10};
  NumaConfig empty = TwoNodes();
  empty.nodes[1] = {};
  const struct {
    NumaConfig here;
    const char* says;
  } cases[] = {
      {{}, "has 2 NUMA nodes and this one 0"},
      {swapped, "node 0 has 1048576 bytes, 'ram0' and this one's 1048576 bytes, 'ram1'"},
      {sizes, "node 1 has 1048576 bytes, 'ram1' and this one's 2097152 bytes, 'ram1'"},
      {empty, "node 1 has 1048576 bytes, 'ram1' and this one's no memory"},
      {cpus, "node 0 has the CPUs [0,1] and this one's [0]"},
      {distances, "other distances"},
  };
  for (const auto& c : cases) EXPECT_THAT(Refusal(TwoNodes(), c.here), HasSubstr(c.says));
}

TEST(NumaState, AnOlderStreamSaysNothingOfNodes) {
  state::Fields older(1, {});
  VisitNuma(older, TwoNodes(), kSince);
  EXPECT_TRUE(older.status());
}

// Whatever a stream says.
TEST(NumaState, NoDamageIsMoreThanARefusal) {
  const std::vector<std::byte> whole = Saved(TwoNodes());
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::vector<std::byte> bytes = whole;
    bytes[at] ^= std::byte{0x81};
    state::Fields fields(kSince.version, bytes);
    VisitNuma(fields, TwoNodes(), kSince);
    EXPECT_FALSE(fields.status()) << at;
    state::Fields cut(kSince.version, std::span(whole).first(at));
    VisitNuma(cut, TwoNodes(), kSince);
    EXPECT_FALSE(cut.status()) << at;
  }
}

}  // namespace
}  // namespace holdfast::machine
