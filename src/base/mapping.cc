// SPDX-License-Identifier: Apache-2.0
#include <holdfast/mapping.h>
#include <holdfast/units.h>
#include <sys/mman.h>

#include <cerrno>
#include <string>

namespace holdfast {

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    Unmap();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

Result<Mapping> Mapping::Map(const Request& request, std::string_view what) {
  const auto fail = [&] { return FailErrno("mapping " + std::string(what)); };
  const auto offset = static_cast<off_t>(request.offset);
  if (request.alignment <= kPageSize) {
    void* address = ::mmap(nullptr, request.size, request.prot, request.flags, request.fd, offset);
    if (address == MAP_FAILED) return fail();
    return Mapping(static_cast<std::byte*>(address), request.size);
  }
  // Addresses are reserved generously, and what lies before and behind the mapping is given back.
  const auto reserved = CheckedAdd(request.size, request.alignment);
  if (!reserved) {
    errno = ENOMEM;
    return fail();
  }
  void* start =
      ::mmap(nullptr, *reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return fail();
  auto* const begin = static_cast<std::byte*>(start);
  const auto number = reinterpret_cast<std::uint64_t>(begin);
  const std::uint64_t lead = AlignUp(number, request.alignment) - number;
  std::byte* const aligned = begin + lead;
  if (::mmap(aligned, request.size, request.prot, request.flags | MAP_FIXED, request.fd, offset) ==
      MAP_FAILED) {
    const int error = errno;
    ::munmap(begin, *reserved);
    errno = error;
    return fail();
  }
  if (lead > 0) ::munmap(begin, lead);
  const std::uint64_t end = AlignUp(lead + request.size, kPageSize);
  if (end < *reserved) ::munmap(begin + end, *reserved - end);
  return Mapping(aligned, request.size);
}

Result<Mapping> Mapping::MapFile(int fd, std::uint64_t offset, std::size_t size, int prot,
                                 std::string_view what, int extra_flags) {
  return Map(
      {.fd = fd, .offset = offset, .size = size, .prot = prot, .flags = MAP_SHARED | extra_flags},
      what);
}

Result<Mapping> Mapping::MapAnonymous(std::size_t size, std::string_view what) {
  return MapFile(-1, 0, size, PROT_READ | PROT_WRITE, what, MAP_ANONYMOUS);
}

void Mapping::Unmap() noexcept {
  if (data_ != nullptr) ::munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace holdfast
