// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/stream_socket.h"
#include "migration/address.h"
#include "migration/channel.h"
#include "migration/tls_channel.h"

namespace holdfast::migration {

/// What addresses of some kinds need.
struct AddressServices {
  /// Hands out the descriptor that a client of the control protocol passed under a name (`getfd`).
  /// Empty: there are none. Called on the thread that connects or listens.
  std::function<Result<UniqueFd>(const std::string& name)> take_fd = {};
  /// Whether the sandbox lets programs start, for `exec:`.
  bool may_spawn = true;
};

struct ConnectOptions {
  std::stop_token cancel = {};
  /// For each address that a name has.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  TlsOptions tls = {};
  AddressServices services = {};
};

/// Connects to the other side, on a thread of its own: it waits. The addresses that a name has are
/// tried in turn. `file:` opens the file for writing. Looking a name up cannot be cancelled; what
/// follows ends at once.
/// @return kInvalidArgument or kNotFound for an address that cannot be; ECANCELED
Result<std::unique_ptr<Channel>> Connect(const Address& address, const ConnectOptions& options);

/// Waits for connections of the other side.
///
/// Thread-safety: one thread.
class Listener {
 public:
  /// A migration's channels may all come at once.
  static constexpr int kBacklog = 256;

  /// Listens on a TCP or Unix socket. The other addresses have one connection, which is ready at
  /// once. A Unix socket's file goes with the listener if it is still its own.
  static Result<std::unique_ptr<Listener>> Listen(const Address& address,
                                                  const AddressServices& services = {});
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() = default;

  /// Readable when there is a connection: for the event loop.
  int fd() const noexcept;
  /// The next connection, not yet encrypted (WrapTls). Does not wait: null if there is none.
  Result<std::unique_ptr<Channel>> Accept();
  /// Where it listens, with the port that was chosen.
  const Address& address() const noexcept { return address_; }

 private:
  static std::unique_ptr<Listener> Of(const TcpAddress& address, devices::ListeningSocket socket);
  Listener(Address address, std::optional<devices::ListeningSocket> socket,
           std::unique_ptr<Channel> only, UniqueFd ready)
      : address_(std::move(address)),
        socket_(std::move(socket)),
        only_(std::move(only)),
        ready_(std::move(ready)) {}

  Address address_;
  std::optional<devices::ListeningSocket> socket_;
  std::unique_ptr<Channel> only_;  // of an address with one connection
  UniqueFd ready_;                 // eventfd: only_ is there
};

}  // namespace holdfast::migration
