// SPDX-License-Identifier: Apache-2.0
// info block, info blockstats.
#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <optional>

#include <holdfast/units.h>

#include "control/context.h"
#include "control/human_commands.h"
#include "control/words.h"
#include "devices/block/block_graph.h"
#include "devices/block/storage_daemon.h"

namespace holdfast::control {

using devices::block::BlockGraph;
using devices::block::DetectZeroes;
using devices::block::Drive;
using devices::block::NodeInfo;
using devices::block::StorageDaemon;

namespace {

std::string NameOf(const Drive& drive) {
  if (!drive.id().empty()) return drive.id();
  return drive.user() == nullptr ? std::string() : drive.user()->name;
}

// What a drive, a node and an image have in common.
struct Inserted {
  std::string node_name;
  std::string filename;
  std::string format;
  bool readonly = false;
  bool write_cache = true;
  bool direct = false;
  bool no_flush = false;
  DetectZeroes detect_zeroes = DetectZeroes::kOff;
  std::optional<std::uint64_t> size;  // bytes
};

std::string Heading(std::string_view name, const std::optional<Inserted>& medium) {
  if (!medium) return fmt::format("{}: [not inserted]\n", name);
  const std::string node =
      medium->node_name.empty() ? std::string() : fmt::format(" ({})", medium->node_name);
  return fmt::format("{}{}: {} ({}{})\n", name, name == medium->node_name ? "" : node,
                     medium->filename, medium->format, medium->readonly ? ", read-only" : "");
}

std::string CacheLine(const Inserted& medium) {
  return fmt::format("    Cache mode:       {}{}{}\n",
                     medium.write_cache ? "writeback" : "writethrough",
                     medium.direct ? ", direct" : "", medium.no_flush ? ", ignore flushes" : "");
}

std::string DetectLine(const Inserted& medium) {
  if (medium.detect_zeroes == DetectZeroes::kOff) return {};
  return fmt::format("    Detect zeroes:    {}\n",
                     medium.detect_zeroes == DetectZeroes::kOn ? "on" : "unmap");
}

std::string LimitLine(const Drive& drive) {
  const object::ThrottleLimits limits = drive.throttle()->limits();
  if (!limits.any()) return {};
  constexpr std::array<std::string_view, object::kThrottleKinds> kNames = {
      "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"};
  std::string text = "    I/O throttling:  ";
  constexpr std::size_t kHalf = object::kThrottleKinds / 2;
  for (std::size_t first = 0; first < kNames.size(); first += kHalf) {
    for (std::size_t i = first; i < first + kHalf; ++i) {
      text += fmt::format(" {}={}", kNames[i], limits.limits[i].average);
    }
    for (std::size_t i = first; i < first + kHalf; ++i) {
      text += fmt::format(" {}_max={}", kNames[i], limits.limits[i].maximum);
    }
  }
  const std::string& group = drive.throttle_group();
  return text + fmt::format(" iops_size={} group={}\n", limits.iops_size,
                            group.empty() ? drive.id() : group);
}

std::string ImageText(const Inserted& medium) {
  std::string text =
      fmt::format("\nImages:\nimage: {}\nfile format: {}\n", medium.filename, medium.format);
  if (medium.size) {
    text += fmt::format("virtual size: {} ({} bytes)\n", FormatSize(*medium.size), *medium.size);
  }
  struct stat status = {};
  if (::stat(medium.filename.c_str(), &status) == 0) {
    text += fmt::format("disk size: {}\n",
                        FormatSize(static_cast<std::uint64_t>(status.st_blocks) * 512));
  }
  return text;
}

Inserted InsertedOf(const BlockGraph& graph, const devices::block::BlockDevice& device,
                    const Drive* drive) {
  const NodeInfo info = device.info();
  const BlockGraph::Node* const node = graph.NodeOf(&device);
  Inserted medium{.node_name = device.id(),
                  .filename = info.filename,
                  .format = info.driver,
                  .readonly = device.readonly(),
                  .write_cache = drive == nullptr || drive->write_cache(),
                  .direct = info.direct,
                  .no_flush = info.no_flush,
                  .detect_zeroes = drive == nullptr ? DetectZeroes::kOff : drive->detect_zeroes,
                  .size = device.size()};
  // -drive file= has no node of the format's own: what it shows is raw.
  if (node != nullptr && node->internal && info.driver == "file") medium.format = "raw";
  return medium;
}

std::string DescribeDrive(const BlockGraph& graph, const Drive& drive, bool verbose) {
  std::optional<Inserted> medium;
  if (drive.medium() != nullptr) medium = InsertedOf(graph, *drive.medium(), &drive);
  std::string text = Heading(NameOf(drive), medium);
  const devices::block::DriveUser* const user = drive.user();
  if (user != nullptr && !user->name.empty()) {
    text += fmt::format("    Attached to:      {}\n", user->name);
  }
  if (user != nullptr && user->removable) {
    text += fmt::format("    Removable device: {}locked, tray {}\n",
                        drive.tray_locked() ? "" : "not ", medium ? "closed" : "open");
  }
  if (!medium) return text;
  text += CacheLine(*medium) + DetectLine(*medium) + LimitLine(drive);
  return verbose ? text + ImageText(*medium) : text;
}

std::string DescribeImage(const BlockGraph::Image& image, bool verbose) {
  const StorageDaemon& daemon = *image.daemon;
  const StorageDaemon::Plugged plugged = daemon.plugged();
  const devices::block::NodeOptions& node = daemon.config().node;
  Inserted medium{.node_name = image.node ? image.id : std::string(),
                  .filename = daemon.filename(),
                  .format = daemon.format(),
                  .readonly = daemon.readonly(),
                  .direct = node.direct,
                  .no_flush = node.no_flush,
                  .detect_zeroes = node.detect_zeroes,
                  .size = {}};
  if (plugged.size != 0) medium.size = plugged.size;
  if (daemon.config().snapshot) medium.format = "qcow2, temporary";
  std::string text = Heading(image.id, medium);
  if (!plugged.device.empty()) text += fmt::format("    Attached to:      {}\n", plugged.device);
  text += CacheLine(medium) + DetectLine(medium);
  if (daemon.config().snapshot) {
    text += fmt::format("    Backing file:     {} (chain depth: 1)\n", daemon.filename());
    medium.format = daemon.format();
  }
  return verbose ? text + ImageText(medium) : text;
}

}  // namespace

Result<std::string> HumanCommands::InfoBlock(std::string_view arguments) {
  bool nodes = false;
  bool verbose = false;
  std::string_view rest = arguments;
  while (rest.starts_with('-')) {
    const std::string_view option = TakeWord(rest);
    if (option != "-n" && option != "-v") {
      return Fail(Errc::kInvalidArgument, fmt::format("info block: unknown option '{}'", option),
                  "There are -n (nodes) and -v (more about them).");
    }
    (option == "-n" ? nodes : verbose) = true;
  }
  const BlockGraph& graph = *context_.block;
  std::string text;
  const auto add = [&](const std::string& more) { text += (text.empty() ? "" : "\n") + more; };
  if (nodes) {
    for (const auto& node : graph.nodes()) {
      const Inserted medium = InsertedOf(graph, *node->device, nullptr);
      if (!rest.empty() && rest != medium.node_name) continue;
      add(Heading(medium.node_name, medium) + CacheLine(medium) +
          (verbose ? ImageText(medium) : std::string()));
    }
  } else {
    for (const auto& drive : graph.drives()) {
      if (drive->id().empty() && drive->user() == nullptr) continue;
      if (!rest.empty() && graph.Lookup(rest) != drive.get()) continue;
      add(DescribeDrive(graph, *drive, verbose));
    }
  }
  for (const auto& image : graph.images()) {
    if (image->node != nodes && !image->daemon->used()) continue;
    if (!rest.empty() && rest != image->id && rest != image->daemon->plugged().device) continue;
    add(DescribeImage(*image, verbose));
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
