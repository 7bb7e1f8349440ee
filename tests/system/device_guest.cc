// SPDX-License-Identifier: Apache-2.0
#include "system/device_guest.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <utility>

namespace holdfast::test {
namespace {

sockaddr_in Local(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A listening socket on a free port.
UniqueFd Listen(std::uint16_t& port, std::uint32_t at = INADDR_LOOPBACK) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = Local(0);
  address.sin_addr.s_addr = htonl(at);
  socklen_t length = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(fd.get(), generic, length) != 0 || ::listen(fd.get(), 16) != 0 ||
      ::getsockname(fd.get(), generic, &length) != 0)
    ADD_FAILURE() << "no port to listen on";
  port = ntohs(address.sin_port);
  return fd;
}

void SendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

// What comes until the end; stops after `quiet_ms` without anything.
std::string ReceiveAll(int fd, int quiet_ms) {
  std::string text;
  std::array<char, 65536> buffer;
  pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
  while (::poll(&ready, 1, quiet_ms) > 0) {
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return text;
}

}  // namespace

Arguments LinuxDeviceTest::Guest(std::string_view script, const LinuxChoice& choice,
                                 std::string_view end) const {
  return Line(choice, fmt::format("hf.do=none {} {}", ScriptWord(script), end));
}

std::string LinuxDeviceTest::MakePattern(std::string_view name, std::size_t size) const {
  return MakeFile(name, Pattern(size));
}

std::string Pattern(std::size_t size) {
  std::string bytes(size, '\0');
  std::uint32_t state = 0x9e3779b9;
  for (char& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

std::string ValueOf(const MonitorProcess& monitor, std::string_view key) {
  const std::string& output = monitor.output();
  const std::string mark = fmt::format("hf: {}=", key);
  const std::size_t at = output.rfind(mark);
  if (at == std::string::npos) return {};
  const std::size_t start = at + mark.size();
  return output.substr(start, output.find_first_of("\r\n", start) - start);
}

std::uint16_t FreePort() {
  std::uint16_t port = 0;
  Listen(port);
  return port;
}

std::string AskPort(std::uint16_t port, std::string_view text) {
  using std::chrono::steady_clock;
  const auto deadline = steady_clock::now() + std::chrono::seconds(60);
  while (steady_clock::now() < deadline) {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address = Local(port);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      SendAll(fd.get(), text);
      // Forwarded ports accept at once, whether or not anybody listens behind them.
      if (std::string answer = ReceiveAll(fd.get(), 30000); !answer.empty()) return answer;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  return {};
}

HttpServer::HttpServer(std::string body, bool everywhere)
    : body_(std::move(body)), listener_(Listen(port_, everywhere ? INADDR_ANY : INADDR_LOOPBACK)) {
  thread_ = std::jthread([this](const std::stop_token& stop) { Serve(stop); });
}

HttpServer::~HttpServer() {
  thread_.request_stop();
  // Wakes accept(2).
  ::shutdown(listener_.get(), SHUT_RDWR);
}

void HttpServer::Serve(const std::stop_token& stop) const {
  while (!stop.stop_requested()) {
    const UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) continue;
    std::string request;
    std::array<char, 4096> buffer;
    while (request.find("\r\n\r\n") == std::string::npos) {
      const ssize_t got = ::recv(client.get(), buffer.data(), buffer.size(), 0);
      if (got <= 0) break;
      request.append(buffer.data(), static_cast<std::size_t>(got));
    }
    SendAll(client.get(), fmt::format("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n"
                                      "Content-Type: application/octet-stream\r\n\r\n",
                                      body_.size()));
    SendAll(client.get(), body_);
    ::shutdown(client.get(), SHUT_WR);
    ReceiveAll(client.get(), 1000);
  }
}

}  // namespace holdfast::test
