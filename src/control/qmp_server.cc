// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_server.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "base/event_loop.h"
#include "base/log.h"
#include "control/qmp_clients.h"

namespace holdfast::control {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFlushLimit{1000};
constexpr int kFlushStep = 20;  // milliseconds
// How long nobody is accepted after descriptors ran out.
constexpr milliseconds kPause{100};

}  // namespace

// A socket that clients connect to.
struct QmpServer::Listener {
  devices::ListeningSocket socket;
  bool pretty;
  bool watched = false;
  std::optional<EventLoop::TimerId> pause = {};
};

QmpServer::QmpServer(EventLoop& loop, const VmContext& vm) : loop_(loop), vm_(vm) {
  // The reply to `quit` goes out before the machine ends, and so before SHUTDOWN, as in QEMU.
  vm_.quit = [&loop, quit = vm.quit] { loop.Post(quit); };
}

QmpServer::~QmpServer() {
  for (const auto& listener : listeners_) {
    if (listener->watched) loop_.RemoveFd(listener->socket.fd());
    if (listener->pause) loop_.CancelTimer(*listener->pause);
  }
}

Status QmpServer::Listen(devices::ListeningSocket socket, bool pretty) {
  auto listener = std::make_unique<Listener>(Listener{std::move(socket), pretty});
  HF_TRY_STATUS(loop_.AddFd(listener->socket.fd(), EPOLLIN,
                            [this, raw = listener.get()](std::uint32_t) { OnConnection(*raw); }));
  listener->watched = true;
  listeners_.push_back(std::move(listener));
  return {};
}

void QmpServer::OnConnection(Listener& listener) {
  UniqueFd client = listener.socket.Accept();
  if (!client) {
    if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) return;
    // The client stays in the queue and would wake the loop again at once.
    loop_.RemoveFd(listener.socket.fd());
    listener.watched = false;
    listener.pause = loop_.AddTimer(EventLoop::Clock::now() + kPause, [this, &listener] {
      listener.pause.reset();
      Watch(listener);
    });
    return;
  }
  if (clients_.size() >= kMostClients) {
    const std::string refusal = fmt::format(
        "{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"there are {} clients already\"}}}}"
        "\r\n",
        clients_.size());
    // Best effort: a new socket has room for a line.
    [[maybe_unused]] const ssize_t sent =
        ::send(client.get(), refusal.data(), refusal.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return;
  }
  if (const Status served = Serve(std::move(client), listener.pretty); !served) {
    log::Warn(fmt::format("a QMP client is lost: {}", served.error().message()));
  }
}

void QmpServer::Watch(Listener& listener) {
  const Status watched = loop_.AddFd(listener.socket.fd(), EPOLLIN,
                                     [this, &listener](std::uint32_t) { OnConnection(listener); });
  listener.watched = watched.has_value();
  if (!watched) log::Warn(fmt::format("no further QMP clients: {}", watched.error().message()));
}

Status QmpServer::Serve(UniqueFd socket, bool pretty) {
  HF_TRY(std::shared_ptr<Client> client,
         SocketClient::Create(loop_, vm_, std::move(socket), pretty,
                              [this](const Client* gone) { Remove(gone); }));
  clients_.push_back(std::move(client));
  return {};
}

void QmpServer::Serve(devices::Chardev& front, bool pretty) {
  clients_.push_back(ChardevClient::Create(loop_, vm_, front, pretty));
}

void QmpServer::Remove(const Client* client) {
  std::erase_if(clients_, [client](const auto& known) { return known.get() == client; });
}

void QmpServer::Emit(std::string_view event, Json data) {
  if (clients_.empty()) return;
  const Json message = MakeEvent(event, std::move(data));
  // A client that turns out to be gone removes itself, but only later, from the loop.
  for (const auto& client : clients_) client->Emit(message);
}

void QmpServer::Flush() {
  const auto deadline = EventLoop::Clock::now() + kFlushLimit;
  for (const auto& client : clients_) {
    while (!client->Drain() && EventLoop::Clock::now() < deadline) client->WaitForRoom(kFlushStep);
  }
}

}  // namespace holdfast::control
