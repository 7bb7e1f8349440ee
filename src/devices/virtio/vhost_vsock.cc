// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/vhost_vsock.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "base/event_loop.h"
#include "base/log.h"
#include "devices/vhost/vhost_abi.h"
#include "devices/virtio/virtio_pci.h"

namespace holdfast::devices::virtio {
namespace {

constexpr std::uint64_t kSeqpacket = 1ULL << 1;  // VIRTIO_VSOCK_F_SEQPACKET
constexpr std::uint32_t kFirstGuestCid = 3;      // 0 and 1 are nobody's, 2 is the host

}  // namespace

Result<std::unique_ptr<VhostVsock>> VhostVsock::Create(EventLoop& loop,
                                                       std::unique_ptr<vhost::KernelVhost> kernel,
                                                       const Config& config) {
  const Status named = kernel->Call(vhost::abi::kVsockSetGuestCid, std::uint64_t{config.guest_cid},
                                    "VHOST_VSOCK_SET_GUEST_CID");
  if (!named) {
    if (named.error().os_errno() != EADDRINUSE) return Fail(named.error());
    return Fail(Errc::kInvalidArgument,
                fmt::format("unable to set guest cid: another guest has {}", config.guest_cid),
                "Give each guest of a host a guest-cid of its own.");
  }
  UniqueFd error(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!error) return FailErrno("eventfd");
  return std::unique_ptr<VhostVsock>(
      new VhostVsock(loop, std::move(kernel), std::move(error), config));
}

VhostVsock::VhostVsock(EventLoop& loop, std::unique_ptr<vhost::KernelVhost> kernel, UniqueFd error,
                       const Config& config)
    : loop_(loop),
      kernel_(std::move(kernel)),
      error_(std::move(error)),
      config_(config),
      features_(config.seqpacket ? kernel_->features() & kSeqpacket : 0) {}

VhostVsock::~VhostVsock() {
  Reset();
}

void VhostVsock::ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept {
  // 5.10.4: the context id, 64 bits little-endian.
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::uint64_t at = offset + i;
    data[i] = at < 4 ? static_cast<std::byte>(config_.guest_cid >> (8 * at)) : std::byte{0};
  }
}

Status VhostVsock::Serve(bool serve) const {
  return kernel_->Call(vhost::abi::kVsockSetRunning, std::int32_t{serve ? 1 : 0},
                       "VHOST_VSOCK_SET_RUNNING");
}

Status VhostVsock::TakeQueues() {
  for (unsigned i = 0; i < kServed; ++i) {
    HF_TRY_STATUS(kernel_->TakeQueue(i, transport_->queue(i), transport_->memory(), error_.get()));
  }
  return Serve(true);
}

Status VhostVsock::Activate(Transport& transport) {
  HF_TRY_STATUS(kernel_->SetFeatures(transport.features()));
  HF_TRY_STATUS(kernel_->SetMemory(transport.memory()));
  HF_TRY_STATUS(loop_.AddFd(error_.get(), EPOLLIN, [this](std::uint32_t) {
    eventfd_t count = 0;
    if (::eventfd_read(error_.get(), &count) != 0 || transport_ == nullptr) return;
    transport_->NeedsReset(Error(Errc::kMalformed, "the kernel found a queue broken"));
  }));
  transport_ = &transport;
  reset_untold_ = transport.restored();
  return TakeQueues();
}

void VhostVsock::SetRunning(bool running) noexcept {
  if (transport_ == nullptr) return;
  if (running) {
    if (const Status taken = TakeQueues(); !taken) return transport_->NeedsReset(taken.error());
    // What the driver did before the kernel listened again.
    for (unsigned i = 0; i < kServed; ++i) HandleQueue(i);
    return;
  }
  Status stopped = Serve(false);
  for (unsigned i = 0; stopped && i < kServed; ++i) {
    const Result<std::uint32_t> position = kernel_->Position(i);
    if (position) {
      transport_->queue(i).set_position(*position);
    } else {
      stopped = Fail(position.error());
    }
  }
  if (!stopped) log::Warn(stopped.error().ToString());
}

// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (virtio 1.2, 5.10.6.9).
void VhostVsock::TellReset() {
  DeviceQueue& events = transport_->queue(kServed);
  std::optional<Chain> chain = events.ready() ? events.Pop() : std::nullopt;
  if (!chain) return;
  constexpr std::array<std::byte, 4> kTransportReset{};
  const std::size_t written = chain->writable.CopyIn(0, kTransportReset);
  events.Complete(*chain, static_cast<std::uint32_t>(written));
  reset_untold_ = false;
}

void VhostVsock::HandleQueue(unsigned index) {
  if (transport_ != nullptr && index == kServed && reset_untold_) return TellReset();
  // Kicks from before the kernel listened.
  if (transport_ != nullptr && index < kServed) {
    (void)::eventfd_write(transport_->queue(index).kick_fd(), 1);
  }
}

void VhostVsock::Reset() noexcept {
  if (transport_ == nullptr) return;
  // Fails only where nothing runs.
  (void)Serve(false);
  kernel_->ForgetMemory();
  loop_.RemoveFd(error_.get());
  transport_ = nullptr;
}

// ---- The device model ----

namespace {

using object::Property;
using object::PropertyType;

struct Words {
  std::uint64_t guest_cid = 0;
  std::optional<std::uint64_t> vhost_fd;
  bool seqpacket = true;
};

Status SetVhostFd(Words& words, const object::PropertyValue& value) {
  words.vhost_fd = std::get<std::uint64_t>(value);
  return {};
}

constexpr Property<Words> kProperties[] = {
    {{.name = "guest-cid",
      .type = PropertyType::kUint,
      .default_text = "none; it must be given",
      .description = "the guest's context id, 3 or more; no other guest of the host may have it"},
     object::SetField<&Words::guest_cid>},
    {{.name = "vhostfd",
      .type = PropertyType::kUint,
      .default_text = "/dev/vhost-vsock is opened",
      .description = "number of an open /dev/vhost-vsock",
      .max = INT32_MAX},
     SetVhostFd},
    {{.name = "seqpacket",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "offer SOCK_SEQPACKET where the kernel has it"},
     object::SetField<&Words::seqpacket>},
};

Result<Words> Parse(const object::KeyValues& values, TransportOptions& options) {
  HF_TRY(const object::KeyValues own, TakeTransportOptions(values, options));
  Words words;
  HF_TRY_STATUS(object::SetProperties<Words>(kProperties, {}, words, own));
  if (words.guest_cid < kFirstGuestCid) {
    return Fail(Errc::kInvalidArgument, "guest-cid property must be greater than 2",
                "Write guest-cid=3 for the first guest of a host.");
  }
  if (words.guest_cid >= UINT32_MAX) {
    return Fail(Errc::kInvalidArgument, "guest-cid property must be a 32-bit number",
                fmt::format("The largest is {}.", UINT32_MAX - 1));
  }
  return words;
}

Result<std::unique_ptr<pci::Function>> Make(const DeviceEnvironment& environment,
                                            std::string_view id, const object::KeyValues& values) {
  TransportOptions options;
  HF_TRY(const Words words, Parse(values, options));
  std::unique_ptr<vhost::KernelVhost> kernel;
  if (words.vhost_fd) {
    HF_TRY(kernel, vhost::KernelVhost::Adopt(UniqueFd(static_cast<int>(*words.vhost_fd)),
                                             fmt::format("vhostfd={}", *words.vhost_fd)));
  } else {
    HF_TRY(kernel, vhost::KernelVhost::Open("/dev/vhost-vsock", "vhost_vsock"));
  }
  const VhostVsock::Config config{.guest_cid = static_cast<std::uint32_t>(words.guest_cid),
                                  .seqpacket = words.seqpacket};
  HF_TRY(auto device, VhostVsock::Create(environment.loop, std::move(kernel), config));
  return MakeVirtioPci(environment, id, kVhostVsockPci.name, options, std::move(device));
}

}  // namespace

constexpr DeviceModel kVhostVsockPci = {
    .name = "vhost-vsock-pci",
    .description = "sockets between guest and host (AF_VSOCK), served by the kernel",
    .properties =
        [] { return WithTransportProperties({std::begin(kProperties), std::end(kProperties)}); },
    .check = [](const object::KeyValues& values) -> Status {
      TransportOptions options;
      HF_TRY_STATUS(Parse(values, options));
      return {};
    },
    .create = Make,
};

}  // namespace holdfast::devices::virtio
