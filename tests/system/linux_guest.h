// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "system/fixture.h"

namespace holdfast::test {

/// How the guest is to be made.
struct LinuxChoice {
  bool pvh = false;    ///< vmlinux by PVH instead of bzImage
  bool bound = false;  ///< memslots bound to the guest_memfd
  unsigned cpus = 1;
  std::uint64_t ram = 0;  ///< bytes, a multiple of 1 MiB; 0: 256 MiB
};

/// Tests with a stock Linux kernel and the initrd of guests/linux. HOLDFAST_KERNEL,
/// HOLDFAST_VMLINUX and HOLDFAST_INITRD name the files; without them, or on a KVM that runs no
/// stock kernel, the tests skip themselves.
class LinuxTest : public SystemTest {
 protected:
  void SetUp() override;
  /// The monitor's line: serial and monitor prompt on standard input and output, `words` on the
  /// kernel's command line behind those every guest gets.
  Arguments Line(const LinuxChoice& choice, std::string_view words) const;
};

inline constexpr std::string_view kInitLine = "holdfast-init: up";

/// "hf.sh=...": has init run a shell script.
std::string ScriptWord(std::string_view script);

/// What init reports, `hf: key=value` lines up to `hf: done`; waits for them.
std::map<std::string, std::string> ReadReport(MonitorProcess& monitor);

/// Whether the long forms of the tests are asked for (HOLDFAST_TEST_LONG=1).
bool LongForm();

}  // namespace holdfast::test
