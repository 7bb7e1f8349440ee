// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "devices/block/block_device.h"

namespace holdfast::devices::block {

/// An image that is gone with the object. In the working directory: not every /tmp has O_DIRECT.
class TestImage {
 public:
  explicit TestImage(std::size_t size, char fill = '\0') {
    std::string name = (std::filesystem::current_path() / "image-XXXXXX").string();
    const int fd = ::mkstemp(name.data());
    EXPECT_GE(fd, 0);
    ::close(fd);
    path_ = name;
    std::ofstream(path_) << std::string(size, fill);
  }
  ~TestImage() { std::filesystem::remove(path_); }
  TestImage(const TestImage&) = delete;
  TestImage& operator=(const TestImage&) = delete;

  const std::string& path() const { return path_; }
  std::string Contents() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::string path_;
};

/// Memory that direct I/O can use, with room in front to be misaligned in.
class TestBuffer {
 public:
  explicit TestBuffer(std::size_t size, char fill = '\0', std::size_t shift = 0)
      : memory_(static_cast<char*>(std::aligned_alloc(4096, (size + shift + 8191) / 4096 * 4096))),
        data_(memory_.get() + shift, size) {
    std::fill(data_.begin(), data_.end(), fill);
  }
  std::span<char> data() { return data_; }
  std::string text() const { return {data_.begin(), data_.end()}; }
  iovec piece(std::size_t from, std::size_t size) { return {data_.data() + from, size}; }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
  std::span<char> data_;
};

/// Does one request and waits for it; a minute without an answer fails. @return the errno
inline int Do(EventLoop& loop, BlockDevice::Submitter& submitter, Request request) {
  std::optional<int> result;
  request.done = [&](int error) { result = error; };
  submitter.Submit(std::move(request));
  EXPECT_FALSE(result) << "done must not be called inside Submit()";
  submitter.Kick();
  const auto deadline = EventLoop::Clock::now() + std::chrono::minutes(1);
  while (!result && EventLoop::Clock::now() < deadline) {
    EXPECT_TRUE(loop.RunOnce(std::chrono::milliseconds(100)));
  }
  EXPECT_TRUE(result) << "no answer within a minute";
  return result.value_or(-1);
}

inline int DoIo(EventLoop& loop, BlockDevice::Submitter& submitter, Operation operation,
                std::uint64_t offset, std::span<const iovec> pieces) {
  std::uint64_t length = 0;
  for (const iovec& piece : pieces) length += piece.iov_len;
  return Do(
      loop, submitter,
      {.operation = operation, .offset = offset, .length = length, .buffers = pieces, .done = {}});
}

}  // namespace holdfast::devices::block
