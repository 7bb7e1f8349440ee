// SPDX-License-Identifier: Apache-2.0
#include "devices/fw_cfg.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include <holdfast/address_space.h>

namespace holdfast::devices {
namespace {

// Registers, as offsets from the first port.
constexpr std::uint64_t kSelector = 0;
constexpr std::uint64_t kData = 1;
constexpr std::uint64_t kDmaHigh = 4;
constexpr std::uint64_t kDmaLow = 8;

constexpr std::string_view kSignature = "QEMU";
constexpr std::uint64_t kIdTraditional = 1 << 0;
constexpr std::uint64_t kIdDma = 1 << 1;
constexpr std::string_view kDmaSignature = "QEMU CFG";

// The control word of a DMA request; the upper half is the number to select.
constexpr std::uint32_t kDmaError = 1 << 0;
constexpr std::uint32_t kDmaRead = 1 << 1;
constexpr std::uint32_t kDmaSkip = 1 << 2;
constexpr std::uint32_t kDmaSelect = 1 << 3;
constexpr std::uint32_t kDmaWrite = 1 << 4;
constexpr std::size_t kDmaRequestSize = 16;

std::vector<std::byte> BytesOf(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

void AppendBigEndian(std::vector<std::byte>& to, std::uint64_t value, unsigned size) {
  for (unsigned i = size; i-- > 0;) to.push_back(static_cast<std::byte>(value >> (8 * i)));
}

std::uint64_t BigEndian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (const std::byte byte : bytes) value = value << 8 | std::to_integer<std::uint64_t>(byte);
  return value;
}

}  // namespace

FwCfg::FwCfg(const AddressSpace& memory) : memory_(memory) {
  SetBytes(Key::kSignature, BytesOf(kSignature));
  SetNumber(Key::kId, kIdTraditional | kIdDma, 4);
  std::vector<std::byte> directory;
  AppendBigEndian(directory, 0, 4);
  SetBytes(Key::kDirectory, std::move(directory));
}

void FwCfg::SetNumber(Key key, std::uint64_t value, unsigned size) {
  std::vector<std::byte> bytes;
  for (unsigned i = 0; i < size; ++i) bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
  SetBytes(key, std::move(bytes));
}

void FwCfg::SetBytes(Key key, std::vector<std::byte> bytes) {
  items_[static_cast<std::uint16_t>(key)] = std::move(bytes);
}

Status FwCfg::AddFile(std::string_view name, std::vector<std::byte> contents) {
  if (name.empty() || name.size() > kLongestName) {
    return Fail(Errc::kInvalidArgument, fmt::format("name too long (max. {} char)", kLongestName),
                "Names look like opt/org.example/file.");
  }
  if (std::find(files_.begin(), files_.end(), name) != files_.end()) {
    return Fail(Errc::kInvalidArgument, fmt::format("duplicate fw_cfg file name: {}", name),
                "Give each a name of its own.");
  }
  if (files_.size() == kMostFiles) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("there are more than {} fw_cfg files", kMostFiles),
                "Put several things into one file.");
  }
  if (contents.size() > std::numeric_limits<std::uint32_t>::max()) {
    return Fail(Errc::kExhausted, fmt::format("fw_cfg file {} has 4 GiB or more", name),
                "Sizes are 32 bits wide; use a disk for so much.");
  }
  const auto key =
      static_cast<std::uint16_t>(static_cast<std::size_t>(Key::kFirstFile) + files_.size());
  std::vector<std::byte>& directory = items_[static_cast<std::uint16_t>(Key::kDirectory)];
  AppendBigEndian(directory, contents.size(), 4);
  AppendBigEndian(directory, key, 2);
  AppendBigEndian(directory, 0, 2);
  std::vector<std::byte> padded = BytesOf(name);
  padded.resize(kLongestName + 1);
  directory.insert(directory.end(), padded.begin(), padded.end());

  files_.emplace_back(name);
  std::vector<std::byte> count;
  AppendBigEndian(count, files_.size(), 4);
  std::copy(count.begin(), count.end(), directory.begin());
  items_[key] = std::move(contents);
  return {};
}

