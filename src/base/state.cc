// SPDX-License-Identifier: Apache-2.0
#include "base/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

namespace holdfast::state {
namespace {

// A field is: length of its name, the name, its type, its value. Numbers are 8 bytes, bytes have
// a length of 4 in front; all little-endian.
constexpr std::uint8_t kNumber = 1;
constexpr std::uint8_t kBytes = 2;
constexpr std::uint8_t kCount = 3;

void Append(std::vector<std::byte>& out, std::uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

std::uint64_t Read(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  }
  return value;
}

}  // namespace

void Fields::Malformed(std::string why) {
  if (why_.empty()) why_ = std::move(why);
}

void Fields::FailRange(std::string_view name, std::uint64_t number) {
  Malformed(fmt::format("field '{}' has the impossible value {}", name, number));
}

void Fields::PutHead(std::string_view name, std::uint8_t type) {
  out_.push_back(static_cast<std::byte>(name.size()));
  const auto bytes = std::as_bytes(std::span(name));
  out_.insert(out_.end(), bytes.begin(), bytes.end());
  out_.push_back(static_cast<std::byte>(type));
}

bool Fields::Need(std::string_view name, std::size_t size) {
  if (!ok()) return false;
  if (size <= in_.size() - at_) return true;
  Malformed(fmt::format("it ends within field '{}'", name));
  return false;
}

bool Fields::GetHead(std::string_view name, std::uint8_t type) {
  if (!Need(name, 1)) return false;
  const std::size_t length = std::to_integer<std::size_t>(in_[at_]);
  if (!Need(name, length + 2)) return false;
  const auto found = in_.subspan(at_ + 1, length);
  if (!std::ranges::equal(found, std::as_bytes(std::span(name)))) {
    Malformed(fmt::format("field '{}' is expected and another one is there", name));
    return false;
  }
  const auto found_type = std::to_integer<std::uint8_t>(in_[at_ + 1 + length]);
  if (found_type != type) {
    Malformed(
        fmt::format("field '{}' is of type {} and must be of type {}", name, found_type, type));
    return false;
  }
  at_ += length + 2;
  return true;
}

void Fields::PutNumber(std::string_view name, std::uint64_t value) {
  PutHead(name, kNumber);
  Append(out_, value, 8);
}

bool Fields::GetNumber(std::string_view name, std::uint64_t& value) {
  if (!GetHead(name, kNumber) || !Need(name, 8)) return false;
  value = Read(in_.subspan(at_, 8));
  at_ += 8;
  return true;
}

bool Fields::Count(std::string_view name, std::uint64_t& count, std::size_t most) {
  if (!loading_) {
    PutHead(name, kCount);
    Append(out_, count, 8);
    return true;
  }
  if (!GetHead(name, kCount) || !Need(name, 8)) return false;
  count = Read(in_.subspan(at_, 8));
  at_ += 8;
  if (count <= most) return true;
  Malformed(fmt::format("list '{}' has {} elements and may have {}", name, count, most));
  return false;
}

void Fields::PutBytes(std::string_view name, std::span<const std::byte> bytes) {
  PutHead(name, kBytes);
  Append(out_, bytes.size(), 4);
  out_.insert(out_.end(), bytes.begin(), bytes.end());
}

std::span<const std::byte> Fields::GetBytes(std::string_view name) {
  if (!GetHead(name, kBytes) || !Need(name, 4)) return {};
  const std::size_t size = Read(in_.subspan(at_, 4));
  at_ += 4;
  if (!Need(name, size)) return {};
  const auto bytes = in_.subspan(at_, size);
  at_ += size;
  return bytes;
}

void Fields::Bytes(std::string_view name, std::span<std::byte> bytes, Since since) {
  if (!has(since)) return;
  if (!loading_) return PutBytes(name, bytes);
  const auto loaded = GetBytes(name);
  if (!ok()) return;
  if (loaded.size() != bytes.size()) {
    return Malformed(
        fmt::format("field '{}' has {} bytes and must have {}", name, loaded.size(), bytes.size()));
  }
  std::ranges::copy(loaded, bytes.begin());
}

void Fields::Blob(std::string_view name, std::vector<std::byte>& bytes, std::size_t most,
                  Since since) {
  if (!has(since)) return;
  if (!loading_) return PutBytes(name, bytes);
  const auto loaded = GetBytes(name);
  if (!ok()) return;
  if (loaded.size() > most) {
    return Malformed(
        fmt::format("field '{}' has {} bytes and may have {}", name, loaded.size(), most));
  }
  bytes.assign(loaded.begin(), loaded.end());
}

void Fields::Text(std::string_view name, std::string& text, std::size_t most, Since since) {
  std::vector<std::byte> bytes;
  if (!loading_) {
    const auto view = std::as_bytes(std::span(text));
    bytes.assign(view.begin(), view.end());
  }
  Blob(name, bytes, most, since);
  if (!loading_ || !ok() || !has(since)) return;
  text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Status Fields::status() const {
  if (!why_.empty()) return Fail(Errc::kMalformed, why_);
  if (loading_ && at_ != in_.size()) {
    return Fail(Errc::kMalformed, fmt::format("{} bytes are left over", in_.size() - at_));
  }
  return {};
}

Result<std::vector<SavedSection>> Save(std::span<const Section> sections) {
  std::vector<SavedSection> saved;
  for (const Section& section : sections) {
    Fields fields(section.version);
    section.visit(fields);
    if (auto status = fields.status(); !status) {
      return Fail(std::move(status).error().Wrap(fmt::format("the state of '{}'", section.name)));
    }
    saved.push_back({section.name, section.version, std::move(fields).Take()});
  }
  return saved;
}

Status CheckNames(std::span<const Section> sections, std::span<const SavedSection> saved) {
  std::unordered_map<std::string_view, const SavedSection*> by_name;
  for (const SavedSection& one : saved) {
    if (!by_name.emplace(one.name, &one).second) {
      return Fail(Errc::kMalformed, fmt::format("the state has section '{}' twice", one.name));
    }
  }
  // Whole or not at all as far as names and versions go: a machine of other parts is the mistake
  // that people make.
  for (const Section& section : sections) {
    const auto found = by_name.find(section.name);
    if (found == by_name.end()) {
      return Fail(
          Errc::kMalformed,
          fmt::format("the state has no section '{}', which this machine needs", section.name),
          "Start the machine with the options that the saved one had.");
    }
    const std::uint32_t version = found->second->version;
    if (version < section.oldest || version > section.version) {
      return Fail(Errc::kMalformed,
                  fmt::format("section '{}' has version {}; versions {} to {} are known",
                              section.name, version, section.oldest, section.version),
                  version > section.version ? "It is from a later release." : "");
    }
  }
  if (by_name.size() != sections.size()) {
    std::unordered_set<std::string_view> known;
    for (const Section& section : sections) known.insert(section.name);
    for (const SavedSection& one : saved) {
      if (known.contains(one.name)) continue;
      return Fail(Errc::kMalformed,
                  fmt::format("the state has a section '{}', which this machine has not", one.name),
                  "Start the machine with the options that the saved one had.");
    }
  }
  return {};
}

Status Load(std::span<const Section> sections, std::span<const SavedSection> saved) {
  HF_TRY_STATUS(CheckNames(sections, saved));
  std::unordered_map<std::string_view, const SavedSection*> by_name;
  for (const SavedSection& one : saved) by_name.emplace(one.name, &one);
  for (const Section& section : sections) {
    const SavedSection& one = *by_name.at(section.name);
    Fields fields(one.version, one.bytes);
    section.visit(fields);
    if (auto status = fields.status(); !status) {
      return Fail(std::move(status).error().Wrap(fmt::format("section '{}'", section.name)));
    }
  }
  return {};
}

}  // namespace holdfast::state
