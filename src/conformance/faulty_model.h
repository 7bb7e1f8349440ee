// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/units.h>

#include <cerrno>

#include "model/model.h"

namespace holdfast::conformance {

/// The model with two bugs, to see that the fuzzer finds them: a hole of three pages or more spares
/// its last page, and a conversion that a page refuses names the range's start.
class FaultyModel final : public model::Model {
 public:
  using Model::Model;

  int Fallocate(model::Handle file, int mode, std::int64_t offset, std::int64_t length) override {
    constexpr int kHole = 3;  // FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    constexpr auto kPage = static_cast<std::int64_t>(kPageSize);
    const bool spares = mode == kHole && length >= 3 * kPage && length <= 64 * kPage;
    return Model::Fallocate(file, mode, offset, spares ? length - kPage : length);
  }
  int SetAttributes(model::Handle file, kvm::abi::MemoryAttributes2& request) override {
    const int answer = Model::SetAttributes(file, request);
    if (answer == -EAGAIN) request.error_offset = request.offset;
    return answer;
  }
};

}  // namespace holdfast::conformance
