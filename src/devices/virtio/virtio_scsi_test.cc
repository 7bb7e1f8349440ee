// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_scsi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "devices/block/block_graph.h"
#include "devices/block/test_support.h"
#include "devices/pci/test_services.h"
#include "devices/scsi/scsi_models.h"
#include "devices/virtio/test_driver.h"

namespace holdfast::devices::virtio {
namespace {

using block::TestImage;
using ::testing::HasSubstr;

constexpr std::size_t kDisk = 1 << 20;

class VirtioScsiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    backends_.drive = [this](std::string_view id) { return graph_.Find(id); };
    block::NodeOptions node;
    node.filename = image_.path();
    node.node_name = "disk";
    ASSERT_TRUE(graph_.AddNode(node));
    ASSERT_NO_FATAL_FAILURE(Plug("lun=3"));
    driver_ = std::make_unique<TestDriver>(adapter_, *loop_);
    ASSERT_TRUE(driver_->Start());
  }
  void TearDown() override {
    driver_.reset();
    disk_.reset();
  }
  void Plug(std::string_view words) {
    const auto values = *object::ParseKeyValues("drive=disk," + std::string(words));
    auto made = scsi::kScsiHd.attach(environment_, "d", "scsi0.0", values);
    ASSERT_TRUE(made) << made.error().ToString();
    disk_ = *std::move(made);
  }
  struct Reply {
    std::uint8_t response = 0xff;
    std::uint8_t status = 0xff;
    std::uint32_t residual = 0;
    std::uint32_t sense_length = 0;
    std::uint8_t key = 0;
    std::uint8_t code = 0;
    std::string data = {};
  };
  static std::vector<std::byte> Head(unsigned target, unsigned lun,
                                     const std::vector<std::uint8_t>& cdb) {
    std::vector<std::byte> head(51);
    head[0] = std::byte{1};
    head[1] = static_cast<std::byte>(target);
    head[2] = static_cast<std::byte>(0x40 | lun >> 8);
    head[3] = static_cast<std::byte>(lun);
    std::memcpy(head.data() + 19, cdb.data(), cdb.size());
    return head;
  }
  Reply Ask(unsigned target, unsigned lun, const std::vector<std::uint8_t>& cdb,
            std::uint32_t in = 0, std::size_t out = 0) {
    std::vector<std::byte> request = Head(target, lun, cdb);
    request.resize(request.size() + out, std::byte{'w'});
    auto answer = driver_->Ask(2, request, 108 + in);
    Reply reply;
    if (!answer) {
      ADD_FAILURE() << answer.error().ToString();
      return reply;
    }
    const auto* const bytes = reinterpret_cast<const char*>(answer->data.data());
    std::memcpy(&reply.sense_length, bytes, 4);
    std::memcpy(&reply.residual, bytes + 4, 4);
    reply.status = static_cast<std::uint8_t>(bytes[10]);
    reply.response = static_cast<std::uint8_t>(bytes[11]);
    reply.key = static_cast<std::uint8_t>(bytes[12 + 2]);
    reply.code = static_cast<std::uint8_t>(bytes[12 + 12]);
    reply.data.assign(bytes + 108, in);
    return reply;
  }
  int Manage(std::uint32_t function, unsigned target, unsigned lun) {
    std::vector<std::byte> request(24);
    std::memcpy(request.data() + 4, &function, sizeof function);
    request[8] = std::byte{1};
    request[9] = static_cast<std::byte>(target);
    request[10] = std::byte{0x40};
    request[11] = static_cast<std::byte>(lun);
    auto answer = driver_->Ask(0, request, 1);
    return answer ? std::to_integer<int>(answer->data[0]) : -1;
  }

  TestImage image_{kDisk, 'i'};
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  block::BlockGraph graph_{*loop_};
  Backends backends_;
  TestMemory memory_;
  pci::testing::FakeServices services_;
  ChildBuses buses_;
  DeviceEnvironment environment_{.loop = *loop_,
                                 .memory = memory_.space(),
                                 .pci = services_,
                                 .backends = backends_,
                                 .emit = {},
                                 .buses = &buses_};
  VirtioScsi adapter_{DeviceThread(*loop_), {}, &buses_, "scsi0.0"};
  std::unique_ptr<ChildDevice> disk_;
  std::unique_ptr<TestDriver> driver_;
};

TEST_F(VirtioScsiTest, CarriesCommandsToItsDisks) {
  EXPECT_EQ(Ask(0, 3, {scsi::kTestUnitReady, 0, 0, 0, 0, 0}).code, 0x29) << "powered on";
  EXPECT_EQ(Ask(0, 3, {scsi::kTestUnitReady, 0, 0, 0, 0, 0}).status, 0);
  const Reply written = Ask(0, 3, {scsi::kWrite10, 0, 0, 0, 0, 1, 0, 0, 1, 0}, 0, 512);
  EXPECT_EQ(written.response, 0);
  EXPECT_EQ(written.status, 0);
  EXPECT_EQ(written.residual, 0U);
  EXPECT_EQ(image_.Contents().substr(512, 512), std::string(512, 'w'));
  const Reply read = Ask(0, 3, {scsi::kRead10, 0, 0, 0, 0, 1, 0, 0, 1, 0}, 1024);
  EXPECT_EQ(read.status, 0);
  EXPECT_EQ(read.residual, 512U);
  EXPECT_EQ(read.data.substr(0, 512), std::string(512, 'w'));
}

