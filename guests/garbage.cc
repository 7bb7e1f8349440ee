// SPDX-License-Identifier: Apache-2.0
// A PVH guest that drives every virtio device as badly as it can: garbage in all registers, in PCI
// configuration space, in queues and rings. The first virtio-rng-pci alone is driven properly,
// before and after, and has to answer. The kernel command line is "SEED ROUNDS".
//
// It runs in 32-bit mode without paging (pvh32.S) and is built for a KVM that emulates such
// code instruction by instruction: no tables, no interrupts, no floating point.
//
// What devices are told to write to is either [kArena, end of RAM) or no RAM at all: a guest may
// have its devices write over its own code, but then it could not tell how the others fare.
#include "pvh32.h"

namespace {

using namespace guests32;

constexpr u32 kArena = 8U << 20;  // garbage, rings
constexpr u32 kArenaWords = 16384;
constexpr u32 kRing = 0x90000;  // of the device that is driven properly
constexpr u32 kFreeWindow = 0xe0000000;
constexpr u32 kMostDevices = 32;
constexpr u32 kNeedsReset = 0x40;

// xorshift32, as Marsaglia published it.
struct Random {
  u32 state;
  u32 Next() {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
  }
  u32 Below(u32 end) { return Next() % end; }
};

struct Area {
  u32 address = 0;
  u32 length = 0;
  bool Holds(u32 where) const { return where - address < length; }
};

struct Device {
  u32 slot = 0;  // as in the configuration address port
  u32 type = 0;
  Area bars[6] = {};
  Area common, notify, isr, own;
  u32 msix_bar = 6;
};

u32 ConfigRead(u32 slot, u32 offset) {
  Out32(0xcf8, 0x80000000 | slot | (offset & 0xfc));
  return In32(0xcfc);
}
void ConfigWrite(u32 slot, u32 offset, u32 value) {
  Out32(0xcf8, 0x80000000 | slot | (offset & 0xfc));
  Out32(0xcfc, value);
}

// Where a BAR lies and how large it is; nothing for ports. Those above 4 GiB cannot be reached from
// here and move to `free`, which is behind all others below.
void FindBars(Device& device, u32& free) {
  ConfigWrite(device.slot, 4, 0);
  for (u32 i = 0; i < 6; ++i) {
    const u32 at = 0x10 + 4 * i;
    u32 low = ConfigRead(device.slot, at);
    const bool wide = (low & 7) == 4;
    ConfigWrite(device.slot, at, ~0U);
    const u32 size = ~(ConfigRead(device.slot, at) & ~15U) + 1;
    if (wide && size != 0 && ConfigRead(device.slot, at + 4) != 0) {
      low = free = (free + size - 1) & ~(size - 1);
      free += size;
      ConfigWrite(device.slot, at + 4, 0);
    }
    ConfigWrite(device.slot, at, low);
    if ((low & 1) == 0 && size != 0) device.bars[i] = {low & ~15U, size};
    if (wide) ++i;
  }
  ConfigWrite(device.slot, 4, 6);  // memory, bus master
}

void FindStructures(Device& device) {
  u32 at = ConfigRead(device.slot, 0x34) & 0xfc;
  for (u32 left = 48; at != 0 && left != 0; --left) {
    const u32 head = ConfigRead(device.slot, at);
    if ((head & 0xff) == 0x11) device.msix_bar = ConfigRead(device.slot, at + 4) & 7;
    if ((head & 0xff) == 0x09) {
      const u32 bar = ConfigRead(device.slot, at + 4) & 0xff;
      const u32 kind = head >> 24;
      const Area area = {bar < 6 ? device.bars[bar].address + ConfigRead(device.slot, at + 8) : 0,
                         ConfigRead(device.slot, at + 12)};
      if (bar < 6 && device.bars[bar].length != 0) {
        if (kind == 1) device.common = area;
        if (kind == 2) device.notify = area;
        if (kind == 3) device.isr = area;
        if (kind == 4) device.own = area;
      }
    }
    at = head >> 8 & 0xfc;
  }
}

u32 FindDevices(Device* devices) {
  u32 count = 0;
  u32 free = kFreeWindow;
  for (u32 slot = 0; slot < 0x10000 && count < kMostDevices; slot += 0x100) {
    const u32 id = ConfigRead(slot, 0);
    if ((id & 0xffff) != 0x1af4 || id >> 16 < 0x1040) continue;
    Device& device = devices[count];
    device = Device{};
    device.slot = slot;
    device.type = (id >> 16) - 0x1040;
    FindBars(device, free);
    FindStructures(device);
    if (device.common.length != 0 && device.notify.length != 0) ++count;
  }
  return count;
}

void Read(u32 address, u32 width) {
  if (width == 0) [[maybe_unused]]
    const u32 value = Byte(address);
  if (width == 1) [[maybe_unused]]
    const u32 value = Half(address);
  if (width == 2) [[maybe_unused]]
    const u32 value = Word(address);
}
void Write(u32 address, u32 width, u32 value) {
  if (width == 0) Byte(address) = static_cast<u8>(value);
  if (width == 1) Half(address) = static_cast<u16>(value);
  if (width == 2) Word(address) = value;
}

// One access somewhere in the device's BARs: any offset, any width.
void PokeRegisters(const Device& device, Random& random) {
  const Area* const structures[] = {&device.common, &device.common, &device.notify, &device.isr,
                                    &device.own};
  const u32 which = random.Below(8);
  const u32 bar = random.Below(6);
  const Area& area = which < 5 ? *structures[which] : device.bars[bar];
  if (area.length == 0) return;
  u32 address = area.address + random.Below(area.length);
  u32 width = random.Below(3);
  u32 value = random.Next();
  if (which >= 5 && bar == device.msix_bar) {
    // An interrupt may be anything but one that resets or stops the CPU that runs this.
    address &= ~3U;
    width = 2;
    value &= 0x0ffff8ff;
  }
  const u32 offset = address - device.common.address;
  if (offset >= 0x1d && offset < 0x38) {
    // Addresses of rings: none that is RAM.
    address &= ~3U;
    width = 2;
    value |= 0x80000000;
  }
  if (random.Below(4) == 0)
    Read(address, width);
  else
    Write(address, width, value);
}

void PokeConfigurationSpace(const Device& device, Random& random) {
  const u32 offset = random.Below(8) == 0 ? 0x10 + 4 * random.Below(6) : 4 * random.Below(64);
  const u32 before = ConfigRead(device.slot, offset);
  ConfigWrite(device.slot, offset, random.Next());
  ConfigRead(device.slot, offset);
  // The BARs and the command register back, so that the registers can be reached.
  if (offset == 4) ConfigWrite(device.slot, 4, 6);
  if (offset >= 0x10 && offset < 0x28) ConfigWrite(device.slot, offset, before);
}

u32 BadAddress(Random& random, u32& high) {
  high = random.Below(4) == 0 ? random.Next() : 0;
  return random.Below(4) != 0 && high == 0 ? kArena + random.Below(kArenaWords * 4)
                                           : random.Next() | 0x80000000;
}

// Words that look like descriptors: an address, a length, flags with a next; seldom anything.
void FillArena(Random& random, u32 words) {
  for (; words != 0; --words) {
    const u32 at = random.Below(kArenaWords / 4) * 4;
    u32 high;
    Word(kArena + at * 4) = BadAddress(random, high);
    Word(kArena + at * 4 + 4) = high;
    Word(kArena + at * 4 + 8) = random.Below(8) == 0 ? random.Next() : random.Below(8192);
    Word(kArena + at * 4 + 12) = (random.Next() & 0x00ff8187) | (random.Below(4) << 16);
  }
}

u32 Offered(const Device& device, u32 half) {
  Word(device.common.address) = half;
  return Word(device.common.address + 4);
}
void Accept(const Device& device, u32 half, u32 features) {
  Word(device.common.address + 8) = half;
  Word(device.common.address + 12) = features;
}
u32 Status(const Device& device) {
  return Byte(device.common.address + 0x14);
}
void SetStatus(const Device& device, u8 status) {
  Byte(device.common.address + 0x14) = status;
}

void SetQueueAddress(const Device& device, u32 offset, u32 low, u32 high) {
  Word(device.common.address + offset) = low;
  Word(device.common.address + offset + 4) = high;
}

// `bad`: not even size and addresses need to be possible ones.
void SetGarbageQueue(const Device& device, Random& random, u32 queue, bool bad) {
  const u32 common = device.common.address;
  Half(common + 0x16) = static_cast<u16>(queue);
  const u32 size = bad && random.Below(4) == 0 ? random.Next() : 1U << random.Below(8);
  if (random.Below(4) != 0) Half(common + 0x18) = static_cast<u16>(size);
  for (u32 offset = 0x20; offset < 0x38; offset += 8) {
    u32 low = (kArena + random.Below(kArenaWords * 4)) & ~15U;
    u32 high = 0;
    if (bad) low = BadAddress(random, high);
    SetQueueAddress(device, offset, low, high);
  }
  Half(common + 0x1c) = static_cast<u16>(bad && random.Below(8) == 0 ? random.Next() : 1);
}

// Properly up to the queues; these are garbage and so is what lies in them.
bool GarbageInQueues(const Device& device, Random& random) {
  SetStatus(device, 0);
  SetStatus(device, 3);
  // Never ACCESS_PLATFORM alone decides: half of the rounds take all that is offered.
  const u32 some = random.Below(2) == 0 ? ~0U : random.Next();
  Accept(device, 0, Offered(device, 0) & some);
  Accept(device, 1, (Offered(device, 1) & some) | 1);
  SetStatus(device, 11);
  const u32 queues = Half(device.common.address + 0x12);
  const u32 count = queues < 6 ? queues : 6;
  const bool bad = random.Below(4) == 0;
  for (u32 queue = 0; queue < count; ++queue) SetGarbageQueue(device, random, queue, bad);
  SetStatus(device, 15);
  for (u32 i = 0; i < 12; ++i) {
    Half(device.notify.address + 4 * random.Below(count + 1)) =
        static_cast<u16>(random.Below(count + 1));
    FillArena(random, 8);
  }
  const bool needs_reset = (Status(device) & kNeedsReset) != 0;
  if (random.Below(2) == 0) SetStatus(device, 0);
  return needs_reset;
}

void Start(const Device& device) {
  SetStatus(device, 0);
  SetStatus(device, 3);
  Accept(device, 0, 0);
  Accept(device, 1, 1);  // VERSION_1
  SetStatus(device, 11);
  for (u32 i = 0; i < 0x1000; i += 4) Word(kRing + i) = 0;
  Half(device.common.address + 0x16) = 0;
  Half(device.common.address + 0x18) = 8;
  SetQueueAddress(device, 0x20, kRing, 0);
  SetQueueAddress(device, 0x28, kRing + 0x400, 0);
  SetQueueAddress(device, 0x30, kRing + 0x800, 0);
  Half(device.common.address + 0x1c) = 1;
  SetStatus(device, 15);
}

// One request of 16 bytes, the `number`th since Start. False: no answer, or nothing in it.
bool AskForEntropy(const Device& device, u16 number) {
  const u32 buffer = kRing + 0xc00;
  for (u32 i = 0; i < 16; i += 4) Word(buffer + i) = 0;
  Word(kRing) = buffer;
  Word(kRing + 8) = 16;
  Half(kRing + 12) = 2;  // for the device to write
  Half(kRing + 0x404 + 2 * ((number - 1) & 7)) = 0;
  Half(kRing + 0x402) = number;
  Half(device.notify.address) = 0;
  for (u32 tries = 0; Half(kRing + 0x802) != number; ++tries)
    if (tries == 50000000) return false;
  return (Word(buffer) | Word(buffer + 4) | Word(buffer + 8) | Word(buffer + 12)) != 0;
}

}  // namespace

