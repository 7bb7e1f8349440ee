// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/pci_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/units.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/event_loop.h"
#include "devices/device_request.h"
#include "devices/pci/bridge.h"
#include "devices/pci/config_regs.h"
#include "devices/pci/root_port.h"
#include "devices/pci/test_device.h"
#include "devices/pci/test_services.h"

namespace holdfast::devices::pci {
namespace {

using testing::FakeServices;
using ::testing::HasSubstr;

constexpr GuestAddress kEcam{0xb0000000};
constexpr Windows kWindows{.io = {0x1000, 0xf000},
                           .memory32 = {0xc0000000, 0x3ec00000},
                           .memory64 = {4 * kGiB, 32 * kGiB}};

class PciHostTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loop = EventLoop::Create();
    ASSERT_TRUE(loop);
    loop_ = *std::move(loop);
    environment_.emplace(DeviceEnvironment{
        .loop = *loop_, .memory = memory_, .pci = services_, .backends = backends_, .emit = {}});
    auto host = PciHost::Create(services_, io_, mmio_, kEcam, kWindows);
    ASSERT_TRUE(host) << host.error().ToString();
    host_ = *std::move(host);
  }

  Result<PciBus::Occupant*> Add(const DeviceModel& model, Placement placement, PciBus& bus) {
    placement.model = model.name;
    HF_TRY(auto function, model.create(*environment_, placement.id, {}));
    return host_->Add(bus, std::move(placement), std::move(function));
  }
  Result<PciBus::Occupant*> Add(const DeviceModel& model, Placement placement) {
    return Add(model, std::move(placement), host_->root());
  }

  std::uint32_t In(Bus& bus, std::uint64_t address, unsigned size = 4) {
    std::array<std::byte, 4> data{};
    bus.Read(address, std::span(data).first(size));
    std::uint32_t value = 0;
    std::memcpy(&value, data.data(), size);
    return value;
  }
  void Out(Bus& bus, std::uint64_t address, std::uint32_t value, unsigned size = 4) {
    bus.Write(address, std::as_bytes(std::span(&value, 1)).first(size));
  }
  static std::uint64_t Config(unsigned bus, unsigned slot, unsigned reg) {
    return kEcam.value() + (std::uint64_t{bus} << 20) + (std::uint64_t{slot} << 15) + reg;
  }

  FakeServices services_;
  Bus io_;
  Bus mmio_;
  AddressSpace memory_{nullptr};
  Backends backends_;
  std::unique_ptr<EventLoop> loop_;
  std::optional<DeviceEnvironment> environment_;
  std::unique_ptr<PciHost> host_;
};

TEST(PciAddress, IsReadAsQemuDoes) {
  const struct {
    const char* text;
    std::optional<SlotFunction> want;
  } kCases[] = {{"5", SlotFunction{5, 0}},
                {"05.0", SlotFunction{5, 0}},
                {"0x1f.7", SlotFunction{31, 7}},
                {"1F.2", SlotFunction{31, 2}},
                {"20", std::nullopt},
                {"5.8", std::nullopt},
                {"", std::nullopt},
                {".1", std::nullopt},
                {"5.", std::nullopt},
                {"0x", std::nullopt},
                {"5.1.2", std::nullopt},
                {"-1", std::nullopt},
                {"100000001", std::nullopt},
                {"5 ", std::nullopt}};
  for (const auto& c : kCases) EXPECT_EQ(ParseSlotFunction(c.text), c.want) << c.text;
}

TEST_F(PciHostTest, ShowsConfigurationSpaceInBothWaysAndAllOnesWhereNobodyIs) {
  ASSERT_TRUE(Add(kPciTestdev, {.address = SlotFunction{3, 0}}));
  EXPECT_EQ(In(mmio_, Config(0, 0, 0)), 0x29c08086U);
  EXPECT_EQ(In(mmio_, Config(0, 3, 0)), 0x00051b36U);
  EXPECT_EQ(In(mmio_, Config(0, 4, 0)), 0xffffffffU);
  EXPECT_EQ(In(mmio_, Config(1, 3, 0)), 0xffffffffU);
  EXPECT_EQ(In(mmio_, Config(255, 31, 0xffc)), 0xffffffffU);

  EXPECT_EQ(In(io_, 0xcfc), 0xffffffffU) << "nothing is selected";
  Out(io_, 0xcf8, 0x80001800);
  EXPECT_EQ(In(io_, 0xcf8), 0x80001800U);
  EXPECT_EQ(In(io_, 0xcfc), 0x00051b36U);
  EXPECT_EQ(In(io_, 0xcfe, 2), 0x0005U);
  Out(io_, 0xcf8, 0x00001800);
  EXPECT_EQ(In(io_, 0xcfc), 0xffffffffU) << "not enabled";
  Out(io_, 0xcf8, 0x12, 1);
  EXPECT_EQ(In(io_, 0xcf8), 0x00001800U) << "only four bytes at once count";
}

