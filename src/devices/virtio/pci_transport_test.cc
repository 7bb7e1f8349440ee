// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/pci_transport.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "devices/pci/test_services.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_pci_regs.h"

namespace holdfast::devices::virtio {
namespace {

using namespace regs;

// Gives back what it is sent, in capitals.
class EchoDevice final : public Device {
 public:
  explicit EchoDevice(EventLoop& loop) : loop_(loop) {}
  std::uint16_t type() const noexcept override { return 42; }
  std::string_view name() const noexcept override { return "echo"; }
  std::uint64_t features() const noexcept override { return 0b101; }
  bool Accepts(std::uint64_t features) const noexcept override { return (features & 0b101) != 4; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return kQueues; }
  EventLoop& loop() const noexcept override { return loop_; }
  void ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept override {
    for (std::byte& byte : data) byte = offset < config.size() ? config[offset++] : std::byte{0};
  }
  void WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept override {
    for (const std::byte byte : data)
      if (offset < config.size()) config[offset++] = byte;
  }
  Status Activate(Transport& transport) override {
    transport_ = &transport;
    ++activations;
    return {};
  }
  void HandleQueue(unsigned index) override {
    DeviceQueue& queue = transport_->queue(index);
    while (auto chain = queue.Pop()) {
      std::vector<std::byte> data(chain->readable.size());
      chain->readable.CopyOut(0, data);
      for (std::byte& byte : data)
        byte = static_cast<std::byte>(std::toupper(std::to_integer<int>(byte)));
      queue.Complete(*chain, static_cast<std::uint32_t>(chain->writable.CopyIn(0, data)));
    }
  }
  void SetRunning(bool running) noexcept override { runs.push_back(running); }
  void Reset() noexcept override {
    transport_ = nullptr;
    ++resets;
  }
  Transport* transport() { return transport_; }

  std::array<std::byte, 8> config{};
  int activations = 0;
  int resets = 0;
  std::vector<bool> runs;  // what it was told about the machine

 private:
  static constexpr std::array<std::uint16_t, 2> kQueues = {64, 16};
  EventLoop& loop_;
  Transport* transport_ = nullptr;
};

// A guest's driver, register by register.
class PciTransportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loop = EventLoop::Create();
    ASSERT_TRUE(loop);
    loop_ = *std::move(loop);
    environment_.emplace(DeviceEnvironment{*loop_, ram_.space(), services_, backends_,
                                           [](std::string_view, const auto&) {}});
    ASSERT_NO_FATAL_FAILURE(Make({}));
  }
  void Make(const TransportOptions& options) {
    auto device = std::make_unique<EchoDevice>(*loop_);
    device_ = device.get();
    auto made =
        PciTransport::Create(*environment_, "e0", "virtio-echo-pci", options, std::move(device));
    ASSERT_TRUE(made) << made.error().ToString();
    function_ = *std::move(made);
    function_->set_intx([this](bool level) { intx_ = level; });
    function_->WriteConfig(0x10 + 4 * kBar, 4, 0xc0000000);
    function_->WriteConfig(0x04, 2, 0x6);  // memory and bus master
  }

