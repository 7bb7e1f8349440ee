// SPDX-License-Identifier: Apache-2.0
// info block, info blockstats.
#include <fmt/format.h>

#include "control/context.h"
#include "control/human_commands.h"
#include "devices/block/block_graph.h"

namespace holdfast::control {

using devices::block::Drive;
using devices::block::NodeInfo;

namespace {

std::string NameOf(const Drive& drive) {
  if (!drive.id().empty()) return drive.id();
  return drive.user() == nullptr ? std::string() : drive.user()->name;
}

}  // namespace

Result<std::string> HumanCommands::InfoBlock(std::string_view arguments) {
  std::string text;
  for (const auto& drive : context_.block->drives()) {
    if (drive->id().empty() && drive->user() == nullptr) continue;
    if (!arguments.empty() && context_.block->Lookup(arguments) != drive.get()) continue;
    if (!text.empty()) text += "\n";
    text += NameOf(*drive);
    if (drive->medium() == nullptr) {
      text += ": [not inserted]\n";
    } else {
      const NodeInfo info = drive->medium()->info();
      text += fmt::format(" ({}): {} ({}{})\n", drive->medium()->id(), info.filename, info.driver,
                          drive->readonly() ? ", read-only" : "");
    }
    if (drive->user() != nullptr && !drive->user()->name.empty()) {
      text += fmt::format("    Attached to:      {}\n", drive->user()->name);
    }
    if (drive->user() != nullptr && drive->user()->removable) {
      text += fmt::format("    Removable device: {}locked, tray {}\n",
                          drive->tray_locked() ? "" : "not ",
                          drive->medium() == nullptr ? "open" : "closed");
    }
    if (drive->medium() == nullptr) continue;
    const NodeInfo info = drive->medium()->info();
    text += fmt::format("    Cache mode:       {}{}{}\n",
                        drive->write_cache() ? "writeback" : "writethrough",
                        info.direct ? ", direct" : "", info.no_flush ? ", ignore flushes" : "");
  }
  return text;
}

Result<std::string> HumanCommands::InfoBlockstats(std::string_view) {
  std::string text;
  for (const auto& drive : context_.block->drives()) {
    if (drive->id().empty() && drive->user() == nullptr) continue;
    auto& stats = drive->stats();
    text += fmt::format(
        "{}: rd_bytes={} wr_bytes={} rd_operations={} wr_operations={} flush_operations={} "
        "wr_total_time_ns={} rd_total_time_ns={} flush_total_time_ns={} rd_merged=0 wr_merged=0\n",
        NameOf(*drive), stats.read.bytes.load(), stats.write.bytes.load(),
        stats.read.operations.load(), stats.write.operations.load(), stats.flush.operations.load(),
        stats.write.nanoseconds.load(), stats.read.nanoseconds.load(),
        stats.flush.nanoseconds.load());
  }
  return text;
}

}  // namespace holdfast::control
