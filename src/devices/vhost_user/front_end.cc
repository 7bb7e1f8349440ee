// SPDX-License-Identifier: Apache-2.0
#include "devices/vhost_user/front_end.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include <holdfast/conversion.h>
#include <holdfast/ram_block.h>

namespace holdfast::devices::vhost_user {
namespace {

// Rings are named by addresses "of the front end". Which ones is the front end's business, as long
// as the memory table has them too: these say nothing about where things lie in this process.
constexpr std::uint64_t kUserBase = 1ULL << 44;

template <typename T>
std::span<const std::byte> BytesOf(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

Error Unexpected(std::string_view what) {
  return Error(Errc::kMalformed, fmt::format("the vhost-user back end {}", what));
}

}  // namespace

Status CheckMemory(const AddressSpace& memory) {
  for (const AddressSpace::Region& region : memory.regions()) {
    const RamBlock& block = *region.block;
    if (block.conversion() != nullptr) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("vhost-user hands guest memory to another process, and pages of '{}' "
                              "may become private",
                              block.id()),
                  "Leave out the vhost-user device or netdev, or what makes the memory "
                  "convertible.");
    }
    if (block.fd() >= 0 && block.shared()) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("vhost-user needs guest memory that another process can map, and that "
                            "of '{}' is private to this one",
                            block.id()),
                "Give the memory backend share=on, or leave the choice to -m: guest_memfd can be "
                "shared.");
  }
  if (memory.regions().size() > kMaxRegions) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("vhost-user can share {} pieces of memory, and the guest's has {}",
                            kMaxRegions, memory.regions().size()),
                "Give the guest fewer memory backends.");
  }
  return {};
}

Result<std::unique_ptr<FrontEnd>> FrontEnd::Connect(UniqueFd socket, const Options& options) {
  std::unique_ptr<FrontEnd> front(new FrontEnd(std::move(socket), options));
  HF_TRY_STATUS(front->Greet(options.protocol_features));
  return front;
}

Status FrontEnd::Greet(std::uint64_t wanted) {
  HF_TRY(features_, AskNumber(Request::kGetFeatures));
  if ((features_ & kFeatureProtocol) != 0) {
    HF_TRY(const std::uint64_t offered, AskNumber(Request::kGetProtocolFeatures));
    protocol_ = offered & wanted;
    // Without a channel for it a back end has no way to say that its configuration changed.
    HF_TRY_STATUS(Tell(Request::kSetProtocolFeatures, protocol_));
  }
  HF_TRY_STATUS(channel_.Send(static_cast<std::uint32_t>(Request::kSetOwner), {}));
  if (has(kProtocolMq)) {
    HF_TRY(max_queues_, AskNumber(Request::kGetQueueNum));
  }
  return has(kProtocolBackendReq) ? MakeBackendChannel() : Status{};
}

Status FrontEnd::MakeBackendChannel() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return FailErrno("socketpair");
  }
  backend_.emplace(UniqueFd(ends[0]), patience_);
  const UniqueFd theirs(ends[1]);
  const std::array<int, 1> fds = {theirs.get()};
  return TellAndCheck(Request::kSetBackendReqFd, {}, fds);
}

template <typename T>
Status FrontEnd::Tell(Request request, const T& payload, std::span<const int> fds) {
  return channel_.Send(static_cast<std::uint32_t>(request), BytesOf(payload), fds);
}

Status FrontEnd::TellAndCheck(Request request, std::span<const std::byte> payload,
                              std::span<const int> fds) {
  const bool answers = has(kProtocolReplyAck);
  HF_TRY_STATUS(channel_.Send(static_cast<std::uint32_t>(request), payload, fds,
                              answers ? kFlagNeedReply : 0));
  if (!answers) return {};
  HF_TRY(const Message reply, ReceiveReply(request));
  std::uint64_t failed = 0;
  if (reply.payload.size() != sizeof failed) return Fail(Unexpected("acknowledges at length"));
  std::memcpy(&failed, reply.payload.data(), sizeof failed);
  if (failed == 0) return {};
  return Fail(Errc::kSystem, fmt::format("the vhost-user back end refuses request {}",
                                         static_cast<std::uint32_t>(request)));
}