  template <typename T>
  T Read(std::uint32_t offset) {
    T value{};
    function_->AccessReadBar(kBar, offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  template <typename T>
  void Write(std::uint32_t offset, T value) {
    function_->AccessWriteBar(kBar, offset, std::as_bytes(std::span(&value, 1)));
  }
  std::uint8_t status() { return Read<std::uint8_t>(kDeviceStatus); }
  void RunLoop() {
    // What is posted or kicked is ready: the loop never has to wait.
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
  }

  std::uint8_t Negotiate(std::uint64_t features) {
    Write<std::uint8_t>(kDeviceStatus, 1);
    Write<std::uint8_t>(kDeviceStatus, 3);
    Write<std::uint32_t>(kDriverFeatureSelect, 0);
    Write<std::uint32_t>(kDriverFeature, static_cast<std::uint32_t>(features));
    Write<std::uint32_t>(kDriverFeatureSelect, 1);
    Write<std::uint32_t>(kDriverFeature, static_cast<std::uint32_t>(features >> 32));
    Write<std::uint8_t>(kDeviceStatus, 11);
    return status();
  }
  // One queue of 16, enabled, with MSI-X vector 1.
  void SetUpQueue(std::uint16_t index, bool packed = false) {
    queue_ = std::make_unique<TestQueue>(ram_, std::uint16_t{16}, packed, false, true);
    const QueueLayout& layout = queue_->layout();
    Write<std::uint16_t>(kQueueSelect, index);
    Write<std::uint16_t>(kQueueSize, layout.size);
    Write<std::uint16_t>(kQueueVector, 1);
    Write<std::uint32_t>(kQueueDescriptors, static_cast<std::uint32_t>(layout.descriptors.value()));
    Write<std::uint32_t>(kQueueDescriptors + 4, 0);
    Write<std::uint64_t>(kQueueDriver, layout.driver_area.value());
    Write<std::uint64_t>(kQueueDevice, layout.device_area.value());
    Write<std::uint16_t>(kQueueEnable, 1);
  }
  void Start(std::uint64_t extra = 0) {
    ASSERT_EQ(Negotiate(kFeatureVersion1 | kFeatureIndirect | extra), 11);
    SetUpQueue(0, (extra & kFeatureRingPacked) != 0);
    Write<std::uint8_t>(kDeviceStatus, 15);
    ASSERT_NO_FATAL_FAILURE(RunLoop());
  }
  void EnableMsix() {
    for (std::uint8_t at = Config(0x34); at != 0; at = Config(at + 1)) {
      if (Config(at) == 0x11) function_->WriteConfig(at + 2, 2, 0x8000);
    }
    for (std::uint32_t vector = 0; vector < 3; ++vector) {
      const std::uint32_t entry[] = {0xfee00000, 0, 0x40 + vector, 0};
      for (std::uint32_t i = 0; i < 4; ++i) {
        function_->AccessWriteBar(kMsixBar, 16 * vector + 4 * i,
                                  std::as_bytes(std::span(&entry[i], 1)));
      }
    }
  }
  std::uint8_t Config(std::uint32_t offset) {
    return static_cast<std::uint8_t>(function_->ReadConfig(static_cast<std::uint16_t>(offset), 1));
  }
  std::uint64_t Interrupts(std::uint32_t data) {
    std::uint64_t count = 0;
    for (auto* route : services_.routes())
      if (route->message().data == data) count += route->TakeDelivered();
    return count;
  }
  // Sends "hello" and expects it back.
  void Echo() {
    const GuestAddress answer = ram_.Allocate(16);
    const TestBuffer buffers[] = {{ram_.Put(BytesOf("hello")), 5, false}, {answer, 16, true}};
    const std::uint16_t id = queue_->Add(buffers);
    Write<std::uint16_t>(kNotifyAt, 0);
    ASSERT_NO_FATAL_FAILURE(RunLoop());
    const auto used = queue_->Take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, id);
    EXPECT_EQ(used->written, 5U);
    EXPECT_EQ(ram_.Get(answer, 5), BytesOf("HELLO"));
  }

  TestMemory ram_;
  pci::testing::FakeServices services_;
  Backends backends_;
  std::unique_ptr<EventLoop> loop_;
  std::optional<DeviceEnvironment> environment_;
  EchoDevice* device_ = nullptr;
  std::unique_ptr<TestQueue> queue_;
  bool intx_ = false;
  std::unique_ptr<PciTransport> function_;
};

TEST_F(PciTransportTest, TellsWhatItIsAndWhereItsStructuresAre) {
  EXPECT_EQ(function_->ReadConfig(0, 4), 0x1040'1af4U + (42U << 16));
  std::map<std::uint8_t, std::uint32_t> structures;
  for (std::uint8_t at = Config(0x34); at != 0; at = Config(at + 1)) {
    if (Config(at) != kCapabilityId) continue;
    structures[Config(at + 3)] = function_->ReadConfig(static_cast<std::uint16_t>(at + 8), 4);
    EXPECT_EQ(Config(at + 4), Config(at + 3) == kPciConfig ? 0 : kBar);
  }
  const std::map<std::uint8_t, std::uint32_t> want = {{kCommonConfig, kCommonAt},
                                                      {kIsrConfig, kIsrAt},
                                                      {kDeviceConfig, kDeviceAt},
                                                      {kNotifyConfig, kNotifyAt},
                                                      {kPciConfig, 0}};
  EXPECT_EQ(structures, want);
  EXPECT_EQ(Read<std::uint16_t>(kNumQueues), 2);
  Write<std::uint16_t>(kQueueSelect, 1);
  EXPECT_EQ(Read<std::uint16_t>(kQueueSize), 16);
  EXPECT_EQ(Read<std::uint16_t>(kQueueNotifyOffset), 1);
  Write<std::uint16_t>(kQueueSelect, 2);
  EXPECT_EQ(Read<std::uint16_t>(kQueueSize), 0) << "no such queue";
}

TEST_F(PciTransportTest, CarriesRequestsWithMsix) {
  EnableMsix();
  ASSERT_NO_FATAL_FAILURE(Start());
  for (int i = 0; i < 40; ++i) {
    ASSERT_NO_FATAL_FAILURE(Echo());
    EXPECT_EQ(Interrupts(0x41), 1U) << "vector 1 is the queue's";
  }
  EXPECT_FALSE(intx_);
}

TEST_F(PciTransportTest, CarriesRequestsInPackedQueues) {
  TransportOptions options;
  options.packed = true;
  ASSERT_NO_FATAL_FAILURE(Make(options));
  EnableMsix();
  ASSERT_NO_FATAL_FAILURE(Start(kFeatureRingPacked));
  for (int i = 0; i < 40; ++i) ASSERT_NO_FATAL_FAILURE(Echo());
}

TEST_F(PciTransportTest, WithoutMsixItRaisesAndLowersItsLine) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(Echo());
  EXPECT_TRUE(intx_);
  EXPECT_EQ(Read<std::uint8_t>(kIsrAt), kIsrQueue);
  EXPECT_FALSE(intx_);
  EXPECT_EQ(Read<std::uint8_t>(kIsrAt), 0);
}

TEST_F(PciTransportTest, AgreesOnlyToWhatItOffers) {
  const struct {
    const char* what;
    std::uint64_t features;
    bool good;
  } cases[] = {
      {"nothing but 1.0", kFeatureVersion1, true},
      {"all of the device's", kFeatureVersion1 | 0b101, true},
      {"a driver from before 1.0", 0b101, false},
      {"a bit that was not offered", kFeatureVersion1 | 0b10, false},
      {"packed queues that were not offered", kFeatureVersion1 | kFeatureRingPacked, false},
      {"a combination the device refuses", kFeatureVersion1 | 0b100, false},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    Write<std::uint8_t>(kDeviceStatus, 0);
    EXPECT_EQ(Negotiate(c.features), c.good ? 11 : 3);
    Write<std::uint8_t>(kDeviceStatus, 15);
    EXPECT_EQ(status(), c.good ? 15 : 3) << "no DRIVER_OK without FEATURES_OK";
    ASSERT_NO_FATAL_FAILURE(RunLoop());
    Write<std::uint8_t>(kDeviceStatus, 0);
    ASSERT_NO_FATAL_FAILURE(RunLoop());
    EXPECT_EQ(status(), 0);
  }
}

TEST_F(PciTransportTest, ADriversResetIsOverWhenTheStatusSaysSo) {
  EnableMsix();
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(Echo());
  Write<std::uint8_t>(kDeviceStatus, 0);
  EXPECT_NE(status(), 0) << "the device's loop has not run yet";
  EXPECT_EQ(device_->resets, 0);
  Write<std::uint8_t>(kDeviceStatus, 1);  // too early: swallowed
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(device_->resets, 1);
  EXPECT_EQ(Read<std::uint16_t>(kQueueEnable), 0);
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(Echo());
  EXPECT_EQ(device_->activations, 2);
}

TEST_F(PciTransportTest, AResetBeforeTheLoopRanLeavesNothingBehind) {
  ASSERT_EQ(Negotiate(kFeatureVersion1), 11);
  SetUpQueue(0);
  Write<std::uint8_t>(kDeviceStatus, 15);
  Write<std::uint8_t>(kDeviceStatus, 0);
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(device_->activations, 0);
  Write<std::uint8_t>(kDeviceStatus, 15);
  function_->Reset();  // the machine's
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(device_->activations, 0);
}

TEST_F(PciTransportTest, ABrokenRingAsksForAResetAndGetsOverIt) {
  EnableMsix();
  ASSERT_NO_FATAL_FAILURE(Start());
  Write<std::uint16_t>(kConfigVector, 2);
  const std::uint8_t generation = Read<std::uint8_t>(kConfigGeneration);
  const TestBuffer nowhere{GuestAddress(1ULL << 40), 4, false};
  queue_->Add({&nowhere, 1});
  Write<std::uint16_t>(kNotifyAt, 0);
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  EXPECT_EQ(status(), 15 | kStatusNeedsReset);
  EXPECT_EQ(Interrupts(0x42), 1U) << "the configuration's vector";
  EXPECT_NE(Read<std::uint8_t>(kConfigGeneration), generation);
  Write<std::uint8_t>(kDeviceStatus, 0);
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(Echo());
}

TEST_F(PciTransportTest, AQueueThatCannotBeAsksForAReset) {
  ASSERT_EQ(Negotiate(kFeatureVersion1), 11);
  SetUpQueue(1);
  Write<std::uint16_t>(kQueueSelect, 0);
  Write<std::uint16_t>(kQueueSize, 63);
  Write<std::uint16_t>(kQueueEnable, 1);
  Write<std::uint8_t>(kDeviceStatus, 15);
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  EXPECT_EQ(status(), 15 | kStatusNeedsReset);
  EXPECT_EQ(device_->activations, 0);
}

TEST_F(PciTransportTest, DoorbellsFollowTheBarWhileTheDeviceIsActive) {
  EXPECT_TRUE(services_.doorbells().empty());
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_EQ(services_.doorbells().size(), 1U) << "one queue is enabled";
  EXPECT_EQ(services_.doorbells()[0].address.value(), 0xc0000000 + kNotifyAt);
  EXPECT_TRUE(services_.Ring(GuestAddress(0xc0000000 + kNotifyAt), 2, 0));
  function_->WriteConfig(0x10 + 4 * kBar, 4, 0xd0000000);
  ASSERT_EQ(services_.doorbells().size(), 1U);
  EXPECT_EQ(services_.doorbells()[0].address.value(), 0xd0000000 + kNotifyAt);
  function_->WriteConfig(0x04, 2, 0);
  EXPECT_TRUE(services_.doorbells().empty());
  function_->WriteConfig(0x04, 2, 0x6);
  EXPECT_EQ(services_.doorbells().size(), 1U);
  Write<std::uint8_t>(kDeviceStatus, 0);
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  EXPECT_TRUE(services_.doorbells().empty());
}

TEST_F(PciTransportTest, TheConfigurationWindowReachesTheRegisters) {
  std::uint16_t window = 0;
  for (std::uint8_t at = Config(0x34); at != 0; at = Config(at + 1)) {
    if (Config(at) == kCapabilityId && Config(at + 3) == kPciConfig) window = at;
  }
  ASSERT_NE(window, 0);
  const auto aim = [&](std::uint32_t offset, std::uint32_t length) {
    function_->WriteConfig(static_cast<std::uint16_t>(window + 4), 1, kBar);
    function_->WriteConfig(static_cast<std::uint16_t>(window + 8), 4, offset);
    function_->WriteConfig(static_cast<std::uint16_t>(window + 12), 4, length);
  };
  const auto data = static_cast<std::uint16_t>(window + 16);
  aim(kNumQueues, 2);
  EXPECT_EQ(function_->ReadConfig(data, 2), 2U);
  aim(kDeviceAt, 4);
  function_->WriteConfig(data, 4, 0x12345678);
  EXPECT_EQ(Read<std::uint32_t>(kDeviceAt), 0x12345678U);
  aim(0xffffffff, 4);
  EXPECT_EQ(function_->ReadConfig(data, 4), 0U);
  aim(0, 3);
  function_->WriteConfig(data, 4, 1);  // no such width: nothing happens
}

TEST_F(PciTransportTest, GarbageInEveryRegisterDoesNoHarm) {
  std::mt19937 random(4711);  // any seed: the same garbage each time
  for (int i = 0; i < 20'000; ++i) {
    const auto offset = static_cast<std::uint32_t>(random() % kBarSize);
    const std::uint32_t low = offset % 2 == 0 ? offset % 0x40 : offset;
    switch (random() % 4) {
      case 0:
        Write<std::uint8_t>(low, static_cast<std::uint8_t>(random()));
        break;
      case 1:
        Write<std::uint16_t>(low, static_cast<std::uint16_t>(random() % 3));
        break;
      case 2:
        Write<std::uint32_t>(low, static_cast<std::uint32_t>(random()));
        break;
      default:
        Write<std::uint64_t>(low, random());
    }
    (void)Read<std::uint64_t>(offset);
    if (i % 64 == 0) {
      ASSERT_NO_FATAL_FAILURE(RunLoop());
    }
  }
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  Write<std::uint8_t>(kDeviceStatus, 0);
  ASSERT_NO_FATAL_FAILURE(RunLoop());
  EnableMsix();
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(Echo());
}

TEST(TransportOptionsTest, TakesItsOwnAndLeavesTheRest) {
  TransportOptions options;
  auto values = object::ParseKeyValues("drive=d0,packed=on,vectors=3,disable-legacy=on,serial=x");
  ASSERT_TRUE(values);
  const auto rest = TakeTransportOptions(*values, options);
  ASSERT_TRUE(rest);
  ASSERT_EQ(rest->size(), 2U);
  EXPECT_EQ((*rest)[0].key, "drive");
  EXPECT_TRUE(options.packed);
  EXPECT_EQ(options.vectors, 3U);
  for (const char* bad : {"disable-modern=on", "vectors=5000", "packed=maybe"}) {
    values = object::ParseKeyValues(bad);
    ASSERT_TRUE(values);
    EXPECT_FALSE(TakeTransportOptions(*values, options)) << bad;
  }
}

TEST_F(PciTransportTest, AnActiveDeviceHearsThatTheMachineStands) {
  function_->SetRunning(false);
  function_->SetRunning(true);
  EXPECT_EQ(device_->runs, (std::vector<bool>{false, true}));  // a driver may come at any time
  ASSERT_NO_FATAL_FAILURE(Start());
  function_->SetRunning(false);
  function_->SetRunning(true);
  EXPECT_EQ(device_->runs, (std::vector<bool>{false, true, false, true}));
  ASSERT_NO_FATAL_FAILURE(Echo());
}

TEST_F(PciTransportTest, AnActivationWaitsUntilTheMachineRuns) {
  for (const bool reset : {false, true}) {
    SCOPED_TRACE(reset);
    const int before = device_->activations;
    ASSERT_EQ(Negotiate(kFeatureVersion1 | kFeatureIndirect), 11);
    SetUpQueue(0);
    Write<std::uint8_t>(kDeviceStatus, 15);
    function_->SetRunning(false);
    ASSERT_NO_FATAL_FAILURE(RunLoop());
    EXPECT_EQ(device_->activations, before);
    if (reset) function_->Reset();
    function_->SetRunning(true);
    // A reset has made it pointless.
    EXPECT_EQ(device_->activations, reset ? before : before + 1);
    if (!reset) {
      ASSERT_NO_FATAL_FAILURE(Echo());
    }
    function_->Reset();
    function_->WriteConfig(0x10 + 4 * kBar, 4, 0xc0000000);
    function_->WriteConfig(0x04, 2, 0x6);
  }
}

}  // namespace
}  // namespace holdfast::devices::virtio
