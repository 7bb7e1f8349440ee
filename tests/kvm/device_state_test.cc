// SPDX-License-Identifier: Apache-2.0
// Devices of a machine on KVM go into another machine, with a driver in the midst of its work: here
// that is the test, which writes the registers that a guest would.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include "base/event_loop.h"
#include "devices/device_request.h"
#include "devices/pci/pci_host.h"
#include "devices/virtio/virtio_pci_regs.h"
#include "kvm/built_machine.h"
#include "machine/machine.h"
#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using machine::Machine;
using machine::RunState;
using namespace devices::virtio::regs;

constexpr std::uint64_t kGuestRam = 16 * kMiB;
// The driver's queue, with requests of eight bytes each behind it.
constexpr std::uint64_t kDescriptors = 0x800000;
constexpr std::uint64_t kAvailable = 0x801000;
constexpr std::uint64_t kUsed = 0x802000;
constexpr std::uint64_t kBuffers = 0x803000;
constexpr std::uint16_t kEntries = 8;

// A machine with a device of every kind that needs nothing of the host.
struct Computer : BuiltMachine {
  std::uint16_t added = 0;

  devices::pci::Function& rng() const {
    return *machine->pci().FindById("rng0").occupant->function;
  }
  template <typename T>
  void Register(std::uint32_t offset, T value) const {
    rng().AccessWriteBar(kBar, offset, std::as_bytes(std::span(&value, 1)));
  }
  template <typename T>
  void Put(std::uint64_t at, T value) const {
    std::memcpy(ram->host_view().data() + at, &value, sizeof value);
  }
  template <typename T>
  T Get(std::uint64_t at) const {
    T value;
    std::memcpy(&value, ram->host_view().data() + at, sizeof value);
    return value;
  }
  // What a driver does until its queue is in use.
  void Start() const {
    rng().WriteConfig(4, 2, 6);  // memory and bus master
    Register<std::uint8_t>(kDeviceStatus, 3);
    Register<std::uint32_t>(kDriverFeatureSelect, 1);
    Register<std::uint32_t>(kDriverFeature, 1);
    Register<std::uint8_t>(kDeviceStatus, 11);
    Register<std::uint16_t>(kQueueSize, kEntries);
    Register<std::uint64_t>(kQueueDescriptors, kDescriptors);
    Register<std::uint64_t>(kQueueDriver, kAvailable);
    Register<std::uint64_t>(kQueueDevice, kUsed);
    Register<std::uint16_t>(kQueueEnable, 1);
    Register<std::uint8_t>(kDeviceStatus, 15);
  }
  // A request that nobody is told of.
  void Add() {
    const std::uint16_t slot = added % kEntries;
    Put<std::uint64_t>(kDescriptors + 16 * slot, kBuffers + 8 * slot);
    Put<std::uint32_t>(kDescriptors + 16 * slot + 8, 8);
    Put<std::uint32_t>(kDescriptors + 16 * slot + 12, 2);  // the device writes it
    Put<std::uint16_t>(kAvailable + 4 + 2 * slot, slot);
    Put<std::uint16_t>(kAvailable + 2, ++added);
  }
  std::uint16_t answered() const { return Get<std::uint16_t>(kUsed + 2); }
  bool RunUntilAnswered(std::uint16_t count) const {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    while (answered() != count && std::chrono::steady_clock::now() < give_up) {
      if (!loop->RunOnce(std::chrono::milliseconds(1))) return false;
    }
    return answered() == count;
  }
};

class DeviceStateTest : public KvmTest {
 protected:
  Computer Make(bool incoming) {
    Computer made;
    machine::MachineConfig config;
    config.kernel = HelloPath();
    config.cmdline = "n";
    config.incoming = incoming;
    for (const char* const text :
         {"driver=pcie-root-port,id=rp0", "driver=virtio-rng-pci,id=rng0,bus=rp0",
          "driver=pci-testdev,id=t0", "driver=i6300esb,id=w0", "driver=virtio-scsi-pci,id=s0",
          "driver=virtio-serial-pci,id=vs0", "driver=virtconsole,bus=vs0.0",
          "driver=virtconsole,id=c0,nr=5,name=p"}) {
      config.devices.push_back(Request(text));
    }
    made.Build(system(), kGuestRam, std::move(config));
    return made;
  }
  static devices::DeviceRequest Request(const char* text) {
    object::KeyValues values = *object::ParseKeyValues(text);
    const std::string driver = values.front().value;
    values.erase(values.begin());
    auto request = devices::ParseDeviceRequest(*devices::FindDeviceModel(driver), values);
    EXPECT_OK(request);
    return *std::move(request);
  }
  // One whose driver has had an answer, and has asked for another one without a kick.
  void Prepare() {
    source_ = Make(false);
    ASSERT_NE(source_.machine, nullptr);
    ASSERT_OK(source_.machine->Resume());
    source_.Start();
    source_.Add();
    ASSERT_TRUE(source_.RunUntilAnswered(1));
    source_.machine->Pause(RunState::kSaveVm);
    source_.Add();
    auto saved = source_.machine->SaveState();
    ASSERT_OK(saved);
    saved_ = *std::move(saved);
  }
  void CopyRam(Computer& to) const {
    std::ranges::copy(source_.ram->host_view(), to.ram->host_view().begin());
    to.added = source_.added;
  }

