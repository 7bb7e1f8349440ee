// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "object/property.h"

namespace holdfast {
namespace devices::block {
class BlockGraph;
}
namespace devices::net {
class Network;
}
namespace kvm {
class Vm;
}
namespace machine {
class Machine;
}
namespace migration {
class Settings;
class Migration;
class Snapshots;
}  // namespace migration
namespace object {
class ObjectStore;
}
}  // namespace holdfast

namespace holdfast::control {

class PassedFds;

/// A chardev as `query-chardev` and `info chardev` show it.
struct ChardevInfo {
  std::string label;           ///< "serial0", "monitor", the id of a -chardev
  std::string filename;        ///< what it is connected to: "pty:/dev/pts/3"
  bool frontend_open = false;  ///< whether a device or monitor uses it
};

/// A model that `-device` takes, as device-list-properties shows it.
struct DeviceType {
  std::string name;
  std::vector<object::PropertyInfo> properties;
};

/// The virtual machine as the monitors see it, human and QMP alike: what they may ask and do.
/// Filled in once by whoever builds the machine; everything it points to outlives the monitors. The
/// functions are called only from the event loop, when the machine is complete.
///
/// Thread-safety: the main loop's thread.
struct VmContext {
  std::string version;       ///< Holdfast's, "0.1.0"
  std::string name;          ///< `-name guest=`, may be empty
  std::string uuid;          ///< `-uuid`
  std::string machine_type;  ///< "q35"
  std::string cpu_model;     ///< "host"
  object::ObjectStore* objects = nullptr;
  devices::block::BlockGraph* block = nullptr;
  devices::net::Network* network = nullptr;
  migration::Settings* migration_settings = nullptr;
  /// Null: descriptors that clients send are closed.
  PassedFds* passed_fds = nullptr;
  std::vector<DeviceType> device_types;

  std::function<machine::Machine&()> machine;
  std::function<kvm::Vm&()> vm;
  std::function<migration::Migration&()> migration;
  std::function<migration::Snapshots&()> snapshots;
  std::function<std::vector<ChardevInfo>()> chardevs;
  /// Ends the monitor as the command `quit` does.
  std::function<void()> quit;
  /// Runs one line of the human monitor and returns what it prints, lines ending in "\n".
  std::function<std::string(std::string_view line)> human_command;
};

/// Lets the guest run, as `cont` does: with its disks, which were another monitor's to take while
/// it stood there or after it left. @return why not: an image that another process has, in QEMU's
/// words
Status LetRun(VmContext& vm);

}  // namespace holdfast::control