Result<Message> FrontEnd::ReceiveReply(Request request) {
  HF_TRY(Message reply, channel_.Receive());
  if (reply.header.request != static_cast<std::uint32_t>(request) ||
      (reply.header.flags & kFlagReply) == 0) {
    return Fail(Unexpected(fmt::format("answers {} to request {}", reply.header.request,
                                       static_cast<std::uint32_t>(request))));
  }
  return reply;
}

Result<Message> FrontEnd::Ask(Request request, std::span<const std::byte> payload) {
  HF_TRY_STATUS(channel_.Send(static_cast<std::uint32_t>(request), payload));
  return ReceiveReply(request);
}

Result<std::uint64_t> FrontEnd::AskNumber(Request request) {
  HF_TRY(const Message reply, Ask(request, {}));
  std::uint64_t number = 0;
  if (reply.payload.size() != sizeof number) {
    return Fail(Unexpected(fmt::format("answers request {} with {} bytes",
                                       static_cast<std::uint32_t>(request), reply.payload.size())));
  }
  std::memcpy(&number, reply.payload.data(), sizeof number);
  return number;
}

Result<std::vector<std::byte>> FrontEnd::GetConfig(std::uint32_t size) {
  const ConfigHead head{.offset = 0, .size = size, .flags = 0};
  std::vector<std::byte> payload(sizeof head + size);
  std::memcpy(payload.data(), &head, sizeof head);
  HF_TRY(const Message reply, Ask(Request::kGetConfig, payload));
  ConfigHead answered;
  if (reply.payload.size() < sizeof answered) return Fail(Unexpected("gives no configuration"));
  std::memcpy(&answered, reply.payload.data(), sizeof answered);
  if (answered.size != size || reply.payload.size() != payload.size()) {
    return Fail(Unexpected(fmt::format("gives {} bytes of its configuration instead of {}",
                                       reply.payload.size() - sizeof answered, size)));
  }
  return std::vector<std::byte>(reply.payload.begin() + sizeof answered, reply.payload.end());
}

Status FrontEnd::SetConfig(std::uint32_t offset, std::span<const std::byte> data) {
  const ConfigHead head{
      .offset = offset, .size = static_cast<std::uint32_t>(data.size()), .flags = 0};
  std::vector<std::byte> payload(sizeof head + data.size());
  std::memcpy(payload.data(), &head, sizeof head);
  std::ranges::copy(data, payload.begin() + sizeof head);
  return TellAndCheck(Request::kSetConfig, payload);
}

Status FrontEnd::SetFeatures(std::uint64_t features) {
  return Tell(Request::kSetFeatures, features | (features_ & kFeatureProtocol));
}

Status FrontEnd::SetMemory(const AddressSpace& memory) {
  HF_TRY_STATUS(CheckMemory(memory));
  const MemoryTableHead head{.regions = static_cast<std::uint32_t>(memory.regions().size()),
                             .padding = 0};
  std::vector<std::byte> payload(BytesOf(head).begin(), BytesOf(head).end());
  std::vector<int> fds;
  for (const AddressSpace::Region& region : memory.regions()) {
    const MemoryRegion entry{.guest_address = region.base.value(),
                             .size = region.size,
                             .user_address = kUserBase + region.base.value(),
                             .mmap_offset = region.block->fd_offset() + region.block_offset};
    const auto bytes = BytesOf(entry);
    payload.insert(payload.end(), bytes.begin(), bytes.end());
    fds.push_back(region.block->fd());
  }
  HF_TRY(access_, memory.GrantExternalAccess("a vhost-user back end"));
  return TellAndCheck(Request::kSetMemTable, payload, fds);
}

