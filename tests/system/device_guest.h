// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/unique_fd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>

#include "system/linux_guest.h"

namespace holdfast::test {

/// Tests with devices in a Linux guest that runs a shell script (guests/linux).
class LinuxDeviceTest : public LinuxTest {
 protected:
  /// Line() for a guest that reports nothing, runs `script` and ends as the words of `end` say.
  Arguments Guest(std::string_view script, const LinuxChoice& choice = {},
                  std::string_view end = {}) const;
  /// A file of `size` bytes in the test's folder that are the same on every run and never repeat
  /// within 64 KiB. @return its path
  std::string MakePattern(std::string_view name, std::size_t size) const;
};

/// What MakePattern writes.
std::string Pattern(std::size_t size);
/// The value behind the last `hf: key=` in the output; empty if there is none. A failure of the
/// calling test, if it is, says so by its comparison.
std::string ValueOf(const MonitorProcess& monitor, std::string_view key);

/// A TCP port of 127.0.0.1 that was free a moment ago.
std::uint16_t FreePort();
/// Connects to a port of 127.0.0.1, sends `text`, and returns what comes until the other side
/// closes; tries again for a minute while nobody listens or nothing comes.
std::string AskPort(std::uint16_t port, std::string_view text);

/// An HTTP server that answers each request with the same body, on a port of 127.0.0.1 or of every
/// address of this host.
class HttpServer {
 public:
  explicit HttpServer(std::string body, bool everywhere = false);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer();

  std::uint16_t port() const { return port_; }

 private:
  void Serve(const std::stop_token& stop) const;

  const std::string body_;
  std::uint16_t port_ = 0;
  UniqueFd listener_;    // behind port_, which it sets
  std::jthread thread_;  // last: it uses the others
};

}  // namespace holdfast::test
