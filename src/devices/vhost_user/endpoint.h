// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

namespace holdfast::devices {
class Chardev;
}

namespace holdfast::devices::vhost_user {

/// Where a back end is to be found, now and again.
class Endpoint {
 public:
  /// How often to look whether a back end that connects to us has come.
  static constexpr std::chrono::milliseconds kAcceptPace{100};

  /// @param path  of its Unix socket
  /// @param reconnect  how long to wait before looking for it again once it has gone; empty: it
  ///        does not come back
  /// @param lease  held as long as the endpoint is in use
  Endpoint(std::string path, std::optional<std::chrono::milliseconds> reconnect,
           UniqueFd connection = {}, std::shared_ptr<void> lease = {})
      : path_(std::move(path)),
        reconnect_(reconnect),
        connection_(std::move(connection)),
        lease_(std::move(lease)) {}

  /// A back end that connects to us, as often as it likes.
  /// @param listener  the socket that it connects to, which does not block
  /// @param connection  the first one; invalid: it has not come yet
  Endpoint(std::string path, UniqueFd listener, UniqueFd connection, std::shared_ptr<void> lease)
      : path_(std::move(path)),
        reconnect_(kAcceptPace),
        connection_(std::move(connection)),
        listener_(std::move(listener)),
        lease_(std::move(lease)) {}

  /// A back end that somebody makes when it is wanted.
  /// @param name  for messages
  /// @param make  starts it, or another in its place, and connects
  /// @param final  once it holds true, there is no other
  Endpoint(std::string name, std::chrono::milliseconds reconnect,
           std::function<Result<UniqueFd>()> make, std::shared_ptr<const bool> final)
      : path_(std::move(name)),
        reconnect_(reconnect),
        make_(std::move(make)),
        final_(std::move(final)) {}

  /// The connection there is already, the first time; then a new one. Does not wait for a back end
  /// that accepts none. @return why there is none
  Result<UniqueFd> Connect();
  const std::string& path() const noexcept { return path_; }
  std::optional<std::chrono::milliseconds> reconnect() const noexcept {
    return final_ != nullptr && *final_ ? std::nullopt : reconnect_;
  }

 private:
  std::string path_;
  std::optional<std::chrono::milliseconds> reconnect_;
  UniqueFd connection_;
  UniqueFd listener_;  // of a server
  std::shared_ptr<void> lease_;
  std::function<Result<UniqueFd>()> make_;
  std::shared_ptr<const bool> final_;
};

/// The back end behind a `-chardev socket,path=`, which it is then for: nobody else can use it.
/// @param id    the chardev's
/// @param user  who wants it, for messages: "vhost-user-blk-pci"
/// Also a server's (`server=on`), which the back end connects to.
/// @return kInvalidArgument for a chardev that is no Unix socket, or has a user
Result<Endpoint> TakeOver(Chardev& chardev, std::string_view id, std::string_view user);

}  // namespace holdfast::devices::vhost_user
