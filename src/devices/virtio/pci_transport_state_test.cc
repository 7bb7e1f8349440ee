// SPDX-License-Identifier: Apache-2.0
// A virtio device on PCI that is saved, and goes on as another object over the same memory.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/pci/test_services.h"
#include "devices/virtio/pci_transport.h"
#include "devices/virtio/state_test_support.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_pci_regs.h"

namespace holdfast::devices::virtio {
namespace {

using namespace regs;
using namespace testing;
using ::testing::HasSubstr;

constexpr std::uint64_t kBarAt = 0xc0000000;
constexpr std::uint64_t kMsixAt = 0xd0000000;

// Answers requests with a byte of its own, in turn, but keeps those it is told to keep.
class KeepingDevice final : public Device {
 public:
  KeepingDevice(EventLoop& loop, std::uint64_t features) : loop_(loop), features_(features) {}
  std::uint16_t type() const noexcept override { return 42; }
  std::string_view name() const noexcept override { return "keeping"; }
  std::uint64_t features() const noexcept override { return features_; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return kQueues; }
  EventLoop& loop() const noexcept override { return loop_; }
  Status Activate(Transport& transport) override {
    transport_ = &transport;
    ++activations;
    was_restored = transport.restored();
    return {};
  }
  void HandleQueue(unsigned index) override {
    DeviceQueue& queue = transport_->queue(index);
    while (auto chain = queue.Pop()) {
      if (keep > 0) {
        --keep;
        kept.push_back(*std::move(chain));
        continue;
      }
      chain->writable.CopyIn(0, std::array{std::byte{++state}});
      queue.Complete(*chain, 1);
    }
  }
  void SetRunning(bool running) noexcept override {
    if (running || transport_ == nullptr) return;
    for (Chain& chain : kept) transport_->queue(0).Requeue(std::move(chain));
    kept.clear();
  }
  void VisitState(state::Fields& fields) override { fields.Value("state", state); }
  void Reset() noexcept override {
    transport_ = nullptr;
    kept.clear();
    state = 0;
  }
  Transport* transport() { return transport_; }

  std::uint8_t state = 0;
  int activations = 0;
  bool was_restored = false;
  unsigned keep = 0;
  std::vector<Chain> kept;

 private:
  static constexpr std::array<std::uint16_t, 2> kQueues = {64, 16};
  EventLoop& loop_;
  const std::uint64_t features_;
  Transport* transport_ = nullptr;
};

class PciTransportState : public ::testing::TestWithParam<bool> {
 protected:
  struct Slot {
    std::unique_ptr<pci::testing::FakeServices> services;
    std::unique_ptr<PciTransport> function;
    KeepingDevice* device = nullptr;
    bool intx = false;
  };
  std::unique_ptr<Slot> Plug(std::uint64_t features = 1, std::uint64_t vectors = 3) {
    auto slot = std::make_unique<Slot>();
    slot->services = std::make_unique<pci::testing::FakeServices>();
    auto device = std::make_unique<KeepingDevice>(*loop_, features);
    slot->device = device.get();
    const DeviceEnvironment environment{*loop_, ram_.space(), *slot->services, backends_,
                                        [](std::string_view, const auto&) {}};
    auto made = PciTransport::Create(environment, "k0", "virtio-keeping-pci",
                                     {.packed = true, .vectors = vectors}, std::move(device));
    EXPECT_TRUE(made) << made.error().ToString();
    slot->function = *std::move(made);
    slot->function->set_intx([slot = slot.get()](bool level) { slot->intx = level; });
    return slot;
  }
  static Visit VisitOf(Slot& slot) {
    return [&slot](state::Fields& fields) { slot.function->VisitState(fields); };
  }

