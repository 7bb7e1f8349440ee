// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <holdfast/error.h>

#include <nlohmann/json_fwd.hpp>

#include "devices/block/drive.h"
#include "object/keyval.h"
#include "object/memory_backend.h"

namespace holdfast::devices::block {

/// kImage: a format that the storage daemon reads, `NodeOptions::format`.
enum class NodeDriver : std::uint8_t { kFile, kHostDevice, kNullCo, kRaw, kImage };

/// The words of `aio=`, in the order they are stored; native is io_uring here.
enum class AioWord : std::uint8_t { kThreads, kNative, kIoUring };

/// A block node as `-blockdev` and blockdev-add describe it.
struct NodeOptions {
  NodeDriver driver = NodeDriver::kFile;
  std::string node_name;
  std::optional<bool> read_only;
  bool auto_read_only = false;
  bool discard = false;
  bool direct = false;
  bool no_flush = false;
  bool force_share = false;
  DetectZeroes detect_zeroes = DetectZeroes::kOff;
  // file, host_device
  std::string filename;
  AioWord aio = AioWord::kIoUring;
  object::OnOffAuto locking = object::OnOffAuto::kAuto;
  // null-co, and the part of its child that raw shows
  std::optional<std::uint64_t> size;
  std::uint64_t offset = 0;
  bool read_zeroes = false;
  // raw, and images
  std::string child;                       ///< a node's name
  std::shared_ptr<NodeOptions> own_child;  ///< or a node of its own
  // images
  std::string format = {};  ///< a block driver of QEMU: "qcow2"
  /// What it is a layer upon: a node's name, or a node of its own; neither: what its header names,
  /// unless `no_backing`.
  std::string backing = {};
  std::shared_ptr<NodeOptions> own_backing = {};
  bool no_backing = false;
};

/// Whether a format is one that the storage daemon reads.
bool IsImageFormat(std::string_view format) noexcept;
/// The file or device that a node's data is in; the node itself if that is not told.
const NodeOptions& FileOf(const NodeOptions& node) noexcept;

/// Makes `key.key=value` of nested JSON objects, as QEMU's key=value form has them.
/// `null` becomes an empty word.
/// @return kInvalidArgument for what is neither object nor word nor number
Result<object::KeyValues> FlattenJson(const nlohmann::json& object);

/// Reads a node's description. Pure: no file is touched.
/// @return kInvalidArgument in QEMU's words; kUnsupported for a driver that QEMU has
Result<NodeOptions> ParseNodeOptions(const object::KeyValues& values);

}  // namespace holdfast::devices::block