Result<Inflight> FrontEnd::GetInflight(std::uint16_t queues, std::uint16_t queue_size) {
  const InflightLayout wanted{
      .mmap_size = 0, .mmap_offset = 0, .queues = queues, .queue_size = queue_size, .padding = 0};
  HF_TRY(Message reply, Ask(Request::kGetInflightFd, BytesOf(wanted).first(kInflightSize)));
  if (reply.fds.size() != 1 || reply.payload.size() < kInflightSize) {
    return Fail(Unexpected("gives no memory for requests in flight"));
  }
  Inflight inflight{.fd = std::move(reply.fds.front()), .layout = wanted};
  std::memcpy(static_cast<void*>(&inflight.layout), reply.payload.data(), kInflightSize);
  // What it says about its own memory is for its successor; the queues are ours to say.
  inflight.layout.queues = queues;
  inflight.layout.queue_size = queue_size;
  return inflight;
}

Status FrontEnd::SetInflight(const Inflight& inflight) {
  const std::array<int, 1> fds = {inflight.fd.get()};
  return TellAndCheck(Request::kSetInflightFd, BytesOf(inflight.layout).first(kInflightSize), fds);
}

Status FrontEnd::StartQueue(std::uint32_t index, const virtio::QueueLayout& layout,
                            std::uint32_t base, int kick_fd, int call_fd, bool enable) {
  HF_TRY_STATUS(Tell(Request::kSetVringNum, VringState{index, layout.size}));
  HF_TRY_STATUS(Tell(Request::kSetVringBase, VringState{index, base}));
  HF_TRY_STATUS(Tell(Request::kSetVringAddr,
                     VringAddress{.index = index,
                                  .flags = 0,
                                  .descriptors = kUserBase + layout.descriptors.value(),
                                  .used = kUserBase + layout.device_area.value(),
                                  .available = kUserBase + layout.driver_area.value(),
                                  .log = 0}));
  const std::array<int, 1> call = {call_fd};
  HF_TRY_STATUS(Tell(Request::kSetVringCall, std::uint64_t{index}, call));
  const std::array<int, 1> kick = {kick_fd};
  HF_TRY_STATUS(Tell(Request::kSetVringKick, std::uint64_t{index}, kick));
  return enable ? EnableQueue(index, true) : Status{};
}

Status FrontEnd::EnableQueue(std::uint32_t index, bool enable) {
  if ((features_ & kFeatureProtocol) == 0) return {};  // enabled from the start
  const VringState state{index, enable ? 1U : 0U};
  return TellAndCheck(Request::kSetVringEnable, BytesOf(state));
}

Result<std::uint32_t> FrontEnd::StopQueue(std::uint32_t index) {
  HF_TRY_STATUS(EnableQueue(index, false));
  VringState state{index, 0};
  HF_TRY(const Message reply, Ask(Request::kGetVringBase, BytesOf(state)));
  if (reply.payload.size() != sizeof state) return Fail(Unexpected("stops a queue at no place"));
  std::memcpy(&state, reply.payload.data(), sizeof state);
  return state.value;
}

Status FrontEnd::SetStatus(std::uint8_t status) {
  if (!has(kProtocolStatus)) return {};
  return Tell(Request::kSetStatus, std::uint64_t{status});
}

Status FrontEnd::ResetDevice() {
  if (!has(kProtocolResetDevice)) return {};
  return channel_.Send(static_cast<std::uint32_t>(Request::kResetDevice), {});
}

Status FrontEnd::SetMtu(std::uint16_t mtu) {
  if (!has(kProtocolNetMtu)) return {};
  const std::uint64_t value = mtu;
  return TellAndCheck(Request::kNetSetMtu, BytesOf(value));
}

Status FrontEnd::SendRarp(std::span<const std::uint8_t, 6> mac) {
  std::uint64_t value = 0;
  std::memcpy(&value, mac.data(), mac.size());
  return TellAndCheck(Request::kSendRarp, BytesOf(value));
}

Result<bool> FrontEnd::ServeBackend() {
  HF_TRY(const Message message, backend_->Receive());
  const bool known =
      message.header.request == static_cast<std::uint32_t>(BackendRequest::kConfigChange);
  if ((message.header.flags & kFlagNeedReply) != 0) {
    const std::uint64_t failed = known ? 0 : 1;
    HF_TRY_STATUS(backend_->Send(message.header.request, BytesOf(failed), {}, kFlagReply));
  }
  return known;
}

}  // namespace holdfast::devices::vhost_user
