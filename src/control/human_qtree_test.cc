// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>

#include <memory>
#include <string>

#include "base/event_loop.h"
#include "control/device_text.h"
#include "devices/device_model.h"
#include "devices/pci/bridge.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/test_services.h"

namespace holdfast::control {
namespace {

namespace pci = devices::pci;
using ::testing::HasSubstr;

class DeviceTextTest : public ::testing::Test {
 protected:
  pci::PciBus::Occupant& Put(pci::PciBus& bus, std::string_view model, pci::Placement placement,
                             pci::SlotFunction where) {
    placement.model = model;
    auto made =
        devices::FindDeviceModel(model)->create(environment_, placement.id, placement.values);
    EXPECT_TRUE(made) << made.error().ToString();
    return bus.Put(std::move(placement), where, *std::move(made));
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  AddressSpace memory_{nullptr};
  pci::testing::FakeServices services_;
  devices::Backends backends_;
  const devices::DeviceEnvironment environment_{
      .loop = *loop_, .memory = memory_, .pci = services_, .backends = backends_, .emit = {}};
  pci::PciBus root_{"pcie.0", nullptr};
};

TEST_F(DeviceTextTest, ShowsDevicesWhereTheyAre) {
  auto& port = Put(root_, "pcie-root-port",
                   {.id = "rp", .values = {{.key = "chassis", .value = "7"}}}, {4, 0});
  Put(port.bridge->secondary(), "pci-testdev", {.id = "behind"}, {0, 0});
  const std::string text = FormatDeviceBus(root_, {}, 4);
  EXPECT_THAT(text, HasSubstr("    bus: pcie.0\n"
                              "      type PCIE\n"
                              "      dev: pcie-root-port, id \"rp\"\n"
                              "        addr = 04.0\n"
                              "        multifunction = false\n"
                              "        port = 0\n"
                              "        chassis = 7\n"
                              "        slot = 0\n"
                              "        hotplug = true\n"
                              "        class PCI bridge, addr 00:04.0, pci id 1b36:000c (sub "
                              "0000:0000)\n"
                              "        bar 0: mem at 0xffffffffffffffff [0xffffffffffffffff]\n"
                              "        bus: rp\n"
                              "          type PCIE\n"
                              "          dev: pci-testdev, id \"behind\"\n"));
}

TEST_F(DeviceTextTest, ShowsWhatIsOnTheBusesOfDevices) {
  pci::Placement adapter{.id = "scsi0", .buses = {"scsi0.0"}};
  Put(root_, "virtio-scsi-pci", std::move(adapter), {2, 0});
  std::vector<machine::DeviceTree::Child> children;
  children.push_back({.model = "scsi-hd",
                      .id = "disk",
                      .bus = "scsi0.0",
                      .values = {{.key = "drive", .value = "d0"},
                                 {.key = "share-rw", .value = "on"},
                                 {.key = "lun", .value = "3"}},
                      .device = nullptr});
  children.push_back({.model = "scsi-cd", .id = "", .bus = "other.0", .values = {}, .device = {}});
  const std::string text = FormatDeviceBus(root_, children, 0);
  EXPECT_THAT(text, HasSubstr("    bus: scsi0.0\n"
                              "      type SCSI\n"
                              "      dev: scsi-hd, id \"disk\"\n"));
  EXPECT_THAT(text, HasSubstr("        drive = \"d0\"\n"));
  EXPECT_THAT(text, HasSubstr("        share-rw = true\n"));
  EXPECT_THAT(text, HasSubstr("        lun = 3\n"));
  EXPECT_THAT(text, HasSubstr("        serial = \"\"\n"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("scsi-cd")));
}

}  // namespace
}  // namespace holdfast::control
