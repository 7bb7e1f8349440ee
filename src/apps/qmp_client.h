// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>
#include <nlohmann/json_fwd.hpp>

namespace holdfast::apps {

/// Cuts a stream of bytes into the JSON objects it consists of, however they are laid out.
///
/// It only counts braces: what it hands out need not be valid JSON, but is not nested deeper than
/// 64 and not longer than 32 MiB. Thread-safety: one thread.
class JsonFramer {
 public:
  /// Takes further bytes. @return kMalformed for what cannot be a stream of objects
  Status Feed(std::string_view bytes);
  /// The next complete object.
  std::optional<std::string> Take();

 private:
  std::string partial_;
  std::deque<std::string> complete_;
  std::size_t depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

/// A connection to a QMP server, negotiated and ready for commands.
///
/// The server is not trusted: what it sends is bounded and checked. Thread-safety: one thread.
class QmpClient {
 public:
  using Milliseconds = std::chrono::milliseconds;

  struct Event {
    std::string name = {};
    double seconds = 0;     ///< since 1970, by the server's clock; 0 if it does not say
    std::string data = {};  ///< JSON; empty: none
  };
  /// No end of the waiting.
  static constexpr Milliseconds kForever = Milliseconds::max();
  static constexpr Milliseconds kReplyTimeout = std::chrono::seconds(30);
  static constexpr Milliseconds kGreetingTimeout = std::chrono::seconds(5);

  /// Connects to `address`: a path, `unix:PATH`, `HOST:PORT` or `tcp:HOST:PORT`. A word without
  /// slash that ends in `:NUMBER` is host and port unless there is such a file.
  static Result<QmpClient> Connect(const std::string& address);
  /// Greets on a connected socket; `name` is what errors call the server.
  static Result<QmpClient> Adopt(UniqueFd connection, std::string name,
                                 Milliseconds timeout = kGreetingTimeout);

  /// Runs a command. @return what it returned; kNotFound if the server does not know the command or
  /// the device, kInvalidArgument if it refuses otherwise, kMalformed or kSystem if the connection
  /// is of no more use
  Result<nlohmann::ordered_json> Execute(std::string_view command,
                                         Milliseconds timeout = kReplyTimeout);
  Result<nlohmann::ordered_json> Execute(std::string_view command,
                                         const nlohmann::ordered_json& arguments,
                                         Milliseconds timeout = kReplyTimeout);
  /// The same for a whole request, `{"execute": …}`; an `id` in it is replaced.
  Result<nlohmann::ordered_json> Call(nlohmann::ordered_json request, Milliseconds timeout);

  /// The next event, waiting at most so long for it.
  Result<std::optional<Event>> NextEvent(Milliseconds timeout);

  /// To poll for events.
  int fd() const noexcept { return connection_.get(); }
  const std::string& name() const noexcept { return name_; }
  /// Whether the server is on this host.
  bool local() const noexcept { return local_; }
  /// What the greeting says: the `package` of a Holdfast, or the version.
  const std::string& server() const noexcept { return server_; }

 private:
  using Clock = std::chrono::steady_clock;
  QmpClient(UniqueFd connection, std::string name)
      : connection_(std::move(connection)), name_(std::move(name)) {}

  Status Greet(Milliseconds timeout);
  Status Send(std::string_view text, Clock::time_point deadline);
  Result<std::optional<std::string>> Receive(Clock::time_point deadline);
  Status Read();
  void KeepEvent(const nlohmann::ordered_json& message);
  tl::unexpected<Error> Odd(std::string_view what) const;
  tl::unexpected<Error> Closed() const;

  UniqueFd connection_;
  std::string name_;
  std::string server_;
  bool local_ = true;
  JsonFramer framer_;
  std::deque<Event> events_;
  std::uint64_t next_id_ = 1;
};

/// `text` without what a terminal would obey: control characters become '?', apart from tabs and
/// line ends.
std::string Printable(std::string_view text);

}  // namespace holdfast::apps
