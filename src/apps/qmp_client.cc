// SPDX-License-Identifier: Apache-2.0
#include "apps/qmp_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLongestMessage = 32U << 20;
constexpr std::size_t kDeepest = 64;
constexpr std::size_t kMostEvents = 1000;

std::string TextOf(const Json& object, const char* member) {
  const auto found = object.find(member);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::int64_t NumberOf(const Json& object, const char* member) {
  const auto found = object.find(member);
  return found != object.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

// "QEMU 8.2.0 (package)", as far as the greeting has it.
std::string DescribeServer(const Json& greeting) {
  const auto version = greeting.find("version");
  if (version == greeting.end() || !version->is_object()) return {};
  const std::string package = TextOf(*version, "package");
  const auto qemu = version->find("qemu");
  if (qemu == version->end() || !qemu->is_object()) return package;
  const std::string triple = fmt::format("{}.{}.{}", NumberOf(*qemu, "major"),
                                         NumberOf(*qemu, "minor"), NumberOf(*qemu, "micro"));
  if (package.starts_with("Holdfast")) return fmt::format("{} (QMP of QEMU {})", package, triple);
  return fmt::format("QEMU {}{}{}{}", triple, package.empty() ? "" : " (", package,
                     package.empty() ? "" : ")");
}

int PollTimeout(std::chrono::steady_clock::time_point deadline) {
  using std::chrono::steady_clock;
  if (deadline == steady_clock::time_point::max()) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, std::numeric_limits<int>::max()));
}

std::chrono::steady_clock::time_point DeadlineAfter(std::chrono::milliseconds timeout) {
  using std::chrono::steady_clock;
  return timeout == QmpClient::kForever ? steady_clock::time_point::max()
                                        : steady_clock::now() + timeout;
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string printable;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too.
    const bool c1 =
        byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (c1) ++i;
    printable +=
        c1 || (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f ? '?' : text[i];
  }
  return printable;
}

Status JsonFramer::Feed(std::string_view bytes) {
  for (const char c : bytes) {
    if (depth_ == 0) {
      if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
      if (c != '{') return Fail(Errc::kMalformed, "it sends something else than JSON objects");
    }
    if (partial_.size() == kLongestMessage)
      return Fail(Errc::kMalformed, "it sends a message without end");
    partial_ += c;
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      if (++depth_ > kDeepest)
        return Fail(Errc::kMalformed, "it sends a message nested too deeply");
    } else if (c == '}' || c == ']') {
      if (--depth_ == 0) complete_.push_back(std::exchange(partial_, {}));
    }
  }
  return {};
}

std::optional<std::string> JsonFramer::Take() {
  if (complete_.empty()) return std::nullopt;
  std::string object = std::move(complete_.front());
  complete_.pop_front();
  return object;
}

tl::unexpected<Error> QmpClient::Odd(std::string_view what) const {
  return Fail(Errc::kMalformed, fmt::format("'{}' does not speak QMP: {}", name_, what),
              "Name the socket of -qmp, or of a -chardev that -mon uses with mode=control.");
}

tl::unexpected<Error> QmpClient::Closed() const {
  return Fail(Errc::kSystem, fmt::format("'{}' has closed the connection", name_),
              "Its virtual machine may have ended.");
}

Result<QmpClient> QmpClient::Adopt(UniqueFd connection, std::string name, Milliseconds timeout) {
  QmpClient client(std::move(connection), std::move(name));
  int family = AF_UNIX;
  socklen_t size = sizeof family;
  if (::getsockopt(client.fd(), SOL_SOCKET, SO_DOMAIN, &family, &size) == 0)
    client.local_ = family == AF_UNIX;
  HF_TRY_STATUS(client.Greet(timeout));
  return client;
}

Status QmpClient::Greet(Milliseconds timeout) {
  HF_TRY(const std::optional<std::string> text, Receive(DeadlineAfter(timeout)));
  if (!text) {
    return Fail(Errc::kSystem,
                fmt::format("'{}' does not greet within {} s", name_,
                            std::chrono::duration_cast<std::chrono::seconds>(timeout).count()),
                "It is no QMP server, or it serves another client first.");
  }
  const Json greeting = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (greeting.is_discarded()) return Odd("its greeting is not JSON");
  const auto body = greeting.find("QMP");
  if (body == greeting.end() || !body->is_object()) return Odd("it does not greet as such");
  server_ = Printable(DescribeServer(*body));
  HF_TRY_STATUS(Execute("qmp_capabilities", timeout));
  return {};
}

Result<Json> QmpClient::Execute(std::string_view command, Milliseconds timeout) {
  return Call({{"execute", std::string(command)}}, timeout);
}