TEST_F(PciHostTest, PlacesBarsThatTheGuestMayMove) {
  ASSERT_TRUE(Add(kPciTestdev, {}));
  host_->AssignResources();
  const std::uint32_t bar0 = In(mmio_, Config(0, 1, kRegBar0)) & ~15U;
  const std::uint32_t bar1 = In(mmio_, Config(0, 1, kRegBar0 + 4)) & ~3U;
  EXPECT_GE(bar0, kWindows.memory32.base);
  EXPECT_GE(bar1, kWindows.io.base);
  EXPECT_EQ(In(mmio_, Config(0, 1, kRegBar0 + 12)), 1U) << "BAR 2 lies above 4 GiB";
  EXPECT_EQ(In(mmio_, bar0), 0xffffffffU) << "not decoded yet";
  Out(mmio_, Config(0, 1, kRegCommand), kCommandMemory | kCommandIo, 2);
  EXPECT_EQ(In(mmio_, bar0), testdev::kMagicValue);
  EXPECT_EQ(In(io_, bar1), testdev::kMagicValue);
  ASSERT_EQ(services_.doorbells().size(), 1U);
  EXPECT_EQ(services_.doorbells()[0].address, GuestAddress(bar0 + testdev::kDoorbell));

  Out(mmio_, Config(0, 1, kRegBar0), 0xd0000000);
  EXPECT_EQ(In(mmio_, bar0), 0xffffffffU);
  EXPECT_EQ(In(mmio_, 0xd0000000), testdev::kMagicValue);
  EXPECT_EQ(services_.doorbells()[0].address, GuestAddress(0xd0000000 + testdev::kDoorbell));
  // On top of configuration space nothing happens, and it comes back from there.
  Out(mmio_, Config(0, 1, kRegBar0), static_cast<std::uint32_t>(kEcam.value()));
  EXPECT_EQ(In(mmio_, Config(0, 0, 0)), 0x29c08086U);
  Out(mmio_, Config(0, 1, kRegBar0), 0xd0000000);
  EXPECT_EQ(In(mmio_, 0xd0000000), testdev::kMagicValue);

  host_->Reset();
  EXPECT_EQ(In(mmio_, 0xd0000000), 0xffffffffU);
  EXPECT_EQ(In(mmio_, Config(0, 1, kRegBar0)) & ~15U, bar0) << "placed again";
  EXPECT_TRUE(services_.doorbells().empty());
}

TEST_F(PciHostTest, ExchangesTwoBarsOneAfterTheOther) {
  ASSERT_TRUE(Add(kPciTestdev, {}));
  ASSERT_TRUE(Add(kPciTestdev, {}));
  for (const unsigned slot : {1U, 2U}) {
    Out(mmio_, Config(0, slot, kRegBar0), 0xd0000000 + slot * 0x1000);
    Out(mmio_, Config(0, slot, kRegCommand), kCommandMemory, 2);
    Out(mmio_, 0xd0000000 + slot * 0x1000 + testdev::kScratch, slot);
  }
  Out(mmio_, Config(0, 1, kRegBar0), 0xd0002000);  // onto the second one
  Out(mmio_, Config(0, 2, kRegBar0), 0xd0001000);
  EXPECT_EQ(In(mmio_, 0xd0002000 + testdev::kScratch), 1U);
  EXPECT_EQ(In(mmio_, 0xd0001000 + testdev::kScratch), 2U);
}

