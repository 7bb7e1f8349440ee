// SPDX-License-Identifier: Apache-2.0
// Writes the fuzz targets' first inputs, small and valid, to DIR/<target>/.
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "machine/boot/test_images.h"
#include "migration/snapshot_format.h"
#include "migration/wire.h"

namespace {

namespace boot = holdfast::machine::boot;

void Save(const std::filesystem::path& folder, const std::string& name,
          const boot::testing::Image& image) {
  std::filesystem::create_directories(folder);
  std::ofstream file(folder / name, std::ios::binary);
  for (const std::byte b : image) file.put(std::to_integer<char>(b));
}

void SaveBzImages(const std::filesystem::path& folder) {
  boot::testing::BzImageSpec spec;
  spec.payload_size = 1024;
  spec.header.syssize = 1024 / 16;
  Save(folder, "protocol-2.15", MakeBzImage(spec));
  spec.header.version = 0x020c;
  spec.header.jump_distance = 0x66;
  spec.header.xloadflags = boot::kKernel64;
  Save(folder, "protocol-2.12", MakeBzImage(spec));
  spec.header.relocatable_kernel = 0;
  spec.header.setup_sects = 0;
  Save(folder, "not-relocatable", MakeBzImage(spec));
}

void SavePvh(const std::filesystem::path& folder) {
  boot::testing::PvhSpec spec;
  Save(folder, "note-of-4-bytes", MakePvh(spec));
  const std::uint64_t entry = spec.load.paddr;
  const std::string owner("Xen\0", 4);
  const auto desc = std::as_bytes(std::span(&entry, 1));
  spec.notes = boot::testing::MakeNote(owner, boot::kXenNotePhys32Entry, desc, 8);
  spec.note.filesz = spec.notes.size();
  spec.note.align = 8;
  Save(folder, "note-of-8-bytes", MakePvh(spec));
  spec.header.type = boot::kElfShared;
  spec.note.align = 4;
  const auto other = boot::testing::MakeNote(owner, 6, desc, 4);
  spec.notes.insert(spec.notes.begin(), other.begin(), other.end());
  spec.note.filesz = spec.notes.size();
  Save(folder, "two-notes", MakePvh(spec));
}

// Command lines, an argument's end being a NUL.
void SaveOptions(const std::filesystem::path& folder) {
  const std::vector<std::vector<std::string>> lines = {
      {"-kernel", "k", "-m", "size=1G,slots=2,maxmem=4G", "-smp", "4,sockets=2,cores=2"},
      {"-kernel", "k", "-object", R"({"qom-type": "memory-backend-ram", "id": "a", "size": 4096})",
       "-object", "memory-backend-memfd,id=b,size=1M,share=on,host-nodes=0-1,policy=interleave"},
      {"-kernel", "k", "-numa", "node,memdev=a,cpus=0-1,nodeid=0", "-numa",
       "dist,src=0,dst=1,val=20", "-numa", "cpu,node-id=0,socket-id=0", "-machine", "q35,hmat=on"},
      {"-serial", "mon:stdio", "-device", "pvpanic,ioport=0x505", "-trace", "enable=kvm*,file=f"},
  };
  std::filesystem::create_directories(folder);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::ofstream file(folder / std::to_string(i), std::ios::binary);
    for (const std::string& word : lines[i]) file.write(word.c_str(), std::ssize(word) + 1);
  }
}

void SaveText(const std::filesystem::path& folder, const std::string& name,
              const std::string& text) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / name, std::ios::binary) << text;
}

// The first byte says in how large pieces the rest arrives; 0: all at once.
void SaveQmp(const std::filesystem::path& folder) {
  const std::string whole(1, '\0');
  SaveText(folder, "queries",
           whole + R"({"execute": "query-version", "id": 1}{"execute": "query-memdev"})"
                   "\n"
                   R"({"exec-oob": "query-name", "id": {"a": [null, 1.5]}})");
  SaveText(folder, "objects",
           "\x07"
           R"({"execute": "qom-list-types", "arguments": {"implements": "memory-backend"}})"
           R"({"execute": "object-add", "arguments": {"qom-type": "memory-backend-memfd", )"
           R"("id": "m0", "size": 4096, "host-nodes": [0, 1], "policy": "bind"}})"
           R"({"execute": "object-del", "arguments": {"id": "m0"}})");
  SaveText(folder, "stats",
           whole + R"({"execute": "query-stats", "arguments": {"target": "vcpu", "vcpus": ["/"], )"
                   R"("providers": [{"provider": "kvm", "names": ["exits"]}]}})");
  SaveText(folder, "half", whole + R"({"execute": "query-\u00e4\ud83d)");
}

