// SPDX-License-Identifier: Apache-2.0
#include "devices/vhost_user/test_net_backend.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "devices/virtio/device.h"

namespace holdfast::devices::vhost_user {
namespace {

constexpr std::size_t kHeaderSize = 12;  // virtio 1.2, 5.1.6
constexpr std::size_t kMostQueues = 64;
constexpr std::uint64_t kPageSize = 4096;

template <typename T>
T Load(std::span<const std::byte> bytes) {
  T value{};
  if (!bytes.empty()) std::memcpy(&value, bytes.data(), std::min(sizeof value, bytes.size()));
  return value;
}
template <typename T>
std::vector<std::byte> BytesOf(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) std::abort();
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

}  // namespace

// One connection.
struct TestNetBackend::Session {
  explicit Session(UniqueFd socket) : channel(std::move(socket)) {}

  Result<GuestAddress> ToGuest(std::uint64_t user) const {
    for (const MemoryRegion& region : regions) {
      if (user >= region.user_address && user - region.user_address < region.size) {
        return GuestAddress(region.guest_address + (user - region.user_address));
      }
    }
    return Fail(Errc::kMalformed, "a ring outside of memory");
  }
  Status SetMemory(Message& message) {
    const auto head = Load<MemoryTableHead>(message.payload);
    // Nobody's rings outlive their memory.
    for (Vring& vring : vrings) vring.ring.reset();
    space = std::make_unique<AddressSpace>(nullptr);
    blocks.clear();
    regions.clear();
    for (std::size_t i = 0; i < head.regions && i < message.fds.size(); ++i) {
      const auto region = Load<MemoryRegion>(
          std::span(message.payload).subspan(sizeof head + i * sizeof(MemoryRegion)));
      HF_TRY(auto block,
             RamBlock::CreateFromFd("theirs", std::move(message.fds[i]), region.mmap_offset,
                                    region.size, kPageSize, {.shared = true}));
      HF_TRY_STATUS(space->AddRam(GuestAddress(region.guest_address), region.size, *block, 0));
      blocks.push_back(std::move(block));
      regions.push_back(region);
    }
    return {};
  }
  Status SetAddress(const VringAddress& rings) {
    virtio::QueueLayout& layout = vrings.at(rings.index).layout;
    HF_TRY(layout.descriptors, ToGuest(rings.descriptors));
    HF_TRY(layout.driver_area, ToGuest(rings.available));
    HF_TRY(layout.device_area, ToGuest(rings.used));
    return {};
  }
  Status StartRing(unsigned index) {
    Vring& vring = vrings.at(index);
    vring.layout.event_index = (features & virtio::kFeatureEventIndex) != 0;
    vring.layout.indirect = (features & virtio::kFeatureIndirect) != 0;
    HF_TRY(vring.ring, virtio::Queue::Create(*space, vring.layout));
    vring.ring->set_position(vring.base);
    return {};
  }

  Channel channel;
  std::uint64_t features = 0;
  std::vector<std::unique_ptr<RamBlock>> blocks;
  std::vector<MemoryRegion> regions;
  std::unique_ptr<AddressSpace> space;
  std::array<Vring, kMostQueues> vrings;
};

TestNetBackend::TestNetBackend(std::string path, Options options)
    : path_(std::move(path)), options_(std::move(options)) {
  Revive();
}

TestNetBackend::~TestNetBackend() {
  Kill();
  if (!options_.connects) ::unlink(path_.c_str());
}

void TestNetBackend::Listen() {
  ::unlink(path_.c_str());
  const sockaddr_un address = AddressOf(path_);
  listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_.get(), 1) != 0) {
    std::abort();
  }
}

// Who comes, or whom it reaches; invalid for nobody.
UniqueFd TestNetBackend::NextSocket(int listener) const {
  if (!options_.connects) return UniqueFd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  const sockaddr_un address = AddressOf(path_);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  return ::connect(socket.get(), generic, sizeof address) == 0 ? std::move(socket) : UniqueFd();
}

void TestNetBackend::Kill() {
  if (!thread_.joinable()) return;
  (void)::eventfd_write(stop_.get(), 1);
  thread_.join();
  Note([](Seen& seen) { seen.served.clear(); });
}

void TestNetBackend::Revive() {
  if (!options_.connects) Listen();
  stop_.reset(::eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { Run(listener_.get()); });
}

TestNetBackend::Seen TestNetBackend::seen() const {
  const std::scoped_lock lock(mutex_);
  return seen_;
}

bool TestNetBackend::WaitFor(const std::function<bool(const Seen&)>& is) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::minutes(1), [&] { return is(seen_); });
}

void TestNetBackend::Note(const std::function<void(Seen&)>& change) const {
  const std::scoped_lock lock(mutex_);
  change(seen_);
  changed_.notify_all();
}

void TestNetBackend::NoteServed(const Session& session) const {
  Note([&](Seen& seen) {
    seen.served.clear();
    for (unsigned i = 0; i < kMostQueues; ++i) {
      if (session.vrings.at(i).ring && session.vrings.at(i).enabled) seen.served.push_back(i);
    }
  });
}