TEST_F(PciHostTest, SharesInterruptLines) {
  ASSERT_TRUE(Add(kPciTestdev, {.address = SlotFunction{1, 0}}));
  ASSERT_TRUE(Add(kPciTestdev, {.address = SlotFunction{5, 0}}));
  host_->AssignResources();
  const auto at = [&](unsigned slot) { return In(mmio_, Config(0, slot, kRegBar0)) & ~15U; };
  for (const unsigned slot : {1U, 5U}) {
    Out(mmio_, Config(0, slot, kRegCommand), kCommandMemory, 2);
    Out(mmio_, at(slot) + testdev::kInterrupt, 0);
  }
  constexpr std::uint32_t kGsi = PciHost::GsiOf(1, 0);
  static_assert(kGsi == PciHost::GsiOf(5, 0));
  EXPECT_TRUE(services_.gsi(kGsi));
  Out(mmio_, at(1) + testdev::kAcknowledge, 0);
  EXPECT_TRUE(services_.gsi(kGsi)) << "the other one is not through";
  Out(mmio_, at(5) + testdev::kAcknowledge, 0);
  EXPECT_FALSE(services_.gsi(kGsi));
}

TEST_F(PciHostTest, RefusesPlacesAsQemuDoes) {
  ASSERT_TRUE(Add(kPciTestdev, {.id = "a", .address = SlotFunction{2, 0}}));
  ASSERT_TRUE(Add(kPciTestdev, {.address = SlotFunction{7, 1}, .multifunction = true}));
  auto port = Add(kPcieRootPort, {.id = "rp", .address = SlotFunction{4, 0}});
  ASSERT_TRUE(port);
  const struct {
    Placement placement;
    const char* bus;
    const char* says;
  } kCases[] = {
      {{.address = SlotFunction{2, 0}},
       "pcie.0",
       "PCI: slot 2 function 0 not available for pci-testdev, in use by pci-testdev,id=a"},
      {{.address = SlotFunction{0, 0}}, "pcie.0", "in use by mch"},
      {{.address = SlotFunction{2, 1}},
       "pcie.0",
       "PCI: single function device can't be populated in function 2.1"},
      {{.address = SlotFunction{7, 0}},
       "pcie.0",
       "PCI: 7.0 indicates single function, but 7.1 is already populated."},
      {{.address = SlotFunction{1, 0}}, "rp", "parent device only allows plugging into slot 0."},
  };
  for (const auto& c : kCases) {
    const auto added = Add(kPciTestdev, c.placement, *host_->FindBus(c.bus));
    ASSERT_FALSE(added) << c.says;
    EXPECT_THAT(added.error().message(), HasSubstr(c.says));
  }
  EXPECT_EQ(host_->FindBus("nosuch"), nullptr);
  while (Add(kPciTestdev, {})) {
  }
  const auto full = Add(kPciTestdev, {});
  EXPECT_THAT(full.error().message(), HasSubstr("all in use or reserved"));
}

class PciPortTest : public PciHostTest {
 protected:
  void SetUp() override {
    PciHostTest::SetUp();
    auto port = Add(kPcieRootPort, {.id = "rp", .address = SlotFunction{4, 0}});
    ASSERT_TRUE(port);
    bridge_ = (*port)->bridge;
    bridge_->set_released([this] { ++released_; });
    bridge_->set_refused([this] { ++refused_; });
    host_->Reset();
    for (std::uint32_t at = In(mmio_, Config(0, 4, kRegCapabilities), 1); at != 0;
         at = In(mmio_, Config(0, 4, at + 1), 1)) {
      if (In(mmio_, Config(0, 4, at), 1) == kCapExpress) express_ = at;
    }
    ASSERT_NE(express_, 0U);
  }
  std::uint32_t SlotStatus() { return In(mmio_, Config(0, 4, express_ + 0x1a), 2); }
  void Control(std::uint32_t value) { Out(mmio_, Config(0, 4, express_ + 0x18), value, 2); }

  Bridge* bridge_ = nullptr;
  unsigned express_ = 0;
  int released_ = 0;
  int refused_ = 0;
};

