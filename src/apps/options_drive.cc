// SPDX-License-Identifier: Apache-2.0
// -drive's many words.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "apps/options_block.h"
#include "object/property.h"

namespace holdfast::apps {
namespace {

using devices::block::AioWord;
using devices::block::DetectZeroes;
using devices::block::NodeDriver;
using devices::block::NodeOptions;
using devices::block::OnError;
using object::KeyValue;
using object::Property;
using object::PropertyType;
using object::PropertyValue;
using Word = std::string_view;

constexpr std::uint64_t kEnospcAction = 3;  // among the words of werror=

// The words as they come, before it is known what they are about.
struct Words : DriveRequest {
  NodeOptions file;
  std::string format;
  std::optional<std::uint64_t> bus;
  std::optional<std::uint64_t> unit;
  std::uint64_t media = 0;
  std::uint64_t cache = 1;
  bool has_cache = false;
  std::optional<bool> cache_direct;
  std::optional<bool> cache_no_flush;
  bool copy_on_read = false;
  std::uint64_t read_action = 0;
  std::uint64_t write_action = kEnospcAction;
};

constexpr std::array<Word, 4> kInterfaces = {"ide", "scsi", "virtio", "none"};
constexpr std::array<Word, 5> kQemuInterfaces = {"floppy", "mtd", "pflash", "sd", "xen"};
constexpr std::array<Word, 2> kMedia = {"disk", "cdrom"};
constexpr std::array<Word, 5> kCaches = {"none", "writeback", "writethrough", "unsafe",
                                         "directsync"};
constexpr std::array<Word, 3> kAio = {"threads", "native", "io_uring"};
constexpr std::array<Word, 4> kDiscard = {"ignore", "off", "unmap", "on"};
constexpr std::array<Word, 3> kDetect = {"off", "on", "unmap"};
constexpr std::array<Word, 4> kActions = {"report", "ignore", "stop", "enospc"};
constexpr std::array<Word, 3> kLocking = {"auto", "on", "off"};

constexpr object::PropertyInfo Text(Word name, Word text) {
  return {.name = name, .description = text};
}
constexpr object::PropertyInfo Switch(Word name, Word text) {
  return {.name = name, .type = PropertyType::kBool, .description = text};
}
constexpr object::PropertyInfo Choice(Word name, std::span<const Word> words, Word text) {
  return {.name = name, .type = PropertyType::kEnum, .description = text, .choices = words};
}
constexpr object::PropertyInfo Number(Word name, Word text) {
  return {.name = name, .type = PropertyType::kUint, .description = text, .max = 65535};
}
template <auto Member>
Status SetFile(Words& words, const PropertyValue& value) {
  return object::SetField<Member>(words.file, value);
}
template <auto Member>
Status SetOwn(Words& words, const PropertyValue& value) {
  return object::SetFieldOf<DriveRequest, Member>(words, value);
}
template <auto Member>
Status SetOptional(Words& words, const PropertyValue& value) {
  using Value = typename std::remove_cvref_t<decltype(words.*Member)>::value_type;
  words.*Member = std::get<Value>(value);
  return {};
}
Status SetReadOnly(Words& words, const PropertyValue& value) {
  words.file.read_only = std::get<bool>(value);
  return {};
}

constexpr Property<Words> kProperties[] = {
    {Choice("if", kInterfaces, "what the drive is plugged into"), SetOwn<&DriveRequest::interface>},
    {Text("id", "the drive's id"), SetOwn<&DriveRequest::id>},
    {Number("bus", "with unit: which one"), SetOptional<&Words::bus>},
    {Number("unit", "with bus: which one"), SetOptional<&Words::unit>},
    {Number("index", "which one"),
     [](Words& words, const PropertyValue& value) -> Status {
       words.index = std::get<std::uint64_t>(value);
       return {};
     }},
    {Choice("media", kMedia, "disk or cdrom"), object::SetField<&Words::media>},
    {Text("file", "the image"), SetFile<&NodeOptions::filename>},
    {Text("file.filename", "the image"), SetFile<&NodeOptions::filename>},
    {Text("format", "the image's format"), object::SetField<&Words::format>},
    {Text("driver", "the same"), object::SetField<&Words::format>},
    {Text("node-name", "the node's name"), SetFile<&NodeOptions::node_name>},
    {Choice("cache", kCaches, "how the host caches"),
     [](Words& words, const PropertyValue& value) -> Status {
       words.cache = std::get<std::uint64_t>(value);
       words.has_cache = true;
       return {};
     }},
    {Switch("cache.direct", "past the host's page cache"), SetOptional<&Words::cache_direct>},
    {Switch("cache.no-flush", "ignores flushes"), SetOptional<&Words::cache_no_flush>},
    {Switch("cache.writeback", "the guest must flush"), SetOwn<&DriveRequest::write_cache>},
    {Choice("aio", kAio, "how it is read and written"), SetFile<&NodeOptions::aio>},
    {Switch("readonly", "the guest may not write"), SetReadOnly},
    {Switch("read-only", "the guest may not write"), SetReadOnly},
    {Switch("auto-read-only", "falls back to reading only"), SetFile<&NodeOptions::auto_read_only>},
    {Switch("force-share", "reads an image that others write"), SetFile<&NodeOptions::force_share>},
    {Choice("discard", kDiscard, "whether discards free room"),
     [](Words& words, const PropertyValue& value) -> Status {
       words.file.discard = std::get<std::uint64_t>(value) >= 2;
       return {};
     }},
    {Choice("detect-zeroes", kDetect, "whether writes of zeroes are found"),
     SetFile<&NodeOptions::detect_zeroes>},
    {Choice("file.locking", kLocking, "whether others are kept out"),
     SetFile<&NodeOptions::locking>},
    {Choice("rerror", kActions, "what becomes of failed reads"),
     object::SetField<&Words::read_action>},
    {Choice("werror", kActions, "what becomes of failed writes"),
     object::SetField<&Words::write_action>},
    {Switch("snapshot", "forgets in the end what the guest wrote"),
     [](Words& words, const PropertyValue& value) -> Status {
       words.snapshot = std::get<bool>(value);
       return {};
     }},
    {Switch("copy-on-read", "off"), object::SetField<&Words::copy_on_read>},
    {Text("throttling.group", "drives of one group share its limits"),
     SetOwn<&DriveRequest::throttle_group>},
    {Text("group", "the same"), SetOwn<&DriveRequest::throttle_group>},
};

// ---- Limits: throttling.bps-total-max=, or bps_max= as before QEMU 1.7 --------------------------

struct LimitName {
  object::ThrottleKind kind;
  std::uint64_t object::ThrottleLimit::* field;
};

std::optional<LimitName> FindLimit(Word key) {
  using object::ThrottleKind;
  using object::ThrottleLimit;
  constexpr std::array<Word, object::kThrottleKinds> kOldNames = {"bps",  "bps_rd",  "bps_wr",
                                                                  "iops", "iops_rd", "iops_wr"};
  constexpr Word kPrefix = "throttling.";
  const bool is_new = key.starts_with(kPrefix);
  if (is_new) key.remove_prefix(kPrefix.size());
  const Word dash = is_new ? "-" : "_";
  LimitName found{ThrottleKind::kBpsTotal, &ThrottleLimit::average};
  for (const auto& [end, field] :
       {std::pair{"max", &ThrottleLimit::maximum}, {"length", &ThrottleLimit::burst_seconds}}) {
    const std::string suffix = field == &ThrottleLimit::maximum
                                   ? fmt::format("{}max", dash)
                                   : fmt::format("{0}max{0}{1}", dash, end);
    if (!key.ends_with(suffix)) continue;
    key.remove_suffix(suffix.size());
    found.field = field;
    break;
  }
  const auto& names = is_new ? object::kThrottleNames : kOldNames;
  const auto name = std::ranges::find(names, key);
  if (name == names.end()) return std::nullopt;
  found.kind = static_cast<ThrottleKind>(name - names.begin());
  return found;
}

// Whether the key was one of a limit.
Result<bool> SetLimit(Words& words, const KeyValue& entry) {
  const object::PropertyInfo number{
      .name = entry.key, .type = PropertyType::kUint, .max = INT64_MAX};
  if (entry.key == "throttling.iops-size" || entry.key == "iops_size") {
    HF_TRY(const PropertyValue value, object::ParseProperty(number, entry.value));
    words.limits.iops_size = std::get<std::uint64_t>(value);
    return true;
  }
  const auto limit = FindLimit(entry.key);
  if (!limit) return false;
  HF_TRY(const PropertyValue value, object::ParseProperty(number, entry.value));
  words.limits[limit->kind].*(limit->field) = std::get<std::uint64_t>(value);
  return true;
}

// ---- What only all words together can tell ------------------------------------------------------

void ApplyCache(Words& words) {
  if (words.has_cache) {
    const Word cache = kCaches[words.cache];
    words.file.direct = cache == "none" || cache == "directsync";
    words.file.no_flush = cache == "unsafe";
    words.write_cache = cache != "writethrough" && cache != "directsync";
  }
  words.file.direct = words.cache_direct.value_or(words.file.direct);
  words.file.no_flush = words.cache_no_flush.value_or(words.file.no_flush);
}

Status CheckPlace(Words& words) {
  if (!words.bus && !words.unit) return {};
  if (words.index) {
    return Fail(Errc::kInvalidArgument, "index cannot be used with bus and unit");
  }
  // One disk a bus, as on QEMU's q35.
  words.index = words.bus.value_or(0) + words.unit.value_or(0);
  return {};
}

Status CheckFormat(const Words& words) {
  if (words.format.empty() || words.format == "raw" || words.format == "host_device") return {};
  if (!devices::block::IsImageFormat(words.format)) {
    return Fail(Errc::kInvalidArgument, fmt::format("'{}' invalid format", words.format),
                "Holdfast accepts here: raw, and by qemu-storage-daemon qcow2, qcow, vmdk, vdi, "
                "vhdx, vpc, qed, parallels.");
  }
  return {};
}

Status CheckWords(const Words& words) {
  HF_TRY_STATUS(CheckFormat(words));
  if (words.copy_on_read) {
    return Fail(Errc::kUnsupported, "copy-on-read=on needs images with a backing file",
                "Leave it out.");
  }
  if (words.read_action == static_cast<std::uint64_t>(OnError::kEnospc)) {
    return Fail(Errc::kInvalidArgument, "'enospc' invalid read error action",
                "Holdfast accepts here: report, ignore, stop.");
  }
  if (!words.id.empty() && !object::IsWellFormedId(words.id)) {
    return Fail(Errc::kInvalidArgument, "Parameter 'id' expects an identifier",
                "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
  }
  if (words.interface != DriveInterface::kNone && words.media == 0 && words.file.filename.empty()) {
    return Fail(Errc::kInvalidArgument, "Device needs media, but drive is empty", "Add file=FILE.");
  }
  return words.limits.Check();
}

Status SetOne(Words& words, const KeyValue& entry) {
  HF_TRY(const bool limit, SetLimit(words, entry));
  if (limit) return {};
  if (entry.key == "if" &&
      std::ranges::find(kQemuInterfaces, entry.value) != kQemuInterfaces.end()) {
    return Fail(Errc::kUnsupported,
                fmt::format("QEMU has drives with if={}, Holdfast does not have them", entry.value),
                "Holdfast accepts here: ide, scsi, virtio, none.");
  }
  if (entry.key == "serial") {
    return Fail(Errc::kInvalidArgument, "Block format 'raw' does not support the option 'serial'",
                "The serial number is the device's: -drive if=none,id=ID,... -device "
                "virtio-blk-pci,drive=ID,serial=SERIAL.");
  }
  if (entry.key == "file.driver") {
    if (entry.value == "file") return {};
    if (entry.value == "host_device") {
      words.file.driver = NodeDriver::kHostDevice;
      return {};
    }
    return Fail(Errc::kUnsupported, fmt::format("Unknown driver '{}'", entry.value),
                "Holdfast accepts here: file, host_device.");
  }
  if (entry.key == "file.aio") {
    return object::SetProperty<Words>(kProperties, {}, words, {.key = "aio", .value = entry.value});
  }
  return object::SetProperty<Words>(kProperties, {}, words, entry);
}

}  // namespace

Status CheckServed(const DriveRequest& drive) {
  if (!drive.served()) return {};
  // What the monitor does to requests it cannot do to those that do not come past it.
  const bool has_policy = drive.read_error != OnError::kReport ||
                          drive.write_error != OnError::kEnospc || drive.limits.any() ||
                          !drive.throttle_group.empty();
  const bool virtio_disk = !drive.cdrom && drive.interface != DriveInterface::kScsi;
  if (!has_policy && virtio_disk) return {};
  return Fail(Errc::kUnsupported,
              fmt::format("{} needs qemu-storage-daemon, where {}",
                          drive.image_format.empty() ? "snapshot=on"
                                                     : fmt::format("format={}", drive.image_format),
                          !virtio_disk ? "there are only virtio disks"
                                       : "limits, rerror= and werror= have no effect"),
              drive.image_format.empty()
                  ? "Leave them out, or work on a copy of the image."
                  : "Leave them out, or convert the image with qemu-img convert -O raw.");
}

Result<DriveRequest> ReadDrive(std::string_view argument) {
  HF_TRY(const object::KeyValues values, object::ParseKeyValues(argument));
  Words words;
  words.file.driver = NodeDriver::kFile;
  for (const KeyValue& entry : values) HF_TRY_STATUS(SetOne(words, entry));
  HF_TRY_STATUS(CheckPlace(words));
  ApplyCache(words);
  HF_TRY_STATUS(CheckWords(words));
  words.cdrom = words.media == 1;
  words.format_given = !words.format.empty();
  words.read_error = static_cast<OnError>(words.read_action);
  words.write_error = static_cast<OnError>(words.write_action);
  if (words.cdrom) words.file.read_only = true;
  if (!words.file.filename.empty()) {
    constexpr Word kPrefix = "file:";
    if (words.file.filename.starts_with(kPrefix)) words.file.filename.erase(0, kPrefix.size());
    if (words.file.aio == AioWord::kNative && !words.file.direct) {
      return Fail(Errc::kInvalidArgument,
                  "aio=native was specified, but it requires cache.direct=on, which was not "
                  "specified",
                  "Add cache=none, or use aio=io_uring.");
    }
    words.node = words.file;
    if (devices::block::IsImageFormat(words.format)) words.image_format = words.format;
    // There is nothing to forget.
    if (words.file.read_only.value_or(false)) words.snapshot = false;
  }
  DriveRequest request = std::move(words);
  HF_TRY_STATUS(CheckServed(request));
  return request;
}

}  // namespace holdfast::apps
