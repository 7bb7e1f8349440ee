// SPDX-License-Identifier: Apache-2.0
// info block, on a graph without a machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/event_loop.h"
#include "control/context.h"
#include "control/human_commands.h"
#include "devices/block/block_graph.h"
#include "devices/block/storage_daemon.h"
#include "object/keyval.h"

namespace holdfast::control {
namespace {

using devices::block::BlockGraph;
using ::testing::HasSubstr;
using ::testing::Not;

class InfoBlockTest : public ::testing::Test {
 protected:
  InfoBlockTest() {
    context_.block = &graph_;
    Add("null-co,node-name=n,size=1M,read-only=on");
    Add("null-co,node-name=other,size=512");
    Add("qcow2,node-name=q,file.driver=file,file.filename=/no/such/image");
    (void)graph_.AddDrive("d", graph_.FindNode("n"));
    (void)graph_.AddDrive("cd", nullptr);
    const devices::block::NodeOptions served = Parse("vmdk,file.driver=file,file.filename=/v.vmdk");
    (void)graph_.AddImage("v", served, false);
  }
  static devices::block::NodeOptions Parse(std::string_view text) {
    return *devices::block::ParseNodeOptions(*object::ParseKeyValues(text, "driver"));
  }
  void Add(std::string_view text) { ASSERT_TRUE(graph_.AddBlockdev(Parse(text))); }
  std::string Ask(std::string_view line) { return commands_.Execute(line); }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  BlockGraph graph_{*loop_};
  VmContext context_;
  HumanCommands commands_{context_};
};

TEST_F(InfoBlockTest, ListsDrivesAndImages) {
  EXPECT_EQ(Ask("info block"),
            "d (n): null-co:// (null-co, read-only)\n"
            "    Cache mode:       writeback\n"
            "\n"
            "cd: [not inserted]\n"
            "\n"
            "v: /v.vmdk (vmdk)\n"
            "    Cache mode:       writeback\n");
  EXPECT_EQ(Ask("info block cd"), "cd: [not inserted]\n");
  EXPECT_EQ(Ask("info block nothing"), "");
}

TEST_F(InfoBlockTest, ListsNodesWithAnOption) {
  const std::string nodes = Ask("info block -n");
  EXPECT_THAT(nodes, HasSubstr("other: null-co:// (null-co)\n"));
  EXPECT_THAT(nodes, HasSubstr("q: /no/such/image (qcow2)\n"));
  EXPECT_THAT(nodes, Not(HasSubstr("cd")));
}

TEST_F(InfoBlockTest, SaysMoreWithAnother) {
  graph_.Find("d")->detect_zeroes = devices::block::DetectZeroes::kUnmap;
  object::ThrottleLimits limits;
  limits.limits[0].average = 1000;
  graph_.Find("d")->throttle()->Set(limits);
  EXPECT_EQ(Ask("info block -v d"),
            "d (n): null-co:// (null-co, read-only)\n"
            "    Cache mode:       writeback\n"
            "    Detect zeroes:    unmap\n"
            "    I/O throttling:   bps=1000 bps_rd=0 bps_wr=0 bps_max=0 bps_rd_max=0 bps_wr_max=0 "
            "iops=0 iops_rd=0 iops_wr=0 iops_max=0 iops_rd_max=0 iops_wr_max=0 iops_size=0 "
            "group=d\n"
            "\n"
            "Images:\n"
            "image: null-co://\n"
            "file format: null-co\n"
            "virtual size: 1 MiB (1048576 bytes)\n");
  EXPECT_THAT(Ask("info block -x"), HasSubstr("info block: unknown option '-x'"));
}

TEST_F(InfoBlockTest, AnImageInUseIsListedWithItsDevice) {
  const auto endpoint = graph_.FindImage("q")->endpoint();
  graph_.FindImage("q")->set_plugged({.device = "/machine/peripheral/disk", .size = 4096});
  EXPECT_EQ(Ask("info block -v q"),
            "q: /no/such/image (qcow2)\n"
            "    Attached to:      /machine/peripheral/disk\n"
            "    Cache mode:       writeback\n"
            "\n"
            "Images:\n"
            "image: /no/such/image\n"
            "file format: qcow2\n"
            "virtual size: 4 KiB (4096 bytes)\n");
}

}  // namespace
}  // namespace holdfast::control
