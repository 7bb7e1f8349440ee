// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/units.h>

#include "base/state.h"

// The bytes of a migration, as docs/formats/migration.md describes them. Nothing here touches a
// connection: what was received comes in, what is to be sent goes out.
namespace holdfast::migration {

inline constexpr std::uint32_t kWireVersion = 1;

/// Names a migration: random, 128 bits. Every connection of it says so first.
using MigrationId = std::array<std::uint8_t, 16>;

/// What a connection is for.
enum class ChannelKind : std::uint32_t {
  kMain = 0,    ///< everything; the only one that the destination answers on
  kPages = 1,   ///< more pages beside it, while the guest runs at the source
  kUrgent = 2,  ///< pages that a vCPU of the destination waits for
  /// The main one again, after the connections were lost in post-copy; the destination answers.
  kRecover = 3,
};

/// The first thing on a connection, from the source; on a main one, also one that is taken up
/// again, the destination answers with its own.
struct Hello {
  static constexpr std::size_t kSize = 64;
  ChannelKind kind = ChannelKind::kMain;
  MigrationId id{};
  /// Of a kPages connection: from 0 on. Of a kRecover one: how many there were, in 8 bits; and of a
  /// kUrgent one that of the kRecover one that it comes with, else 0.
  std::uint32_t index = 0;
};
std::array<std::byte, Hello::kSize> EncodeHello(const Hello& hello);
/// @return kMalformed for what is no hello; kUnsupported for another version
Result<Hello> DecodeHello(std::span<const std::byte> bytes);

enum class FrameType : std::uint16_t {
  // From the source.
  kConfig = 1,    ///< what the machine is
  kPages = 2,     ///< contents of guest memory
  kPassEnd = 3,   ///< on each connection for pages: one pass over memory is over
  kMissing = 4,   ///< post-copy: pages of a block that the destination has to ask for
  kState = 5,     ///< vCPUs and devices
  kActivate = 6,  ///< the source has let go of its disks
  kRun = 7,       ///< the guest is the destination's from here on
  kAlive = 8,     ///< nothing, so that a wait is not taken for a stall
  // From the destination.
  kAccepted = 16,  ///< the configuration fits
  kLoaded = 17,    ///< memory and state are in place
  kActive = 18,    ///< it has the disks
  kRunning = 19,   ///< the guest runs
  kRequest = 20,   ///< post-copy: wants pages
  kComplete = 21,  ///< post-copy: has all of them
  kResumed = 22,   ///< post-copy: asks again, on new connections
  // From both.
  kError = 32,  ///< it is over, and why
};

struct FrameHeader {
  static constexpr std::size_t kSize = 40;
  FrameType type{};
  std::uint32_t size = 0;      ///< bytes of payload
  std::uint64_t sequence = 0;  ///< frames before it in this direction of the connection
  std::uint64_t hash = 0;      ///< of the payload
};
std::array<std::byte, FrameHeader::kSize> EncodeFrameHeader(const FrameHeader& header);
/// @return kMalformed for damage, an unknown type, or a size that no frame of the type has
Result<FrameHeader> DecodeFrameHeader(std::span<const std::byte> bytes, std::uint64_t sequence);

/// The most pages of one kPages or kRequest frame, and their bytes.
inline constexpr std::uint32_t kMostFramePages = 128;
inline constexpr std::size_t kMostFrameBytes = kMostFramePages * kPageSize;

/// The front of a kPages frame. Then come `count` words, the offset of a page each, with bit 0 set
/// for one that is all zeroes; and then the contents of the others, in that order.
struct PagesHead {
  static constexpr std::size_t kSize = 24;
  enum class Encoding : std::uint32_t { kRaw = 0, kZstd = 1 };
  std::uint64_t request = 0;  ///< what it answers; 0: nothing
  std::uint32_t block = 0;    ///< index into the configuration's blocks
  std::uint32_t count = 0;    ///< pages
  Encoding encoding = Encoding::kRaw;
  std::uint32_t stored = 0;  ///< bytes of contents in the frame
};
inline constexpr std::uint64_t kZeroPage = 1;
std::array<std::byte, PagesHead::kSize> EncodePagesHead(const PagesHead& head);
/// @param frame_size  of the payload, which has to hold exactly what the head says
/// @return kMalformed
Result<PagesHead> DecodePagesHead(std::span<const std::byte> bytes, std::uint32_t frame_size);
/// The words behind the head: ascending page offsets inside the block.
/// @return kMalformed, also where raw contents are not those of the pages that have some
Result<std::vector<std::uint64_t>> DecodePageWords(std::span<const std::byte> bytes,
                                                   const PagesHead& head, std::uint64_t block_size);

std::vector<std::byte> EncodePageWords(std::span<const std::uint64_t> words);

/// A kRequest frame.
struct PageRequest {
  std::uint64_t id = 0;  ///< never 0; answered once for each
  std::uint32_t block = 0;
  std::uint32_t count = 0;   ///< pages from `offset` on, kMostFramePages at most
  std::uint64_t offset = 0;  ///< in the block, a page multiple
  bool urgent = false;
  /// Bit p % 64 of word p / 64 is page p: those that are wanted; at least one.
  std::array<std::uint64_t, kMostFramePages / 64> wanted{};
  static constexpr std::size_t kSize = 48;
};
std::array<std::byte, PageRequest::kSize> EncodeRequest(const PageRequest& request);
/// @param block_sizes  bytes of each block. @return kMalformed
Result<PageRequest> DecodeRequest(std::span<const std::byte> bytes,
                                  std::span<const std::uint64_t> block_sizes);

/// What the source says of its machine before any memory (kConfig).
struct MigrationConfig {
  struct Block {
    std::string id = {};
    std::uint64_t size = 0;
  };
  std::string creator = {};              ///< "holdfast 0.1.0"
  std::string name = {};                 ///< of the virtual machine
  std::string uuid = {};                 ///< empty unless both sides are to have the same
  std::uint32_t page_channels = 0;       ///< kPages connections
  bool postcopy = false;                 ///< may go over to post-copy
  bool urgent_channel = false;           ///< there will be a kUrgent one
  std::uint64_t postcopy_bandwidth = 0;  ///< bytes a second in the background; 0: all it can
  std::vector<Block> blocks = {};
  /// As of the start: what machine and CPU they are of is compared.
  std::vector<state::SavedSection> sections = {};
};
std::vector<std::byte> EncodeConfig(MigrationConfig config);
/// @return kMalformed
Result<MigrationConfig> DecodeConfig(std::span<const std::byte> bytes);

/// kState's payload. @return kMalformed
std::vector<std::byte> EncodeSections(std::vector<state::SavedSection> sections);
Result<std::vector<state::SavedSection>> DecodeSections(std::span<const std::byte> bytes);

/// A frame that holds one number (kPassEnd: the pass; kResumed: bytes that are not there yet).
std::array<std::byte, 8> EncodeNumber(std::uint64_t number);
Result<std::uint64_t> DecodeNumber(std::span<const std::byte> bytes);

/// A kMissing frame: block and offset of a stretch of memory, then a bit for each of its pages.
struct MissingPages {
  static constexpr std::size_t kHeadSize = 16;
  static constexpr std::uint64_t kMostPages = 8 * 1024 * 1024;  ///< 1 MiB of bits
  std::uint32_t block = 0;
  std::uint64_t first = 0;                ///< page
  std::vector<std::uint64_t> words = {};  ///< as PageBitmap's
};
std::vector<std::byte> EncodeMissing(const MissingPages& missing);
/// @return kMalformed, also for a bit beyond the block's end
Result<MissingPages> DecodeMissing(std::span<const std::byte> bytes,
                                   std::span<const std::uint64_t> block_sizes);

}  // namespace holdfast::migration
