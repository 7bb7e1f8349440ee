// SPDX-License-Identifier: Apache-2.0
// What a guest asks of its memory's attributes: hypercalls with any numbers whatever, over two
// blocks and a hole, while a device holds pages. A plain list of pages says what has to come of it.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include "machine/conversion_exits.h"
#include "memory/recording_engine.h"

namespace {

using namespace holdfast;

constexpr std::uint64_t kPages = 32;  // of a block
constexpr std::uint64_t kHigh = 64;   // the second block's first page

void Require(bool holds) {
  if (!holds) std::abort();
}

std::unique_ptr<RamBlock> MakeBlock(AddressSpace& memory, std::uint64_t first) {
  auto engine = std::make_unique<RecordingEngine>();
  engine->OnApply([](MemoryAttribute) {});
  auto block = *RamBlock::CreateMemfd("ram", kPages * kPageSize);
  Require(block->EnableConversion(std::move(engine)).has_value());
  Require(memory.AddRam(GuestAddress(first * kPageSize), block->size(), *block, 0).has_value());
  return block;
}

// The guest's memory, and what is known of it.
class Machine {
 public:
  // One hypercall: an operation, an address, a number of pages, 8 bytes each but the first.
  void Call(const std::array<std::uint64_t, 2>& words, std::uint8_t operation) {
    kvm_run run{};
    run.hypercall.nr = operation < 250 ? kvm::abi::kHypercallMapGpaRange : operation;
    // Mostly near RAM, sometimes anything.
    const bool near = (operation & 8) == 0;
    run.hypercall.args[0] = near ? words[0] % (2 * kHigh) * kPageSize : words[0];
    run.hypercall.args[1] = near ? words[1] % (2 * kHigh) : words[1];
    run.hypercall.args[2] = (operation & 1) != 0 ? kvm::abi::kMapGpaRangeEncrypted : 0;
    (void)exits_.OnHypercall(run);
    const auto result = static_cast<std::int64_t>(run.hypercall.ret);
    if (run.hypercall.nr != kvm::abi::kHypercallMapGpaRange) return Require(result == -1000);
    Expect(run.hypercall.args[0], run.hypercall.args[1], (operation & 1) != 0, result == 0);
  }
  // A device's request, done at once.
  void Touch(std::uint64_t address, std::uint64_t size) const {
    GuestIoVec held;
    const bool got =
        memory_.Pin(GuestAddress(address), size, MemoryAccess::kWrite, held).has_value();
    bool all = true;
    for (std::uint64_t page = address / kPageSize;
         size != 0 && page <= (address + size - 1) / kPageSize; ++page)
      all = all && IsRam(page) && !private_[page];
    Require(got == all);
  }
  void Check() const {
    std::uint64_t count = 0;
    for (std::uint64_t page = 0; page < private_.size(); ++page) count += private_[page] ? 1U : 0U;
    Require(converter_.private_bytes() == count * kPageSize);
    for (const GuestConverter::Range& range : converter_.Ranges()) {
      const std::uint64_t first = range.start.value() / kPageSize;
      for (std::uint64_t page = first; page < first + range.size / kPageSize; ++page)
        Require(private_[page] == (range.attribute == MemoryAttribute::kPrivate));
    }
  }

 private:
  static bool IsRam(std::uint64_t page) {
    return page < kPages || (page >= kHigh && page < kHigh + kPages);
  }
  void Expect(std::uint64_t address, std::uint64_t pages, bool to_private, bool done) {
    const std::uint64_t first = address / kPageSize;
    const std::uint64_t most = ~0ULL / kPageSize;
    bool possible =
        address % kPageSize == 0 && pages != 0 && pages <= most && first + pages <= most;
    for (std::uint64_t i = 0; possible && to_private && i < pages; ++i) possible = IsRam(first + i);
    Require(done == possible);
    for (std::uint64_t i = 0; done && i < pages && first + i < private_.size(); ++i)
      if (IsRam(first + i)) private_[first + i] = to_private;
  }

  AddressSpace memory_{nullptr};
  std::unique_ptr<RamBlock> low_ = MakeBlock(memory_, 0);
  std::unique_ptr<RamBlock> high_ = MakeBlock(memory_, kHigh);
  GuestConverter converter_{memory_};
  machine::ConversionExits exits_{converter_, {}};
  std::array<bool, kHigh + kPages> private_{};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kStep = 17;
  Machine machine;
  for (; size >= kStep; data += kStep, size -= kStep) {
    std::array<std::uint64_t, 2> words{};
    std::memcpy(words.data(), data + 1, sizeof words);
    if ((data[0] & 0x30) == 0x30) {
      machine.Touch(words[0] % (2 * kHigh * kPageSize), words[1] % (4 * kPageSize));
    } else {
      machine.Call(words, data[0]);
    }
  }
  machine.Check();
  return 0;
}
