// SPDX-License-Identifier: Apache-2.0
// The part of VirtualMachine that makes disks.
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include <holdfast/unique_fd.h>

#include "apps/run_with.h"
#include "apps/vm_builder.h"
#include "base/log.h"
#include "object/throttle_group.h"

namespace holdfast::apps {
namespace {

using devices::block::BlockDevice;
using devices::block::Drive;
using devices::block::NodeDriver;
using devices::block::NodeOptions;

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

// The image as the storage daemon is told of it: a format, and below it the file.
NodeOptions ServedNode(const DriveRequest& drive) {
  NodeOptions image = *drive.node;
  image.driver = NodeDriver::kRaw;
  if (!drive.image_format.empty()) {
    image.driver = NodeDriver::kImage;
    image.format = drive.image_format;
  }
  image.filename.clear();
  image.own_child = std::make_shared<NodeOptions>(*drive.node);
  return image;
}

// Images are read by the user that this process is about to become.
Result<devices::block::ProgramUser> ImageUser(const std::string& name) {
  HF_TRY(const UserIds user, ResolveUser(name));
  devices::block::ProgramUser made{.uid = user.uid, .gid = user.gid, .groups = {user.gid}};
  if (user.name.empty()) return made;
  int count = 0;
  ::getgrouplist(user.name.c_str(), user.gid, nullptr, &count);
  made.groups.resize(static_cast<std::size_t>(std::max(count, 1)));
  if (::getgrouplist(user.name.c_str(), user.gid, made.groups.data(), &count) < 0) {
    return Fail(Errc::kSystem, fmt::format("cannot tell the groups of the user '{}'", name));
  }
  made.groups.resize(static_cast<std::size_t>(count));
  return made;
}

}  // namespace

Status VirtualMachine::BuildBlock() {
  block_graph_.set_hooks(
      {.emit = [this](std::string_view event,
                      const nlohmann::json& data) { qmp_->Emit(event, data); },
       .stop_for_io_error = [this] { machine_->Pause(machine::RunState::kIoError); }});
  devices::block::BlockGraph::ImageSettings images{
      .queues = std::min(options_.machine.smp.cpus, kMostImageQueues), .user = {}};
  if (!options_.run_with.user.empty()) {
    HF_TRY(images.user, ImageUser(options_.run_with.user));
  }
  block_graph_.set_image_settings(std::move(images));
  if (options_.machine.incoming) HF_TRY_STATUS(block_graph_.Inactivate());
  for (const BlockdevRequest& blockdev : options_.blockdevs) {
    if (Status made = block_graph_.AddBlockdev(blockdev.node); !made) {
      return Fail(std::move(made).error().Wrap(blockdev.option));
    }
  }
  for (const DriveRequest& drive : options_.drives) {
    if (Status made = BuildDrive(drive); !made) {
      return Fail(std::move(made).error().Wrap(drive.option));
    }
  }
  device_backends_.image = [this](std::string_view id) { return block_graph_.FindImage(id); };
  device_backends_.drive = [this](std::string_view id) { return block_graph_.Find(id); };
  return {};
}

Status VirtualMachine::BuildDrive(const DriveRequest& request) {
  if (request.served()) {
    if (request.image_format.empty()) HF_TRY_STATUS(CheckFormat(request));
    HF_TRY_STATUS(block_graph_.AddImage(request.id, ServedNode(request), *request.snapshot));
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