  template <typename T>
  void Write(std::uint64_t offset, T value, unsigned bar = kBar) {
    slot_->function->AccessWriteBar(bar, offset, std::as_bytes(std::span(&value, 1)));
  }
  std::uint8_t status() {
    std::byte value{};
    slot_->function->AccessReadBar(kBar, kDeviceStatus, {&value, 1});
    return std::to_integer<std::uint8_t>(value);
  }
  void RunLoop() {
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
  }
  std::uint16_t MsixControl() {
    std::uint32_t at = slot_->function->ReadConfig(0x34, 1);
    while (slot_->function->ReadConfig(static_cast<std::uint16_t>(at), 1) != 0x11) {
      at = slot_->function->ReadConfig(static_cast<std::uint16_t>(at + 1), 1);
    }
    return static_cast<std::uint16_t>(at + 2);
  }
  // A driver that has set up the first queue, with vector 1.
  void Start(bool msix = true) {
    slot_ = Plug();
    slot_->function->WriteConfig(0x10 + 4 * kBar, 4, kBarAt);
    slot_->function->WriteConfig(0x10 + 4 * kMsixBar, 4, kMsixAt);
    slot_->function->WriteConfig(0x04, 2, 0x6);  // memory and bus master
    if (msix) {
      slot_->function->WriteConfig(MsixControl(), 2, 0x8000);
      for (const unsigned vector : {0U, 1U}) {
        Write<std::uint32_t>(16 * vector, 0xfee00000, kMsixBar);
        Write<std::uint32_t>(16 * vector + 8, 0x40 + vector, kMsixBar);
        Write<std::uint32_t>(16 * vector + 12, 0, kMsixBar);
      }
      Write<std::uint16_t>(kConfigVector, 0);
    }
    Write<std::uint8_t>(kDeviceStatus, 3);
    Write<std::uint32_t>(kDriverFeature, 1U | kFeatureIndirect);
    Write<std::uint32_t>(kDriverFeatureSelect, 1);
    Write<std::uint32_t>(kDriverFeature, GetParam() ? 5 : 1);
    Write<std::uint8_t>(kDeviceStatus, 11);
    ASSERT_EQ(status(), 11);
    queue_ = std::make_unique<TestQueue>(ram_, std::uint16_t{16}, GetParam(), false, true);
    const QueueLayout& layout = queue_->layout();
    Write<std::uint16_t>(kQueueSize, layout.size);
    if (msix) Write<std::uint16_t>(kQueueVector, 1);
    Write<std::uint64_t>(kQueueDescriptors, layout.descriptors.value());
    Write<std::uint64_t>(kQueueDriver, layout.driver_area.value());
    Write<std::uint64_t>(kQueueDevice, layout.device_area.value());
    Write<std::uint16_t>(kQueueEnable, 1);
    Write<std::uint8_t>(kDeviceStatus, 15);
    ASSERT_NO_FATAL_FAILURE(RunLoop());
    ASSERT_EQ(slot_->device->activations, 1);
  }
  // A request, of which nobody is told. @return where the answer will be
  GuestAddress Add() {
    const GuestAddress at = ram_.Allocate(1);
    const TestBuffer buffers[] = {{ram_.Put(BytesOf("please")), 6, false}, {at, 1, true}};
    queue_->Add(buffers, true);
    return at;
  }
  void Kick() {
    Write<std::uint16_t>(kNotifyAt, 0);
    ASSERT_NO_FATAL_FAILURE(RunLoop());
  }
  int At(GuestAddress address) { return ram_.Load<std::uint8_t>(address); }
  unsigned Answers() {
    unsigned count = 0;
    while (queue_->Take()) ++count;
    return count;
  }
  std::uint64_t Delivered(unsigned data) {
    std::uint64_t count = 0;
    for (auto* const route : slot_->services->routes()) {
      if (route->message().data == data) count += route->TakeDelivered();
    }
    return count;
  }
  // Saves and loads into another slot, which does not run yet.
  void Move() {
    slot_->function->SetRunning(false);
    const auto saved = SaveState(VisitOf(*slot_));
    auto other = Plug();
    other->function->SetRunning(false);
    const Status loaded = LoadState(VisitOf(*other), saved);
    ASSERT_TRUE(loaded) << loaded.error().ToString();
    slot_ = std::move(other);
  }

