// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/unique_fd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace holdfast::test {

/// The line between two monitors of a migration, which can break: takes connections at one Unix
/// socket and leads each to another one.
///
/// Thread-safety: any thread.
class Relay {
 public:
  /// When the cable breaks by itself, and what happens with it, on the relay's thread.
  struct Break {
    std::uint64_t after = std::numeric_limits<std::uint64_t>::max();  ///< bytes, both ways together
    std::function<void()> also = {};
  };
  /// Listens at `path` at once; `target` is there when the first connection comes.
  Relay(const std::string& path, std::string target) : Relay(path, std::move(target), {}) {}
  Relay(const std::string& path, std::string target, Break when);
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;
  ~Relay();

  /// Once the destination has said that the guest runs, or goes on to ask, and then asked for so
  /// many pieces of memory, this connection and all others break; what comes after it is lost.
  /// Holds until it has happened.
  void CutAfter(int requests) { cut_after_ = requests; }
  /// The same, but nobody is told: nothing passes any more.
  void StallAfter(int requests) {
    stall_ = true;
    cut_after_ = requests;
  }
  /// Bytes that have passed, both ways together.
  std::uint64_t passed() const { return passed_; }

 private:
  struct Line {
    UniqueFd near, far;
    // What comes back from the far side: bytes until the next frame's header, and what is there of
    // that. A greeting is first.
    std::size_t skip = 64;
    std::string header = {};
    bool asks = false;
    int requests = 0;
  };

  void Run();
  void Take();
  // How many of these bytes from the far side pass.
  std::size_t Look(Line& line, std::string_view bytes);
  // @return whether the line still stands
  bool Pass(Line& line, const UniqueFd& from, const UniqueFd& to);

  const std::string target_;
  const Break break_;
  UniqueFd listener_;
  UniqueFd stop_;                          // an eventfd
  std::atomic<std::uint64_t> passed_ = 0;  // bytes
  std::atomic<int> cut_after_ = -1;        // never
  std::atomic<bool> stall_ = false;
  bool stalled_ = false;     // the thread's
  std::vector<Line> lines_;  // the thread's
  std::thread thread_;
};

}  // namespace holdfast::test
