// SPDX-License-Identifier: Apache-2.0
#include "devices/block/raw_device.h"

#include <fmt/format.h>

#include <cerrno>
#include <utility>

namespace holdfast::devices::block {
namespace {

// Shifts what goes through it.
class ShiftingSubmitter final : public BlockDevice::Submitter {
 public:
  ShiftingSubmitter(std::unique_ptr<BlockDevice::Submitter> below, std::uint64_t offset)
      : below_(std::move(below)), offset_(offset) {
    below_->set_batch_end([this] { EndBatch(); });
  }
  void Submit(Request request) override {
    request.offset += offset_;  // within the child: the user has checked against size()
    below_->Submit(std::move(request));
  }
  void Kick() override { below_->Kick(); }
  void Drain() override { below_->Drain(); }

 private:
  std::unique_ptr<BlockDevice::Submitter> below_;
  const std::uint64_t offset_;
};

}  // namespace

Result<std::unique_ptr<RawDevice>> RawDevice::Create(std::string id, BlockDevice& child,
                                                     std::uint64_t offset,
                                                     std::optional<std::uint64_t> size,
                                                     bool readonly) {
  const std::uint64_t whole = child.size();
  if (offset > whole) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Offset ({}) cannot be greater than size of the containing file ({})",
                            offset, whole));
  }
  if (size && *size > whole - offset) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("The sum of offset ({}) and size ({}) has to be smaller or equal to "
                            "the actual size of the containing file ({})",
                            offset, *size, whole));
  }
  return std::unique_ptr<RawDevice>(new RawDevice(std::move(id), child, offset, size, readonly));
}

std::uint64_t RawDevice::size() const noexcept {
  if (size_) return *size_;
  const std::uint64_t whole = child_.size();
  return whole > offset_ ? whole - offset_ : 0;
}

bool RawDevice::supports(Operation operation) const noexcept {
  const bool changes = operation != Operation::kRead && operation != Operation::kFlush;
  return !(changes && readonly_) && child_.supports(operation);
}

NodeInfo RawDevice::info() const {
  NodeInfo info = child_.info();
  info.driver = "raw";
  info.child = child_.id();
  return info;
}

Status RawDevice::Resize(std::uint64_t bytes) {
  if (size_) {
    return Fail(Errc::kUnsupported, "Cannot resize fixed-size raw disks",
                "The node was made with size=.");
  }
  if (bytes > UINT64_MAX - offset_) {
    return Fail(Errc::kInvalidArgument, "Sum of offset and size is too large");
  }
  return child_.Resize(bytes + offset_);
}

Result<std::unique_ptr<BlockDevice::Submitter>> RawDevice::MakeSubmitter(EventLoop& loop) {
  HF_TRY(auto below, child_.MakeSubmitter(loop));
  if (offset_ == 0) return Result<std::unique_ptr<Submitter>>(std::move(below));
  return Result<std::unique_ptr<Submitter>>(
      std::make_unique<ShiftingSubmitter>(std::move(below), offset_));
}

}  // namespace holdfast::devices::block
