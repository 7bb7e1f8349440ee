// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "control/context.h"
#include "control/qmp_json.h"
#include "devices/stream_socket.h"

namespace holdfast {
class EventLoop;
namespace devices {
class Chardev;
}
}  // namespace holdfast

namespace holdfast::control {

/// QMP for any number of clients at once, each with a session of its own: unlike QEMU, whose socket
/// serves one client at a time.
///
/// Thread-safety: the main loop's thread.
class QmpServer {
 public:
  /// More clients than this are turned away, so that what they can make the monitor hold is
  /// bounded.
  static constexpr std::size_t kMostClients = 64;

  /// `loop` outlives the server; `vm` is copied.
  QmpServer(EventLoop& loop, const VmContext& vm);
  QmpServer(const QmpServer&) = delete;
  QmpServer& operator=(const QmpServer&) = delete;
  /// Hangs up on all clients and removes the listening sockets.
  ~QmpServer();

  /// Serves everybody who connects to `socket`.
  Status Listen(devices::ListeningSocket socket, bool pretty);
  /// Serves who is at the other end of a connected socket.
  Status Serve(UniqueFd socket, bool pretty);
  /// Serves who is at the far end of a chardev that has one client for good: a terminal, a pty.
  /// `front` outlives the server.
  void Serve(devices::Chardev& front, bool pretty);

  /// Tells an event to all clients that have negotiated. `data` empty: it has none.
  void Emit(std::string_view event, Json data = Json::object());
  /// Sends what is queued, waiting at most about a second for slow clients. For the end.
  void Flush();

  std::size_t clients() const noexcept { return clients_.size(); }

  /// One client, whatever it is connected by.
  class Client {
   public:
    Client() = default;
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    virtual ~Client() = default;
    virtual void Emit(const Json& event) = 0;
    /// Writes what can be written now; returns whether that was all.
    virtual bool Drain() = 0;
    /// Waits until more can be written, or for so many milliseconds.
    virtual void WaitForRoom(int milliseconds) = 0;
  };

 private:
  class SocketClient;
  class ChardevClient;
  struct Listener;

  void OnConnection(Listener& listener);
  void Watch(Listener& listener);
  void Remove(const Client* client);

  EventLoop& loop_;
  VmContext vm_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::shared_ptr<Client>> clients_;
};

}  // namespace holdfast::control