void TestNetBackend::Run(int listener) {
  std::unique_ptr<Session> session;
  for (;;) {
    std::vector<pollfd> ready{{.fd = stop_.get(), .events = POLLIN, .revents = 0},
                              {.fd = listener, .events = POLLIN, .revents = 0}};
    std::vector<unsigned> kicks;
    if (session != nullptr) {
      ready[1].fd = session->channel.fd();
      for (unsigned i = 0; i < kMostQueues; ++i) {
        const Vring& vring = session->vrings.at(i);
        if (!vring.ring || !vring.enabled || !vring.kick.valid()) continue;
        ready.push_back({.fd = vring.kick.get(), .events = POLLIN, .revents = 0});
        kicks.push_back(i);
      }
    }
    const bool looks = session == nullptr && options_.connects;
    if (::poll(ready.data(), ready.size(), looks ? 5 : -1) < 0) continue;
    if (ready[0].revents != 0) break;
    for (std::size_t i = 0; i < kicks.size(); ++i) {
      if (ready[i + 2].revents != 0) Serve(*session, kicks[i]);
    }
    if (ready[1].revents == 0 && !looks) continue;
    if (session == nullptr) {
      UniqueFd socket = NextSocket(listener);
      if (!socket) continue;
      session = std::make_unique<Session>(std::move(socket));
      Note([](Seen& seen) { ++seen.connections; });
    } else if (!Handle(*session)) {
      session.reset();
      Note([](Seen& seen) { seen.served.clear(); });
    }
  }
  listener_.reset();
}

// @return false when the connection has ended
bool TestNetBackend::Handle(Session& session) {
  auto message = session.channel.Receive();
  if (!message) return false;
  const auto request = static_cast<Request>(message->header.request);
  const auto number = Load<std::uint64_t>(message->payload);
  const auto state = Load<VringState>(message->payload);
  const unsigned index = state.index % kMostQueues;
  Vring& vring = session.vrings.at(index);
  bool replies = (message->header.flags & kFlagNeedReply) != 0;
  std::vector<std::byte> reply = BytesOf(std::uint64_t{0});
  const auto answer = [&](const auto& value) {
    reply = BytesOf(value);
    replies = true;
  };
  Status done;
  switch (request) {
    case Request::kGetFeatures:
      answer(options_.features | virtio::kFeatureVersion1 | virtio::kFeatureIndirect |
             virtio::kFeatureEventIndex | (options_.protocol != 0 ? kFeatureProtocol : 0));
      break;
    case Request::kGetProtocolFeatures:
      answer(options_.protocol);
      break;
    case Request::kGetQueueNum:
      answer(options_.pairs);
      break;
    case Request::kSetFeatures:
      session.features = number;
      Note([&](Seen& seen) { seen.features = number; });
      break;
    case Request::kSetMemTable:
      done = session.SetMemory(*message);
      break;
    case Request::kSetVringNum:
      vring.layout.size = static_cast<std::uint16_t>(state.value);
      break;
    case Request::kSetVringBase:
      vring.base = state.value;
      break;
    case Request::kSetVringAddr:
      done = session.SetAddress(Load<VringAddress>(message->payload));
      break;
    case Request::kSetVringCall:
      vring.call = message->fds.empty() ? UniqueFd() : std::move(message->fds.front());
      break;
    case Request::kSetVringKick:
      vring.kick = message->fds.empty() ? UniqueFd() : std::move(message->fds.front());
      vring.enabled = options_.protocol == 0;
      done = session.StartRing(index);
      Note([](Seen& seen) { ++seen.starts; });
      break;
    case Request::kSetVringEnable:
      vring.enabled = state.value != 0;
      break;
    case Request::kGetVringBase:
      answer(VringState{index, vring.ring ? vring.ring->position() : vring.base});
      vring.ring.reset();
      Note([](Seen& seen) { ++seen.stops; });
      break;
    case Request::kNetSetMtu:
      Note([&](Seen& seen) { seen.mtu = number; });
      break;
    case Request::kSendRarp:
      Note([&](Seen& seen) { seen.rarp = number; });
      break;
    default:
      break;
  }
  NoteServed(session);
  return done && (!replies || session.channel.Send(message->header.request, reply, {}, kFlagReply));
}

void TestNetBackend::Serve(Session& session, unsigned index) {
  Vring& vring = session.vrings.at(index);
  eventfd_t count = 0;
  (void)::eventfd_read(vring.kick.get(), &count);
  if (index % 2 == 0) return;  // room for frames: it is looked for when there is one
  do {
    for (;;) {
      auto chain = vring.ring->Pop();
      if (!chain || !*chain) break;
      Frame frame((*chain)->readable.size() - kHeaderSize);
      (*chain)->readable.CopyOut(kHeaderSize, frame);
      vring.ring->Push(**chain, 0);
      const auto answer = options_.answer ? options_.answer(frame) : std::nullopt;
      Note([&](Seen& seen) { seen.frames.emplace_back(index / 2, std::move(frame)); });
      if (answer) Deliver(session, index / 2, *answer);
    }
  } while (vring.ring->EnableKicks());
  if (vring.ring->NeedsNotification()) (void)::eventfd_write(vring.call.get(), 1);
}

void TestNetBackend::Deliver(Session& session, unsigned pair, const Frame& frame) {
  Vring& vring = session.vrings.at(std::size_t{2} * pair);
  if (!vring.ring || !vring.enabled) return;
  auto chain = vring.ring->Pop();
  if (!chain || !*chain) return;  // no room: lost
  Frame packet(kHeaderSize);
  packet[kHeaderSize - 2] = std::byte{1};  // one buffer
  packet.insert(packet.end(), frame.begin(), frame.end());
  const bool fits = packet.size() <= (*chain)->writable.size();
  if (fits) (*chain)->writable.CopyIn(0, packet);
  vring.ring->Push(**chain, fits ? static_cast<std::uint32_t>(packet.size()) : 0);
  if (vring.ring->NeedsNotification()) (void)::eventfd_write(vring.call.get(), 1);
}

}  // namespace holdfast::devices::vhost_user
