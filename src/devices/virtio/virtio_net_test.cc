// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_net.h"

#include <sys/socket.h>

#include "devices/net/stream_backend.h"
#include "devices/virtio/virtio_net_test_support.h"

namespace holdfast::devices::virtio {
namespace {

using namespace testing;

TEST_F(VirtioNetTest, SendsWhatTheDriverGives) {
  Make();
  const Bytes frame = Frame(1000);
  ASSERT_TRUE(driver_->Ask(1, WithHeader(frame)));
  ASSERT_EQ(backend_->sent.size(), 1U);
  EXPECT_EQ(backend_->sent[0].second, WithHeader(frame));
}

TEST_F(VirtioNetTest, HeadersMeanNothingUnlessOffloadsWereAgreedOn) {
  Bytes packet = WithHeader(Frame(100));
  packet[0] = packet[1] = packet[10] = std::byte{1};
  Make();
  ASSERT_TRUE(driver_->Ask(1, packet));
  EXPECT_EQ(backend_->sent.at(0).second, WithHeader(Frame(100)));
  driver_.reset();
  card_.reset();
  ASSERT_TRUE(network_.Remove("net0"));
  Make(1, net::kNetHostOffloads);
  ASSERT_TRUE(driver_->Ask(1, packet));
  packet[10] = std::byte{0};
  EXPECT_EQ(backend_->sent.at(0).second, packet);
}

TEST_F(VirtioNetTest, FramesWaitInTheQueueForABackEndWithoutRoom) {
  Make();
  backend_->room = false;
  const Bytes frame = Frame(100);
  const Bytes packet = WithHeader(frame);
  const TestBuffer buffer = Packet(packet);
  for (int i = 0; i < 3; ++i) driver_->Send(1, {&buffer, 1});
  EXPECT_FALSE(driver_->Take(1));
  backend_->MakeRoom(0);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(driver_->Take(1));
  EXPECT_EQ(backend_->sent.size(), 3U);
}

TEST_F(VirtioNetTest, FramesBothWaysWaitForTheirTurnAndNoneIsLost) {
  object::ThrottleLimits limits;
  limits[object::ThrottleKind::kIopsRead].average = 10;  // one at once, then ten a second
  limits[object::ThrottleKind::kIopsWrite].average = 10;
  throttle_ = std::make_shared<object::Throttle>();
  throttle_->Set(limits);
  Make();
  const Bytes packet = WithHeader(Frame(60));
  const TestBuffer out = Packet(packet);
  std::vector<Buffer> in;
  for (int i = 0; i < 4; ++i) {
    in.push_back(GiveBuffer(2000));
    driver_->Send(1, {&out, 1});
  }
  for (int i = 0; i < 4; ++i) backend_->Arrive(0, Frame(60, {i}));
  EXPECT_LT(backend_->sent.size(), 4U);
  EXPECT_FALSE(backend_->held.empty());
  EXPECT_TRUE(
      driver_->RunUntil([&] { return backend_->sent.size() == 4 && backend_->held.empty(); }));
  for (int i = 0; i < 4; ++i) {
    Bytes got = TakeFrame(in[static_cast<std::size_t>(i)]);
    ASSERT_EQ(got.size(), kHeaderSize + 60);
    got.erase(got.begin(), got.begin() + kHeaderSize);
    EXPECT_EQ(got, Frame(60, {i})) << i;
  }
}

TEST_F(VirtioNetTest, AResetForgetsWhoWaitsForATurn) {
  object::ThrottleLimits limits;
  limits[object::ThrottleKind::kIopsTotal].average = 10;
  throttle_ = std::make_shared<object::Throttle>();
  throttle_->Set(limits);
  Make();
  const Bytes packet = WithHeader(Frame(60));
  const TestBuffer out = Packet(packet);
  for (int i = 0; i < 4; ++i) driver_->Send(1, {&out, 1});
  const std::size_t before = backend_->sent.size();
  EXPECT_LT(before, 4U);
  card_->Reset();
  bool turns_are_over = false;
  loop_->AddTimer(EventLoop::Clock::now() + std::chrono::milliseconds(300),
                  [&] { turns_are_over = true; });
  ASSERT_TRUE(driver_->RunUntil([&] { return turns_are_over; }));
  EXPECT_EQ(backend_->sent.size(), before);
}

TEST_F(VirtioNetTest, ManyFramesAreSentWithoutStarvingTheLoop) {
  Make();
  const Bytes packet = WithHeader(Frame(60));
  const TestBuffer buffer = Packet(packet);
  driver_.reset();
  driver_ = std::make_unique<TestDriver>(*card_, *loop_, kAccepted);
  ASSERT_TRUE(driver_->Start(256));
  const TestBuffer again{driver_->ram().Put(packet), buffer.length, false};
  for (int i = 0; i < 256; ++i) driver_->side(1).Add({&again, 1});
  driver_->Kick(1);
  EXPECT_EQ(backend_->sent.size(), 256U);
  driver_->Send(1, {&again, 1});
  EXPECT_EQ(backend_->sent.size(), 256U) << "others have their turn first";
  EXPECT_TRUE(driver_->RunUntil([&] { return backend_->sent.size() == 257; }));
}

TEST_F(VirtioNetTest, FramesArriveInTheDriversBuffers) {
  for (const std::uint64_t accepted : std::initializer_list<std::uint64_t>{
           kAccepted, ~0ULL, kAccepted & ~net::kNetMergeableBuffers}) {
    SCOPED_TRACE(accepted);
    Make(1, 0, accepted);
    const Buffer buffer = GiveBuffer(2000);
    backend_->Arrive(0, Frame(1514));
    Bytes want = WithHeader(Frame(1514));
    want[10] = std::byte{1};
    EXPECT_EQ(TakeFrame(buffer), want);
    EXPECT_EQ(driver_->interrupts(0), 1U);
    driver_.reset();
    card_.reset();
    ASSERT_TRUE(network_.Remove("net0"));
  }
}

TEST_F(VirtioNetTest, AFrameFillsSeveralBuffersAndWaitsUntilTheyAreThere) {
  Make();
  const Buffer first = GiveBuffer(100);
  const Bytes frame = Frame(250);
  backend_->Arrive(0, frame);
  EXPECT_EQ(backend_->held.size(), 1U);
  EXPECT_FALSE(driver_->Take(0));
  driver_->side(0).NeedsKick();  // from here on
  const GuestAddress address = driver_->ram().Allocate(100);
  const TestBuffer more_room{address, 100, true};
  const Buffer second{driver_->side(0).Add({&more_room, 1}), address, 100};
  EXPECT_TRUE(driver_->side(0).NeedsKick()) << "it waits for the next buffer";
  driver_->Kick(0);
  const Buffer third = GiveBuffer(100);
  EXPECT_TRUE(backend_->held.empty());
  Bytes all = TakeFrame(first);
  for (const Buffer& buffer : {second, third}) {
    const Bytes more = TakeFrame(buffer);
    all.insert(all.end(), more.begin(), more.end());
  }
  Bytes want = WithHeader(frame);
  want[10] = std::byte{3};
  EXPECT_EQ(all, want);
}

TEST_F(VirtioNetTest, AFrameThatNoBufferCanHoldIsDropped) {
  Make(1, 0, kAccepted & ~net::kNetMergeableBuffers);
  const Buffer buffer = GiveBuffer(100);
  backend_->Arrive(0, Frame(250));
  EXPECT_TRUE(backend_->held.empty());
  backend_->Arrive(0, Frame(60));
  EXPECT_EQ(TakeFrame(buffer).size(), kHeaderSize + 60);
  EXPECT_EQ(driver_->needs_reset(), "");
}

TEST_F(VirtioNetTest, AFrameLargerThanTheWholeRingIsDropped) {
  Make();
  for (int i = 0; i < 64; ++i) GiveBuffer(16);
  backend_->Arrive(0, Frame(2000));
  EXPECT_TRUE(backend_->held.empty());
  backend_->Arrive(0, Frame(60));
  EXPECT_TRUE(driver_->Take(0)) << "the buffers are still there for a smaller one";
}

TEST_F(VirtioNetTest, WhatBreaksTheRulesNeedsAReset) {
  const struct {
    const char* why;
    unsigned queue;
    std::uint32_t readable;
    std::uint32_t writable;
  } kCases[] = {
      {"a transmit buffer without header", 1, 11, 0},
      {"a transmit buffer to write into", 1, 0, 100},
      {"a receive buffer without room for the header", 0, 0, 11},
      {"a receive buffer to read from", 0, 100, 0},
      {"a control request without command", 2, 1, 1},
      {"a control request without room for the answer", 2, 10, 0},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    Make();
    std::vector<TestBuffer> buffers;
    if (c.readable != 0)
      buffers.push_back({driver_->ram().Allocate(c.readable), c.readable, false});
    if (c.writable != 0) buffers.push_back({driver_->ram().Allocate(c.writable), c.writable, true});
    driver_->Send(c.queue, buffers);
    if (c.queue == 0) backend_->Arrive(0, Frame(60));
    EXPECT_NE(driver_->needs_reset(), "");
    driver_->Stop();
    ASSERT_TRUE(driver_->Start()) << "a reset makes it work again";
    ASSERT_TRUE(driver_->Ask(1, WithHeader(Frame(60))));
    driver_.reset();
    card_.reset();
    ASSERT_TRUE(network_.Remove("net0"));
  }
}

TEST_F(VirtioNetTest, EmptyAndGiantFramesAreDropped) {
  Make();
  ASSERT_TRUE(driver_->Ask(1, Bytes(kHeaderSize)));
  ASSERT_TRUE(driver_->Ask(1, Bytes(kHeaderSize + net::kLargestFrame + 1)));
  EXPECT_TRUE(backend_->sent.empty());
  EXPECT_EQ(driver_->needs_reset(), "");
}

TEST_F(VirtioNetTest, OffersWhatTheBackEndCanCarry) {
  Make();
  EXPECT_EQ(card_->features() & (net::kNetHostOffloads | net::kNetGuestOffloads), 0U);
  EXPECT_EQ(card_->features() & (net::kNetMultiQueue | net::kNetControlGuestOffloads), 0U);
  driver_.reset();
  card_.reset();
  ASSERT_TRUE(network_.Remove("net0"));
  Make(1, net::kNetHostTso4 | net::kNetGuestTso4 | net::kNetGuestCsum);
  EXPECT_EQ(card_->features() & net::kNetHostTso4, 0U) << "nothing without checksums";
  EXPECT_NE(card_->features() & net::kNetGuestTso4, 0U);
  EXPECT_EQ(backend_->set_offloads, net::kNetGuestTso4 | net::kNetGuestCsum);
}

TEST_F(VirtioNetTest, TellsItsAddressLinkAndMtu) {
  Make(4, 0);
  Bytes bytes(sizeof(NetRegisters) + 8, std::byte{0xff});
  card_->ReadConfig(0, bytes);
  EXPECT_TRUE(std::equal(kMac.begin(), kMac.end(), bytes.begin(),
                         [](std::uint8_t a, std::byte b) { return std::byte{a} == b; }));
  EXPECT_EQ(bytes[6], std::byte{1});
  EXPECT_EQ(bytes[8], std::byte{4});
  EXPECT_EQ(std::to_integer<int>(bytes[10]) | std::to_integer<int>(bytes[11]) << 8, 1400);
  EXPECT_EQ(bytes.back(), std::byte{0});
  card_->ReadConfig(~0ULL, bytes);
  EXPECT_EQ(bytes[0], std::byte{0});
}

TEST_F(VirtioNetTest, ALinkThatIsDownCarriesNothing) {
  Make();
  GiveBuffer(2000);
  card_->SetLink(false);
  EXPECT_EQ(driver_->config_changes(), 1U);
  Bytes status(2);
  card_->ReadConfig(6, status);
  EXPECT_EQ(status[0], std::byte{0});
  backend_->Arrive(0, Frame(60));
  ASSERT_TRUE(driver_->Ask(1, WithHeader(Frame(60))));
  EXPECT_TRUE(backend_->sent.empty());
  EXPECT_FALSE(driver_->Take(0));
  card_->SetLink(true);
  backend_->Arrive(0, Frame(60));
  EXPECT_TRUE(driver_->Take(0));
}

TEST_F(VirtioNetTest, NoFrameGoesEitherWayWhileTheMachineStands) {
  Make();
  GiveBuffer(2000);
  card_->SetRunning(false);
  backend_->Arrive(0, Frame(60));
  const TestBuffer packet = Packet(WithHeader(Frame(60)));
  driver_->Send(1, {&packet, 1});
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(1)));
  EXPECT_EQ(backend_->held.size(), 1U);
  EXPECT_TRUE(backend_->sent.empty());
  EXPECT_FALSE(driver_->Take(0));
  EXPECT_FALSE(driver_->Take(1));
  card_->SetRunning(true);
  EXPECT_TRUE(driver_->Take(0));
  EXPECT_TRUE(driver_->Take(1));
  EXPECT_TRUE(backend_->held.empty());
  EXPECT_EQ(backend_->sent.size(), 1U);
}

