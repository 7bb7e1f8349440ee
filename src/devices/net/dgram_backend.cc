// SPDX-License-Identifier: Apache-2.0
#include "devices/net/dgram_backend.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "devices/net/frame.h"

namespace holdfast::devices::net {
namespace {

bool IsMulticast(const KernelAddress& address) {
  if (address.storage.ss_family != AF_INET) return false;
  const auto* const ipv4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
  return IN_MULTICAST(ntohl(ipv4->sin_addr.s_addr));
}

// A socket file of a program that ended stays behind; another kind of file is not ours to remove.
Status RemoveOldSocket(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("cannot make the socket '{}': there is something else", path),
                "Choose another path or remove it.");
  }
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return FailErrno(fmt::format("cannot remove the old socket '{}'", path));
}

}  // namespace

Result<std::unique_ptr<DgramBackend>> DgramBackend::Create(std::string id, DgramConfig config) {
  std::unique_ptr<DgramBackend> backend(new DgramBackend(std::move(id), std::move(config)));
  HF_TRY_STATUS(backend->Open());
  return backend;
}

DgramBackend::~DgramBackend() {
  PacketPort::Detach();
  if (bound_file_) ::unlink(config_.local->socket.path.c_str());
}

Status DgramBackend::Open() {
  if (config_.local && config_.local->fd) {
    HF_TRY(socket_, InheritSocket(*config_.local->fd, SOCK_DGRAM));
    return {};
  }
  HF_TRY(remote_, ResolveAddress(config_.remote->socket, SOCK_DGRAM));
  if (IsMulticast(*remote_)) {
    return Fail(Errc::kUnsupported,
                fmt::format("QEMU has multicast groups like {}, Holdfast does not have them yet",
                            config_.remote->socket.host),
                "Connect the guests with -netdev stream.");
  }
  socket_.reset(::socket(remote_->storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket_) return FailErrno("socket");
  if (!config_.local) return {};
  const SocketAddress& local = config_.local->socket;
  HF_TRY(const KernelAddress name, ResolveAddress(local, SOCK_DGRAM));
  if (!local.path.empty()) HF_TRY_STATUS(RemoveOldSocket(local.path));
  const int on = 1;
  static_cast<void>(::setsockopt(fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  if (::bind(fd(), name.get(), name.size) != 0) {
    return FailErrno(fmt::format("cannot bind to {}", config_.local->Describe()));
  }
  bound_file_ = !local.path.empty();
  return {};
}

Status DgramBackend::Attach(unsigned pair, EventLoop& loop, Receiver receiver) {
  if (pair != 0) {
    return Fail(Errc::kUnsupported, fmt::format("netdev '{}' has one queue", id_),
                "Leave out mq=, or use -netdev tap.");
  }
  return PacketPort::Attach(loop, std::move(receiver));
}

void DgramBackend::Detach(unsigned) {
  PacketPort::Detach();
}
void DgramBackend::ReceiverReady(unsigned) {
  PacketPort::ReceiverReady();
}
bool DgramBackend::Send(unsigned, std::span<const iovec> header_and_frame) {
  const std::size_t size = SizeOf(header_and_frame);
  if (size <= kHeaderSize || size > kHeaderSize + kLargestFrame) return true;
  return PacketPort::Send(header_and_frame);
}
void DgramBackend::SetWritable(unsigned, std::function<void()> writable) {
  PacketPort::SetWritable(std::move(writable));
}

ssize_t DgramBackend::Read(std::span<std::byte> into) {
  const std::span<std::byte> frame = into.subspan(kHeaderSize);
  const ssize_t size = ::recv(fd(), frame.data(), frame.size(), MSG_DONTWAIT);
  if (size < 0) return size;
  std::fill_n(into.begin(), kHeaderSize, std::byte{0});
  return size + static_cast<ssize_t>(kHeaderSize);
}

ssize_t DgramBackend::Write(std::span<const iovec> header_and_frame) {
  pieces_.clear();
  SkipBytes(header_and_frame, kHeaderSize, pieces_);
  msghdr message{};
  if (remote_) {
    message.msg_name = &remote_->storage;
    message.msg_namelen = remote_->size;
  }
  message.msg_iov = pieces_.data();
  message.msg_iovlen = std::min<std::size_t>(pieces_.size(), IOV_MAX);
  return ::sendmsg(fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

std::string DgramBackend::Describe() const {
  const auto describe = [](const NetAddress& address) {
    std::string text = address.Describe();
    // The name of an address does not know what goes there.
    return text.starts_with("tcp:") ? "udp:" + text.substr(4) : text;
  };
  if (config_.local && config_.remote) {
    return fmt::format("{}/{}", describe(*config_.local), describe(*config_.remote));
  }
  return describe(config_.local ? *config_.local : *config_.remote);
}

}  // namespace holdfast::devices::net
