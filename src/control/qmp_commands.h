// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "control/context.h"
#include "control/qmp_json.h"
#include "control/qmp_schema.h"

namespace holdfast::devices {
class Balloon;
}

// The commands by subject: each function adds commands and events with their types. The handlers
// get arguments that the schema has checked.
namespace holdfast::control {

void DefineActionCommands(Schema& schema);         // qmp_actions.cc
void DefineBalloonCommands(Schema& schema);        // qmp_balloon.cc
void DefineBlockQueries(Schema& schema);           // qmp_block.cc
void DefineBlockCommands(Schema& schema);          // qmp_blockdev.cc
void DefineControlCommands(Schema& schema);        // qmp_control.cc
void DefineDeviceCommands(Schema& schema);         // qmp_device.cc
void DefineDirtyRateCommands(Schema& schema);      // qmp_dirty_rate.cc
void DefineFdCommands(Schema& schema);             // passed_fds.cc
void DefinePciCommands(Schema& schema);            // qmp_pci.cc
void DefineMachineCommands(Schema& schema);        // qmp_machine.cc
void DefineMemoryCommands(Schema& schema);         // qmp_memory.cc
void DefineMigrationSettings(Schema& schema);      // qmp_migration_settings.cc
void DefineMigrationCommands(Schema& schema);      // qmp_migration.cc
void DefineMemoryMapCommand(Schema& schema);       // memory_map.cc
void DefineNetCommands(Schema& schema);            // qmp_net.cc
void DefineObjectCommands(Schema& schema);         // qmp_qom.cc
void DefineSevCommands(Schema& schema);            // qmp_sev.cc
void DefineSnapshotCommands(Schema& schema);       // qmp_snapshot.cc
void DefineStatsCommands(Schema& schema);          // qmp_stats.cc
void DefineConversionCommands(Schema& schema);     // qmp_conversion.cc
void DefineVmGenerationIdCommand(Schema& schema);  // qmp_vmgenid.cc
void DefineTraceCommands(Schema& schema);          // qmp_trace.cc

/// The failing return value of a handler.
inline tl::unexpected<QmpError> QmpFail(std::string desc, std::string hint = {}) {
  return tl::unexpected(QmpError(QmpErrorClass::kGenericError, std::move(desc), std::move(hint)));
}
inline tl::unexpected<QmpError> QmpFail(QmpErrorClass error_class, std::string desc) {
  return tl::unexpected(QmpError(error_class, std::move(desc)));
}

/// What the guest has told the balloon, as `guest-stats` shows it.
Json BalloonStats(const devices::Balloon& balloon);

/// The QOM path of a vCPU; events, query-cpus-fast and query-stats name CPUs by it.
std::string CpuPath(unsigned index);

/// Whether a `cpu-index` argument names a vCPU; the error is QEMU's.
Status CheckCpuIndex(const VmContext& vm, const Json& index);

}  // namespace holdfast::control

/// `HF_QMP_TRY(auto value, Get());` returns the error of a Result to the client or declares the
/// value.
#define HF_QMP_TRY_(tmp, decl, expr)                                                        \
  auto tmp = (expr);                                                                        \
  if (!tmp) return ::tl::unexpected<::holdfast::control::QmpError>(std::move(tmp).error()); \
  decl = *std::move(tmp)
#define HF_QMP_TRY(decl, expr) HF_QMP_TRY_(HOLDFAST_CONCAT(hf_try_, __LINE__), decl, expr)
#define HF_QMP_TRY_STATUS(expr)                                                             \
  do {                                                                                      \
    auto hf_status = (expr);                                                                \
    if (!hf_status)                                                                         \
      return ::tl::unexpected<::holdfast::control::QmpError>(std::move(hf_status).error()); \
  } while (false)