Result<Json> QmpClient::Execute(std::string_view command, const Json& arguments,
                                Milliseconds timeout) {
  return Call({{"execute", std::string(command)}, {"arguments", arguments}}, timeout);
}

Result<Json> QmpClient::Call(Json request, Milliseconds timeout) {
  const std::uint64_t id = next_id_++;
  request["id"] = id;
  const auto deadline = DeadlineAfter(timeout);
  HF_TRY_STATUS(
      Send(request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n", deadline));
  for (;;) {
    HF_TRY(const std::optional<std::string> text, Receive(deadline));
    if (!text) {
      return Fail(Errc::kSystem, fmt::format("'{}' does not answer", name_),
                  "Its virtual machine may be busy or hang.");
    }
    Json reply = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (reply.is_discarded()) return Odd("its answer is not JSON");
    if (reply.contains("event")) {
      KeepEvent(reply);
      continue;
    }
    const auto echoed = reply.find("id");
    // An answer to a command whose caller has stopped waiting. Without id it is a refusal to read
    // the request at all.
    if (echoed != reply.end() && *echoed != id) continue;
    if (const auto value = reply.find("return"); value != reply.end()) return std::move(*value);
    const auto error = reply.find("error");
    if (error == reply.end() || !error->is_object()) return Odd("its answer is neither yes nor no");
    const std::string error_class = TextOf(*error, "class");
    const std::string text_of_error = Printable(TextOf(*error, "desc"));
    if (text_of_error.empty()) return Odd("its error has no text");
    const bool missing = error_class == "CommandNotFound" || error_class == "DeviceNotFound";
    return Fail(missing ? Errc::kNotFound : Errc::kInvalidArgument, text_of_error,
                Printable(TextOf(*error, "hint")));
  }
}

Result<std::optional<QmpClient::Event>> QmpClient::NextEvent(Milliseconds timeout) {
  const auto deadline = DeadlineAfter(timeout);
  while (events_.empty()) {
    HF_TRY(const std::optional<std::string> text, Receive(deadline));
    if (!text) return std::nullopt;
    const Json message = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (message.is_discarded()) return Odd("what it sends is not JSON");
    if (message.contains("event")) KeepEvent(message);  // else an answer that came too late
  }
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void QmpClient::KeepEvent(const Json& message) {
  if (events_.size() == kMostEvents) events_.pop_front();
  Event event{.name = Printable(TextOf(message, "event"))};
  if (const auto stamp = message.find("timestamp"); stamp != message.end() && stamp->is_object()) {
    event.seconds = static_cast<double>(NumberOf(*stamp, "seconds")) +
                    static_cast<double>(NumberOf(*stamp, "microseconds")) / 1e6;
  }
  if (const auto data = message.find("data"); data != message.end()) {
    event.data = Printable(data->dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  events_.push_back(std::move(event));
}

Status QmpClient::Send(std::string_view text, Clock::time_point deadline) {
  while (!text.empty()) {
    const ssize_t sent = ::send(fd(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      text.remove_prefix(static_cast<std::size_t>(sent));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) return Closed();
    if (errno != EAGAIN) return FailErrno(fmt::format("sending to '{}'", name_));
    // A server that sends while it does not read must not stop both sides.
    pollfd wait{.fd = fd(), .events = POLLOUT | POLLIN, .revents = 0};
    const int ready = ::poll(&wait, 1, PollTimeout(deadline));
    if (ready < 0 && errno != EINTR) return FailErrno("poll");
    if (ready == 0) return Fail(Errc::kSystem, fmt::format("'{}' does not read", name_));
    if (ready > 0 && (wait.revents & (POLLIN | POLLHUP)) != 0) HF_TRY_STATUS(Read());
  }
  return {};
}

// Takes what has come, without waiting.
Status QmpClient::Read() {
  char buffer[65536];
  const ssize_t got = ::recv(fd(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return {};
  // Reset: it had not read everything when it ended.
  if (got == 0 || (got < 0 && errno == ECONNRESET)) return Closed();
  if (got < 0) return FailErrno(fmt::format("reading from '{}'", name_));
  if (const Status fed = framer_.Feed({buffer, static_cast<std::size_t>(got)}); !fed)
    return Odd(fed.error().message());
  return {};
}

// The next message; empty when the time is over.
Result<std::optional<std::string>> QmpClient::Receive(Clock::time_point deadline) {
  for (;;) {
    if (std::optional<std::string> message = framer_.Take()) return message;
    pollfd wait{.fd = fd(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&wait, 1, PollTimeout(deadline));
    if (ready < 0 && errno != EINTR) return FailErrno("poll");
    if (ready == 0) return std::nullopt;
    if (ready > 0) HF_TRY_STATUS(Read());
  }
}

}  // namespace holdfast::apps