extern "C" [[noreturn]] void GuestMain(const char* command_line) {
  Random random{Number(command_line) * 2 + 1};
  const u32 rounds = Number(command_line);
  Device devices[kMostDevices];
  const u32 count = FindDevices(devices);
  u32 sane = 0;
  while (sane < count && devices[sane].type != 4) ++sane;
  bool answered = false;
  if (sane < count) {
    Start(devices[sane]);
    answered = AskForEntropy(devices[sane], 1);
  }
  Print("garbage: devices=");
  PrintNumber(count);
  Print(answered ? " entropy before: yes\n" : " entropy before: no\n");

  FillArena(random, kArenaWords / 4);
  u32 broken = 0;
  for (u32 round = 0; round < rounds; ++round) {
    for (u32 i = 0; i < count; ++i) {
      if (i == sane) continue;
      for (u32 j = 0; j < 40; ++j) PokeRegisters(devices[i], random);
      for (u32 j = 0; j < 4; ++j) PokeConfigurationSpace(devices[i], random);
      // A balloon (5) takes away whatever page it is told to: this guest's own among them.
      if (devices[i].type != 5 && GarbageInQueues(devices[i], random)) ++broken;
    }
  }
  answered = sane < count && AskForEntropy(devices[sane], 2);
  Print("garbage: needs_reset=");
  PrintNumber(broken);
  Print(answered ? " entropy after: yes\n" : " entropy after: no\n");
  End(0);
}
