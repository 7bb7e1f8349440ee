// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <holdfast/error.h>

#include "apps/control_options.h"
#include "apps/options_block.h"
#include "apps/options_net.h"
#include "apps/run_with.h"
#include "apps/sandbox.h"
#include "machine/config.h"
#include "machine/numa_builder.h"
#include "migration/address.h"
#include "migration/cpr_exec.h"
#include "object/memory_backend.h"
#include "object/object.h"

namespace holdfast::apps {

inline constexpr std::string_view kProgram = "holdfast";
inline constexpr std::string_view kVersion = HOLDFAST_VERSION;
/// The id of the memory that `-m` makes.
inline constexpr std::string_view kDefaultRamId = "pc.ram";

/// One `-trace` or `-d trace:`.
struct TraceRequest {
  std::string pattern;      ///< events to turn on; empty: none
  std::string events_file;  ///< file that lists patterns; empty: none
  std::string file;         ///< where the log goes; empty: as before
};

/// One `-numa`, as written and as read.
struct NumaRequest {
  using Choice =
      std::variant<machine::NumaNodeOption, machine::NumaDistOption, machine::NumaCpuOption,
                   machine::NumaHmatLbOption, machine::HmatCache>;
  std::string argument;
  Choice option;
};

/// `-incoming file:PATH`, a snapshot; `-incoming defer` and `-incoming ADDRESS`, another monitor.
struct IncomingOptions {
  std::string path = {};                                     ///< empty: no snapshot
  std::optional<migration::Address> address = std::nullopt;  ///< neither: `migrate-incoming` says
  bool prefault = false;
  std::uint64_t bandwidth = 0;  ///< bytes a second; 0: as fast as it goes
  bool new_mac = false;         ///< network cards get addresses that the saved ones had not
};

/// What the command line asks for, checked and completed. Making it touches nothing: no file, no
/// device, no global state.
struct Options {
  /// Set by -help, -version and `help` as a value: print this, exit 0, ignore the rest.
  std::optional<std::string> print;
  std::vector<std::string> warnings;

  /// The words that were read, for snapshots to tell them.
  std::vector<std::string> command_line;
  /// Where the machine's state comes from, if not from a start.
  std::optional<IncomingOptions> incoming;
  /// -incoming with a channel of the type cpr: the socket that a monitor hands its guest over by.
  std::string cpr_path;
  /// The guest of another monitor, whose place this one takes; not the command line's.
  std::shared_ptr<migration::Takeover> takeover;

  // The virtual machine.
  std::string kvm_device = "/dev/kvm";
  std::uint32_t dirty_ring_size = 0;  ///< -accel dirty-ring-size=: entries a vCPU; 0: none
  std::string machine_type = "q35";
  std::string cpu_model = "host";
  object::ObjectStore objects;
  std::string confidential;                   ///< -machine confidential-guest-support=
  std::string memory_backend;                 ///< -machine memory-backend=
  std::optional<std::uint64_t> ram_size;      ///< -m, bytes
  std::optional<std::uint64_t> max_ram_size;  ///< -m maxmem=, bytes
  std::uint64_t ram_slots = 0;                ///< -m slots=
  std::string ram_words = "-m";               ///< what these three were last given with
  std::string mem_path;                       ///< -mem-path
  bool mem_prealloc = false;                  ///< -mem-prealloc
  bool hmat = false;                          ///< -machine hmat=
  std::vector<NumaRequest> numa;
  /// The machine's RAM, some of `objects`: one, or those of the NUMA nodes in order.
  std::vector<object::MemoryBackend*> ram;
  /// Everything but `serial`, which only exists once the chardevs do.
  machine::MachineConfig machine;

  // Consoles, as on the command line and then as they are to be made.
  bool nographic = false;
  bool no_display = false;  ///< -display none
  bool no_defaults = false;
  std::vector<std::string> serial;     ///< COM1 …: a chardev's word, perhaps with `mon:`
  std::optional<std::string> monitor;  ///< a chardev's word; empty: no monitor of its own

  // Disks, in the order of the command line.
  std::vector<BlockdevRequest> blockdevs;
  std::vector<DriveRequest> drives;
  bool snapshot = false;  ///< -snapshot: for drives that do not say

  // The monitors' clients.
  std::vector<ChardevRequest> chardevs;
  std::vector<MonitorRequest> monitors;

  // Networks.
  NetOptions net;

  // The process.
  std::string guest_name;
  std::string process_name;
  std::string uuid = "00000000-0000-0000-0000-000000000000";
  std::string pidfile;
  bool daemonize = false;
  SandboxOptions sandbox;
  RunWithOptions run_with;
  bool timestamps = false;
  bool guest_name_in_messages = false;
  std::string log_file;
  std::uint32_t log_items = 0;
  std::vector<TraceRequest> traces;
};

/// Reads QEMU's command line, without the program's name. Pure: equal arguments give equal
/// options, and nothing outside is read or changed.
/// @return the options; or one sentence that names option and value, with a remedy as hint.
Result<Options> ParseCommandLine(std::span<const char* const> arguments);

}  // namespace holdfast::apps
