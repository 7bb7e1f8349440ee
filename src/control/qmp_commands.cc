// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_commands.h"

namespace holdfast::control {
namespace {

struct Complete : Schema {
  Complete() {
    DefineActionCommands(*this);
    DefineBalloonCommands(*this);
    DefineControlCommands(*this);
    DefineDeviceCommands(*this);
    DefineFdCommands(*this);
    DefinePciCommands(*this);
    DefineMachineCommands(*this);
    DefineMemoryCommands(*this);
    DefineMemoryMapCommand(*this);
    DefineMigrationSettings(*this);
    DefineMigrationCommands(*this);
    DefineNetCommands(*this);
    DefineObjectCommands(*this);
    DefineBlockQueries(*this);
    DefineBlockCommands(*this);
    DefineStatsCommands(*this);
    DefineTraceCommands(*this);
    DefineConversionCommands(*this);
    DefineSevCommands(*this);
    DefineDirtyRateCommands(*this);
    DefineSnapshotCommands(*this);
    DefineVmGenerationIdCommand(*this);
  }
};

}  // namespace

const Schema& QmpSchema() {
  // Made when the first client asks: a start without one does not pay for it.
  static const Complete schema;
  return schema;
}

}  // namespace holdfast::control