TEST_F(VirtioScsiTest, ListsUnitsAndAnswersForThoseThatAreNotThere) {
  const Reply luns = Ask(0, 0, {scsi::kReportLuns, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0}, 64);
  EXPECT_EQ(luns.status, 0);
  EXPECT_EQ(luns.data.substr(0, 24),
            std::string("\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\3\0\0\0\0\0\0", 24));
  EXPECT_EQ(Ask(0, 0, {scsi::kInquiry, 0, 0, 0, 36, 0}, 36).data[0], 0x7f);
  const Reply absent = Ask(0, 0, {scsi::kTestUnitReady, 0, 0, 0, 0, 0});
  EXPECT_EQ(absent.status, 2);
  EXPECT_EQ(absent.code, 0x25);
  EXPECT_EQ(absent.sense_length, 18U);
  EXPECT_EQ(Ask(9, 0, {scsi::kTestUnitReady, 0, 0, 0, 0, 0}).response, 3) << "bad target";
}

TEST_F(VirtioScsiTest, AnswersMistakes) {
  Ask(0, 3, {scsi::kTestUnitReady, 0, 0, 0, 0, 0});
  EXPECT_EQ(Ask(0, 3, {scsi::kRead10, 0, 0, 0, 0, 1, 0, 0, 2, 0}, 512).response, 1) << "overrun";
  EXPECT_EQ(Ask(0, 3, {scsi::kRead10, 0, 0, 0, 0, 1, 0, 0, 1, 0}, 512, 512).response, 9)
      << "both directions";
  auto answer = driver_->Ask(2, BytesOf("short"), 108);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->data[11], std::byte{9});
  EXPECT_FALSE(driver_->Ask(2, Head(0, 3, {0}), 20));
  EXPECT_THAT(driver_->needs_reset(), HasSubstr("no room for its response"));
}

TEST_F(VirtioScsiTest, ManagesTasks) {
  EXPECT_EQ(Manage(0, 0, 3), 0) << "abort task";
  EXPECT_EQ(Manage(5, 0, 3), 0) << "unit reset";
  EXPECT_EQ(Ask(0, 3, {scsi::kTestUnitReady, 0, 0, 0, 0, 0}).code, 0x29) << "it was reset";
  EXPECT_EQ(Manage(5, 0, 4), 12) << "no such unit";
  EXPECT_EQ(Manage(5, 7, 0), 3) << "no such target";
  EXPECT_EQ(Manage(99, 0, 3), 11);
  auto subscribe = driver_->Ask(0, std::vector<std::byte>{std::byte{2}}, 5);
  ASSERT_TRUE(subscribe);
  auto unknown = driver_->Ask(0, BytesOf("xxxxyyyy"), 1);
  ASSERT_TRUE(unknown);
  EXPECT_EQ(unknown->data[0], std::byte{9});
}

TEST_F(VirtioScsiTest, TellsTheGuestOfDisksThatComeAndGo) {
  const GuestAddress event = driver_->ram().Allocate(16);
  const std::array<TestBuffer, 1> buffers = {TestBuffer{event, 16, true}};
  driver_->Send(1, buffers);
  disk_.reset();
  ASSERT_TRUE(driver_->Take(1));
  const std::vector<std::byte> removed = driver_->ram().Get(event, 16);
  EXPECT_EQ(removed[0], std::byte{1}) << "transport reset";
  EXPECT_EQ(removed[7], std::byte{3}) << "LUN 3";
  EXPECT_EQ(removed[12], std::byte{2}) << "removed";
  ASSERT_NO_FATAL_FAILURE(Plug("scsi-id=5"));  // without a buffer: missed
  driver_->Send(1, buffers);
  ASSERT_TRUE(driver_->Take(1));
  EXPECT_EQ(driver_->ram().Get(event, 4)[3], std::byte{0x80});
  EXPECT_EQ(Ask(5, 0, {scsi::kTestUnitReady, 0, 0, 0, 0, 0}).response, 0);
}

TEST_F(VirtioScsiTest, PutsDisksWhereTheyAreToldTo) {
  const auto values = *object::ParseKeyValues("drive=disk,lun=3,scsi-id=0");
  EXPECT_FALSE(scsi::kScsiHd.attach(environment_, "", "scsi0.0", values)) << "the drive is taken";
  const auto nowhere = scsi::kScsiHd.attach(environment_, "", "scsi9.0", values);
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().message(), "Bus 'scsi9.0' not found");
  EXPECT_NE(adapter_.bus().Find({.target = 0, .lun = 3}), nullptr);
}

}  // namespace
}  // namespace holdfast::devices::virtio
