// SPDX-License-Identifier: Apache-2.0
// The connections of Incoming: how they come, and the threads that read them.
#include <fmt/format.h>
#include <holdfast/ram_block.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "migration/incoming.h"
#include "migration/patience.h"

namespace holdfast::migration {

using std::chrono::milliseconds;

// ---- On the migration's thread ------------------------------------------------------------------

// Waits for a connection of the other side, and lets those go that are somebody else's.
Result<Incoming::Connection*> Incoming::Next(milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (true) {
    HF_TRY_STATUS(WhyNoConnection());
    if (connection_ == nullptr) TakeListener();
    const auto left =
        std::chrono::duration_cast<milliseconds>(until - std::chrono::steady_clock::now());
    if (left <= milliseconds::zero()) {
      return Fail(Error(Errc::kSystem,
                        "the other side of the migration did not open all of its connections", {},
                        ETIMEDOUT));
    }
    constexpr milliseconds kLongest{60'000};
    // A source that has gone opens no more connections.
    const int main = connection_ == nullptr ? -1 : connection_->channel->fd();
    pollfd waits[] = {{listener_->fd(), POLLIN, 0}, {wake_.get(), POLLIN, 0}, {main, POLLRDHUP, 0}};
    const auto longest = static_cast<int>(std::min(left, kLongest).count());
    if (::poll(waits, std::size(waits), longest) < 0 && errno != EINTR)
      return FailErrno("waiting for a migration");
    if (waits[2].revents != 0) {
      return Fail(Error(Errc::kSystem,
                        fmt::format("{}: the other side closed the connection before all others "
                                    "were open",
                                    connection_->channel->peer()),
                        {}, EPIPE));
    }
    eventfd_t count = 0;
    if (waits[1].revents != 0) (void)::eventfd_read(wake_.get(), &count);
    if ((waits[0].revents & (POLLIN | POLLERR | POLLHUP)) == 0) continue;
    const Address& address = listener_->address();
    HF_TRY(auto channel, listener_->Accept());
    if (channel == nullptr) continue;
    auto greeted = Greet(std::move(channel));
    if (greeted) return *greeted;
    const bool more =
        std::holds_alternative<TcpAddress>(address) || std::holds_alternative<UnixAddress>(address);
    // Whoever waits in post-copy may be given another address.
    if (!more && !runs_) return Fail(std::move(greeted).error());
    log::Warn(fmt::format("a connection to {} was let go: {}", Describe(address),
                          greeted.error().ToString()));
  }
}

// Why nobody has to connect any more.
Status Incoming::WhyNoConnection() const {
  if (stop_.stop_requested()) return Fail(MonitorEnds());
  const MutexLock lock(mutex_);
  if (error_) return Fail(*error_);
  if (complete_ && connection_ == nullptr)
    return Fail(Errc::kInvalidArgument, "all memory is there");
  return {};
}

void Incoming::TakeListener() {
  const MutexLock lock(mutex_);
  if (next_listener_ != nullptr) listener_ = std::move(next_listener_);
}

// Whether a connection is the one that is waited for.
bool Incoming::Fits(const Hello& hello) const {
  if (connection_ == nullptr && !runs_) return hello.kind == ChannelKind::kMain;
  if (hello.id != id_) return false;
  if (connection_ == nullptr) return hello.kind == ChannelKind::kRecover;
  if (hello.kind == ChannelKind::kPages) return !runs_;
  // One of a recovery that came to nothing may still be on its way.
  return hello.kind == ChannelKind::kUrgent && hello.index == connection_->hello.index;
}

Result<Incoming::Connection*> Incoming::Greet(std::unique_ptr<Channel> channel) {
  if (request_.tls != nullptr) {
    TlsOptions tls;
    tls.credentials = request_.tls;
    tls.timeout = kGreeting;
    HF_TRY(channel, WrapTls(std::move(channel), tls, stop_.get_token()));
  }
  channel->SetStallTimeout(kGreeting);
  HF_TRY(const bool there, channel->WaitReadable(kGreeting));
  if (!there) return Fail(Error(Errc::kSystem, "it says nothing", {}, ETIMEDOUT));
  std::array<std::byte, Hello::kSize> bytes;
  HF_TRY_STATUS(channel->ReadAll(bytes));
  HF_TRY(const Hello hello, DecodeHello(bytes));
  if (!Fits(hello)) return Fail(Errc::kMalformed, "it is of another migration");
  channel->SetStallTimeout(kStall);
  auto connection = std::make_shared<Connection>(std::move(channel));
  connection->hello = hello;
  const MutexLock lock(mutex_);
  connections_.push_back(std::move(connection));
  if (error_) connections_.back()->channel->Shutdown();
  return connections_.back().get();
}

Status Incoming::OpenChannels() {
  barrier_ = std::make_unique<PassBarrier>(config_.page_channels + 1);
  std::vector<bool> there(config_.page_channels);
  for (std::uint32_t i = 0; i < config_.page_channels; ++i) {
    HF_TRY(Connection* const connection, Next(kPatience));
    const Hello& hello = connection->hello;
    if (hello.kind != ChannelKind::kPages || hello.index >= there.size() || there[hello.index])
      return Fail(Errc::kMalformed, "the other side of the migration opened a connection twice");
    there[hello.index] = true;
    HF_TRY_STATUS(StartThread(&Incoming::TakePasses, *connection));
  }
  if (!config_.urgent_channel) return {};
  HF_TRY(urgent_, Next(kPatience));
  if (urgent_->hello.kind == ChannelKind::kUrgent) return {};
  return Fail(Errc::kMalformed, "the other side of the migration opened no urgent connection");
}

Status Incoming::StartThread(void (Incoming::*work)(Connection&), Connection& connection) {
  try {
    threads_.emplace_back([this, work, &connection] { (this->*work)(connection); });
  } catch (const std::system_error& error) {
    return Fail(Error::FromErrno("a thread for the migration", error.code().value()));
  }
  return {};
}

void Incoming::EndThreads() {
  ShutChannels();
  if (barrier_ != nullptr) barrier_->Cancel();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

// ---- On the connections' threads ----------------------------------------------------------------

Status Incoming::TakePage(Connection& connection, PageReceiver& receiver,
                          const FrameHeader& header) {
  const auto blocks = std::as_const(missing_).blocks();
  const auto place = [&](const PagesHead& head, std::uint64_t offset) {
    return blocks[head.block].block->host_view().subspan(offset, kPageSize);
  };
  const auto zero = [&](const PagesHead& head, std::uint64_t offset) -> Status {
    // A hole is no memory; what cannot have one is filled.
    const RamBlock& block = *blocks[head.block].block;
    if (!block.Discard(offset, kPageSize))
      std::ranges::fill(block.host_view().subspan(offset, kPageSize), std::byte{0});
    return {};
  };
  HF_TRY(const PagesHead head, receiver.Receive(connection.reader, header, place, zero));
  return head.request == 0 ? Status() : Fail(Unexpected(FrameType::kPages));
}

void Incoming::TakePasses(Connection& connection) {
  PageReceiver receiver(block_sizes_);
  const auto take = [&]() -> Status {
    HF_TRY(const FrameHeader header, connection.reader.Next(kNoLimit));
    if (memory_sent_) return Fail(Unexpected(header.type));
    if (header.type == FrameType::kPages) return TakePage(connection, receiver, header);
    if (header.type != FrameType::kPassEnd) return Fail(Unexpected(header.type));
    HF_TRY(const auto bytes, connection.reader.Payload());
    HF_TRY(const std::uint64_t pass, DecodeNumber(bytes));
    return barrier_->Arrive(pass);
  };
  Status status;
  while (status) status = take();
  barrier_->Cancel();
  Failed(status.error());
}

Status Incoming::TakeAnswer(Connection& connection, PageReceiver& receiver) {
  if (peer_ != nullptr) {
    HF_TRY(const bool there, connection.channel->WaitReadable(kStall));
    if (!there && !peer_->Stalled(kStall)) return {};
    if (!there) {
      return Fail(Error(
          Errc::kSystem,
          fmt::format("{} has not answered for {} s", connection.channel->peer(), kStall.count()),
          {}, ETIMEDOUT));
    }
  }
  HF_TRY(const FrameHeader header, connection.reader.Next(kNoLimit));
  switch (header.type) {
    case FrameType::kPages: {
      if (peer_ == nullptr) return Fail(Unexpected(header.type));
      const auto place = [&](const PagesHead& head, std::uint64_t offset) {
        return peer_->Place(&connection, head, offset);
      };
      const auto zero = [](const PagesHead&, std::uint64_t) { return Status(); };
      HF_TRY(const PagesHead head, receiver.Receive(connection.reader, header, place, zero));
      return peer_->Arrived(&connection, head, receiver.words());
    }
    case FrameType::kActivate:
    case FrameType::kRun: {
      HF_TRY_STATUS(connection.reader.End());
      const MutexLock lock(mutex_);
      constexpr std::size_t kMost = 4;
      if (&connection != connection_ || controls_.size() == kMost)
        return Fail(Unexpected(header.type));
      controls_.push_back(header.type);
      changed_.notify_all();
      return {};
    }
    default:
      return Fail(Unexpected(header.type));
  }
}

void Incoming::TakeAnswers(Connection& connection) {
  PageReceiver receiver(block_sizes_);
  Status status;
  while (status) status = TakeAnswer(connection, receiver);
  Failed(status.error());
}

}  // namespace holdfast::migration
