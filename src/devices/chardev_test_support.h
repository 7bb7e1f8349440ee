// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include <holdfast/unique_fd.h>

#include "base/event_loop.h"
#include "devices/chardev.h"
#include "devices/test_support.h"

/// What the tests of the chardevs share: a loop, a directory, and a thread that prints like a vCPU.
namespace holdfast::devices::testing {

/// A megabyte or so of text in which a lost or doubled piece shows.
inline std::string Pattern(std::size_t size) {
  std::string text;
  for (unsigned i = 0; text.size() < size; ++i) text += std::to_string(i) + '\n';
  text.resize(size);
  return text;
}

struct Pipe {
  Pipe() {
    std::array<int, 2> fds{};
    if (::pipe2(fds.data(), O_CLOEXEC) != 0) return;
    read.reset(fds[0]);
    write.reset(fds[1]);
  }
  UniqueFd read;
  UniqueFd write;
};

/// Appends what can be read from a non-blocking fd to `text`; false at its end.
inline bool ReadSome(int fd, std::string& text) {
  std::array<char, 65536> chunk{};
  const ssize_t count = ::read(fd, chunk.data(), chunk.size());
  if (count > 0) text.append(chunk.data(), static_cast<std::size_t>(count));
  return count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR));
}

inline void SetNonBlocking(int fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

class ChardevTest : public ::testing::Test {
 public:
  ChardevTest(const ChardevTest&) = delete;
  ChardevTest& operator=(const ChardevTest&) = delete;

 protected:
  ChardevTest() {
    ::signal(SIGPIPE, SIG_IGN);  // as the program does
    std::string name = ::testing::TempDir() + "chardev_XXXXXX";
    directory_ = ::mkdtemp(name.data());
  }
  ~ChardevTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(std::string_view name) const { return directory_ + "/" + std::string(name); }

  /// Turns the loop until `done`; the limit is for a test that fails.
  template <typename Done>
  ::testing::AssertionResult Until(Done done) {
    const auto deadline = EventLoop::Clock::now() + std::chrono::seconds(60);
    while (!done()) {
      if (EventLoop::Clock::now() > deadline) return ::testing::AssertionFailure() << "waited 60 s";
      if (!loop_->RunOnce(std::chrono::milliseconds(1))) return ::testing::AssertionFailure();
    }
    return ::testing::AssertionSuccess();
  }
  /// How often the loop wakes up with nothing to do: a busy loop turns thousands of times.
  int TurnsWithin(std::chrono::milliseconds time) {
    const auto end = EventLoop::Clock::now() + time;
    int turns = 0;
    while (EventLoop::Clock::now() < end) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - EventLoop::Clock::now());
      if (!loop_->RunOnce(left)) break;
      ++turns;
    }
    return turns;
  }
  /// Collects what arrives into `input_`.
  void Collect(Chardev& chardev) {
    chardev.SetReceiver([this](std::span<const std::byte> data) {
      input_ += Text(data);
      return data.size();
    });
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  std::string directory_;
  std::string input_;
};

/// Prints `text` from a thread of its own, in pieces, waiting where there is no room.
class Printer {
 public:
  Printer(Chardev& chardev, std::string text, std::size_t piece)
      : chardev_(chardev), text_(std::move(text)), piece_(piece) {
    chardev_.SetWritable([this] {
      const std::lock_guard lock(mutex_);
      room_ = true;
      changed_.notify_all();
    });
    thread_ = std::thread([this] { Run(); });
  }
  Printer(const Printer&) = delete;
  Printer& operator=(const Printer&) = delete;
  ~Printer() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      changed_.notify_all();
    }
    thread_.join();
    chardev_.SetWritable({});
  }
  bool done() const {
    const std::lock_guard lock(mutex_);
    return done_;
  }
  /// Whether it waits for room now.
  bool stalled() const {
    const std::lock_guard lock(mutex_);
    return waiting_ && !room_;
  }

 private:
  void Run() {
    std::string_view rest = text_;
    while (!rest.empty()) {
      {
        const std::lock_guard lock(mutex_);
        room_ = false;
      }
      const std::string_view piece = rest.substr(0, piece_);
      const std::size_t taken = chardev_.Write(Bytes(piece));
      rest.remove_prefix(taken);
      if (taken == piece.size()) continue;
      std::unique_lock lock(mutex_);
      waiting_ = true;
      changed_.wait(lock, [this] { return room_ || stop_; });
      waiting_ = false;
      if (stop_) return;
    }
    const std::lock_guard lock(mutex_);
    done_ = true;
  }

  Chardev& chardev_;
  const std::string text_;
  const std::size_t piece_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool room_ = false;
  bool waiting_ = false;
  bool done_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace holdfast::devices::testing