void FwCfg::Read(std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0xff});
  const MutexLock lock(mutex_);
  if (data.size() == 1 && (offset == kSelector || offset == kData)) {
    data[0] = NextByte();
    return;
  }
  if (offset < kDmaHigh) return;
  for (std::size_t i = 0; i < data.size() && offset - kDmaHigh + i < kDmaSignature.size(); ++i) {
    data[i] = static_cast<std::byte>(kDmaSignature[offset - kDmaHigh + i]);
  }
}

void FwCfg::Write(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  const MutexLock lock(mutex_);
  if (offset == kSelector && data.size() == 2) {
    Select(static_cast<std::uint16_t>(std::to_integer<unsigned>(data[0]) |
                                      std::to_integer<unsigned>(data[1]) << 8));
  } else if (offset == kDmaHigh && data.size() == 4) {
    dma_address_ = BigEndian(data) << 32;
  } else if (offset == kDmaLow && data.size() == 4) {
    // The lower half starts the transfer; the next one begins with an upper half of 0.
    const GuestAddress request(dma_address_ | BigEndian(data));
    dma_address_ = 0;
    RunDma(request);
  }
}

void FwCfg::Reset() noexcept {
  const MutexLock lock(mutex_);
  selected_ = nullptr;
  position_ = 0;
  dma_address_ = 0;
}

void FwCfg::VisitState(state::Fields& fields) {
  const MutexLock lock(mutex_);
  bool selected = selected_ != nullptr;
  std::uint16_t key = key_;
  std::uint64_t position = position_;
  std::uint64_t dma_address = dma_address_;
  fields.Value("selected", selected);
  fields.Value("key", key);
  fields.Value("position", position);
  fields.Value("dma-address", dma_address);
  if (!fields.loading() || !fields.ok()) return;
  if (!selected) {
    selected_ = nullptr;
    position_ = 0;
  } else {
    Select(key);
    // Shorter here than it was there, perhaps: then it is at its end.
    if (selected_ != nullptr) position_ = std::min<std::uint64_t>(position, selected_->size());
  }
  dma_address_ = dma_address;
}

void FwCfg::Select(std::uint16_t key) {
  key_ = key;
  const auto found = items_.find(key);
  selected_ = found == items_.end() ? nullptr : &found->second;
  position_ = 0;
}

std::byte FwCfg::NextByte() {
  if (selected_ == nullptr || position_ >= selected_->size()) return std::byte{0};
  return (*selected_)[position_++];
}

void FwCfg::RunDma(GuestAddress request) {
  std::array<std::byte, kDmaRequestSize> words{};
  // Nowhere to say it either: the guest will wait for its control word, which is no RAM.
  if (!memory_.Read(request, words)) return;
  const std::span<const std::byte> all(words);
  const auto control = static_cast<std::uint32_t>(BigEndian(all.first(4)));
  const auto length = static_cast<std::uint32_t>(BigEndian(all.subspan(4, 4)));
  const GuestAddress buffer(BigEndian(all.subspan(8)));

  if ((control & kDmaSelect) != 0) Select(static_cast<std::uint16_t>(control >> 16));
  std::uint32_t answer = 0;
  if ((control & kDmaRead) != 0) {
    if (!CopyOut(buffer, length)) answer = kDmaError;
  } else if ((control & kDmaWrite) != 0) {
    answer = kDmaError;
  } else if ((control & kDmaSkip) != 0 && selected_ != nullptr) {
    position_ = std::min<std::size_t>(selected_->size(), position_ + length);
  }
  std::vector<std::byte> status;
  AppendBigEndian(status, answer, 4);
  (void)memory_.Write(request, status);  // the address was RAM a moment ago and still is
}

Status FwCfg::CopyOut(GuestAddress to, std::uint32_t length) {
  const std::size_t left = selected_ == nullptr ? 0 : selected_->size() - position_;
  const std::size_t copied = std::min<std::size_t>(left, length);
  if (copied > 0) {
    HF_TRY_STATUS(memory_.Write(to, std::span(*selected_).subspan(position_, copied)));
    position_ += copied;
  }
  if (copied == length) return {};
  return memory_.Fill(to + copied, length - copied, std::byte{0});
}

}  // namespace holdfast::devices
