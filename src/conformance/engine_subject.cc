// SPDX-License-Identifier: Apache-2.0
#include "conformance/engine_subject.h"

#include <fmt/format.h>
#include <holdfast/units.h>

#include <cerrno>
#include <cstring>

#include "conformance/engine_ops.h"
#include "memory/conversion_engines.h"

namespace holdfast::conformance {
namespace {

using namespace engine_ops;  // NOLINT(google-build-using-namespace): the operations' numbers

constexpr std::uint64_t kBlockSize = kEnginePages * kPageSize;

// Asks the kernel for a VM that the engine's memory can be in.
unsigned VmTypeFor(ConversionEngineKind kind, bool real_in_place) {
  const bool guarded = kind == ConversionEngineKind::kAttributes ||
                       (kind == ConversionEngineKind::kKernel && real_in_place);
  return guarded ? kvm::abi::kVmTypeSwProtected : kvm::abi::kVmTypeDefault;
}

// Whether this kernel converts in place itself.
bool ConvertsInPlace(const kvm::System& system) {
  auto vm = kvm::Vm::Create(system, kvm::abi::kVmTypeSwProtected);
  return vm && EngineWorks(*vm, ConversionEngineKind::kKernel);
}

}  // namespace

Result<std::unique_ptr<EngineSubject>> EngineSubject::Create(ConversionEngineKind kind) {
  std::unique_ptr<EngineSubject> subject(new EngineSubject());
  HF_TRY(subject->system_, kvm::System::Open());
  const bool real_in_place =
      kind == ConversionEngineKind::kKernel && ConvertsInPlace(*subject->system_);
  const unsigned type = VmTypeFor(kind, real_in_place);
  auto vm = kvm::Vm::Create(*subject->system_, type);
  if (!vm && type != kvm::abi::kVmTypeDefault) {
    return Fail(Errc::kUnsupported, fmt::format("the engine '{}' cannot work here", ToString(kind)),
                fmt::format("It needs {}.", EngineNeeds(kind)));
  }
  HF_TRY(subject->vm_, std::move(vm));
  const bool two_layers = kind == ConversionEngineKind::kAttributes;
  HF_TRY(subject->block_, two_layers
                              ? RamBlock::CreateTwoLayer(*subject->vm_, "ram", kBlockSize)
                              : RamBlock::CreateGuestMemfd(*subject->vm_, "ram", kBlockSize, true));
  if (kind == ConversionEngineKind::kKernel && !real_in_place) {
    subject->stand_in_ = std::make_unique<model::KernelStandIn>();
    HF_TRY_STATUS(subject->stand_in_->Register(subject->block_->fd(), kBlockSize));
  }
  HF_TRY_STATUS(subject->block_->EnableConversion(*subject->vm_, kind));
  subject->traits_.contents_survive = subject->block_->conversion()->engine().contents_survive();
  subject->traits_.host_is_caught = kind == ConversionEngineKind::kGuard || real_in_place;
  subject->traits_.kernel_has_pins = subject->stand_in_ != nullptr;
  return subject;
}

EngineSubject::~EngineSubject() = default;

void EngineSubject::Reset() {
  for (auto& pin : pins_) {
    if (pin) block_->conversion()->Unpin(pin->offset, pin->size);
    pin.reset();
  }
  for (std::uint64_t page = 0; page < kEnginePages; ++page) {
    for (; busy_.at(page) > 0; --busy_.at(page)) stand_in_->Unpin(block_->fd(), page * kPageSize);
  }
  ConversionRequest all;
  all.size = kBlockSize;
  all.to = MemoryAttribute::kShared;
  // What fails here shows in the first operation.
  const auto shared = block_->conversion()->Convert(all);
  const auto empty = block_->Discard(0, kBlockSize);
  static_cast<void>(shared);
  static_cast<void>(empty);
}

OpAnswer EngineSubject::Convert(const Op& op) {
  ConversionRequest request;
  request.offset = Offset(op, 0);
  request.size = Offset(op, 1);
  request.to = op.arguments[2] != 0 ? MemoryAttribute::kPrivate : MemoryAttribute::kShared;
  switch (op.arguments[3]) {
    case kOddFlags:
      request.flags = 1;
      break;
    case kOddReserved:
      request.reserved[7] = 1;
      break;
    case kOddOffset:
      request.offset += 8;
      break;
    case kOddSize:
      request.size = ~0ULL << 12;
      break;
    default:
      break;
  }
  const auto outcome = block_->conversion()->Convert(request);
  if (!outcome) {
    const bool refused = outcome.error().code() == Errc::kInvalidArgument;
    return {refused ? -EINVAL : -EIO, 0, 0};
  }
  if (outcome->busy_offset) return {-EAGAIN, *outcome->busy_offset, 0};
  return {0, outcome->changed_pages, 0};
}

OpAnswer EngineSubject::Pin(const Op& op) {
  auto& pin = pins_.at(op.arguments[0]);
  if (pin) block_->conversion()->Unpin(pin->offset, pin->size);
  pin.reset();
  if (op.kind == kUnpin) return {};
  const auto range = PagesOf(op, 1);
  if (!range) return {};
  if (!block_->conversion()->TryPin(range->first * kPageSize, range->second * kPageSize))
    return {-EAGAIN, 0, 0};
  pin = Range{range->first * kPageSize, range->second * kPageSize};
  return {};
}

OpAnswer EngineSubject::Touch(const Op& op) {
  const std::uint64_t offset = Offset(op, 0);
  std::byte* const host = block_->host_view().data() + offset;
  std::byte* const guest = block_->guest_view().data() + offset;
  const model::Value value = op.arguments[1] + 1U;
  const auto answer = [&](const model::HostAccess& access) {
    return OpAnswer{0, traits_.contents_survive ? access.value : 0,
                    static_cast<std::uint64_t>(access.fault != model::Fault::kNone)};
  };
  switch (op.kind) {
    case kRead:
    case kWrite: {
      // As devices do: ask first.
      if (!block_->conversion()->TryPin(offset, kPageSize)) return {-EAGAIN, 0, 0};
      const auto access =
          op.kind == kRead ? FaultGuard::Read(host) : FaultGuard::Write(host, value);
      block_->conversion()->Unpin(offset, kPageSize);
      return answer(access);
    }
    case kPeek:
      return traits_.host_is_caught ? answer(FaultGuard::Read(host)) : OpAnswer{};
    case kGuestRead:
      return traits_.contents_survive ? answer(FaultGuard::Read(guest)) : OpAnswer{};
    default:  // kGuestWrite
      return traits_.contents_survive ? answer(FaultGuard::Write(guest, value)) : OpAnswer{};
  }
}

OpAnswer EngineSubject::Apply(const Op& op) {
  switch (op.kind) {
    case kConvert:
      return Convert(op);
    case kPin:
    case kUnpin:
      return Pin(op);
    case kDiscard: {
      const auto range = PagesOf(op, 0);
      if (!range) return {};
      for (std::uint64_t i = range->first; i < range->first + range->second; ++i) {
        for (; busy_.at(i) > 0; --busy_.at(i)) stand_in_->Unpin(block_->fd(), i * kPageSize);
      }
      const auto done = block_->Discard(range->first * kPageSize, range->second * kPageSize);
      return {done ? 0 : -EIO, 0, 0};
    }
    case kBusy:
    case kIdle: {
      if (!traits_.kernel_has_pins) return {};
      const std::uint64_t page = op.arguments[0];
      if (op.kind == kIdle) {
        if (busy_.at(page) == 0) return {};
        --busy_.at(page);
        return {stand_in_->Unpin(block_->fd(), page * kPageSize) ? 0 : -EIO, 0, 0};
      }
      if (block_->conversion()->attributes().At(page) == MemoryAttribute::kPrivate)
        return {-EFAULT, 0, 0};
      if (busy_.at(page) == kMostBusy) return {};
      ++busy_.at(page);
      return {stand_in_->Pin(block_->fd(), page * kPageSize) ? 0 : -EIO, 0, 0};
    }
    default:
      return Touch(op);
  }
}

}  // namespace holdfast::conformance
