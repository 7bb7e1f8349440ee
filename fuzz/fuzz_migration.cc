// SPDX-License-Identifier: Apache-2.0
// What the other side of a migration sends: the first byte says what it is taken for, the rest is
// it. As a stream it is one of frames whose headers are made right, so that what is behind them is
// reached. A decoder that takes something must have taken what fits.
#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include <holdfast/units.h>

#include "base/hash.h"
#include "migration/frames.h"
#include "migration/page_receiver.h"
#include "migration/wire.h"

namespace {

using namespace holdfast;
using namespace holdfast::migration;
using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kBlockSizes[] = {16 * kPageSize, 200 * kPageSize};

void Require(bool held) {
  if (!held) std::abort();
}

// A connection whose other side has said all it will say.
class Recording final : public Channel {
 public:
  explicit Recording(Bytes bytes) noexcept : bytes_(bytes) {}

  Result<std::size_t> ReadSome(std::span<std::byte> data) override {
    if (bytes_.empty()) return Fail(Errc::kSystem, "the other side closed the connection");
    const std::size_t size = std::min(data.size(), bytes_.size());
    std::ranges::copy(bytes_.first(size), data.begin());
    bytes_ = bytes_.subspan(size);
    return size;
  }
  Result<bool> WaitReadable(std::chrono::milliseconds) override { return true; }
  using Channel::WriteAll;
  Status WriteAll(std::span<const Bytes>) override { return {}; }
  void Shutdown() noexcept override {}
  void SetStallTimeout(std::chrono::milliseconds) override {}
  const std::string& peer() const noexcept override { return peer_; }

 private:
  Bytes bytes_;
  const std::string peer_ = "fuzz";
};

// Frames from the input: a type, two bytes of size, and so many bytes of payload.
std::vector<std::byte> Frames(Bytes input) {
  std::vector<std::byte> stream;
  for (std::uint64_t sequence = 0; input.size() >= 3; ++sequence) {
    const std::size_t wanted =
        std::to_integer<std::size_t>(input[1]) | std::to_integer<std::size_t>(input[2]) << 8;
    const Bytes payload = input.subspan(3, std::min(wanted, input.size() - 3));
    const auto header = EncodeFrameHeader({.type = static_cast<FrameType>(input[0]),
                                           .size = static_cast<std::uint32_t>(payload.size()),
                                           .sequence = sequence,
                                           .hash = Hash64(payload)});
    stream.insert(stream.end(), header.begin(), header.end());
    stream.insert(stream.end(), payload.begin(), payload.end());
    input = input.subspan(3 + payload.size());
  }
  return stream;
}

void Stream(Bytes bytes) {
  Recording channel(bytes);
  FrameReader reader(channel);
  PageReceiver pages(kBlockSizes);
  std::array<std::byte, kPageSize> page;
  const auto check = [&](const PagesHead& head, std::uint64_t offset) {
    Require(head.block < std::size(kBlockSizes) && offset % kPageSize == 0 &&
            offset < kBlockSizes[head.block]);
  };
  while (const auto header = reader.Next(std::chrono::milliseconds(0))) {
    if (header->type == FrameType::kPages) {
      const auto status = pages.Receive(
          reader, *header,
          [&](const PagesHead& head, std::uint64_t offset) {
            check(head, offset);
            return offset % (2 * kPageSize) == 0 ? std::span<std::byte>(page)
                                                 : std::span<std::byte>();
          },
          [&](const PagesHead& head, std::uint64_t offset) -> Status {
            check(head, offset);
            return {};
          });
      if (!status) return;
      continue;
    }
    const auto payload = reader.Payload();
    if (!payload) return;
    Require(payload->size() == header->size);
    if (header->type == FrameType::kPassEnd || header->type == FrameType::kResumed)
      Require(DecodeNumber(*payload).has_value());
  }
}

void Greeting(Bytes input) {
  std::array<std::byte, Hello::kSize> bytes = EncodeHello({});
  std::ranges::copy(input.first(std::min<std::size_t>(input.size(), 48)), bytes.begin() + 8);
  const std::uint64_t hash = Hash64(std::span(bytes).first(Hello::kSize - 8));
  for (std::size_t i = 0; i < 8; ++i)
    bytes[Hello::kSize - 8 + i] = static_cast<std::byte>(hash >> (8 * i));
  const auto hello = DecodeHello(bytes);
  if (hello) Require(hello->kind <= ChannelKind::kRecover && hello->index <= 255);
}

void Config(Bytes input) {
  const auto config = DecodeConfig(input);
  if (!config) return;
  Require(config->page_channels <= 255);
  for (const auto& block : config->blocks) Require(block.size != 0 && IsPageAligned(block.size));
  Require(std::ranges::equal(EncodeConfig(*config), input));
}

void Sections(Bytes input) {
  const auto sections = DecodeSections(input);
  if (sections) Require(std::ranges::equal(EncodeSections(*sections), input));
}

void Request(Bytes input) {
  const auto request = DecodeRequest(input, kBlockSizes);
  if (!request) return;
  const std::uint64_t size = kBlockSizes[request->block];
  Require(request->id != 0 && request->offset < size && request->count <= kMostFramePages &&
          request->count * kPageSize <= size - request->offset);
  Require(std::ranges::equal(EncodeRequest(*request), input));
}

void Missing(Bytes input) {
  const auto missing = DecodeMissing(input, kBlockSizes);
  if (!missing) return;
  const std::uint64_t pages = kBlockSizes[missing->block] / kPageSize;
  for (std::size_t i = 0; i < missing->words.size(); ++i) {
    const std::uint64_t word = missing->words[i];
    if (word == 0) continue;
    const auto last = static_cast<std::uint64_t>(63 - std::countl_zero(word));
    Require(missing->first < pages && missing->first + i * 64 + last < pages);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes input = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0] % 7) {
    case 0:
      Stream(input);
      break;
    case 1:
      Greeting(input);
      break;
    case 2:
      Config(input);
      break;
    case 3:
      Sections(input);
      break;
    case 4:
      Request(input);
      break;
    case 5:
      Missing(input);
      break;
    default:
      Stream(Frames(input));
      break;
  }
  return 0;
}
