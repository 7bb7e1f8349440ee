// SPDX-License-Identifier: Apache-2.0
// Calls of the guest_memfd model with any numbers whatever, as a guest or a client would reach its
// users with, and bytes for KVM_SET_MEMORY_ATTRIBUTES2. What is private must never be reached.
#include <fcntl.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <holdfast/units.h>

#include "model/model.h"

namespace {

using namespace holdfast;
using model::Handle;

// Reads numbers off the input; zeroes when it ends.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  std::uint8_t Byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  // Mostly a few pages and a bit; sometimes all 64 bits.
  std::uint64_t Number() {
    const std::uint8_t kind = Byte();
    if (kind < 200) return (kind % 16) * kPageSize + (kind >= 160 ? 1 : 0);
    std::uint64_t number = 0;
    for (int i = 0; i < 8; ++i) number = number << 8 | Byte();
    return number;
  }
  Handle AnyHandle() { return static_cast<Handle>(Byte() % 12) - 1; }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

void Step(model::Model& kernel, Input& input) {
  constexpr std::uint64_t kMostPages = 64;  // of a mapping: nothing else is walked page by page
  switch (input.Byte() % 12) {
    case 0:
      kernel.CreateGuestMemfd(input.AnyHandle(), input.Number(), input.Byte() % 8);
      break;
    case 1:
      kernel.Fallocate(input.AnyHandle(), input.Byte(), static_cast<std::int64_t>(input.Number()),
                       static_cast<std::int64_t>(input.Number()));
      break;
    case 2:
      kernel.Map(input.AnyHandle(), input.Number() / kPageSize % kMostPages * kPageSize,
                 input.Number() % (kMostPages * kPageSize), input.Byte() % 8, MAP_SHARED);
      break;
    case 3: {
      const Handle mapping = input.AnyHandle();
      kernel.Write(mapping, input.Number(), input.Byte());
      break;
    }
    case 4: {
      model::Region region;
      region.slot = input.Byte();
      region.flags = input.Byte() % 16;
      region.gpa = input.Number();
      region.size = input.Number();
      region.user = input.AnyHandle();
      region.user_offset = input.Number();
      region.file = input.AnyHandle();
      region.file_offset = input.Number();
      kernel.SetRegion(input.AnyHandle(), region);
      break;
    }
    case 5:
      kernel.GuestWrite(input.AnyHandle(), input.Number(), input.Byte());
      break;
    case 6: {
      kvm::abi::MemoryAttributes2 request{};
      request.offset = input.Number();
      request.size = input.Number();
      request.attributes = input.Byte() % 16;
      request.flags = input.Byte() == 255 ? 1 : 0;
      kernel.SetAttributes(input.AnyHandle(), request);
      break;
    }
    case 7:
      kernel.SetVmAttributes(input.AnyHandle(),
                             {input.Number(), input.Number(), input.Byte() % 16U, 0});
      break;
    case 8:
      kernel.Pin(input.AnyHandle(), input.Number());
      break;
    case 9:
      kernel.Unpin(input.AnyHandle());
      break;
    case 10:
      kernel.Advise(input.AnyHandle(), input.Number(), input.Number(), input.Byte());
      break;
    default:
      kernel.PreFault(input.AnyHandle(), input.Number(), input.Number(), input.Byte() == 255);
      break;
  }
}

// A private page is in nobody's hands, and the host does not get at it.
void CheckInvariants(model::Model& kernel) {
  for (Handle file = 0; file < 4; ++file) {
    const Handle view = kernel.Map(file, 0, 8 * kPageSize, PROT_READ, MAP_SHARED);
    for (std::uint64_t page = 0; page < 8; ++page) {
      if (kernel.AttributeOf(file, page) != model::Attribute::kPrivate) continue;
      if (kernel.PinsOf(file, page) != 0) std::abort();
      if (view >= 0 && kernel.Read(view, page * kPageSize).fault == model::Fault::kNone)
        std::abort();
    }
    kernel.Unmap(view);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const auto base = holdfast::model::Rules::OfRelease(6 + input.Byte() % 2, input.Byte() % 20);
  const std::uint8_t mode = input.Byte() % 3;
  holdfast::model::Model kernel(mode == 0   ? base
                                : mode == 1 ? base.WithTwoLayers()
                                            : base.WithInPlace());
  kernel.SetFreePages(64);
  kernel.CreateVm(0);
  const Handle vm = kernel.CreateVm(mode == 0 ? 0 : 1);
  kernel.CreateGuestMemfd(vm, 8 * holdfast::kPageSize, mode == 1 ? 1 : 3);
  kernel.Map(0, 0, 8 * holdfast::kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED);
  for (int steps = 0; !input.empty() && steps < 200; ++steps) Step(kernel, input);
  CheckInvariants(kernel);
  return 0;
}
