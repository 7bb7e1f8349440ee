// SPDX-License-Identifier: Apache-2.0
#include "devices/net/user_backend.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <utility>

#include "base/log.h"
#include "devices/net/frame.h"
#include "devices/net/slirp_library.h"

namespace holdfast::devices::net {
namespace {

constexpr std::size_t kMostHeldBytes = 4U << 20;
constexpr std::size_t kSmallestFrame = 14;  // an Ethernet header

std::string Ipv4Text(in_addr address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET, &address, text.data(), text.size());
  return text.data();
}

std::string ForwardText(const HostForward& rule) {
  return fmt::format("{}:{}:{}", rule.udp ? "udp" : "tcp",
                     rule.host_address.s_addr == 0 ? "" : Ipv4Text(rule.host_address),
                     rule.host_port);
}

std::uint32_t ToEpoll(int events) {
  std::uint32_t all = 0;
  if ((events & SLIRP_POLL_IN) != 0) all |= EPOLLIN;
  if ((events & SLIRP_POLL_OUT) != 0) all |= EPOLLOUT;
  if ((events & SLIRP_POLL_PRI) != 0) all |= EPOLLPRI;
  if ((events & SLIRP_POLL_ERR) != 0) all |= EPOLLERR;
  if ((events & SLIRP_POLL_HUP) != 0) all |= EPOLLHUP;
  return all;
}

int FromEpoll(std::uint32_t events) {
  int all = 0;
  if ((events & EPOLLIN) != 0) all |= SLIRP_POLL_IN;
  if ((events & EPOLLOUT) != 0) all |= SLIRP_POLL_OUT;
  if ((events & EPOLLPRI) != 0) all |= SLIRP_POLL_PRI;
  if ((events & EPOLLERR) != 0) all |= SLIRP_POLL_ERR;
  if ((events & EPOLLHUP) != 0) all |= SLIRP_POLL_HUP;
  return all;
}

}  // namespace

struct UserBackend::Timer {
  UserBackend* owner;
  SlirpTimerId id;
  void* cookie;
  EventLoop::TimerId pending = 0;
};

// What libslirp calls; `opaque` is the back end. It comes back here from within our own calls.
struct UserBackend::Library {
  static UserBackend& Of(void* opaque) { return *static_cast<UserBackend*>(opaque); }

  static ssize_t SendPacket(const void* data, std::size_t size, void* opaque) {
    Of(opaque).Deliver({static_cast<const std::byte*>(data), size});
    return static_cast<ssize_t>(size);
  }
  // A guest could fill the log with these.
  static void GuestError(const char*, void*) {}
  static std::int64_t ClockNs(void*) {
    return std::chrono::nanoseconds(EventLoop::Clock::now().time_since_epoch()).count();
  }
  static void* TimerNew(SlirpTimerId id, void* cookie, void* opaque) {
    UserBackend& self = Of(opaque);
    self.timers_.push_back(std::make_unique<Timer>(Timer{&self, id, cookie}));
    return self.timers_.back().get();
  }
  static void TimerFree(void* timer, void* opaque) {
    UserBackend& self = Of(opaque);
    self.loop_.CancelTimer(static_cast<Timer*>(timer)->pending);
    std::erase_if(self.timers_, [&](const auto& one) { return one.get() == timer; });
  }
  static void TimerMod(void* timer, std::int64_t expire_ms, void* opaque) {
    UserBackend& self = Of(opaque);
    auto* const which = static_cast<Timer*>(timer);
    self.loop_.CancelTimer(which->pending);
    const EventLoop::Clock::time_point when{std::chrono::milliseconds(expire_ms)};
    which->pending = self.loop_.AddTimer(when, [which] {
      which->owner->changed_ = true;
      which->owner->library_->handle_timer(which->owner->slirp_, which->id, which->cookie);
    });
  }
  // A number that a new socket has got: what was watched under it is gone.
  static void FdOpened(int fd, void* opaque) { Of(opaque).Watch(fd, 0); }
  static void FdClosed(int fd, void* opaque) { Of(opaque).Watch(fd, 0); }
  static void Notify(void* opaque) { Of(opaque).changed_ = true; }

  static int AddPoll(int fd, int events, void* opaque) {
    UserBackend& self = Of(opaque);
    self.wanted_.push_back({fd, ToEpoll(events)});
    return static_cast<int>(self.wanted_.size()) - 1;
  }
  static int GetEvents(int index, void* opaque) {
    const UserBackend& self = Of(opaque);
    if (index < 0 || static_cast<std::size_t>(index) >= self.wanted_.size()) return 0;
    const auto found = self.happened_.find(self.wanted_[static_cast<std::size_t>(index)].fd);
    return found == self.happened_.end() ? 0 : FromEpoll(found->second);
  }

