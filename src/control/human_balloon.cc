// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>

#include <holdfast/units.h>

#include "control/context.h"
#include "control/human_commands.h"
#include "devices/machine_services.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

Result<devices::Balloon*> FindBalloon(VmContext& context) {
  devices::Balloon* const balloon = context.machine().services().balloon;
  if (balloon != nullptr) return balloon;
  return Fail(Errc::kNotFound, "No balloon device has been activated",
              "Start with -device virtio-balloon-pci.");
}

}  // namespace

Result<std::string> HumanCommands::SetBalloon(std::string_view arguments) {
  HF_TRY(devices::Balloon* const balloon, FindBalloon(context_));
  std::uint64_t mib = 0;
  const char* const end = arguments.data() + arguments.size();
  const auto [rest, error] = std::from_chars(arguments.data(), end, mib);
  const auto bytes = CheckedMul(mib, kMiB);
  if (error != std::errc{} || rest != end || mib == 0 || !bytes) {
    return Fail(Errc::kInvalidArgument, fmt::format("balloon: '{}' is no size", arguments),
                "Give a number of MiB, for example: balloon 512");
  }
  balloon->SetTarget(*bytes);
  return std::string();
}

Result<std::string> HumanCommands::InfoBalloon(std::string_view) {
  HF_TRY(const devices::Balloon* const balloon, FindBalloon(context_));
  return fmt::format("balloon: actual={}\n", balloon->actual() / kMiB);
}

}  // namespace holdfast::control
