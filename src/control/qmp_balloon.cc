// SPDX-License-Identifier: Apache-2.0
// The memory balloon: balloon, query-balloon, and what `guest-stats` shows; events of
// virtio-serial.
#include <limits>

#include "control/qmp_commands.h"
#include "devices/machine_services.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

using devices::Balloon;

tl::unexpected<QmpError> NoBalloon() {
  return QmpFail(QmpErrorClass::kDeviceNotActive, "No balloon device has been activated");
}

QmpResult SetBalloon(VmContext& vm, const Json& arguments) {
  Balloon* const balloon = vm.machine().services().balloon;
  if (balloon == nullptr) return NoBalloon();
  const auto value = arguments["value"].get<std::int64_t>();
  if (value <= 0) return QmpFail("Parameter 'value' expects a size");
  balloon->SetTarget(static_cast<std::uint64_t>(value));
  return Json::object();
}

QmpResult QueryBalloon(VmContext& vm, const Json&) {
  const Balloon* const balloon = vm.machine().services().balloon;
  if (balloon == nullptr) return NoBalloon();
  return Json{{"actual", balloon->actual()}};
}

}  // namespace

Json BalloonStats(const Balloon& balloon) {
  const Balloon::GuestStats stats = balloon.stats();
  Json values = Json::object();
  for (std::size_t i = 0; i < Balloon::kStats; ++i) {
    // What the guest does not tell is -1 as an unsigned number, as in QEMU.
    values[std::string(Balloon::StatName(i))] =
        stats.values[i].value_or(std::numeric_limits<std::uint64_t>::max());
  }
  return Json{{"stats", std::move(values)}, {"last-update", stats.last_update}};
}

void DefineBalloonCommands(Schema& schema) {
  schema.Struct("BalloonArguments", {{"value", "int"}});
  schema.AddCommand("balloon", {.arguments = "BalloonArguments", .run = SetBalloon});
  schema.Struct("BalloonInfo", {{"actual", "int"}});
  schema.AddCommand("query-balloon", {.result = "BalloonInfo", .run = QueryBalloon});
  schema.AddEvent("BALLOON_CHANGE", "BalloonInfo");
  schema.Struct("VserportChange", {{"id", "str"}, {"open", "bool"}});
  schema.AddEvent("VSERPORT_CHANGE", "VserportChange");
}

}  // namespace holdfast::control
