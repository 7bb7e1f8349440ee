// SPDX-License-Identifier: Apache-2.0
#include "migration/channel.h"

#include <algorithm>
#include <cerrno>

namespace holdfast::migration {

Status Channel::ReadAll(std::span<std::byte> data) {
  while (!data.empty()) {
    HF_TRY(const std::size_t got, ReadSome(data));
    data = data.subspan(got);
  }
  return {};
}

bool IsConnectionLost(const Error& error) noexcept {
  constexpr int kLost[] = {EPIPE,     ECONNRESET,  ECONNABORTED, ETIMEDOUT, EHOSTUNREACH,
                           ENETRESET, ENETUNREACH, ENETDOWN,     EHOSTDOWN};
  return std::ranges::find(kLost, error.os_errno()) != std::ranges::end(kLost);
}

}  // namespace holdfast::migration