// A queue of eight entries with one request: a buffer to read at 0x2000, one to write at 0x3000.
// fuzz_virtqueue.cc says where the rings are.
void SaveVirtqueues(const std::filesystem::path& folder) {
  const auto put = [](std::string& memory, std::size_t at, std::uint64_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) memory[at + i] = static_cast<char>(value >> (8 * i));
  };
  for (const bool packed : {false, true}) {
    std::string memory(0x2000, '\0');
    for (std::size_t i = 0; i < 2; ++i) {
      const std::uint64_t flags = (i == 0 ? 1U : 2U) | (packed ? 0x80U : 0U);
      put(memory, 16 * i, 0x2000 + 0x1000 * i, 8);
      put(memory, 16 * i + 8, 64, 4);
      put(memory, 16 * i + 12, packed ? 5 : flags, 2);
      put(memory, 16 * i + 14, packed ? flags : 1, 2);
    }
    if (!packed) put(memory, 0x1002, 1, 2);  // one is available
    std::string head = {static_cast<char>(packed ? 7 : 6), static_cast<char>(packed ? 8 : 3), 2};
    SaveText(folder, packed ? "packed" : "split", head + memory);
  }
}

// Steps as fuzz_virtio_net.cc reads them: a frame sent, a buffer, a frame that arrives, a filter.
void SaveNetwork(const std::filesystem::path& folder) {
  using namespace std::string_literals;
  const std::string send = "\x83\x48\0"s + std::string(64, '\x11');
  const std::string buffer = "\x82\x7f\x07"s;
  const std::string arrive = "\x40"s + std::string(32, '\x22') + "\x08\0"s;
  const std::string control = "\x8b\x04\0\0\0\0\0\x01\0"s;
  SaveText(folder, "split", "\x01"s + send + buffer + arrive + control);
  SaveText(folder, "packed", "\0"s + buffer + buffer + arrive + control + arrive + send);
}

// Pages written, converted, pinned and given to a guest, in each of the three modes.
void SaveModel(const std::filesystem::path& folder) {
  using namespace std::string_literals;  // NOLINT(google-build-using-namespace): for the zeroes
  const std::string write = "\x03\x01\x02\x07"s;
  const std::string slot = "\x04\x01\x04\0\x08\x01\0\x01\0"s;
  const std::string convert = "\x06\0\x04\x08\0\x01"s;
  const std::string pin = "\x08\x01\x03"s;
  const std::string guest = "\x05\x02\0\x11"s;
  SaveText(folder, "in_place", "\x01\x04\x02"s + write + slot + convert + pin + guest);
  SaveText(folder, "two_layers", "\x01\x03\x01"s + slot + "\x07\0\x04\x08\x02"s + guest);
  SaveText(folder, "plain", "\0\x12\0"s + write + slot + guest + "\x01\x01\x03\0\x08"s);
}

// Calls of 17 bytes: operation, address and pages (of a device's access: address and size).
void SaveConversion(const std::filesystem::path& folder) {
  std::string input;
  const auto call = [&](char operation, std::uint64_t first, std::uint64_t second) {
    input += operation;
    for (const std::uint64_t number : {first, second})
      for (unsigned i = 0; i < 8; ++i) input += static_cast<char>(number >> (8 * i));
  };
  call(1, 4, 8);           // private
  call(0x30, 0x1000, 64);  // a device, on a shared page
  call(0, 0, 127);         // shared, over the hole
  call(1, 64, 32);         // the second block
  call(9, ~0ULL, ~0ULL);   // nonsense
  SaveText(folder, "both_ways", input);
}

