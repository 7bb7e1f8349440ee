// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/unique_fd.h>

#include "control/context.h"
#include "control/qmp_json.h"
#include "control/qmp_schema.h"

namespace holdfast::control {

/// One client's conversation: greeting, negotiation, commands, replies, events. It has no file
/// descriptor; whoever has one gives it bytes and takes bytes.
///
/// What a client can make it hold is bounded: one message that is not complete yet
/// (JsonFramer::kMostBytes), kMostWaiting requests of kWaitingMark bytes and one more, the output
/// of one command beyond kOutputMark, and events up to kMostEventBytes. A client that does not read
/// its replies has no further command run, and loses events once that much waits; when it reads
/// again, HOLDFAST_EVENTS_LOST tells how many they were.
///
/// Thread-safety: the main loop's thread.
class QmpSession {
 public:
  static constexpr std::size_t kMostWaiting = 8;
  static constexpr std::size_t kWaitingMark = std::size_t{64} << 10;
  static constexpr std::size_t kOutputMark = std::size_t{64} << 10;
  static constexpr std::size_t kMostEventBytes = std::size_t{256} << 10;
  static constexpr std::size_t kMostFds = 64;  ///< that wait; further ones are closed

  struct Options {
    bool pretty = false;
    /// Holds each reply and event against the schema; one that fails becomes an error. A debug
    /// build does it always.
    bool check = kDebug;
  };

  /// The greeting is in output() at once. `vm` outlives the session.
  QmpSession(VmContext& vm, Options options);
  QmpSession(const QmpSession&) = delete;
  QmpSession& operator=(const QmpSession&) = delete;
  ~QmpSession() = default;

  /// Takes what the client sent and returns how much it took: fewer bytes while kMostWaiting
  /// requests wait, or kMostEventBytes of output. Out-of-band commands run in here, others in
  /// Step().
  std::size_t Receive(std::string_view data);
  /// Descriptors that came along with what Receive() takes next. They are there for the commands
  /// among it (getfd), and closed when the last of these is done.
  void ReceiveFds(std::vector<UniqueFd> fds);
  /// Whether Receive() would take anything.
  bool WantsInput() const noexcept {
    // Out-of-band commands do not wait, so it takes a bound on their replies, too.
    return !input_over_ && waiting_.size() < kMostWaiting && waiting_bytes_ < kWaitingMark &&
           output().size() < kMostEventBytes;
  }
  /// Nothing more will be received: the client has closed its sending half.
  void EndInput();

  /// Whether a request waits and the client reads its replies.
  bool CanStep() const noexcept { return !waiting_.empty() && output().size() < kOutputMark; }
  /// Runs one request. Only if CanStep().
  void Step();

  /// Sends an event, as MakeEvent() has it, unless the client is still negotiating.
  void Emit(const Json& event);

  /// Nobody reads any more: what is asked for is still done, but not answered.
  void Mute();

  /// What is to be sent to the client.
  std::string_view output() const noexcept { return std::string_view(output_).substr(sent_); }
  /// The first `count` bytes of output() are sent.
  void Consume(std::size_t count);
  /// Nothing will follow what is in output(): once that is sent, the connection is to be closed.
  bool over() const noexcept { return input_over_ && waiting_.empty(); }

 private:
#ifdef NDEBUG
  static constexpr bool kDebug = false;
#else
  static constexpr bool kDebug = true;
#endif

  // A message that waits for its turn: a request, or the answer to something that is none.
  struct Waiting {
    Json request;
    std::string error;
    std::size_t bytes = 0;  // the message had
  };

  void Cut(std::string error);
  void Accept(const std::string& text);
  Json Answer(const Json& request);
  QmpResult Execute(const Json& request);
  QmpResult Negotiate(const Json& arguments);
  QmpResult Run(const Schema::Command& command, const Json& arguments);
  void Send(const Json& message);

  VmContext& vm_;
  const Options options_;
  bool negotiated_ = false;
  bool oob_ = false;  // the client enabled exec-oob
  bool input_over_ = false;
  bool muted_ = false;
  JsonFramer framer_;
  std::deque<Waiting> waiting_;
  std::size_t waiting_bytes_ = 0;
  std::deque<UniqueFd> fds_;  // passed, not yet taken
  std::string output_;
  std::size_t sent_ = 0;  // bytes at the front of output_ that are gone already
  std::uint64_t lost_events_ = 0;
};

/// An event as it is sent, with the time now. `data` empty: the event has none.
Json MakeEvent(std::string_view name, Json data);

/// The version as the greeting and query-version tell it.
Json QmpVersion(const VmContext& vm);

}  // namespace holdfast::control