  Computer source_;
  std::vector<state::SavedSection> saved_;
};

TEST_F(DeviceStateTest, ADriversRequestsAreAnsweredInAnotherMachine) {
  ASSERT_NO_FATAL_FAILURE(Prepare());
  Computer target = Make(true);
  ASSERT_NE(target.machine, nullptr);
  // What is in memory comes last: nothing may look at it before the machine goes on.
  ASSERT_OK(target.machine->LoadState(saved_));
  for (int i = 0; i < 3; ++i) ASSERT_OK(target.loop->RunOnce(std::chrono::milliseconds(0)));
  CopyRam(target);
  const auto again = target.machine->SaveState();
  ASSERT_OK(again);
  for (std::size_t i = 0; i < saved_.size(); ++i) {
    const std::string& name = saved_[i].name;
    if (!name.starts_with("pci") && !name.starts_with("child/")) continue;
    EXPECT_EQ((*again)[i].name, name);
    EXPECT_EQ((*again)[i].bytes, saved_[i].bytes) << name;
  }
  EXPECT_EQ(target.answered(), 1);
  ASSERT_OK(target.machine->Resume());
  ASSERT_TRUE(target.RunUntilAnswered(2));
  for (std::uint16_t i = 3; i < 30; ++i) {
    target.Add();
    target.Register<std::uint16_t>(kNotifyAt, 0);
    ASSERT_TRUE(target.RunUntilAnswered(i));
  }
  // So are they where it came from.
  ASSERT_OK(source_.machine->Resume());
  ASSERT_TRUE(source_.RunUntilAnswered(2));
}

// A guest that found a slot empty would turn it off, with the device that is in it from the start.
TEST_F(DeviceStateTest, AnOccupiedSlotSaysSoBeforeTheFirstReset) {
  const Computer computer = Make(false);
  ASSERT_NE(computer.machine, nullptr);
  devices::pci::Function& port = *computer.machine->pci().FindById("rp0").occupant->function;
  constexpr std::uint32_t kExpress = 0x10;
  std::uint32_t at = port.ReadConfig(0x34, 1);
  while (at != 0 && port.ReadConfig(static_cast<std::uint16_t>(at), 1) != kExpress) {
    at = port.ReadConfig(static_cast<std::uint16_t>(at + 1), 1);
  }
  ASSERT_NE(at, 0U);
  EXPECT_NE(port.ReadConfig(static_cast<std::uint16_t>(at + 0x1a), 2) & 0x40, 0U);
  EXPECT_NE(port.ReadConfig(static_cast<std::uint16_t>(at + 0x12), 2) & 0x2000, 0U);
}

TEST_F(DeviceStateTest, AMachineGoesBackWithItsDevices) {
  ASSERT_NO_FATAL_FAILURE(Prepare());
  const std::vector<std::byte> ram(source_.ram->host_view().begin(),
                                   source_.ram->host_view().end());
  for (int round = 0; round < 10; ++round) {
    source_.added = 2;
    std::ranges::copy(ram, source_.ram->host_view().begin());
    ASSERT_OK(source_.machine->LoadState(saved_));
    EXPECT_EQ(source_.answered(), 1);
    ASSERT_OK(source_.machine->Resume());
    ASSERT_TRUE(source_.RunUntilAnswered(2));
    source_.machine->Pause(RunState::kRestoreVm);
  }
}

TEST_F(DeviceStateTest, NonsenseIsRefusedOrLoadedButNeverMore) {
  ASSERT_NO_FATAL_FAILURE(Prepare());
  Computer target = Make(true);
  ASSERT_NE(target.machine, nullptr);
  std::vector<std::size_t> of_devices;
  for (std::size_t i = 0; i < saved_.size(); ++i) {
    const std::string& name = saved_[i].name;
    if (name.starts_with("pci") || name.starts_with("child/")) of_devices.push_back(i);
  }
  std::mt19937 random(7);  // NOLINT(cert-msc51-cpp): the same each time
  for (int round = 0; round < 200; ++round) {
    std::vector<state::SavedSection> flipped = saved_;
    for (std::uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
      auto& bytes = flipped[of_devices[random() % of_devices.size()]].bytes;
      if (!bytes.empty()) bytes[random() % bytes.size()] ^= static_cast<std::byte>(random());
    }
    CopyRam(target);
    const Status loaded = target.machine->LoadState(flipped);
    if (!loaded) continue;
    ASSERT_OK(target.machine->Resume());
    ASSERT_OK(target.loop->RunOnce(std::chrono::milliseconds(0)));
    target.machine->Pause(RunState::kRestoreVm);
  }
  CopyRam(target);
  ASSERT_OK(target.machine->LoadState(saved_));
  ASSERT_OK(target.machine->Resume());
  ASSERT_TRUE(target.RunUntilAnswered(2));
}

}  // namespace
}  // namespace holdfast::test