TEST_F(PciPortTest, LeadsToWhatIsBehindIt) {
  ASSERT_TRUE(Add(kPciTestdev, {.id = "dev"}, bridge_->secondary()));
  host_->AssignResources();
  EXPECT_EQ(In(mmio_, Config(1, 0, 0)), 0x00051b36U);
  Out(mmio_, Config(0, 4, kRegPrimaryBus), 0x00090800);  // buses 8 and 9
  EXPECT_EQ(In(mmio_, Config(1, 0, 0)), 0xffffffffU);
  EXPECT_EQ(In(mmio_, Config(8, 0, 0)), 0x00051b36U);
  EXPECT_EQ(In(mmio_, Config(9, 0, 0)), 0xffffffffU);
  // INTA# of slot 0 behind the port is the port's own.
  Out(mmio_, Config(8, 0, kRegCommand), kCommandMemory, 2);
  const std::uint32_t bar0 = In(mmio_, Config(8, 0, kRegBar0)) & ~15U;
  Out(mmio_, bar0 + testdev::kInterrupt, 0);
  EXPECT_TRUE(services_.gsi(PciHost::GsiOf(4, 0)));
  host_->Remove(bridge_->secondary(), {0, 0});
  EXPECT_FALSE(services_.gsi(PciHost::GsiOf(4, 0)));
  EXPECT_EQ(In(mmio_, bar0), 0xffffffffU);
}

TEST_F(PciPortTest, TellsTheGuestWhatComesAndAsksBeforeItGoes) {
  constexpr std::uint32_t kAllEvents = 0x1 | 0x8 | 0x20 | 0x1000;
  EXPECT_EQ(SlotStatus(), 0U);
  Control(kAllEvents | 0x400 | 0x3c0);
  ASSERT_TRUE(Add(kPciTestdev, {.id = "dev"}, bridge_->secondary()));
  bridge_->OccupantCame();
  EXPECT_EQ(SlotStatus(), 0x148U) << "present; presence and link changed";
  EXPECT_TRUE(services_.gsi(PciHost::GsiOf(4, 0)));
  Out(mmio_, Config(0, 4, express_ + 0x1a), 0x108, 2);
  EXPECT_EQ(SlotStatus(), 0x40U);
  EXPECT_FALSE(services_.gsi(PciHost::GsiOf(4, 0)));
  Control(kAllEvents | 0x140);  // power and its light on

  bridge_->RequestRemoval();
  EXPECT_EQ(SlotStatus(), 0x41U) << "the button";
  EXPECT_TRUE(services_.gsi(PciHost::GsiOf(4, 0)));
  Control(kAllEvents | 0x240);  // it blinks
  Control(kAllEvents | 0x640);  // no power, but the light is still not out
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
  EXPECT_EQ(released_, 0);
  Control(kAllEvents | 0x740);
  Control(kAllEvents | 0x740);
  ASSERT_TRUE(loop_->RunOnce(std::chrono::seconds(60)));
  EXPECT_EQ(released_, 1);
  host_->Remove(bridge_->secondary(), {0, 0});
  bridge_->OccupantWent();
  EXPECT_EQ(SlotStatus() & 0x48, 0x8U);
}

TEST_F(PciPortTest, HearsThatTheGuestKeepsWhatItWasAskedFor) {
  constexpr std::uint32_t kOn = 0x140;
  constexpr std::uint32_t kBlinks = 0x240;
  ASSERT_TRUE(Add(kPciTestdev, {.id = "dev"}, bridge_->secondary()));
  host_->Reset();
  const auto told = [&] {
    EXPECT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
    return refused_;
  };
  Control(kBlinks);
  EXPECT_TRUE(bridge_->busy());
  Control(kOn);
  EXPECT_FALSE(bridge_->busy());
  EXPECT_EQ(told(), 0) << "nobody asked";
  bridge_->RequestRemoval();
  Control(kOn);
  EXPECT_EQ(told(), 0) << "no answer yet";
  Control(kBlinks);
  Control(kOn);
  EXPECT_EQ(told(), 1);
  Control(kBlinks);
  Control(kOn);
  EXPECT_EQ(told(), 1) << "once for each time it is asked";
  bridge_->RequestRemoval();
  Control(kBlinks);
  host_->Reset();
  Control(kOn);
  EXPECT_EQ(told(), 1) << "another guest was asked";
  EXPECT_EQ(released_, 0);
}

}  // namespace
}  // namespace holdfast::devices::pci
