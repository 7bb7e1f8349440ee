// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_serial.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <memory>

#include "devices/test_support.h"
#include "devices/virtio/serial_port.h"
#include "devices/virtio/test_driver.h"

namespace holdfast::devices::virtio {
namespace {

using devices::testing::Bytes;
using devices::testing::FakeChardev;
using devices::testing::Text;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Event = VirtioSerial::Event;

struct Message {
  std::uint32_t port;
  std::uint16_t event;
  std::uint16_t value;
};
std::string Word(std::uint32_t port, Event event, std::uint16_t value) {
  const Message message{port, static_cast<std::uint16_t>(event), value};
  return Text(std::as_bytes(std::span(&message, 1)));
}

class VirtioSerialTest : public ::testing::Test {
 protected:
  void Make(std::uint64_t features = ~0ULL, std::uint32_t max_ports = 4) {
    serial_ = std::make_unique<VirtioSerial>(*loop_, "vs0.0", max_ports, &buses_);
    driver_ = std::make_unique<TestDriver>(*serial_, *loop_,
                                           features & ~std::uint64_t{kFeatureRingPacked});
    ASSERT_TRUE(driver_->Start());
  }
  void TearDown() override {
    ports_.clear();
    driver_.reset();
    serial_.reset();
  }
  SerialPort* Add(SerialPort::Config config, Chardev* chardev) {
    auto port = SerialPort::Create(*serial_, std::move(config), chardev,
                                   [this](bool open) { opens_.push_back(open); });
    if (!port) {
      ADD_FAILURE() << port.error().ToString();
      return nullptr;
    }
    ports_.push_back(*std::move(port));
    return ports_.back().get();
  }
  void Tell(std::uint32_t port, Event event, std::uint16_t value) {
    const std::string word = Word(port, event, value);
    EXPECT_TRUE(driver_->Ask(VirtioSerial::kControlOut, Bytes(word)));
  }
  // Gives a buffer to fill. @return where it is
  GuestAddress Give(unsigned queue, std::uint32_t size) {
    const GuestAddress at = driver_->ram().Allocate(size);
    const TestBuffer buffer{.address = at, .length = size, .device_writes = true};
    driver_->Send(queue, std::span(&buffer, 1));
    driver_->Kick(queue);
    return at;
  }
  // What the device has to say.
  std::string Hear() {
    const GuestAddress at = Give(VirtioSerial::kControlIn, 64);
    const auto used = driver_->Take(VirtioSerial::kControlIn);
    return used ? Text(driver_->ram().Get(at, used->written)) : "";
  }
  void Write(unsigned queue, std::string_view text) {
    const GuestAddress at = driver_->ram().Put(Bytes(text));
    const TestBuffer buffer{.address = at, .length = static_cast<std::uint32_t>(text.size())};
    driver_->Send(queue, std::span(&buffer, 1));
    driver_->Kick(queue);
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  ChildBuses buses_;
  FakeChardev console_;
  FakeChardev agent_;
  std::unique_ptr<VirtioSerial> serial_;
  std::unique_ptr<TestDriver> driver_;
  std::vector<std::unique_ptr<SerialPort>> ports_;
  std::vector<bool> opens_;
};

TEST_F(VirtioSerialTest, IntroducesItsPortsToADriverThatIsReady) {
  Make();
  Add({.name = {}, .number = 0, .console = true}, &console_);
  Add({.name = "org.qemu.guest_agent.0", .number = 1, .console = false}, &agent_);
  Tell(0, Event::kDeviceReady, 1);
  EXPECT_EQ(Hear(), Word(0, Event::kDeviceAdd, 1));
  EXPECT_EQ(Hear(), Word(1, Event::kDeviceAdd, 1));
  Tell(0, Event::kPortReady, 1);
  EXPECT_EQ(Hear(), Word(0, Event::kConsolePort, 1));
  EXPECT_EQ(Hear(), Word(0, Event::kPortOpen, 1));
  Tell(1, Event::kPortReady, 1);
  EXPECT_EQ(Hear(), Word(1, Event::kPortName, 1) + "org.qemu.guest_agent.0");
  EXPECT_EQ(Hear(), Word(1, Event::kPortOpen, 1));
}

TEST_F(VirtioSerialTest, PortsComeAndGo) {
  Make();
  Tell(0, Event::kDeviceReady, 1);
  Add({.name = "a", .number = 2, .console = false}, &agent_);
  EXPECT_EQ(Hear(), Word(2, Event::kDeviceAdd, 1));
  ports_.clear();
  EXPECT_EQ(Hear(), Word(2, Event::kDeviceRemove, 1));
  EXPECT_TRUE(agent_.Take()) << "free for another";
}

TEST_F(VirtioSerialTest, BytesGoBothWaysOfAnOpenPort) {
  Make();
  Add({.name = "a", .number = 1, .console = false}, &agent_);
  EXPECT_EQ(agent_.receive(Bytes("early")), 0U) << "nobody has opened it";
  Tell(1, Event::kPortOpen, 1);
  EXPECT_THAT(opens_, ElementsAre(true));
  EXPECT_EQ(agent_.receiver_ready, 1) << "what was refused is asked for";
  EXPECT_EQ(agent_.receive(Bytes("early")), 0U) << "no buffers";
  const GuestAddress first = Give(4, 3);
  EXPECT_EQ(agent_.receiver_ready, 2);
  EXPECT_EQ(agent_.receive(Bytes("early")), 3U);
  EXPECT_EQ(Text(driver_->ram().Get(first, 3)), "ear");
  EXPECT_EQ(driver_->Take(4)->written, 3U);
  Write(5, "hello");
  EXPECT_EQ(agent_.output, "hello");
  EXPECT_TRUE(driver_->Take(5).has_value());
  Tell(1, Event::kPortOpen, 0);
  EXPECT_THAT(opens_, ElementsAre(true, false));
}

TEST_F(VirtioSerialTest, OutputWaitsForRoomAndLosesNothing) {
  Make();
  Add({.name = "a", .number = 1, .console = false}, &agent_);
  agent_.room = 3;
  Write(5, "hello ");
  Write(5, "world");
  EXPECT_EQ(agent_.output, "hel");
  EXPECT_FALSE(driver_->Take(5).has_value());
  agent_.room = 5;
  agent_.writable();
  EXPECT_EQ(agent_.output, "hello wo");
  EXPECT_TRUE(driver_->Take(5).has_value());
  EXPECT_FALSE(driver_->Take(5).has_value());
  agent_.room = SIZE_MAX;
  agent_.writable();
  EXPECT_EQ(agent_.output, "hello world");
  EXPECT_TRUE(driver_->Take(5).has_value());
}

TEST_F(VirtioSerialTest, AResetForgetsWhatWasUnderWay) {
  Make();
  Add({.name = "a", .number = 1, .console = false}, &agent_);
  Tell(1, Event::kPortOpen, 1);
  agent_.room = 1;
  Write(5, "old");
  driver_->Stop();
  EXPECT_THAT(opens_, ElementsAre(true, false));
  agent_.room = SIZE_MAX;
  agent_.writable();
  EXPECT_EQ(agent_.output, "o");
  EXPECT_EQ(agent_.receive(Bytes("x")), 0U);
}

TEST_F(VirtioSerialTest, WithoutMultiportThereIsPortZeroAlwaysOpen) {
  Make(~(1ULL << 1));
  Add({.name = {}, .number = 0, .console = true}, &console_);
  driver_->Stop();
  ASSERT_TRUE(driver_->Start());
  Give(0, 8);
  EXPECT_EQ(console_.receive(Bytes("in")), 2U);
  Write(1, "out");
  EXPECT_EQ(console_.output, "out");
}

TEST_F(VirtioSerialTest, AFloodFromTheGuestIsServedInTurns) {
  Make();
  Add({.name = "a", .number = 1, .console = false}, nullptr);
  const GuestAddress at = driver_->ram().Allocate(4 * kMiB);
  const std::vector<TestBuffer> flood(8, {.address = at, .length = 4 * kMiB});
  driver_->Send(5, flood);
  driver_->Kick(5);
  EXPECT_FALSE(driver_->Take(5).has_value()) << "others have their turn";
  EXPECT_TRUE(driver_->RunUntil([&] { return driver_->Take(5).has_value(); }));
}

TEST_F(VirtioSerialTest, MessagesThatMakeNoSenseAreNoOnes) {
  Make();
  Add({.name = "a", .number = 1, .console = false}, &agent_);
  Tell(77, Event::kPortReady, 1);
  Tell(1, static_cast<Event>(99), 1);
  EXPECT_TRUE(driver_->Ask(VirtioSerial::kControlOut, Bytes("shrt")));
  for (int i = 0; i < 2000; ++i) Tell(1, Event::kPortReady, 1);
  std::size_t heard = 0;
  while (!Hear().empty()) ++heard;
  EXPECT_LE(heard, 1025U) << "a driver that does not listen is told no more";
  EXPECT_EQ(driver_->needs_reset(), "");
}

TEST_F(VirtioSerialTest, NumbersAndNamesAreTakenOnce) {
  Make();
  EXPECT_EQ(*serial_->ChooseNumber({}, true), 0U) << "the first console";
  EXPECT_EQ(*serial_->ChooseNumber({}, false), 1U);
  Add({.name = "a", .number = 0, .console = true}, &console_);
  EXPECT_EQ(*serial_->ChooseNumber({}, true), 1U);
  Add({.name = "b", .number = 1, .console = false}, nullptr);
  Add({.name = "", .number = 2, .console = false}, nullptr);
  Add({.name = "", .number = 3, .console = false}, nullptr);
  EXPECT_THAT(serial_->ChooseNumber(1, false).error().message(), HasSubstr("already exists at id"));
  EXPECT_THAT(serial_->ChooseNumber(4, false).error().message(), HasSubstr("max. allowed: 3"));
  EXPECT_THAT(serial_->ChooseNumber({}, false).error().message(), HasSubstr("Maximum port limit"));
  ports_.pop_back();
  const auto twin =
      SerialPort::Create(*serial_, {.name = "b", .number = 3, .console = false}, nullptr, {});
  ASSERT_FALSE(twin);
  EXPECT_THAT(twin.error().message(), HasSubstr("already exists by name b"));
  const auto busy =
      SerialPort::Create(*serial_, {.name = "c", .number = 3, .console = false}, &console_, {});
  ASSERT_FALSE(busy);
  EXPECT_THAT(busy.error().message(), HasSubstr("in use"));
}

TEST_F(VirtioSerialTest, TheBusIsFoundAsLongAsItIsThere) {
  Make();
  EXPECT_TRUE(buses_.Find("vs0.0", VirtioSerial::kBusType, "virtconsole"));
  EXPECT_TRUE(buses_.Find("", VirtioSerial::kBusType, "virtconsole"));
  Add({.name = "a", .number = 1, .console = false}, &agent_);
  driver_.reset();
  serial_.reset();
  EXPECT_FALSE(buses_.Find("", VirtioSerial::kBusType, "virtconsole"));
  agent_.writable();  // a port whose bus has gone
  EXPECT_EQ(agent_.receive(Bytes("x")), 0U);
}

}  // namespace
}  // namespace holdfast::devices::virtio
