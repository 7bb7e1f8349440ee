// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

// What the back ends share about frames: how large they are, and the header in front of each.
namespace holdfast::devices::net {

/// virtio_net_hdr_v1 (virtio 1.2, 5.1.6).
inline constexpr std::size_t kHeaderSize = 12;
/// The largest frame, with a virtual LAN's tag and an offloaded segment of 64 KiB.
inline constexpr std::size_t kLargestFrame = (64U + 4U) << 10;

/// Bytes in all pieces.
inline std::size_t SizeOf(std::span<const iovec> pieces) noexcept {
  std::size_t size = 0;
  for (const iovec& piece : pieces) size += piece.iov_len;
  return size;
}

/// Appends the pieces that remain behind the first `skip` bytes.
inline void SkipBytes(std::span<const iovec> pieces, std::size_t skip, std::vector<iovec>& out) {
  for (const iovec& piece : pieces) {
    const std::size_t cut = std::min(skip, piece.iov_len);
    skip -= cut;
    if (cut == piece.iov_len) continue;
    out.push_back({static_cast<std::byte*>(piece.iov_base) + cut, piece.iov_len - cut});
  }
}

/// Appends what stands behind the first `skip` bytes.
inline void AppendBytes(std::span<const iovec> pieces, std::size_t skip,
                        std::vector<std::byte>& out) {
  for (const iovec& piece : pieces) {
    const std::size_t cut = std::min(skip, piece.iov_len);
    skip -= cut;
    const auto* const from = static_cast<const std::byte*>(piece.iov_base);
    out.insert(out.end(), from + cut, from + piece.iov_len);
  }
}

}  // namespace holdfast::devices::net
