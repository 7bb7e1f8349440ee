// SPDX-License-Identifier: Apache-2.0
#include "kvm/stats.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "kvm/ioctl.h"

namespace holdfast::kvm {
namespace {

// The file's header and descriptions have a fixed layout; linux/kvm.h declares the latter with a
// flexible array, so the sizes are written down here.
struct Header {
  std::uint32_t flags;
  std::uint32_t name_size;
  std::uint32_t count;
  std::uint32_t id_offset;
  std::uint32_t description_offset;
  std::uint32_t data_offset;
};
static_assert(sizeof(Header) == 24);

struct Description {
  std::uint32_t flags;
  std::int16_t exponent;
  std::uint16_t count;
  std::uint32_t offset;
  std::uint32_t bucket_size;
};
static_assert(sizeof(Description) == 16);

// Far above what any kernel has; they bound what is read.
constexpr std::uint32_t kMostStats = 4096;
constexpr std::uint32_t kMostName = 256;
constexpr std::uint32_t kMostFile = 1U << 20;

Error Malformed(std::string_view what) {
  return Error(Errc::kMalformed, fmt::format("KVM's statistics are not readable: {}", what));
}

template <typename T>
std::optional<T> At(std::span<const std::byte> bytes, std::size_t offset) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

Result<Header> ReadHeader(std::span<const std::byte> file) {
  const auto header = At<Header>(file, 0);
  if (!header) return Fail(Malformed("the header is cut off"));
  if (header->count > kMostStats || header->name_size > kMostName ||
      header->description_offset > kMostFile || header->data_offset > kMostFile) {
    return Fail(Malformed("the header has impossible sizes"));
  }
  return *header;
}

std::size_t DescriptionsEnd(const Header& header) {
  return header.description_offset +
         std::size_t{header.count} * (sizeof(Description) + header.name_size);
}

Status ReadAt(int fd, std::uint64_t offset, std::span<std::byte> to) {
  while (!to.empty()) {
    const ssize_t got = ::pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno("reading KVM's statistics");
    if (got == 0) return Fail(Malformed("the file is shorter than it says"));
    offset += static_cast<std::uint64_t>(got);
    to = to.subspan(static_cast<std::size_t>(got));
  }
  return {};
}

}  // namespace

Result<std::vector<StatDescription>> ParseStatDescriptions(std::span<const std::byte> file) {
  HF_TRY(const Header header, ReadHeader(file));
  std::vector<StatDescription> all;
  for (std::uint32_t i = 0; i < header.count; ++i) {
    const std::size_t offset =
        header.description_offset + std::size_t{i} * (sizeof(Description) + header.name_size);
    const auto raw = At<Description>(file, offset);
    const std::size_t name = offset + sizeof(Description);
    if (!raw || name > file.size() || file.size() - name < header.name_size) {
      return Fail(Malformed("a description is cut off"));
    }
    const auto* const text = reinterpret_cast<const char*>(file.data() + name);
    StatDescription one;
    one.name.assign(text, ::strnlen(text, header.name_size));
    const unsigned type = raw->flags & 0xfU;
    const unsigned unit = (raw->flags >> 4U) & 0xfU;
    const unsigned base = (raw->flags >> 8U) & 0xfU;
    // A later kernel may have kinds that nobody here can name yet.
    if (type > static_cast<unsigned>(StatDescription::Type::kLog2Histogram) ||
        unit > static_cast<unsigned>(StatDescription::Unit::kBoolean) || base > 1 ||
        one.name.empty()) {
      continue;
    }
    if (raw->count == 0 || raw->offset > kMostFile) {
      return Fail(Malformed(fmt::format("'{}' has impossible sizes", one.name)));
    }
    one.type = static_cast<StatDescription::Type>(type);
    one.unit = static_cast<StatDescription::Unit>(unit);
    one.binary_base = base == 1;
    one.exponent = raw->exponent;
    one.count = raw->count;
    one.bucket_size = raw->bucket_size;
    one.offset = raw->offset;
    all.push_back(std::move(one));
  }
  return all;
}

Result<Stats> Stats::Open(int kvm_fd) {
  auto opened = Call(kvm_fd, kGetStatsFd);
  if (!opened) {
    return Fail(Errc::kUnsupported, "KVM has no binary statistics here",
                "It needs Linux 5.14 or later.");
  }
  UniqueFd fd(*opened);
  ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);  // the kernel does not set it
  std::vector<std::byte> file(sizeof(Header));
  HF_TRY_STATUS(ReadAt(fd.get(), 0, file));
  HF_TRY(const Header header, ReadHeader(file));
  file.resize(DescriptionsEnd(header));
  HF_TRY_STATUS(ReadAt(fd.get(), 0, file));
  HF_TRY(std::vector<StatDescription> descriptions, ParseStatDescriptions(file));
  std::size_t size = 0;
  for (const StatDescription& one : descriptions) {
    size = std::max(size, one.offset + sizeof(std::uint64_t) * one.count);
  }
  return Stats(std::move(fd), std::move(descriptions), header.data_offset, size);
}

Result<std::vector<std::vector<std::uint64_t>>> Stats::Read() const {
  std::vector<std::byte> data(data_size_);
  HF_TRY_STATUS(ReadAt(fd_.get(), data_offset_, data));
  std::vector<std::vector<std::uint64_t>> values;
  for (const StatDescription& one : descriptions_) {
    std::vector<std::uint64_t>& numbers = values.emplace_back(one.count);
    std::memcpy(numbers.data(), data.data() + one.offset, numbers.size() * sizeof numbers[0]);
  }
  return values;
}

}  // namespace holdfast::kvm
