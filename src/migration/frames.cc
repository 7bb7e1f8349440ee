// SPDX-License-Identifier: Apache-2.0
#include "migration/frames.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

namespace holdfast::migration {
namespace {

// What is made for a payload before its bytes are there: memory is not taken on a peer's word.
constexpr std::size_t kStep = 1024 * 1024;

}  // namespace

Error Unexpected(FrameType type) {
  return Error(Errc::kMalformed,
               fmt::format("the other side of the migration sent a frame of type {} where it makes "
                           "no sense",
                           static_cast<unsigned>(type)));
}

bool SaidByPeer(const Error& error) noexcept {
  return error.os_errno() == EREMOTEIO;
}

Status FrameWriter::Write(FrameType type, std::span<const Channel::Bytes> payload) {
  const MutexLock lock(mutex_);
  std::size_t size = 0;
  for (const Channel::Bytes& part : payload) {
    hasher_.Add(part);
    size += part.size();
  }
  const auto header = EncodeFrameHeader({.type = type,
                                         .size = static_cast<std::uint32_t>(size),
                                         .sequence = sequence_++,
                                         .hash = hasher_.Take()});
  std::vector<Channel::Bytes> parts;
  parts.reserve(payload.size() + 1);
  parts.emplace_back(header);
  for (const Channel::Bytes& part : payload) {
    if (!part.empty()) parts.push_back(part);
  }
  sent_ += header.size() + size;
  return channel_.WriteAll(parts);
}

void FrameWriter::WriteError(const Error& error) {
  std::string text = error.ToString();
  constexpr std::size_t kMost = 4000;
  if (text.size() > kMost) text.resize(kMost);
  (void)Write(FrameType::kError, std::as_bytes(std::span(text)));
}

std::uint64_t FrameWriter::sent() const {
  const MutexLock lock(mutex_);
  return sent_;
}

Result<FrameHeader> FrameReader::Next(std::chrono::milliseconds patience) {
  while (true) {
    HF_TRY(const bool there, channel_.WaitReadable(patience));
    if (!there) {
      return Fail(
          Error(Errc::kSystem,
                fmt::format("{} has said nothing for {} s", channel_.peer(),
                            std::chrono::duration_cast<std::chrono::seconds>(patience).count()),
                {}, ETIMEDOUT));
    }
    std::array<std::byte, FrameHeader::kSize> bytes;
    HF_TRY_STATUS(channel_.ReadAll(bytes));
    HF_TRY(header_, DecodeFrameHeader(bytes, sequence_));
    ++sequence_;
    if (header_.type == FrameType::kAlive) {
      HF_TRY_STATUS(End());
      continue;
    }
    if (header_.type != FrameType::kError) return header_;
    HF_TRY(const auto text, Payload());
    std::string words(reinterpret_cast<const char*>(text.data()), text.size());
    // A peer's words go to terminals and logs.
    std::ranges::replace_if(words, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
    return Fail(Error(Errc::kSystem, fmt::format("the other side says: {}", words), {}, EREMOTEIO));
  }
}

Status FrameReader::Read(std::span<std::byte> to) {
  HF_TRY_STATUS(channel_.ReadAll(to));
  hasher_.Add(to);
  return {};
}

Status FrameReader::End() {
  if (hasher_.Take() == header_.hash) return {};
  return Fail(Errc::kMalformed,
              fmt::format("frame {} of the migration was damaged on its way", sequence_ - 1),
              "Try it again.");
}

Result<std::vector<std::byte>> FrameReader::Payload() {
  std::vector<std::byte> bytes;
  while (bytes.size() < header_.size) {
    const std::size_t at = bytes.size();
    bytes.resize(std::min<std::size_t>(header_.size, at + kStep));
    HF_TRY_STATUS(Read(std::span(bytes).subspan(at)));
  }
  HF_TRY_STATUS(End());
  return bytes;
}

Result<std::vector<std::byte>> FrameReader::Expect(FrameType type,
                                                   std::chrono::milliseconds patience) {
  HF_TRY(const FrameHeader header, Next(patience));
  if (header.type != type) return Fail(Unexpected(header.type));
  return Payload();
}

}  // namespace holdfast::migration