// A request of each kind. fuzz/virtio_requests.h says how they are written down.
void SaveSmallDevices(const std::filesystem::path& balloon, const std::filesystem::path& serial) {
  using namespace std::string_literals;  // NOLINT(google-build-using-namespace): for the zeroes
  const std::string pages = "\0\0\x07\0\x10\x08\0\0\x11\x08\0\0"s;
  const std::string stats = "\0\x02\x09\0\x04\0\x39\x05\0\0\0\0\0\0"s;
  SaveText(balloon, "all", pages + stats + "\x03\x04\xff\x0f\x04\x04\x02\0\0\0\x06"s);
  SaveText(balloon, "hints", "\0\x03\x03\0\0\0\0\x80\x03\x03\xff\x0f\0\x03\x03\0\0\0\0\0"s);
  const std::string ready = "\0\x03\x07\0\0\0\0\0\0\0\x01\0"s;
  const std::string port = "\0\x03\x07\0\x01\0\0\0\x03\0\x01\0"s;
  const std::string open = "\0\x03\x07\0\x01\0\0\0\x06\0\x01\0"s;
  SaveText(serial, "all",
           "\x03\x02\x40\0"s + ready + port + open + "\x03\x04\x40\0"s + "\0\x05\x04\0hello\x06"s);
}

// A driver's way from reset to a request. fuzz_virtio_pci.cc says how accesses are written down.
void SaveVirtioPci(const std::filesystem::path& folder) {
  std::string input(1, '\0');
  const auto number = [&](std::uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) input += static_cast<char>(value >> (8 * i));
  };
  const auto write = [&](unsigned log_width, unsigned page, unsigned offset, std::uint64_t value) {
    number(log_width * 8, 1);
    number(page | offset << 2, 2);
    number(value, 8);
  };
  const auto poke = [&](unsigned address, std::uint64_t value) {
    number(4, 1);
    number(address, 2);
    number(value, 8);
  };
  write(0, 0, 0x14, 3);  // acknowledged, driver
  write(2, 0, 0x08, 1);
  write(2, 0, 0x0c, 1);  // VERSION_1
  write(0, 0, 0x14, 11);
  write(3, 0, 0x20, 0);       // descriptors
  write(3, 0, 0x28, 0x1000);  // available ring
  write(3, 0, 0x30, 0x1800);  // used ring
  write(1, 0, 0x1c, 1);
  poke(0, 0x1400);
  poke(8, 64 | 2ULL << 32);  // a buffer of 64 bytes, to be written
  poke(0x1000, 1U << 16);
  write(0, 0, 0x14, 15);
  number(7, 1);  // let the device work
  number(0, 2);
  write(1, 3, 0, 0);  // kick
  number(7, 1);
  number(0, 2);
  write(0, 0, 0x14, 0);
  SaveText(folder, "request", input);
}

// A driver's way to an interrupt and a doorbell, and a removal. fuzz_pci.cc says how accesses are
// written down.
void SavePci(const std::filesystem::path& folder) {
  std::string input;
  const auto step = [&input](unsigned what, std::uint32_t where, std::uint64_t value) {
    input += static_cast<char>(what);
    for (unsigned i = 0; i < 4; ++i) input += static_cast<char>(where >> (8 * i));
    for (unsigned i = 0; i < 8; ++i) input += static_cast<char>(value >> (8 * i));
  };
  constexpr unsigned kWord = 0x28;  // a write of 2 bytes
  constexpr unsigned kLong = 0x30;  // of 4
  const auto config = [&](unsigned slot, unsigned reg, std::uint64_t value) {
    step(kWord | 2, (slot << 15 | reg) << 1, value);
  };
  step(kLong, 0, 0x80000800);
  step(0x10 | 0, 4, 0);
  config(1, 0x04, 7);
  step(kLong | 4, 12, 0);  // vector 0 is let through
  config(1, 0x7e, 0x8000);
  step(kLong | 3, 8, 0);
  step(kLong | 3, 16, 1);
  step(kLong | 2, (1U << 15 | 0x10) << 1, 0xd0000000);
  config(2, 0x04, 7);
  config(2, 0x60, 0x1169);
  step(6, 0, 0);
  config(2, 0x60, 0x1769);
  step(7, 1, 0);
  step(6, 0, 0);
  step(7, 0, 0);
  SaveText(folder, "steps", input);
}

