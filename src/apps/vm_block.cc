// SPDX-License-Identifier: Apache-2.0
// The part of VirtualMachine that makes disks.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include <holdfast/unique_fd.h>

#include "apps/vm_builder.h"
#include "base/log.h"
#include "object/throttle_group.h"

namespace holdfast::apps {
namespace {

using devices::block::BlockDevice;
using devices::block::Drive;

constexpr unsigned kMostImageQueues = 16;

struct Magic {
  std::string_view format;
  std::size_t offset;
  std::string_view bytes;
};
using namespace std::string_view_literals;
constexpr Magic kMagics[] = {
    {"qcow2", 0, "QFI\xfb"sv},     {"qed", 0, "QED\0"sv},
    {"vmdk", 0, "KDMV"sv},         {"vhdx", 0, "vhdxfile"sv},
    {"luks", 0, "LUKS\xba\xbe"sv}, {"vdi", 64, "\x7f\x10\xda\xbe"sv},
    {"vpc", 0, "conectix"sv},      {"parallels", 0, "WithoutFreeSpace"sv},
};

// What an image looks like whose format nobody named; "raw" where it looks like nothing, and
// nothing where it cannot be opened: whoever opens it for use says why.
std::optional<std::string_view> ProbeFormat(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::array<char, 512> head{};
  if (!fd) return std::nullopt;
  if (::pread(fd.get(), head.data(), head.size(), 0) <= 0) return "raw";
  const std::string_view start(head.data(), head.size());
  for (const Magic& magic : kMagics) {
    if (start.substr(magic.offset).starts_with(magic.bytes)) return magic.format;
  }
  return "raw";
}

Status CheckFormat(const DriveRequest& drive) {
  if (drive.format_given || drive.cdrom) return {};
  const std::string& path = drive.node->filename;
  const std::optional<std::string_view> format = ProbeFormat(path);
  if (!format) return {};
  if (*format != "raw") {
    return Fail(Errc::kUnsupported,
                fmt::format("'{}' looks like an image of the format {}, and no format was given",
                            path, *format),
                fmt::format("Add format={}; if it is raw, add format=raw.", *format));
  }
  log::Warn(
      fmt::format("Image format was not specified for '{}' and probing guessed raw. Specify "
                  "the 'raw' format explicitly: a guest can make an image look like another "
                  "format",
                  path));
  return {};
}

}  // namespace

Status VirtualMachine::BuildBlock() {
  block_graph_.set_hooks(
      {.emit = [this](std::string_view event,
                      const nlohmann::json& data) { qmp_->Emit(event, data); },
       .stop_for_io_error = [this] { machine_->Pause(machine::RunState::kIoError); }});
  for (const BlockdevRequest& blockdev : options_.blockdevs) {
    if (auto node = block_graph_.AddNode(blockdev.node); !node) {
      return Fail(std::move(node).error().Wrap(blockdev.option));
    }
  }
  for (const DriveRequest& drive : options_.drives) {
    if (Status made = BuildDrive(drive); !made) {
      return Fail(std::move(made).error().Wrap(drive.option));
    }
  }
  device_backends_.image = [this](std::string_view id) {
    const auto found = images_.find(id);
    return found == images_.end() ? nullptr : found->second.get();
  };
  device_backends_.drive = [this](std::string_view id) { return block_graph_.Find(id); };
  return {};
}

Status VirtualMachine::BuildDrive(const DriveRequest& request) {
  if (!request.image_format.empty()) {
    devices::block::StorageDaemon::Config config{
        .node = *request.node,
        .format = request.image_format,
        .queues = std::min(options_.machine.smp.cpus, kMostImageQueues)};
    auto image = std::make_unique<devices::block::StorageDaemon>(std::move(config));
    if (block_graph_.Lookup(request.id) != nullptr ||
        !images_.emplace(request.id, std::move(image)).second) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Device with id '{}' already exists", request.id),
                  "Give each -drive its own id.");
    }
    return {};
  }
  BlockDevice* medium = nullptr;
  if (request.node) {
    HF_TRY_STATUS(CheckFormat(request));
    HF_TRY(medium, block_graph_.AddNode(*request.node));
  }
  HF_TRY(Drive* const drive, block_graph_.AddDrive(request.id, medium));
  drive->on_read_error = request.read_error;
  drive->on_write_error = request.write_error;
  drive->set_write_cache(request.write_cache);
  if (!request.throttle_group.empty()) {
    const auto* const group =
        dynamic_cast<const object::ThrottleGroup*>(options_.objects.Find(request.throttle_group));
    std::shared_ptr<object::Throttle> shared = group == nullptr ? nullptr : group->throttle();
    for (const auto& other : block_graph_.drives()) {
      if (other->throttle_group() == request.throttle_group) shared = other->throttle();
    }
    drive->set_throttle(shared == nullptr ? drive->throttle() : shared, request.throttle_group);
  }
  if (request.limits.any()) drive->throttle()->Set(request.limits);
  return {};
}

}  // namespace holdfast::apps