  static constexpr SlirpCb kCallbacks = {.send_packet = SendPacket,
                                         .guest_error = GuestError,
                                         .clock_get_ns = ClockNs,
                                         .timer_new = nullptr,
                                         .timer_free = TimerFree,
                                         .timer_mod = TimerMod,
                                         .register_poll_fd = FdOpened,
                                         .unregister_poll_fd = FdClosed,
                                         .notify = Notify,
                                         .init_completed = nullptr,
                                         .timer_new_opaque = TimerNew};
};

Result<std::unique_ptr<UserBackend>> UserBackend::Create(EventLoop& loop, std::string id,
                                                         UserConfig config) {
  std::unique_ptr<UserBackend> backend(new UserBackend(loop, std::move(id), std::move(config)));
  HF_TRY_STATUS(backend->Start());
  return backend;
}

UserBackend::UserBackend(EventLoop& loop, std::string id, UserConfig config)
    : loop_(loop), id_(std::move(id)), config_(std::move(config)) {}

Status UserBackend::Start() {
  HF_TRY(library_, SlirpLibrary::Load());
  const auto text = [](const std::string& from) { return from.empty() ? nullptr : from.c_str(); };
  std::vector<const char*> search;
  for (const std::string& domain : config_.dns_search) search.push_back(domain.c_str());
  search.push_back(nullptr);

  SlirpConfig slirp{};
  slirp.version = SLIRP_CONFIG_VERSION_MAX;
  slirp.restricted = config_.restricted ? 1 : 0;
  slirp.in_enabled = config_.ipv4;
  slirp.vnetwork = config_.network;
  slirp.vnetmask = config_.mask;
  slirp.vhost = config_.host;
  slirp.in6_enabled = config_.ipv6;
  slirp.vprefix_addr6 = config_.prefix6;
  slirp.vprefix_len = config_.prefix6_length;
  slirp.vhost6 = config_.host6;
  slirp.vhostname = text(config_.hostname);
  slirp.tftp_server_name = text(config_.tftp_server);
  slirp.tftp_path = text(config_.tftp_folder);
  slirp.bootfile = text(config_.boot_file);
  slirp.vdhcp_start = config_.dhcp_start;
  slirp.vnameserver = config_.dns;
  slirp.vnameserver6 = config_.dns6;
  slirp.vdnssearch = config_.dns_search.empty() ? nullptr : search.data();
  slirp.vdomainname = text(config_.domain_name);
  slirp_ = library_->create(&slirp, &Library::kCallbacks, this);
  if (slirp_ == nullptr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("netdev '{}': libslirp refuses this network", id_),
                "Check its addresses.");
  }
  hook_ = loop_.AddBeforeWait([this] { BeforeWait(); });
  for (const HostForward& rule : config_.forwards) HF_TRY_STATUS(AddForward(rule));
  return {};
}

UserBackend::~UserBackend() {
  receiver_ = nullptr;
  if (hook_ != 0) loop_.RemoveBeforeWait(hook_);
  if (slirp_ != nullptr) library_->cleanup(slirp_);
  loop_.CancelTimer(deadline_);
  for (const auto& timer : timers_) loop_.CancelTimer(timer->pending);
  for (const auto& [fd, events] : watched_) loop_.RemoveFd(fd);
}

void UserBackend::BeforeWait() {
  if (!happened_.empty() || due_) {
    changed_ = true;
    due_ = false;
    library_->pollfds_poll(slirp_, 0, &Library::GetEvents, this);
    happened_.clear();
  }
  if (!changed_) return;
  changed_ = false;
  wanted_.clear();
  std::uint32_t timeout_ms = std::numeric_limits<std::uint32_t>::max();
  library_->pollfds_fill(slirp_, &timeout_ms, &Library::AddPoll, this);
  std::map<int, std::uint32_t> now;
  for (const Wanted& one : wanted_) now[one.fd] |= one.events;
  const std::map<int, std::uint32_t> before = watched_;
  for (const auto& [fd, events] : before) {
    // Not even for hang-ups: epoll would report one over and over.
    if (!now.contains(fd)) Watch(fd, 0);
  }
  for (const auto& [fd, events] : now) Watch(fd, events);
  loop_.CancelTimer(deadline_);
  deadline_ = 0;
  if (timeout_ms == std::numeric_limits<std::uint32_t>::max()) return;
  deadline_ = loop_.AddTimer(EventLoop::Clock::now() + std::chrono::milliseconds(timeout_ms),
                             [this] { due_ = true; });
}