  TestMemory ram_;
  Backends backends_;
  const std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  std::unique_ptr<TestQueue> queue_;
  std::unique_ptr<Slot> slot_;
};

INSTANTIATE_TEST_SUITE_P(Rings, PciTransportState, ::testing::Bool(),
                         [](const auto& packed) { return packed.param ? "Packed" : "Split"; });

TEST_P(PciTransportState, GoesOnWhereItWas) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const GuestAddress first = Add();
  ASSERT_NO_FATAL_FAILURE(Kick());
  EXPECT_EQ(At(first), 1);
  EXPECT_EQ(Answers(), 1U);
  slot_->device->keep = 2;
  const GuestAddress kept[] = {Add(), Add()};
  const GuestAddress second = Add();
  ASSERT_NO_FATAL_FAILURE(Kick());
  EXPECT_EQ(At(second), 2);
  EXPECT_EQ(Answers(), 1U);
  const GuestAddress unheard = Add();  // the vCPU stood still before it kicked
  slot_->function->SetRunning(false);
  const std::vector<std::byte> before(ram_.bytes().begin(), ram_.bytes().end());
  ASSERT_NO_FATAL_FAILURE(Move());
  EXPECT_TRUE(std::ranges::equal(before, ram_.bytes())) << "nothing touches memory yet";
  EXPECT_EQ(slot_->device->activations, 0);
  EXPECT_EQ(slot_->device->state, 2);
  EXPECT_EQ(status(), 15);

  // What does not run is saved as it is.
  ASSERT_NO_FATAL_FAILURE(Move());
  slot_->function->SetRunning(true);
  EXPECT_EQ(slot_->device->activations, 1);
  EXPECT_TRUE(slot_->device->was_restored);
  EXPECT_EQ(At(kept[0]), 3);
  EXPECT_EQ(At(kept[1]), 4);
  EXPECT_EQ(At(unheard), 5);
  EXPECT_EQ(Answers(), 3U);
  EXPECT_GE(Delivered(0x41), 1U);
  ASSERT_EQ(slot_->services->doorbells().size(), 1U);
  EXPECT_EQ(slot_->services->doorbells()[0].address, GuestAddress(kBarAt + kNotifyAt));
  for (int i = 0; i < 40; ++i) {
    const GuestAddress next = Add();
    ASSERT_TRUE(slot_->services->Ring(GuestAddress(kBarAt + kNotifyAt), 2, 0));
    ASSERT_NO_FATAL_FAILURE(RunLoop());
    EXPECT_EQ(At(next), 6 + i);
    EXPECT_EQ(Answers(), 1U);
  }
}

TEST_P(PciTransportState, AStopAndNoMoreLosesNothing) {
  ASSERT_NO_FATAL_FAILURE(Start());
  slot_->device->keep = 1;
  const GuestAddress kept = Add();
  ASSERT_NO_FATAL_FAILURE(Kick());
  slot_->function->SetRunning(false);
  const GuestAddress late = Add();
  ASSERT_NO_FATAL_FAILURE(Kick());
  EXPECT_EQ(At(kept) + At(late), 0);
  slot_->function->SetRunning(true);
  EXPECT_EQ(At(kept), 1);
  EXPECT_EQ(At(late), 2);
  EXPECT_EQ(Answers(), 2U);
}

TEST_P(PciTransportState, AnActivationThatWaitsHappensElsewhere) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Write<std::uint8_t>(kDeviceStatus, 0);
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  ASSERT_EQ(status(), 0);
  queue_ = std::make_unique<TestQueue>(ram_, std::uint16_t{16}, GetParam(), false, true);
  Write<std::uint8_t>(kDeviceStatus, 3);
  Write<std::uint32_t>(kDriverFeatureSelect, 0);
  Write<std::uint32_t>(kDriverFeature, kFeatureIndirect);
  Write<std::uint32_t>(kDriverFeatureSelect, 1);
  Write<std::uint32_t>(kDriverFeature, GetParam() ? 5 : 1);
  Write<std::uint8_t>(kDeviceStatus, 11);
  Write<std::uint16_t>(kQueueSize, 16);
  Write<std::uint64_t>(kQueueDescriptors, queue_->layout().descriptors.value());
  Write<std::uint64_t>(kQueueDriver, queue_->layout().driver_area.value());
  Write<std::uint64_t>(kQueueDevice, queue_->layout().device_area.value());
  Write<std::uint16_t>(kQueueEnable, 1);
  Write<std::uint8_t>(kDeviceStatus, 15);
  ASSERT_NO_FATAL_FAILURE(Move());
  const GuestAddress first = Add();
  slot_->function->SetRunning(true);
  EXPECT_FALSE(slot_->device->was_restored);
  EXPECT_EQ(At(first), 1);
}

