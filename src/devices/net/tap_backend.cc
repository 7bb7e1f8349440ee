// SPDX-License-Identifier: Apache-2.0
#include "devices/net/tap_backend.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "devices/net/frame.h"
#include "devices/net/net_features.h"
#include "devices/net/packet_port.h"
#include "devices/vhost/kernel_vhost.h"

namespace holdfast::devices::net {
namespace {

// TUN_F_USO4 and TUN_F_USO6 came with Linux 6.2; the distribution's header is older.
constexpr unsigned kTunUso4 = 0x20;
constexpr unsigned kTunUso6 = 0x40;
constexpr unsigned kTunBase = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

}  // namespace

class TapBackend::Port final : public PacketPort {
 public:
  Port(UniqueFd queue, std::unique_ptr<vhost::KernelVhost> vhost)
      : queue_(std::move(queue)), vhost_(std::move(vhost)) {}
  ~Port() override { Detach(); }
  int fd() const noexcept override { return queue_.get(); }
  vhost::KernelVhost* vhost() const noexcept { return vhost_.get(); }

 private:
  ssize_t Read(std::span<std::byte> into) override {
    return ::read(fd(), into.data(), into.size());
  }
  ssize_t Write(std::span<const iovec> packet) override {
    return ::writev(fd(), packet.data(),
                    static_cast<int>(std::min<std::size_t>(packet.size(), IOV_MAX)));
  }
  UniqueFd queue_;
  std::unique_ptr<vhost::KernelVhost> vhost_;  // null without vhost=on
};

TapBackend::TapBackend(std::string id, TapConfig config)
    : id_(std::move(id)), config_(std::move(config)), name_(config_.name) {}

Result<std::unique_ptr<TapBackend>> TapBackend::Create(std::string id, TapConfig config) {
  std::unique_ptr<TapBackend> backend(new TapBackend(std::move(id), std::move(config)));
  HF_TRY_STATUS(backend->Open());
  return backend;
}

TapBackend::~TapBackend() {
  if (!up_ || config_.down_script.empty()) return;
  if (config_.down_script_optional && ::access(config_.down_script.c_str(), F_OK) != 0) return;
  if (const Status ran = RunScript(config_.down_script); !ran) log::Warn(ran.error().ToString());
}

Status TapBackend::Open() {
  if (!config_.inherited.empty()) {
    for (const int fd : config_.inherited) HF_TRY_STATUS(TakeQueue(fd));
    up_ = config_.fds.empty();
    return {};
  }
  for (const int fd : config_.fds) HF_TRY_STATUS(TakeQueue(fd));
  if (!config_.fds.empty()) return {};
  for (unsigned i = 0; i < config_.queues; ++i) HF_TRY_STATUS(AddQueue());
  const std::string& script = config_.script;
  if (!script.empty() && !(config_.script_optional && ::access(script.c_str(), F_OK) != 0)) {
    HF_TRY_STATUS(RunScript(script));
  }
  up_ = true;
  return {};
}

Status TapBackend::AddQueue() {
  UniqueFd queue(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!queue) {
    return Fail(Error::FromErrno("could not open /dev/net/tun", errno)
                    .WithHint("Loading the module tun, or rights on this file, may be missing; "
                              "-netdev user needs neither."));
  }
  ifreq request{};
  if (name_.size() >= sizeof request.ifr_name) {
    return Fail(Errc::kInvalidArgument, fmt::format("ifname '{}' is too long", name_),
                fmt::format("It may have {} bytes.", sizeof request.ifr_name - 1));
  }
  std::memcpy(request.ifr_name, name_.data(), name_.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (config_.queues > 1) request.ifr_flags |= IFF_MULTI_QUEUE;
  if (::ioctl(queue.get(), TUNSETIFF, &request) != 0) {
    return Fail(
        Error::FromErrno(fmt::format("could not configure /dev/net/tun ({})",
                                     name_.empty() ? "a new interface" : name_),
                         errno)
            .WithHint("Making one needs CAP_NET_ADMIN. Where somebody else made it, it must "
                      "belong to this user, have multi_queue if queues= is more than 1, "
                      "and not be in use."));
  }
  name_ = request.ifr_name;
  return Prepare(std::move(queue));
}

Status TapBackend::TakeQueue(int fd) {
  ifreq request{};
  if (::ioctl(fd, TUNGETIFF, &request) != 0 || (request.ifr_flags & IFF_TAP) == 0) {
    return Fail(Errc::kInvalidArgument, fmt::format("file descriptor {} is no tap", fd),
                "Start holdfast with an open tap under this number.");
  }
  if ((request.ifr_flags & IFF_VNET_HDR) == 0 || (request.ifr_flags & IFF_NO_PI) == 0) {
    return Fail(Errc::kUnsupported,
                fmt::format("the tap behind file descriptor {} has no headers", fd),
                "Make it with the flags vnet_hdr and no_pi (ip tuntap add … vnet_hdr).");
  }
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || ::fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
    return FailErrno("fcntl");
  }
  name_ = request.ifr_name;
  return Prepare(UniqueFd(fd));
}

Status TapBackend::Prepare(UniqueFd queue) {
  int header = kHeaderSize;
  if (::ioctl(queue.get(), TUNSETVNETHDRSZ, &header) != 0) return FailErrno("TUNSETVNETHDRSZ");
  if (::ioctl(queue.get(), TUNSETOFFLOAD, kTunBase) == 0) {
    offloads_ = kNetCsum | kNetHostTso4 | kNetHostTso6 | kNetHostEcn | kNetGuestCsum |
                kNetGuestTso4 | kNetGuestTso6 | kNetGuestEcn;
    if (::ioctl(queue.get(), TUNSETOFFLOAD, kTunBase | kTunUso4 | kTunUso6) == 0) {
      offloads_ |= kNetHostUso | kNetGuestUso4 | kNetGuestUso6;
    }
  }
  // Until a driver has said what it can take.
  static_cast<void>(::ioctl(queue.get(), TUNSETOFFLOAD, 0));
  std::unique_ptr<vhost::KernelVhost> vhost;
  if (config_.vhost) {
    HF_TRY(vhost, OpenVhost(ports_.size()));
  }
  ports_.push_back(std::make_unique<Port>(std::move(queue), std::move(vhost)));
  UseQueue(queue_pairs() - 1, false);
  return {};
}

Result<std::unique_ptr<vhost::KernelVhost>> TapBackend::OpenVhost(std::size_t queue) const {
  if (config_.vhost_fds.empty()) return vhost::KernelVhost::Open("/dev/vhost-net", "vhost_net");
  const int fd = config_.vhost_fds.at(queue);
  return vhost::KernelVhost::Adopt(UniqueFd(fd), fmt::format("vhostfd={}", fd));
}

Status TapBackend::SetOffloads(std::uint64_t features) {
  const auto has = [&](NetFeature bit) { return (features & offloads_ & bit) != 0; };
  unsigned flags = 0;
  if (has(kNetGuestCsum)) {
    flags |= TUN_F_CSUM;
    if (has(kNetGuestTso4)) flags |= TUN_F_TSO4;
    if (has(kNetGuestTso6)) flags |= TUN_F_TSO6;
    if (has(kNetGuestEcn) && (flags & (TUN_F_TSO4 | TUN_F_TSO6)) != 0) {
      flags |= TUN_F_TSO_ECN;
    }
    // The kernel has them together or not at all.
    if (has(kNetGuestUso4) && has(kNetGuestUso6)) flags |= kTunUso4 | kTunUso6;
  }
  for (const auto& port : ports_) {
    if (::ioctl(port->fd(), TUNSETOFFLOAD, flags) != 0) {
      return FailErrno(fmt::format("netdev '{}': TUNSETOFFLOAD", id_));
    }
  }
  return {};
}

// Tells the kernel whether to put frames into this queue: in one that the driver does not use they
// would be lost. The first is always in use. Fails harmlessly where nothing changes.
void TapBackend::UseQueue(unsigned pair, bool use) const noexcept {
  if (pair == 0) return;
  ifreq request{};
  request.ifr_flags = use ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
  static_cast<void>(::ioctl(ports_[pair]->fd(), TUNSETQUEUE, &request));
}

unsigned TapBackend::queue_pairs() const noexcept {
  return static_cast<unsigned>(ports_.size());
}

Status TapBackend::Attach(unsigned pair, EventLoop& loop, Receiver receiver) {
  UseQueue(pair, true);
  return ports_.at(pair)->Attach(loop, std::move(receiver));
}
void TapBackend::Detach(unsigned pair) {
  ports_.at(pair)->Detach();
  UseQueue(pair, false);
}
void TapBackend::ReceiverReady(unsigned pair) {
  ports_.at(pair)->ReceiverReady();
}
bool TapBackend::Send(unsigned pair, std::span<const iovec> header_and_frame) {
  return ports_.at(pair)->Send(header_and_frame);
}
void TapBackend::SetWritable(unsigned pair, std::function<void()> writable) {
  ports_.at(pair)->SetWritable(std::move(writable));
}

int TapBackend::queue_fd(unsigned pair) const noexcept {
  return ports_[pair]->fd();
}

vhost::KernelVhost* TapBackend::vhost(unsigned pair) const noexcept {
  return ports_[pair]->vhost();
}
int TapBackend::AttachKernel(unsigned pair) noexcept {
  UseQueue(pair, true);
  return ports_[pair]->fd();
}

// Runs `path` with the interface's name and waits for its end, as QEMU does.
Status TapBackend::RunScript(const std::string& path) const {
  std::string program = path;
  std::string name = name_;
  char* const arguments[] = {program.data(), name.data(), nullptr};
  // The program blocks signals and ignores SIGPIPE; a script expects neither.
  posix_spawnattr_t attributes;
  if (::posix_spawnattr_init(&attributes) != 0) return FailErrno("posix_spawnattr_init");
  sigset_t none;
  ::sigemptyset(&none);
  sigset_t defaults = none;
  ::sigaddset(&defaults, SIGPIPE);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  const int failed =
      ::posix_spawn(&child, program.c_str(), nullptr, &attributes, arguments, environ);
  ::posix_spawnattr_destroy(&attributes);
  constexpr const char* kHint =
      "It gets the interface's name as its argument; script=no runs nothing.";
  if (failed != 0) {
    return Fail(Error::FromErrno(fmt::format("could not launch network script {}", path), failed)
                    .WithHint(kHint));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return Fail(Errc::kSystem,
              fmt::format("network script {} failed with status {}", path,
                          WIFEXITED(status) ? WEXITSTATUS(status) : status),
              kHint);
}

std::string TapBackend::Describe() const {
  if (!config_.fds.empty()) return fmt::format("fd={}", config_.fds.front());
  const auto shown = [](const std::string& script) { return script.empty() ? "no" : script; };
  return fmt::format("ifname={},script={},downscript={}", name_, shown(config_.script),
                     shown(config_.down_script));
}

}  // namespace holdfast::devices::net