// Requests as fuzz_virtio_blk.cc and fuzz_scsi.cc write them down.
void SaveDisks(const std::filesystem::path& blk, const std::filesystem::path& scsi) {
  const auto with = [](std::string head, std::string_view body) { return head.append(body); };
  const std::string sector(16, '\0');
  std::string write = sector;
  write[0] = 1;
  std::string discard = sector + std::string("\0\0\0\0\0\0\0\0\x8\0\0\0\0\0\0\0", 16);
  discard[0] = 11;
  std::string requests = with({0, 22, 16}, sector);  // a read
  requests += with({0, 1, 127}, write + std::string(111, 'w'));
  requests += with({0, 1, 32}, discard);
  SaveText(blk, "blk-split", std::string(1, '\0') + requests);
  SaveText(blk, "blk-packed", "\x01" + requests);

  const std::string inquiry("\x12\x01\x83\0\xff\0", 6);
  const std::string read("\x28\0\0\0\0\x01\0\0\x01\0", 10);
  const std::string unmap("\x42\0\0\0\0\0\0\0\x18\0", 10);
  const std::string ranges("\0\x16\0\x10\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0\x08\0\0\0\0", 24);
  std::string commands;
  for (const std::string& cdb : {inquiry, read}) {
    commands += with({static_cast<char>(cdb.size())}, cdb) + '\0';
  }
  commands += with({static_cast<char>(unmap.size())}, unmap) + static_cast<char>(ranges.size());
  commands += ranges;
  SaveText(scsi, "disk", std::string(1, '\0') + commands);
  SaveText(scsi, "cd", "\x01" + commands);

  std::string head(51, '\0');
  head[0] = 1;
  std::string adapter;
  for (const std::string& cdb : {inquiry, read}) {
    std::string request = head;
    request.replace(19, cdb.size(), cdb);
    adapter += with({2, 30, static_cast<char>(request.size())}, request);
  }
  SaveText(blk, "scsi", "\x04" + adapter);
}

// A back end that knows everything, as fuzz_vhost_user.cc takes it: the answers in order, and half
// of the input on its own channel.
void SaveVhostUser(const std::filesystem::path& folder) {
  std::string answers;
  const auto add = [](std::string& to, std::uint32_t request, std::uint32_t flags,
                      std::string_view payload) {
    const std::uint32_t header[] = {request, flags, static_cast<std::uint32_t>(payload.size())};
    to.append(reinterpret_cast<const char*>(header), sizeof header).append(payload);
  };
  const auto number = [](std::uint64_t value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  };
  add(answers, 1, 5, number((1ULL << 30) | (1ULL << 32)));
  add(answers, 15, 5, number(0x1322b));
  add(answers, 17, 5, number(2));
  add(answers, 21, 5, number(0));
  std::string config(72, '\0');
  config[4] = 60;
  add(answers, 24, 5, config);
  add(answers, 5, 5, number(0));
  add(answers, 31, 5, std::string(20, '\0'));
  add(answers, 18, 5, number(0));
  add(answers, 11, 5, number(0));
  SaveText(folder, "answers", std::string(1, '\0') + answers);
  std::string own;
  while (own.size() < answers.size()) add(own, 2, 9, {});
  SaveText(folder, "both", "\x80" + own + answers);
}

// Saved states as they are, and with a byte changed, as fuzz_device_state.cc takes them.
void SaveDeviceStates(const std::filesystem::path& folder) {
  for (char device = 0; device < 5; ++device) {
    const std::string name(1, static_cast<char>('0' + device));
    SaveText(folder, "saved" + name, {device, 0, 0});
    SaveText(folder, "changed" + name, {device, 1, 0, 0x40, 0x04, 0x01, 0x10, 0x05, 0x02});
    SaveText(folder, "text" + name, {device, 0, 1, 6, 'c', 'o', 'n', 'f', 'i', 'g', 2, 0, 0});
  }
}

