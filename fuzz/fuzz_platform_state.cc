// SPDX-License-Identifier: Apache-2.0
// Sections of state for a PC's own devices. The first byte is how many bytes are changed in a
// section that a device has saved itself, three bytes of input for each (where, low half first, and
// what); with 0xff the section is all of the input behind it. What is left then is accesses: an
// offset and a value.
#include <holdfast/address_space.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/state.h"
#include "devices/acpi_pm.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/test_support.h"

namespace {

using Input = std::span<const std::uint8_t>;
namespace devices = holdfast::devices;
namespace state = holdfast::state;

template <typename Device>
void LoadAndUse(Device& device, Input input) {
  const std::uint8_t changes = input[0];
  input = input.subspan(1);
  std::vector<std::byte> section;
  if (changes == 0xff) {
    const auto bytes = std::as_bytes(input);
    section.assign(bytes.begin(), bytes.end());
    input = {};
  } else {
    state::Fields saved(1);
    device.VisitState(saved);
    section = std::move(saved).Take();
    for (std::uint8_t i = 0; i < changes && input.size() >= 3; ++i, input = input.subspan(3)) {
      const std::size_t where = input[0] | std::size_t{input[1]} << 8;
      section[where % section.size()] = std::byte{input[2]};
    }
  }
  state::Fields fields(1, section);
  device.VisitState(fields);
  for (; input.size() >= 2; input = input.subspan(2)) {
    devices::testing::Out(device, input[0] & 0x3f, input[1]);
    (void)devices::testing::In(device, input[0] & 0x3f);
  }
  // What it has become can be saved and loaded again.
  state::Fields again(1);
  device.VisitState(again);
  const std::vector<std::byte> whole = std::move(again).Take();
  state::Fields loaded(1, whole);
  device.VisitState(loaded);
  if (!loaded.status()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input input(data, size);
  if (input.empty()) return 0;
  devices::testing::FakeLine line;
  devices::testing::FakeChardev far_end;
  far_end.room = 4;
  const holdfast::AddressSpace memory(nullptr);
  devices::Serial serial(&far_end, line);
  LoadAndUse(serial, input);
  devices::Rtc rtc(nullptr, line, {}, [] { return std::int64_t{1'700'000'000'000'000'000}; });
  LoadAndUse(rtc, input);
  devices::AcpiPm pm(line, {}, [] { return std::uint64_t{1}; });
  LoadAndUse(pm, input);
  devices::I8042 keyboard({});
  LoadAndUse(keyboard, input);
  devices::FwCfg fw_cfg(memory);
  LoadAndUse(fw_cfg, input);
  return 0;
}