// Makes the loop watch `fd` for exactly `events`; for none, not at all.
void UserBackend::Watch(int fd, std::uint32_t events) {
  const auto found = watched_.find(fd);
  if (found != watched_.end()) {
    if (found->second == events) return;
    if (events != 0 && loop_.ModifyFd(fd, events)) {
      found->second = events;
      return;
    }
    loop_.RemoveFd(fd);
    watched_.erase(found);
    happened_.erase(fd);
  }
  if (events == 0) return;
  const Status added =
      loop_.AddFd(fd, events, [this, fd](std::uint32_t ready) { happened_[fd] |= ready; });
  if (!added) {
    log::Warn(
        fmt::format("netdev '{}': a connection stands still: {}", id_, added.error().message()));
    return;
  }
  watched_[fd] = events;
}

void UserBackend::Deliver(std::span<const std::byte> frame) {
  if (!receiver_) return;
  if (held_.empty() && Offer(frame)) return;
  if (held_bytes_ + frame.size() > kMostHeldBytes) return;
  held_bytes_ += frame.size();
  held_.emplace_back(frame.begin(), frame.end());
}

bool UserBackend::Offer(std::span<const std::byte> frame) {
  std::array<std::byte, kHeaderSize> header{};
  const std::array<iovec, 2> pieces = {iovec{header.data(), header.size()},
                                       iovec{const_cast<std::byte*>(frame.data()), frame.size()}};
  return receiver_(pieces);
}

Status UserBackend::Attach(unsigned pair, EventLoop& loop, Receiver receiver) {
  if (pair != 0 || &loop != &loop_) {
    return Fail(Errc::kUnsupported,
                fmt::format("netdev '{}' has one queue, on the main thread", id_),
                "Leave out mq= and iothread=, or use -netdev tap.");
  }
  receiver_ = std::move(receiver);
  return {};
}

void UserBackend::Detach(unsigned) {
  receiver_ = nullptr;
  held_.clear();
  held_bytes_ = 0;
}

void UserBackend::ReceiverReady(unsigned) {
  while (!held_.empty() && receiver_ && Offer(held_.front())) {
    held_bytes_ -= held_.front().size();
    held_.pop_front();
  }
}

bool UserBackend::Send(unsigned, std::span<const iovec> header_and_frame) {
  const std::size_t size = SizeOf(header_and_frame);
  if (size < kHeaderSize + kSmallestFrame || size > kHeaderSize + kLargestFrame) return true;
  sending_.clear();
  AppendBytes(header_and_frame, kHeaderSize, sending_);
  changed_ = true;
  library_->input(slirp_, reinterpret_cast<const std::uint8_t*>(sending_.data()),
                  static_cast<int>(sending_.size()));
  return true;
}

// It takes every frame at once.
void UserBackend::SetWritable(unsigned, std::function<void()>) {}

Status UserBackend::AddForward(const HostForward& rule) {
  changed_ = true;
  errno = 0;
  if (library_->add_hostfwd(slirp_, rule.udp ? 1 : 0, rule.host_address, rule.host_port,
                            rule.guest_address, rule.guest_port) == 0) {
    return {};
  }
  const int os_errno = errno;
  const std::string what = fmt::format(
      "Could not set up host forwarding rule '{}-{}:{}'", ForwardText(rule),
      rule.guest_address.s_addr == 0 ? "" : Ipv4Text(rule.guest_address), rule.guest_port);
  constexpr const char* kHint = "Choose a port of the host that nothing listens on.";
  if (os_errno == 0) return Fail(Errc::kInvalidArgument, what, kHint);
  return Fail(Error::FromErrno(what, os_errno).WithHint(kHint));
}

bool UserBackend::RemoveForward(const HostForward& rule) {
  changed_ = true;
  return library_->remove_hostfwd(slirp_, rule.udp ? 1 : 0, rule.host_address, rule.host_port) == 0;
}

std::string UserBackend::ConnectionInfo() const {
  const std::unique_ptr<char, decltype(&std::free)> text(library_->connection_info(slirp_),
                                                         &std::free);
  return text ? text.get() : "";
}

std::string UserBackend::Describe() const {
  return fmt::format("net={},restrict={}", Ipv4Text(config_.network),
                     config_.restricted ? "on" : "off");
}

}  // namespace holdfast::devices::net
