// SPDX-License-Identifier: Apache-2.0
#include "devices/block/node_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "object/property.h"
#include "object/suggest.h"

namespace holdfast::devices::block {
namespace {

using object::KeyValue;
using object::KeyValues;
using object::Property;
using object::PropertyType;
using object::PropertyValue;
using Word = std::string_view;

constexpr std::array<Word, 3> kAioWords = {"threads", "native", "io_uring"};
constexpr std::array<Word, 3> kLockingWords = {"auto", "on", "off"};
constexpr std::array<Word, 2> kDiscardWords = {"ignore", "unmap"};
constexpr std::array<Word, 3> kDetectWords = {"off", "on", "unmap"};
constexpr std::array<Word, 4> kDrivers = {"file", "host_device", "null-co", "raw"};
constexpr std::array<Word, 8> kFormats = {"qcow2", "qcow", "vmdk", "vdi",
                                          "vhdx",  "vpc",  "qed",  "parallels"};
// What else QEMU can open.
constexpr std::array<Word, 22> kQemuDrivers = {
    "blkdebug", "blklogwrites", "blkreplay", "blkverify", "bochs", "cloop",
    "compress", "copy-on-read", "curl",      "dmg",       "ftp",   "gluster",
    "http",     "host_cdrom",   "https",     "iscsi",     "luks",  "nbd",
    "nfs",      "null-aio",     "nvme",      "rbd"};

template <auto Member>
Status SetOptional(NodeOptions& node, const PropertyValue& value) {
  using Value = typename std::remove_cvref_t<decltype(node.*Member)>::value_type;
  node.*Member = std::get<Value>(value);
  return {};
}

constexpr object::PropertyInfo Bool(Word name, Word text) {
  return {.name = name, .type = PropertyType::kBool, .description = text};
}
constexpr object::PropertyInfo Enum(Word name, std::span<const Word> words, Word text) {
  return {.name = name, .type = PropertyType::kEnum, .description = text, .choices = words};
}

constexpr Property<NodeOptions> kCommon[] = {
    {{.name = "node-name", .description = "the node's name"},
     object::SetField<&NodeOptions::node_name>},
    {Bool("read-only", "opens it for reading only"), SetOptional<&NodeOptions::read_only>},
    {Bool("auto-read-only", "falls back to reading only"),
     object::SetField<&NodeOptions::auto_read_only>},
    {Enum("discard", kDiscardWords, "whether the guest's discards free room"),
     [](NodeOptions& node, const PropertyValue& value) -> Status {
       node.discard = std::get<std::uint64_t>(value) != 0;
       return {};
     }},
    {Bool("cache.direct", "past the host's page cache"), object::SetField<&NodeOptions::direct>},
    {Bool("cache.no-flush", "ignores the guest's flushes"),
     object::SetField<&NodeOptions::no_flush>},
    {Bool("force-share", "reads an image that others write"),
     object::SetField<&NodeOptions::force_share>},
    {Enum("detect-zeroes", kDetectWords, "whether writes of zeroes are made write-zeroes"),
     object::SetField<&NodeOptions::detect_zeroes>},
};
constexpr Property<NodeOptions> kFile[] = {
    {{.name = "filename", .description = "the file"}, object::SetField<&NodeOptions::filename>},
    {Enum("aio", kAioWords, "how it is read and written"), object::SetField<&NodeOptions::aio>},
    {Enum("locking", kLockingWords, "whether other users are kept out"),
     object::SetField<&NodeOptions::locking>},
};
constexpr Property<NodeOptions> kNull[] = {
    {{.name = "size", .type = PropertyType::kSize, .description = "its size (default 1 GiB)"},
     SetOptional<&NodeOptions::size>},
    {Bool("read-zeroes", "reads give zeroes"), object::SetField<&NodeOptions::read_zeroes>},
};
constexpr Property<NodeOptions> kRaw[] = {
    {{.name = "file", .description = "the node it shows"}, object::SetField<&NodeOptions::child>},
    {{.name = "offset", .type = PropertyType::kSize, .description = "where it starts"},
     object::SetField<&NodeOptions::offset>},
    {{.name = "size", .type = PropertyType::kSize, .description = "how much of it"},
     SetOptional<&NodeOptions::size>},
};

constexpr Property<NodeOptions> kImage[] = {
    {{.name = "file", .description = "the node it is kept in"},
     object::SetField<&NodeOptions::child>},
    {{.name = "backing", .description = "the node it is a layer upon; empty: none"},
     [](NodeOptions& node, const PropertyValue& value) -> Status {
       node.backing = std::get<std::string>(value);
       node.no_backing = node.backing.empty();
       return {};
     }},
};

std::span<const Property<NodeOptions>> OwnProperties(NodeDriver driver) {
  switch (driver) {
    case NodeDriver::kFile:
    case NodeDriver::kHostDevice:
      return kFile;
    case NodeDriver::kNullCo:
      return kNull;
    case NodeDriver::kImage:
      return kImage;
    case NodeDriver::kRaw:
      break;
  }
  return kRaw;
}

Result<NodeDriver> ParseDriver(Word word) {
  if (IsImageFormat(word)) return NodeDriver::kImage;
  const auto found = std::find(kDrivers.begin(), kDrivers.end(), word);
  if (found != kDrivers.end()) return static_cast<NodeDriver>(found - kDrivers.begin());
  if (std::find(kQemuDrivers.begin(), kQemuDrivers.end(), word) != kQemuDrivers.end()) {
    return Fail(Errc::kUnsupported,
                fmt::format("QEMU has the block driver '{}', Holdfast does not have it", word),
                "Holdfast accepts here: file, host_device, null-co, raw, and by "
                "qemu-storage-daemon qcow2, qcow, vmdk, vdi, vhdx, vpc, qed, parallels.");
  }
  const Word nearest = object::Nearest(word, kDrivers);
  return Fail(Errc::kInvalidArgument, fmt::format("Unknown driver '{}'", word),
              nearest.empty() ? "Holdfast accepts here: file, host_device, null-co, raw, qcow2."
                              : fmt::format("Did you mean '{}'?", nearest));
}

Status SetOne(NodeOptions& node, const KeyValue& entry) {
  const auto own = OwnProperties(node.driver);
  std::vector<Property<NodeOptions>> all(std::begin(kCommon), std::end(kCommon));
  all.insert(all.end(), own.begin(), own.end());
  return object::SetProperty<NodeOptions>(all, {}, node, entry);
}

Status CheckNode(const NodeOptions& node) {
  if (!node.node_name.empty() && !object::IsWellFormedId(node.node_name)) {
    return Fail(Errc::kInvalidArgument, fmt::format("Invalid node-name: '{}'", node.node_name),
                "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
  }
  const bool is_file = node.driver == NodeDriver::kFile || node.driver == NodeDriver::kHostDevice;
  if (is_file && node.filename.empty()) {
    return Fail(Errc::kInvalidArgument, "Parameter 'filename' is missing");
  }
  if (node.filename.find('\0') != std::string::npos) {
    return Fail(Errc::kInvalidArgument, "Parameter 'filename' expects a file name without NUL");
  }
  if (node.aio == AioWord::kNative && !node.direct && is_file) {
    return Fail(Errc::kInvalidArgument,
                "aio=native was specified, but it requires cache.direct=on, which was not "
                "specified",
                "Add cache.direct=on (cache=none), or use aio=io_uring.");
  }
  if (node.force_share && node.read_only != true) {
    return Fail(Errc::kInvalidArgument, "force-share=on can only be used with read-only images",
                "Add read-only=on.");
  }
  const bool has_child = node.driver == NodeDriver::kRaw || node.driver == NodeDriver::kImage;
  if (has_child && node.child.empty() && node.own_child == nullptr) {
    return Fail(Errc::kInvalidArgument, "Parameter 'file' is missing",
                "Name a node with file=NODE, or describe one with file.driver=, file.filename=.");
  }
  if (node.driver == NodeDriver::kRaw &&
      (node.offset % 512 != 0 || node.size.value_or(0) % 512 != 0)) {
    return Fail(Errc::kInvalidArgument, "Specified offset or size is not multiple of 512");
  }
  return {};
}

Result<NodeOptions> Parse(const KeyValues& values, unsigned depth);

// A node that is described inside another one, by the words that begin with `word` and a dot.
Result<std::shared_ptr<NodeOptions>> ParseInner(const KeyValues& inner, Word word,
                                                const std::string& name, unsigned depth) {
  if (inner.empty()) return nullptr;
  if (!name.empty()) {
    return Fail(Errc::kInvalidArgument, fmt::format("Parameters '{}.*' used inconsistently", word),
                fmt::format("Write either {0}=NODE or {0}.driver= and what belongs to it.", word));
  }
  HF_TRY(NodeOptions own, Parse(inner, depth + 1));
  return std::make_shared<NodeOptions>(std::move(own));
}

Result<NodeOptions> Parse(const KeyValues& values, unsigned depth) {
  if (depth > 8) return Fail(Errc::kInvalidArgument, "Block nodes are nested too deeply");
  const std::string* const driver = object::FindValue(values, "driver");
  if (driver == nullptr) {
    return Fail(Errc::kInvalidArgument, "Parameter 'driver' is missing",
                "For example driver=file,filename=FILE.");
  }
  NodeOptions node;
  HF_TRY(node.driver, ParseDriver(*driver));
  if (node.driver == NodeDriver::kImage) node.format = *driver;
  const bool has_child = node.driver == NodeDriver::kRaw || node.driver == NodeDriver::kImage;
  KeyValues child;
  KeyValues backing;
  for (const KeyValue& entry : values) {
    if (entry.key == "driver") continue;
    const auto belongs = [&](Word prefix, KeyValues& inner) {
      if (!entry.key.starts_with(prefix)) return false;
      inner.push_back(entry);
      inner.back().key.erase(0, prefix.size());
      return true;
    };
    if (has_child && belongs("file.", child)) continue;
    if (node.driver == NodeDriver::kImage && belongs("backing.", backing)) continue;
    HF_TRY_STATUS(SetOne(node, entry));
  }
  HF_TRY(node.own_child, ParseInner(child, "file", node.child, depth));
  HF_TRY(node.own_backing, ParseInner(backing, "backing", node.backing, depth));
  if (NodeOptions* const own = node.own_child.get()) {
    // A child without words of its own is opened as its parent is.
    if (!own->read_only) own->read_only = node.read_only;
    own->auto_read_only = own->auto_read_only || node.auto_read_only;
  }
  HF_TRY_STATUS(CheckNode(node));
  return node;
}

Status Flatten(const nlohmann::json& object, const std::string& prefix, unsigned depth,
               KeyValues& values) {
  if (depth > 16) return Fail(Errc::kInvalidArgument, "JSON objects are nested too deeply");
  for (const auto& [key, value] : object.items()) {
    const std::string name = prefix + key;
    if (value.is_object()) {
      HF_TRY_STATUS(Flatten(value, name + ".", depth + 1, values));
    } else if (value.is_string()) {
      values.push_back({.key = name, .value = value.get<std::string>()});
    } else if (value.is_boolean()) {
      values.push_back({.key = name, .value = value.get<bool>() ? "on" : "off"});
    } else if (value.is_number()) {
      values.push_back({.key = name, .value = value.dump()});
    } else if (value.is_null()) {
      values.push_back({.key = name, .value = {}});
    } else {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Invalid parameter type for '{}', expected: string", name));
    }
  }
  return {};
}

}  // namespace

bool IsImageFormat(std::string_view format) noexcept {
  return std::find(kFormats.begin(), kFormats.end(), format) != kFormats.end();
}

const NodeOptions& FileOf(const NodeOptions& node) noexcept {
  const NodeOptions* file = &node;
  while (file->own_child != nullptr) file = file->own_child.get();
  return *file;
}

Result<KeyValues> FlattenJson(const nlohmann::json& object) {
  KeyValues values;
  HF_TRY_STATUS(Flatten(object, "", 0, values));
  return values;
}

Result<NodeOptions> ParseNodeOptions(const KeyValues& values) {
  return Parse(values, 0);
}

}  // namespace holdfast::devices::block
