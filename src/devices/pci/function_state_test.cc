// SPDX-License-Identifier: Apache-2.0
// Functions that are saved and loaded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/units.h>

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "base/state.h"
#include "devices/device_request.h"
#include "devices/i6300esb.h"
#include "devices/pci/bridge.h"
#include "devices/pci/config_regs.h"
#include "devices/pci/pci_host.h"
#include "devices/pci/root_port.h"
#include "devices/pci/test_device.h"
#include "devices/pci/test_services.h"

namespace holdfast::devices::pci {
namespace {

using testing::FakeServices;
using ::testing::HasSubstr;

constexpr GuestAddress kEcamAt{0xb0000000};
constexpr Windows kSomewhere{.io = {0x1000, 0xf000},
                             .memory32 = {0xc0000000, 0x3ec00000},
                             .memory64 = {4 * kGiB, 32 * kGiB}};

std::vector<std::byte> Saved(const std::function<void(state::Fields&)>& visit) {
  state::Fields fields(1);
  visit(fields);
  EXPECT_TRUE(fields.status());
  return std::move(fields).Take();
}
Status Loaded(const std::function<void(state::Fields&)>& visit, std::span<const std::byte> bytes) {
  state::Fields fields(1, bytes);
  visit(fields);
  return fields.status();
}

// A root port in slot 1 with a test device behind it, and a watchdog in slot 2.
struct Machine {
  explicit Machine(EventLoop& loop)
      : environment{
            .loop = loop, .memory = memory, .pci = services, .backends = backends, .emit = {}} {
    host = *PciHost::Create(services, io, mmio, kEcamAt, kSomewhere);
    port = Add(kPcieRootPort, host->root(), "rp0");
    test = Add(kPciTestdev, port->bridge->secondary(), "t0");
    watchdog = Add(kI6300Esb, host->root(), "w0");
    host->Reset();
  }
  PciBus::Occupant* Add(const DeviceModel& model, PciBus& bus, std::string_view id) {
    Placement placement{.id = std::string(id), .model = std::string(model.name)};
    return *host->Add(bus, std::move(placement), *model.create(environment, id, {}));
  }
  std::uint32_t Read(std::uint64_t address) {
    std::uint32_t value = 0;
    mmio.Read(address, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void Write(std::uint64_t address, std::uint32_t value) {
    mmio.Write(address, std::as_bytes(std::span(&value, 1)));
  }
  void SetRunning(bool running) {
    host->ForEach([&](PciBus&, PciBus::Occupant& one) { one.function->SetRunning(running); });
  }
  std::vector<std::vector<std::byte>> Save() {
    SetRunning(false);
    std::vector<std::vector<std::byte>> all;
    all.push_back(Saved([&](state::Fields& fields) { host->VisitState(fields); }));
    host->ForEach([&](PciBus&, PciBus::Occupant& one) {
      all.push_back(Saved([&](state::Fields& fields) { one.function->VisitState(fields); }));
    });
    return all;
  }
  void Load(const std::vector<std::vector<std::byte>>& all) {
    SetRunning(false);
    std::size_t next = 0;
    EXPECT_TRUE(Loaded([&](state::Fields& fields) { host->VisitState(fields); }, all[next++]));
    host->ForEach([&](PciBus&, PciBus::Occupant& one) {
      const Status loaded =
          Loaded([&](state::Fields& fields) { one.function->VisitState(fields); }, all[next++]);
      EXPECT_TRUE(loaded) << one.function->name() << ": " << loaded.error().ToString();
    });
    SetRunning(true);
  }

  FakeServices services;
  AddressSpace memory{nullptr};
  Backends backends;
  Bus io;
  Bus mmio;
  DeviceEnvironment environment;
  std::unique_ptr<PciHost> host;
  PciBus::Occupant* port = nullptr;
  PciBus::Occupant* test = nullptr;
  PciBus::Occupant* watchdog = nullptr;
};

class FunctionState : public ::testing::Test {
 protected:
  const std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  Machine one_{*loop_};
  Machine two_{*loop_};
};

TEST_F(FunctionState, EverythingIsDecodedWhereTheGuestHadPutIt) {
  constexpr std::uint64_t kMoved = 0xd1230000;
  Function& test = *one_.test->function;
  test.PlaceBar(0, GuestAddress(kMoved));
  test.WriteConfig(kRegCommand, 2, kCommandMemory | kCommandMaster);
  one_.port->function->WriteConfig(kRegPrimaryBus, 4, 0x00050500);
  one_.Write(kMoved + testdev::kScratch, 0x12345678);
  one_.Write(kMoved + testdev::kInterrupt, 77);  // no such vector: the line
  one_.Write(kMoved + testdev::kDoorbell, 1);
  const std::uint32_t address = 0x80000800;
  one_.io.Write(0xcf8, std::as_bytes(std::span(&address, 1)));
  two_.Load(one_.Save());
  EXPECT_EQ(two_.Read(kMoved + testdev::kMagic), testdev::kMagicValue);
  EXPECT_EQ(two_.Read(kMoved + testdev::kScratch), 0x12345678U);
  EXPECT_EQ(two_.Read(kMoved + testdev::kDoorbell), 1U);
  EXPECT_EQ(two_.Read(kEcamAt.value() + (5U << 20)), 0x00051b36U) << "behind bus number 5";
  std::uint32_t port = 0;
  two_.io.Read(0xcf8, std::as_writable_bytes(std::span(&port, 1)));
  EXPECT_EQ(port, address);
  ASSERT_EQ(two_.services.doorbells().size(), 1U);
  EXPECT_EQ(two_.services.doorbells()[0].address, GuestAddress(kMoved + testdev::kDoorbell));
  bool any = false;
  for (std::uint32_t gsi = 16; gsi < 20; ++gsi) {
    EXPECT_EQ(one_.services.gsi(gsi), two_.services.gsi(gsi)) << gsi;
    any = any || two_.services.gsi(gsi);
  }
  EXPECT_TRUE(any);
  two_.Write(kMoved + testdev::kAcknowledge, 0);
  for (std::uint32_t gsi = 16; gsi < 20; ++gsi) EXPECT_FALSE(two_.services.gsi(gsi));
}

// Loaded over a machine that has run: nothing of before is left.
TEST_F(FunctionState, WhatWasThereBeforeIsGone) {
  const auto fresh = one_.Save();
  Function& test = *two_.test->function;
  test.PlaceBar(0, GuestAddress(0xd1230000));
  test.WriteConfig(kRegCommand, 2, kCommandMemory);
  two_.Write(0xd1230000 + testdev::kScratch, 5);
  two_.Write(0xd1230000 + testdev::kInterrupt, 77);
  two_.Load(fresh);
  EXPECT_EQ(two_.Read(0xd1230000 + testdev::kMagic), 0xffffffffU);
  for (std::uint32_t gsi = 16; gsi < 20; ++gsi) EXPECT_FALSE(two_.services.gsi(gsi));
  EXPECT_TRUE(two_.services.doorbells().empty());
}

TEST_F(FunctionState, AWatchdogGoesOnWithTheTimeItHad) {
  auto& from = dynamic_cast<I6300Esb&>(*one_.watchdog->function);
  auto& to = dynamic_cast<I6300Esb&>(*two_.watchdog->function);
  from.WriteConfig(0x68, 1, 2);
  ASSERT_TRUE(from.deadline());
  const auto before = *from.deadline() - I6300Esb::Clock::now();
  const auto saved = one_.Save();
  EXPECT_FALSE(from.deadline()) << "it stands";
  two_.Load(saved);
  ASSERT_TRUE(to.deadline());
  EXPECT_LE(*to.deadline() - I6300Esb::Clock::now(), before);
  EXPECT_GT(*to.deadline() - I6300Esb::Clock::now(), before / 2);
  one_.SetRunning(true);
  EXPECT_TRUE(from.deadline());
}

TEST_F(FunctionState, RefusesAnotherFunction) {
  const auto visit = [&](state::Fields& fields) { two_.watchdog->function->VisitState(fields); };
  const auto saved = Saved([&](state::Fields& fields) { one_.test->function->VisitState(fields); });
  const Status loaded = Loaded(visit, saved);
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().ToString(),
              HasSubstr("byte 0x0 of configuration space is 0x36 and here it is 0x86"));
}

TEST_F(FunctionState, HostileStatesDoNoHarm) {
  one_.test->function->WriteConfig(kRegCommand, 2, kCommandMemory | kCommandMaster);
  const auto all = one_.Save();
  std::size_t next = 1;
  two_.SetRunning(false);
  two_.host->ForEach([&](PciBus&, PciBus::Occupant& occupant) {
    SCOPED_TRACE(occupant.function->name());
    const std::vector<std::byte>& good = all[next++];
    const auto visit = [&](state::Fields& fields) { occupant.function->VisitState(fields); };
    for (std::size_t size = 0; size < good.size(); ++size) {
      EXPECT_FALSE(Loaded(visit, std::span(good).first(size))) << "cut to " << size;
    }
    for (std::size_t at = 0; at < good.size(); ++at) {
      std::vector<std::byte> bad = good;
      bad[at] ^= std::byte{0xff};
      (void)Loaded(visit, bad);
      occupant.function->SetRunning(true);
      occupant.function->SetRunning(false);
    }
    EXPECT_TRUE(Loaded(visit, good));
  });
}

}  // namespace
}  // namespace holdfast::devices::pci
