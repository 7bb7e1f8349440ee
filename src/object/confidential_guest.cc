// SPDX-License-Identifier: Apache-2.0
#include "object/confidential_guest.h"

#include <fmt/format.h>

namespace holdfast::object {

Status ConfidentialGuest::CanDelete() const {
  if (!in_use_) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("object '{}' is in use, can not be deleted", id()),
              "The guest's memory is kept by it as long as the guest runs.");
}

}  // namespace holdfast::object