TEST_F(VirtioNetTest, ABackEndThatGoesTakesTheLinkWithIt) {
  Make();
  backend_->room = false;
  const TestBuffer buffer{driver_->ram().Put(WithHeader(Frame(60))), 72, false};
  driver_->Send(1, {&buffer, 1});
  ASSERT_TRUE(network_.Remove("net0"));
  EXPECT_TRUE(driver_->Take(1)) << "what waited for it is given back";
  EXPECT_FALSE(card_->link());
  EXPECT_EQ(card_->backend(), nullptr);
  ASSERT_TRUE(driver_->Ask(1, WithHeader(Frame(60))));
  driver_->Stop();
  EXPECT_TRUE(driver_->Start());
}

TEST_F(VirtioNetTest, AResetGivesBackTheBackEndAndForgetsBuffers) {
  Make();
  GiveBuffer(20);
  backend_->Arrive(0, Frame(100));
  EXPECT_EQ(backend_->held.size(), 1U);
  driver_->Stop();
  EXPECT_FALSE(backend_->attached(0));
  ASSERT_TRUE(driver_->Start());
  const Buffer buffer = GiveBuffer(2000);
  EXPECT_EQ(TakeFrame(buffer).size(), kHeaderSize + 100);
}

// The whole way: a driver, the card, a socket, and back.
TEST_F(VirtioNetTest, TalksThroughAStreamSocket) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd peer(ends[1]);
  net::StreamConfig stream;
  stream.address.fd = ends[0];
  auto backend = net::StreamBackend::Create(*loop_, "s", stream, {});
  ASSERT_TRUE(backend);
  auto card = VirtioNet::Create(*loop_, network_, backend->get(),
                                {.name = "nic0", .mac = kMac, .features = kAllFeatures});
  ASSERT_TRUE(card);
  driver_ = std::make_unique<TestDriver>(**card, *loop_, kAccepted);
  ASSERT_TRUE(driver_->Start());
  const Bytes frame = Frame(300);
  ASSERT_TRUE(driver_->Ask(1, WithHeader(frame)));
  Bytes wire(1000);
  ASSERT_EQ(::recv(peer.get(), wire.data(), wire.size(), 0), 304);
  EXPECT_EQ(wire[2], std::byte{1});
  EXPECT_EQ(wire[3], std::byte{44});
  EXPECT_TRUE(std::equal(frame.begin(), frame.end(), wire.begin() + 4));
  // Back, two frames, the buffers coming only afterwards.
  for (int i = 0; i < 2; ++i) ASSERT_EQ(::send(peer.get(), wire.data(), 304, MSG_NOSIGNAL), 304);
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
  for (int i = 0; i < 2; ++i) {
    const Buffer buffer = GiveBuffer(2000);
    std::optional<TestQueue::Used> used;
    ASSERT_TRUE(driver_->RunUntil([&] { return (used = driver_->Take(0)).has_value(); }));
    EXPECT_EQ(used->written, kHeaderSize + 300);
    EXPECT_EQ(driver_->ram().Get(buffer.address + kHeaderSize, 300), frame);
  }
  driver_.reset();
}

}  // namespace
}  // namespace holdfast::devices::virtio
