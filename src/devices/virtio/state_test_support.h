// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "base/state.h"

/// What the tests of saved devices share.
namespace holdfast::devices::virtio::testing {

using Visit = std::function<void(state::Fields&)>;

inline std::vector<std::byte> SaveState(const Visit& visit) {
  state::Fields fields(1);
  visit(fields);
  EXPECT_TRUE(fields.status());
  return std::move(fields).Take();
}

inline Status LoadState(const Visit& visit, std::span<const std::byte> bytes) {
  state::Fields fields(1, bytes);
  visit(fields);
  return fields.status();
}

/// A state that is cut anywhere, or longer than it should be, is refused; one with a wrong byte is
/// loaded or refused and does no harm. `visit` loads again and again.
inline void ExpectSturdy(const Visit& visit, const std::vector<std::byte>& good) {
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(LoadState(visit, std::span(good).first(size))) << "cut to " << size;
  }
  std::vector<std::byte> bad = good;
  bad.push_back(std::byte{0});
  EXPECT_FALSE(LoadState(visit, bad)) << "a byte too many";
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const auto flip : {std::byte{0xff}, std::byte{0x01}, std::byte{0x80}}) {
      bad = good;
      bad[at] ^= flip;
      (void)LoadState(visit, bad);
    }
  }
  EXPECT_TRUE(LoadState(visit, good));
}

}  // namespace holdfast::devices::virtio::testing
