// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

namespace holdfast::devices::vhost_user {

/// Where a back end is to be found, now and again.
class Endpoint {
 public:
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
  std::shared_ptr<void> lease_;
  std::function<Result<UniqueFd>()> make_;
  std::shared_ptr<const bool> final_;
};

}  // namespace holdfast::devices::vhost_user