TEST_P(PciTransportState, AResetUnderWayIsOverElsewhere) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Write<std::uint8_t>(kDeviceStatus, 0);
  EXPECT_EQ(status(), 15);
  slot_->device->state = 9;
  ASSERT_NO_FATAL_FAILURE(Move());
  slot_->function->SetRunning(true);
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(slot_->device->activations, 0);
  EXPECT_EQ(slot_->device->state, 0) << "the device has been reset before it was saved";
}

TEST_P(PciTransportState, ABrokenDeviceStaysBrokenUntilItIsReset) {
  ASSERT_NO_FATAL_FAILURE(Start());
  slot_->device->transport()->NeedsReset(Error(Errc::kMalformed, "for the test"));
  ASSERT_NO_FATAL_FAILURE(Move());
  slot_->function->SetRunning(true);
  EXPECT_EQ(status(), 15 | kStatusNeedsReset);
  EXPECT_EQ(slot_->device->activations, 0);
  ASSERT_NO_FATAL_FAILURE(Kick());
  Write<std::uint8_t>(kDeviceStatus, 0);
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  EXPECT_EQ(status(), 0);
}

TEST_P(PciTransportState, AMessageBehindAMaskGoesAlong) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Write<std::uint32_t>(16 + 12, 1, kMsixBar);
  (void)Add();
  ASSERT_NO_FATAL_FAILURE(Kick());
  EXPECT_EQ(Delivered(0x41), 0U);
  slot_->function->SetRunning(false);
  const auto saved = SaveState(VisitOf(*slot_));
  slot_ = Plug();
  slot_->function->SetRunning(false);
  ASSERT_TRUE(LoadState(VisitOf(*slot_), saved));
  EXPECT_EQ(Delivered(0x41), 0U);
  Write<std::uint32_t>(16 + 12, 0, kMsixBar);
  EXPECT_GE(Delivered(0x41), 1U);
}

TEST_P(PciTransportState, ALineThatIsUpIsUpElsewhere) {
  ASSERT_NO_FATAL_FAILURE(Start(false));
  (void)Add();
  ASSERT_NO_FATAL_FAILURE(Kick());
  EXPECT_TRUE(slot_->intx);
  ASSERT_NO_FATAL_FAILURE(Move());
  EXPECT_TRUE(slot_->intx);
  std::byte isr{};
  slot_->function->AccessReadBar(kBar, kIsrAt, {&isr, 1});
  EXPECT_EQ(isr, std::byte{1});
  EXPECT_FALSE(slot_->intx);
}

TEST_P(PciTransportState, RefusesAnotherDevice) {
  ASSERT_NO_FATAL_FAILURE(Start());
  slot_->function->SetRunning(false);
  const auto saved = SaveState(VisitOf(*slot_));
  const auto poorer = Plug(0);
  const Status features = LoadState(VisitOf(*poorer), saved);
  ASSERT_FALSE(features);
  EXPECT_THAT(features.error().ToString(), HasSubstr("uses features 0x1 that the device here"));
  const auto fewer = Plug(1, 2);
  EXPECT_FALSE(LoadState(VisitOf(*fewer), saved));
}

TEST_P(PciTransportState, HostileStatesDoNoHarm) {
  ASSERT_NO_FATAL_FAILURE(Start());
  slot_->device->keep = 1;
  (void)Add();
  ASSERT_NO_FATAL_FAILURE(Kick());
  slot_->function->SetRunning(false);
  const auto saved = SaveState(VisitOf(*slot_));
  const auto other = Plug();
  other->function->SetRunning(false);
  const auto load_and_run = [&](state::Fields& fields) {
    other->function->VisitState(fields);
    other->function->SetRunning(true);
    for (unsigned i = 0; i < 2; ++i) {
      const std::uint16_t kick = 0;
      other->function->AccessWriteBar(kBar, kNotifyAt + 4 * i, std::as_bytes(std::span(&kick, 1)));
    }
    ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
    other->function->SetRunning(false);
  };
  ExpectSturdy(load_and_run, saved);
}

}  // namespace
}  // namespace holdfast::devices::virtio
