// SPDX-License-Identifier: Apache-2.0
#include "fuzz/fuzz_loader.h"

#include <array>
#include <string_view>

#include <holdfast/units.h>

#include "machine/boot/e820.h"
#include "machine/boot/layout.h"
#include "machine/boot/test_images.h"

namespace holdfast::fuzz {
namespace {

namespace boot = machine::boot;

constexpr std::uint64_t kRamSize = 20 * kMiB;  // a little above where kernels want to be
constexpr std::array<std::byte, 5000> kInitrd{};

void Check(bool promise) {
  if (!promise) __builtin_trap();
}

}  // namespace

void LoadKernel(std::span<const std::uint8_t> kernel, boot::LoadedGuest::Protocol protocol) {
  static const boot::testing::TestRam ram(kRamSize);
  boot::BootSource source = ram.Source(std::as_bytes(kernel));
  source.initrd = boot::testing::MakeBootFile("initrd 'fuzz'", kInitrd);

  const auto guest = boot::LoadGuest(ram.space(), source);
  if (!guest) {
    const Error& error = guest.error();
    Check(error.code() == Errc::kMalformed || error.code() == Errc::kUnsupported ||
          error.code() == Errc::kInvalidArgument);
    Check(error.message().find("'test'") != std::string_view::npos ||
          error.message().find("'fuzz'") != std::string_view::npos);
    Check(!error.hint().empty());
    return;
  }
  // An input may be of the other kind; then its entry must be right all the same.
  const bool is_linux = guest->protocol == boot::LoadedGuest::Protocol::kLinux64;
  if (guest->protocol == protocol) Check(guest->long_mode.has_value() == is_linux);
  Check(guest->entry.value() >= boot::kHighMemoryStart);
  Check(boot::FindRam(source.memory_map, guest->entry.value(), 1) != nullptr);
  Check(guest->boot_info == (is_linux ? boot::kZeroPage.base : boot::kStartInfo.base));
}

}  // namespace holdfast::fuzz
