// SPDX-License-Identifier: Apache-2.0
#include <linux/falloc.h>
#include <sys/mman.h>

#include <cerrno>

#include "conformance/case.h"
#include "conformance/engine_ops.h"
#include "conformance/engine_subject.h"
#include "conformance/faulty_model.h"

namespace holdfast::conformance {
namespace {

using namespace engine_ops;  // NOLINT(google-build-using-namespace): the operations' numbers

constexpr std::uint8_t kEnd = kEnginePages;

// In the order of engine_ops::Kind.
constexpr OpSpec kTable[] = {
    {"convert", 30, {kEnd + 1, kEnd + 1, 2, kOddKinds}},
    {"pin", 8, {kEnginePins, kEnd, 4}},
    {"unpin", 6, {kEnginePins}},
    {"discard", 4, {kEnd, kEnd + 1}},
    {"busy", 3, {kEnd}},
    {"idle", 3, {kEnd}},
    {"read", 10, {kEnd}},
    {"write", 10, {kEnd, 255}},
    {"peek", 6, {kEnd}},
    {"guest_read", 8, {kEnd}},
    {"guest_write", 8, {kEnd, 255}},
};
static_assert(std::size(kTable) == kGuestWrite + 1);

}  // namespace

OpTable EngineOps() {
  return kTable;
}

void ContractSubject::Reset() {
  const model::Rules rules = model::Rules::OfRelease(7, 4).WithInPlace();
  model_ = faulty_ ? std::make_unique<FaultyModel>(rules) : std::make_unique<model::Model>(rules);
  vm_ = model_->CreateVm(kvm::abi::kVmTypeSwProtected);
  file_ = model_->CreateGuestMemfd(vm_, kEnginePages * kPageSize, kSharedFlags);
  host_ = model_->Map(file_, 0, kEnginePages * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED);
  model::Region region = OnePageRegion(1, kGuestBase, file_, 0);
  region.size = kEnginePages * kPageSize;
  region.user = host_;
  model_->SetRegion(vm_, region);
  pins_.fill(std::nullopt);
  held_.fill(0);
  busy_.fill(0);
}

bool ContractSubject::IsPrivate(std::uint64_t page) const {
  return model_->AttributeOf(file_, page) == model::Attribute::kPrivate;
}

OpAnswer ContractSubject::Convert(const Op& op) {
  kvm::abi::MemoryAttributes2 request{};
  request.offset = Offset(op, 0);
  request.size = Offset(op, 1);
  request.attributes = op.arguments[2] != 0 ? kPrivateAttribute : 0;
  if (op.arguments[3] == kOddFlags) request.flags = 1;
  if (op.arguments[3] == kOddReserved) request.reserved[7] = 1;
  if (op.arguments[3] == kOddOffset) request.offset += 8;
  if (op.arguments[3] == kOddSize) request.size = ~0ULL << 12;
  std::uint64_t changes = 0;
  std::optional<std::uint64_t> held;
  if (const auto range = PagesOf(op, 0)) {
    for (std::uint64_t i = range->first; i < range->first + range->second; ++i) {
      if (IsPrivate(i) != (op.arguments[2] != 0)) ++changes;
      if (held_.at(i) > 0 && !held) held = i;
    }
  }
  // What Holdfast's own devices hold is looked at before the kernel is asked, so their page is the
  // one that is named; both are in the model, which answers for the rest.
  for (std::uint64_t i = 0; i < kEnginePages; ++i)
    if (held_.at(i) > 0) model_->PinPage(file_, i);
  const int answer = model_->SetAttributes(file_, request);
  for (std::uint64_t i = 0; i < kEnginePages; ++i)
    if (held_.at(i) > 0) model_->UnpinPage(file_, i);
  if (answer == -EAGAIN) {
    return {-EAGAIN, held && !faulty_ ? *held * kPageSize : request.error_offset, 0};
  }
  return {answer, answer == 0 ? changes : 0, 0};
}

void ContractSubject::ReleasePin(std::size_t pin) {
  auto& range = pins_.at(pin);
  if (range) {
    for (std::uint64_t i = range->first; i < range->first + range->count; ++i) --held_.at(i);
  }
  range.reset();
}

OpAnswer ContractSubject::Pin(const Op& op) {
  ReleasePin(op.arguments[0]);
  if (op.kind == kUnpin) return {};
  const auto range = PagesOf(op, 1);
  if (!range) return {};
  for (std::uint64_t i = range->first; i < range->first + range->second; ++i)
    if (IsPrivate(i)) return {-EAGAIN, 0, 0};
  for (std::uint64_t i = range->first; i < range->first + range->second; ++i) ++held_.at(i);
  pins_.at(op.arguments[0]) = Range{range->first, range->second};
  return {};
}

OpAnswer ContractSubject::Touch(const Op& op) {
  const std::uint64_t offset = Offset(op, 0);
  const model::Value value = op.arguments[1] + 1U;
  const auto keep = [&](model::Value found) { return traits_.contents_survive ? found : 0; };
  switch (op.kind) {
    case kRead:
    case kWrite: {
      if (IsPrivate(op.arguments[0])) return {-EAGAIN, 0, 0};
      const auto access =
          op.kind == kRead ? model_->Read(host_, offset) : model_->Write(host_, offset, value);
      return {0, keep(access.value), access.fault != model::Fault::kNone};
    }
    case kPeek: {
      if (!traits_.host_is_caught) return {};
      const auto access = model_->Read(host_, offset);
      return {0, keep(access.value), access.fault != model::Fault::kNone};
    }
    case kGuestRead:
      if (!traits_.contents_survive) return {};
      return {0, model_->GuestRead(vm_, kGuestBase + offset).value, 0};
    default:  // kGuestWrite
      if (traits_.contents_survive) model_->GuestWrite(vm_, kGuestBase + offset, value);
      return {};
  }
}

OpAnswer ContractSubject::Apply(const Op& op) {
  const std::uint64_t page = op.arguments[0];
  switch (op.kind) {
    case kConvert:
      return Convert(op);
    case kPin:
    case kUnpin:
      return Pin(op);
    case kDiscard: {
      const auto range = PagesOf(op, 0);
      if (!range) return {};
      for (std::uint64_t i = range->first; i < range->first + range->second; ++i) busy_.at(i) = 0;
      const int answer = model_->Fallocate(file_, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                                           static_cast<std::int64_t>(range->first * kPageSize),
                                           static_cast<std::int64_t>(range->second * kPageSize));
      return {answer, 0, 0};
    }
    case kBusy:
      if (!traits_.kernel_has_pins) return {};
      if (IsPrivate(page)) return {-EFAULT, 0, 0};
      if (busy_.at(page) < kMostBusy) {
        ++busy_.at(page);
        model_->PinPage(file_, page);
      }
      return {};
    case kIdle:
      if (busy_.at(page) > 0) {
        --busy_.at(page);
        model_->UnpinPage(file_, page);
      }
      return {};
    default:
      return Touch(op);
  }
}

}  // namespace holdfast::conformance