// A whole part of each kind, behind the byte that says which.
void SaveSnapshot(const std::filesystem::path& folder) {
  using namespace holdfast::migration;
  const auto save = [&](const char* name, char part, std::span<const std::byte> bytes) {
    std::string text(1, part);
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    SaveText(folder, name, text);
  };
  const FilePiece piece{.offset = 4096, .size = 400, .hash = 1};
  save("header", 0,
       EncodeHeader({.file_size = 1 << 24, .directory_offset = 4096, .directory_size = 100}));
  save("directory", 1,
       EncodeDirectory({.creator = "holdfast",
                        .command_line = {"-m", "1G"},
                        .sections = {{"rtc", 1, piece}},
                        .blocks = {{"pc.ram", 1 << 30, {piece}}}}));
  save("extents", 2,
       EncodeExtents(std::array<Extent, 3>{
           Extent{.offset = 0, .length = 8192, .file_offset = 8192, .stored = 8192},
           Extent{.offset = 8192, .length = 4096, .kind = Extent::Kind::kZero},
           Extent{.offset = 65536,
                  .length = 65536,
                  .kind = Extent::Kind::kZstd,
                  .file_offset = 5000,
                  .stored = 77}}));
  save("parts", 3, EncodeParts(std::array<FilePiece, 3>{piece, FilePiece{}, piece}));
}

// What each decoder takes whole, and streams of frames, as fuzz_migration.cc takes them.
void SaveMigration(const std::filesystem::path& folder) {
  using namespace holdfast::migration;
  const auto text = [](std::span<const std::byte> bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  const std::string config = text(EncodeConfig({.creator = "holdfast",
                                                .page_channels = 2,
                                                .blocks = {{"pc.ram", 1 << 16}},
                                                .sections = {{"rtc", 1, {std::byte{1}}}}}));
  SaveText(folder, "hello", '\1' + text(EncodeHello({})).substr(8));
  SaveText(folder, "config", '\2' + config);
  SaveText(folder, "sections", '\3' + text(EncodeSections({{"rtc", 1, {std::byte{1}}}})));
  SaveText(folder, "request",
           '\4' + text(EncodeRequest({.id = 1, .count = 2, .offset = 4096, .wanted = {3, 0}})));
  SaveText(folder, "missing",
           '\5' + text(EncodeMissing({.block = 1, .first = 64, .words = {7, 1}})));
  const auto frame = [](FrameType type, const std::string& payload) {
    const auto size = payload.size();
    return std::string{static_cast<char>(type), static_cast<char>(size),
                       static_cast<char>(size >> 8)} +
           payload;
  };
  const auto pages = [&](PagesHead head, std::span<const std::uint64_t> words) {
    head.count = static_cast<std::uint32_t>(words.size());
    return frame(FrameType::kPages, text(EncodePagesHead(head)) + text(EncodePageWords(words)) +
                                        std::string(head.stored, '\7'));
  };
  constexpr std::array<std::uint64_t, 2> kWords = {0, 4096 | kZeroPage};
  SaveText(folder, "frames",
           '\6' + frame(FrameType::kConfig, config) + pages({.block = 1, .stored = 4096}, kWords) +
               pages({.encoding = PagesHead::Encoding::kZstd, .stored = 20}, kWords) +
               frame(FrameType::kPassEnd, text(EncodeNumber(1))) + frame(FrameType::kAlive, {}) +
               frame(FrameType::kError, "no room"));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: make_seeds DIR\n", stderr);
    return 1;
  }
  const std::filesystem::path root = argv[1];
  SaveBzImages(root / "bzimage");
  SavePvh(root / "pvh");
  SaveQmp(root / "qmp");
  SaveOptions(root / "options");
  SaveVirtqueues(root / "virtqueue");
  SaveVirtioPci(root / "virtio_pci");
  SavePci(root / "pci");
  SaveVhostUser(root / "vhost_user");
  SaveDeviceStates(root / "device_state");
  SaveDisks(root / "virtio_blk", root / "scsi");
  SaveNetwork(root / "virtio_net");
  SaveConversion(root / "conversion");
  SaveModel(root / "model");
  SaveSnapshot(root / "snapshot");
  SaveMigration(root / "migration");
  SaveSmallDevices(root / "balloon", root / "virtio_serial");
  return 0;
}
