// SPDX-License-Identifier: Apache-2.0
#include "conformance/kernel_subject.h"

#include <linux/falloc.h>
#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "conformance/case.h"

namespace holdfast::conformance {
namespace {

using model::Handle;
using model::kNoHandle;

enum Kind : std::uint8_t {
  kCreate,
  kClose,
  kDuplicate,
  kAllocateOp,
  kPunchOp,
  kOddFallocate,
  kMap,
  kUnmap,
  kRead,
  kWrite,
  kAdvise,
  kPin,
  kUnpin,
  kPinned,
  kBind,
  kUnbind,
  kGuestRead,
  kGuestWrite,
  kConvert,
  kSetVmAttributes,
  kPreFault,
};

// In the order of Kind. Pages go a little beyond the ends of files.
constexpr OpSpec kTable[] = {
    {"create", 2, {3, 9, 6}},                 // file, pages, flags
    {"close", 1, {3}},                        // file
    {"dup", 1, {3, 3}},                       // from, to
    {"alloc", 8, {3, 9, 9}},                  // file, page, count
    {"punch", 10, {3, 10, 10}},               // file, page, count
    {"fallocate", 2, {3, 8, 6, 6}},           // file, mode, offset, length
    {"map", 4, {4, 3, 9, 10, 10}},            // mapping, file, page, count, how
    {"unmap", 1, {4}},                        // mapping
    {"read", 24, {4, 10}},                    // mapping, page
    {"write", 24, {4, 10, 255}},              // mapping, page, value
    {"advise", 6, {4, 10, 10, 10}},           // mapping, page, count, advice
    {"pin", 3, {4, 4, 10}},                   // pin, mapping, page
    {"unpin", 2, {4}},                        // pin
    {"pinned", 2, {4}},                       // pin
    {"bind", 2, {4, 8, 3, 9, 9, 6}, true},    // slot, guest page, file, page, count, mapping
    {"unbind", 1, {4}, true},                 // slot
    {"guest_read", 12, {10}, true},           // guest page
    {"guest_write", 12, {10, 255}, true},     // guest page, value
    {"convert", 6, {3, 9, 10, 2, 12}},        // file, page, count, private, what is wrong
    {"set_vm_attributes", 2, {10, 9, 2, 8}},  // guest page, count, private, what is wrong
    {"pre_fault", 2, {10, 9, 8}, true},       // guest page, count, what is wrong
};
static_assert(std::size(kTable) == kPreFault + 1);

std::uint64_t Pages(std::uint8_t count) {
  return std::uint64_t{count} * kPageSize;
}

OpAnswer Code(std::int64_t code) {
  return {code, 0, 0};
}

// A handle is a number of its own on each side.
OpAnswer OfHandle(Handle handle) {
  return Code(std::min(handle, 0));
}

OpAnswer Of(const model::HostAccess& access) {
  return {0, access.value, static_cast<std::uint64_t>(access.fault)};
}

OpAnswer Of(const model::GuestAccess& access) {
  return {-access.error, access.value,
          access.gpa << 8 | access.flags << 4 | static_cast<std::uint64_t>(access.end)};
}

}  // namespace

OpTable KernelOps() {
  return kTable;
}

Sequence KernelStart() {
  return {{kCreate, {0, 6, 3}}, {kMap, {0, 0, 0, 6, 0}}, {kBind, {0, 0, 0, 0, 6, 0}}};
}

KernelSubject::KernelSubject(std::function<model::Kernel*()> renew) : renew_(std::move(renew)) {}

void KernelSubject::Reset() {
  kernel_ = renew_();
  // Two layers are left to the cases: VMs are used again, and what their guests' page tables know
  // of addresses without memory outlives attributes and slots.
  const bool in_place = kernel_->rules().in_place;
  vm_ = kernel_->CreateVm(in_place ? kvm::abi::kVmTypeSwProtected : kvm::abi::kVmTypeDefault);
  files_.fill(kNoHandle);
  mappings_.fill({});
  pins_.fill(kNoHandle);
}

OpAnswer KernelSubject::Apply(const Op& op) {
  switch (op.kind) {
    case kCreate:
    case kClose:
    case kDuplicate:
    case kAllocateOp:
    case kPunchOp:
    case kOddFallocate:
      return OfFile(op);
    case kBind:
    case kUnbind:
    case kGuestRead:
    case kGuestWrite:
    case kPreFault:
      return OfGuest(op);
    case kConvert:
    case kSetVmAttributes:
      return OfAttributes(op);
    default:
      return OfMapping(op);
  }
}

// ---- Files
// ----------------------------------------------------------------------------------------

OpAnswer KernelSubject::Create(const Op& op) {
  constexpr std::uint64_t kFlags[] = {0, kMmapFlag, kSharedFlags, kSharedFlags, kSharedFlags, 4};
  Handle& place = FileAt(op, 0);
  if (place >= 0) kernel_->Close(place);
  place = kernel_->CreateGuestMemfd(vm_, Pages(op.arguments[1]), kFlags[op.arguments[2]]);
  return OfHandle(place);
}

OpAnswer KernelSubject::OddFallocate(const Op& op) {
  constexpr int kModes[] = {0,
                            FALLOC_FL_KEEP_SIZE,
                            FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                            FALLOC_FL_PUNCH_HOLE,
                            FALLOC_FL_ZERO_RANGE,
                            FALLOC_FL_COLLAPSE_RANGE,
                            FALLOC_FL_KEEP_SIZE | FALLOC_FL_INSERT_RANGE,
                            FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE};
  constexpr std::int64_t kNumbers[] = {0, 1, 4096, 8192, -4096, INT64_MAX & ~4095};
  return Code(kernel_->Fallocate(FileAt(op, 0), kModes[op.arguments[1]], kNumbers[op.arguments[2]],
                                 kNumbers[op.arguments[3]]));
}

OpAnswer KernelSubject::OfFile(const Op& op) {
  const auto fallocate = [&](int mode) {
    return Code(kernel_->Fallocate(FileAt(op, 0), mode,
                                   static_cast<std::int64_t>(Pages(op.arguments[1])),
                                   static_cast<std::int64_t>(Pages(op.arguments[2]))));
  };
  switch (op.kind) {
    case kCreate:
      return Create(op);
    case kClose:
      return Code(kernel_->Close(std::exchange(FileAt(op, 0), kNoHandle)));
    case kDuplicate: {
      const Handle copy = kernel_->Duplicate(FileAt(op, 0));
      Handle& place = FileAt(op, 1);
      if (place >= 0) kernel_->Close(place);
      place = copy;
      return OfHandle(copy);
    }
    case kAllocateOp:
      return fallocate(FALLOC_FL_KEEP_SIZE);
    case kPunchOp:
      return fallocate(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE);
    default:
      return OddFallocate(op);
  }
}

// ---- The host's view
// --------------------------------------------------------------------------------

OpAnswer KernelSubject::Map(const Op& op) {
  constexpr std::pair<int, int> kWays[] = {
      {PROT_READ | PROT_WRITE, MAP_SHARED},
      {PROT_READ | PROT_WRITE, MAP_SHARED},
      {PROT_READ | PROT_WRITE, MAP_SHARED},
      {PROT_READ | PROT_WRITE, MAP_SHARED},
      {PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE},
      {PROT_READ, MAP_SHARED},
      {PROT_READ, MAP_SHARED},
      {PROT_READ | PROT_WRITE, MAP_PRIVATE},
      {PROT_READ | PROT_EXEC, MAP_SHARED},
      {PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC},
  };
  View& view = mappings_.at(op.arguments[0]);
  if (view.handle >= 0) kernel_->Unmap(view.handle);
  const auto& [protection, flags] = kWays[op.arguments[4]];
  const Handle handle = kernel_->Map(FileAt(op, 1), Pages(op.arguments[2]), Pages(op.arguments[3]),
                                     protection, flags);
  view = handle >= 0 ? View{handle, op.arguments[3]} : View{};
  return OfHandle(handle);
}

OpAnswer KernelSubject::Advise(const Op& op) {
  constexpr int kAdvice[] = {MADV_DONTNEED,
                             MADV_REMOVE,
                             MADV_POPULATE_READ,
                             MADV_POPULATE_WRITE,
                             model::kAdviceGuardInstall,
                             model::kAdviceGuardInstall,
                             model::kAdviceGuardRemove,
                             MADV_COLD,
                             MADV_PAGEOUT,
                             MADV_FREE};
  const View& view = mappings_.at(op.arguments[0]);
  // What lies beside a mapping is somebody else's.
  if (op.arguments[1] >= view.pages) return {};
  const std::uint64_t most = view.pages - op.arguments[1];
  const std::uint64_t count = std::min<std::uint64_t>(op.arguments[2], most);
  return Code(kernel_->Advise(view.handle, Pages(op.arguments[1]), count * kPageSize,
                              kAdvice[op.arguments[3]]));
}

OpAnswer KernelSubject::OfMapping(const Op& op) {
  View& view = mappings_.at(op.kind == kPin ? op.arguments[1] : op.arguments[0]);
  switch (op.kind) {
    case kMap:
      return Map(op);
    case kUnmap:
      return Code(kernel_->Unmap(std::exchange(view, {}).handle));
    case kRead:
      if (op.arguments[1] >= view.pages) return {};
      return Of(kernel_->Read(view.handle, Pages(op.arguments[1])));
    case kWrite:
      if (op.arguments[1] >= view.pages) return {};
      return Of(kernel_->Write(view.handle, Pages(op.arguments[1]), op.arguments[2] + 1U));
    case kAdvise:
      return Advise(op);
    case kPin: {
      if (op.arguments[2] >= view.pages) return {};
      Handle& pin = pins_.at(op.arguments[0]);
      if (pin >= 0) kernel_->Unpin(pin);
      pin = kernel_->Pin(view.handle, Pages(op.arguments[2]));
      return OfHandle(pin);
    }
    case kUnpin:
      kernel_->Unpin(std::exchange(pins_.at(op.arguments[0]), kNoHandle));
      return {};
    default:  // kPinned
      return {0, kernel_->PinnedValue(pins_.at(op.arguments[0])), 0};
  }
}

// ---- The guest's view
// -------------------------------------------------------------------------------

OpAnswer KernelSubject::Bind(const Op& op) {
  model::Region region = OnePageRegion(op.arguments[0] + 1U, kGuestBase + Pages(op.arguments[1]),
                                       FileAt(op, 2), Pages(op.arguments[3]));
  region.size = Pages(op.arguments[4]);
  if (region.size == 0) region.flags = 0;
  // A guest must not get at what lies beside the mapping.
  if (op.arguments[5] < mappings_.size()) {
    const View& view = mappings_.at(op.arguments[5]);
    if (op.arguments[4] <= view.pages) region.user = view.handle;
  }
  return Code(kernel_->SetRegion(vm_, region));
}

OpAnswer KernelSubject::OfGuest(const Op& op) {
  const std::uint64_t gpa = kGuestBase + Pages(op.arguments[0]);
  switch (op.kind) {
    case kBind:
      return Bind(op);
    case kUnbind: {
      model::Region region;
      region.slot = op.arguments[0] + 1U;
      return Code(kernel_->SetRegion(vm_, region));
    }
    case kGuestRead:
      return Of(kernel_->GuestRead(vm_, gpa));
    case kGuestWrite:
      return Of(kernel_->GuestWrite(vm_, gpa, op.arguments[1] + 1U));
    default: {  // kPreFault
      if (!kernel_->rules().pre_fault) return {};
      const std::uint64_t size = Pages(op.arguments[1]) + (op.arguments[2] == 7 ? 8 : 0);
      const model::PreFaulted done =
          kernel_->PreFault(vm_, gpa, size, op.arguments[2] == 6 ? 1 : 0);
      return {done.result, done.left, 0};
    }
  }
}

OpAnswer KernelSubject::OfAttributes(const Op& op) {
  const auto& a = op.arguments;
  if (op.kind == kSetVmAttributes) {
    kvm::abi::MemoryAttributes request{kGuestBase + Pages(a[0]), Pages(a[1]),
                                       a[2] != 0 ? kPrivateAttribute : 0, 0};
    if (a[3] == 5) request.flags = 1;
    if (a[3] == 6) request.attributes |= 1;
    if (a[3] == 7) request.address += 8;
    return Code(kernel_->SetVmAttributes(vm_, request));
  }
  kvm::abi::MemoryAttributes2 request{};
  request.offset = Pages(a[1]);
  request.size = Pages(a[2]);
  request.attributes = a[3] != 0 ? kPrivateAttribute : 0;
  if (a[4] == 7) request.flags = 1;
  if (a[4] == 8) request.reserved[9] = 1;
  if (a[4] == 9) request.attributes |= 1;
  if (a[4] == 10) request.offset += 8;
  if (a[4] == 11) request.size = ~0ULL << 12;
  request.error_offset = ~0ULL;
  int answer = 0;
  // The kernel may hold a page for a moment itself; a pin of ours is there on every try.
  for (int tries = 0; tries < 4; ++tries) {
    answer = kernel_->SetAttributes(FileAt(op, 0), request);
    if (answer != -EAGAIN) break;
  }
  return {answer, request.error_offset, 0};
}

}  // namespace holdfast::conformance
