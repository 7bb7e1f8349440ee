// SPDX-License-Identifier: Apache-2.0
// Any bytes as a kernel file, from seeds that are valid PVH ELF files.
#include "fuzz/fuzz_loader.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using holdfast::machine::boot::LoadedGuest;
  holdfast::fuzz::LoadKernel({data, size}, LoadedGuest::Protocol::kPvh);
  return 0;
}
