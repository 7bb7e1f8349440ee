// SPDX-License-Identifier: Apache-2.0
// What a monitor is sent that takes a guest over from another: the first byte says whether the
// input is a whole message or the contents of one whose checksum is right.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/hash.h"
#include "migration/cpr_state.h"

namespace {

using namespace holdfast;
using namespace holdfast::migration;

void Require(bool held) {
  if (!held) std::abort();
}

void Contents(std::span<const std::byte> input) {
  const auto state = DecodeCprState({.size = input.size(), .hash = Hash64(input)}, input);
  if (!state) return;
  Require(state->fds.size() <= kMostCprFds && state->sections.size() <= kMostCprSections);
  for (const CprFd& fd : state->fds) Require(fd.name.size() <= kMostCprName);
  std::size_t bytes = 0;
  for (const auto& section : state->sections) bytes += section.bytes.size();
  Require(bytes <= input.size());
  // What was understood is said again, and is the same.
  const auto again = EncodeCprState(*state);
  Require(std::ranges::equal(std::span(again).subspan(CprHead::kSize), input));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto input = std::as_bytes(std::span(data + 1, size - 1));
  if (data[0] % 2 == 0) {
    Contents(input);
    return 0;
  }
  const auto head = DecodeCprHead(input);
  if (head) static_cast<void>(DecodeCprState(*head, input.subspan(CprHead::kSize)));
  return 0;
}
