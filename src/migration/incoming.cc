// SPDX-License-Identifier: Apache-2.0
#include "migration/incoming.h"

#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/log.h"

namespace holdfast::migration {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kGreeting{10};
// For a source that has something to do first, and for one that only has to say so: the guest's
// disks are held for nobody meanwhile.
constexpr seconds kPatience{60};
constexpr seconds kHandOver{20};
constexpr seconds kStall{30};
constexpr std::chrono::hours kNoLimit{24 * 365};

Error Broken() {
  return {Errc::kInvalidArgument, "the monitor ends"};
}

}  // namespace

Incoming::Incoming(const Subject& subject, Request request, Events events,
                   std::unique_ptr<Listener> listener, UniqueFd wake)
    : subject_(subject),
      request_(std::move(request)),
      events_(std::move(events)),
      main_(subject.loop),
      wake_(std::move(wake)),
      listener_(std::move(listener)),
      address_(listener_->address()),
      missing_(subject.memory) {
  for (const auto& entry : missing_.blocks()) block_sizes_.push_back(entry.block->size());
}

Result<std::unique_ptr<Incoming>> Incoming::Start(const Subject& subject, const Address& from,
                                                  Request request, Events events) {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return FailErrno("creating an eventfd");
  HF_TRY(auto listener, Listener::Listen(from, request.services));
  std::unique_ptr<Incoming> incoming(new Incoming(subject, std::move(request), std::move(events),
                                                  std::move(listener), std::move(wake)));
  try {
    incoming->thread_ = std::thread([raw = incoming.get()] {
      Status status = raw->Work();
      raw->main_.Post([raw, status = std::move(status)] { raw->Finished(status); });
    });
  } catch (const std::system_error& error) {
    return Fail(Error::FromErrno("a thread for the migration", error.code().value()));
  }
  return incoming;
}

Incoming::~Incoming() {
  if (!thread_.joinable()) return;
  (void)stop_.request_stop();
  (void)::eventfd_write(wake_.get(), 1);
  Failed(Broken());
  main_.Close();
  thread_.join();
}

MigrationInfo Incoming::info() const {
  MigrationInfo info{.status = status_, .incoming = true};
  if (population_ != nullptr) {
    const auto now = population_->progress();
    info.remaining = now.total - now.populated;
    info.postcopy_requests = now.faults;
  }
  return info;
}

void Incoming::SetStatus(MigrationStatus status) {
  if (status_.exchange(status) == status) return;
  main_.Post([this, status] { events_.status(status); });
}

void Incoming::ShutChannels() noexcept {
  const MutexLock lock(mutex_);
  for (const auto& connection : connections_) connection->channel->Shutdown();
  changed_.notify_all();
}

void Incoming::Failed(const Error& error) {
  {
    const MutexLock lock(mutex_);
    if (!error_ && !ended_) error_ = error;
    changed_.notify_all();
  }
  ShutChannels();
}

// ---- On the migration's thread ------------------------------------------------------------------

Status Incoming::Work() {
  Status status = Migrate();
  if (!status) {
    // A thread's own error explains more than that its connection was shut down.
    const MutexLock lock(mutex_);
    if (error_) status = Fail(*error_);
  }
  if (!status && disks_taken_ && !runs_ && subject_.inactivate_disks) {
    // Before the source hears that it can have them back.
    (void)main_.Run([this] { return subject_.inactivate_disks(); });
  }
  if (!status && connection_ != nullptr && !SaidByPeer(status.error()))
    connection_->writer.WriteError(status.error());
  {
    const MutexLock lock(mutex_);
    ended_ = true;
  }
  EndThreads();
  // No connection's thread is between the memory of those who wait and their knowing of it.
  if (!status && peer_ != nullptr) peer_->Fail(status.error());
  return status;
}

Status Incoming::Migrate() {
  HF_TRY_STATUS(Begin());
  SetStatus(MigrationStatus::kActive);
  HF_TRY_STATUS(OpenChannels());
  HF_TRY(const auto sections, Receive());
  memory_sent_ = true;
  // From here on the connection is read by a thread of its own: loading the state may need pages.
  if (postcopy_) {
    SetStatus(MigrationStatus::kPostcopyActive);
    HF_TRY_STATUS(main_.Run([this] { return StartPopulation(); }));
  }
  HF_TRY_STATUS(StartThread(&Incoming::TakeAnswers, *connection_));
  if (urgent_ != nullptr) HF_TRY_STATUS(StartThread(&Incoming::TakeAnswers, *urgent_));
  HF_TRY_STATUS(main_.Run([&] { return Load(sections); }));
  HF_TRY_STATUS(TakeOver());
  if (!postcopy_) return {};
  {
    const MutexLock lock(mutex_);
    while (!complete_ && !error_) changed_.wait(mutex_);
    if (error_) return Fail(*error_);
  }
  return connection_->writer.Write(FrameType::kComplete);
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

// Waits for a connection of the other side, and lets those go that are somebody else's.
Result<Incoming::Connection*> Incoming::Next(milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (true) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(until - std::chrono::steady_clock::now());
    if (left <= milliseconds::zero()) {
      return Fail(Error(Errc::kSystem,
                        "the other side of the migration did not open all of its connections", {},
                        ETIMEDOUT));
    }
    constexpr milliseconds kLongest{60'000};
    pollfd waits[] = {{listener_->fd(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (::poll(waits, 2, static_cast<int>(std::min(left, kLongest).count())) < 0 && errno != EINTR)
      return FailErrno("waiting for a migration");
    if (stop_.stop_requested()) return Fail(Broken());
    if ((waits[0].revents & (POLLIN | POLLERR | POLLHUP)) == 0) continue;
    HF_TRY(auto channel, listener_->Accept());
    if (channel == nullptr) continue;
    auto greeted = Greet(std::move(channel));
    if (greeted) return *greeted;
    const bool more = std::holds_alternative<TcpAddress>(address_) ||
                      std::holds_alternative<UnixAddress>(address_);
    if (!more) return Fail(std::move(greeted).error());
    log::Warn(fmt::format("a connection to {} was let go: {}", Describe(address_),
                          greeted.error().ToString()));
  }
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
  const bool first = connection_ == nullptr;
  if (first != (hello.kind == ChannelKind::kMain) || (!first && hello.id != id_))
    return Fail(Errc::kMalformed, "it is of another migration");
  channel->SetStallTimeout(kStall);
  auto connection = std::make_unique<Connection>(std::move(channel));
  connection->hello = hello;
  const MutexLock lock(mutex_);
  connections_.push_back(std::move(connection));
  if (error_) connections_.back()->channel->Shutdown();
  return connections_.back().get();
}

Status Incoming::Begin() {
  HF_TRY(Connection* const main, Next(kNoLimit));
  connection_ = main;
  id_ = main->hello.id;
  HF_TRY_STATUS(main->channel->WriteAll(EncodeHello({.kind = ChannelKind::kMain, .id = id_})));
  HF_TRY(const auto bytes, main->reader.Expect(FrameType::kConfig, kPatience));
  HF_TRY(config_, DecodeConfig(bytes));
  HF_TRY_STATUS(main_.Run([this] { return Check(); }));
  return main->writer.Write(FrameType::kAccepted);
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

// Memory, up to the state of everything else.
Result<std::vector<state::SavedSection>> Incoming::Receive() {
  FrameReader& reader = connection_->reader;
  PageReceiver receiver(block_sizes_);
  while (true) {
    HF_TRY(const FrameHeader header, reader.Next(kPatience));
    switch (header.type) {
      case FrameType::kPages:
        HF_TRY_STATUS(TakePage(*connection_, receiver, header));
        break;
      case FrameType::kPassEnd: {
        HF_TRY(const auto bytes, reader.Payload());
        HF_TRY(const std::uint64_t pass, DecodeNumber(bytes));
        HF_TRY_STATUS(barrier_->Arrive(pass));
        break;
      }
      case FrameType::kMissing:
        HF_TRY_STATUS(TakeMissing());
        break;
      case FrameType::kState: {
        HF_TRY(const auto bytes, reader.Payload());
        return DecodeSections(bytes);
      }
      default:
        return Fail(Unexpected(header.type));
    }
  }
}

Status Incoming::TakeMissing() {
  if (!config_.postcopy) return Fail(Unexpected(FrameType::kMissing));
  HF_TRY(const auto bytes, connection_->reader.Payload());
  HF_TRY(const MissingPages missing, DecodeMissing(bytes, block_sizes_));
  postcopy_ = true;
  PageBitmap& pages = missing_.blocks()[missing.block].pages;
  for (std::size_t i = 0; i < missing.words.size(); ++i)
    if (missing.words[i] != 0) pages.MergeWord(missing.first + i * 64, missing.words[i]);
  return {};
}

// What the source says on the main connection once the state has come.
Status Incoming::Control(FrameType type, milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  const MutexLock lock(mutex_);
  while (controls_.empty()) {
    if (error_) return Fail(*error_);
    if (std::chrono::steady_clock::now() >= until) {
      return Fail(
          Error(Errc::kSystem, "the other side of the migration does not go on", {}, ETIMEDOUT));
    }
    changed_.wait_until(mutex_, until);
  }
  const FrameType first = controls_.front();
  controls_.erase(controls_.begin());
  if (first != type) return Fail(Unexpected(first));
  return {};
}

Status Incoming::TakeOver() {
  FrameWriter& writer = connection_->writer;
  HF_TRY_STATUS(writer.Write(FrameType::kLoaded));
  HF_TRY_STATUS(Control(FrameType::kActivate, kPatience));
  HF_TRY_STATUS(main_.Run([this] { return TakeDisks(); }));
  HF_TRY_STATUS(writer.Write(FrameType::kActive));
  HF_TRY_STATUS(Control(FrameType::kRun, kHandOver));
  HF_TRY_STATUS(main_.Run([this] { return RunGuest(); }));
  // The guest runs, whether the source hears of it or not.
  (void)writer.Write(FrameType::kRunning);
  return {};
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
  HF_TRY(const FrameHeader header, connection.reader.Next(kNoLimit));
  switch (header.type) {
    case FrameType::kPages: {
      if (peer_ == nullptr) return Fail(Unexpected(header.type));
      const auto place = [&](const PagesHead& head, std::uint64_t offset) {
        return peer_->Place(head, offset);
      };
      const auto zero = [](const PagesHead&, std::uint64_t) { return Status(); };
      HF_TRY(const PagesHead head, receiver.Receive(connection.reader, header, place, zero));
      return peer_->Arrived(head, receiver.words());
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

// ---- On the main thread -------------------------------------------------------------------------

Status Incoming::Check() const {
  const auto mine = missing_.blocks();
  constexpr std::string_view kRemedy = "Start the machine with the options that the other one has.";
  if (!config_.uuid.empty() && config_.uuid != request_.uuid) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the machine that comes has the UUID {} and this one {}", config_.uuid,
                            request_.uuid.empty() ? "none" : request_.uuid),
                "Give both the same -uuid, or turn the capability validate-uuid off.");
  }
  for (std::size_t i = 0; i < std::max(mine.size(), config_.blocks.size()); ++i) {
    if (i >= mine.size() || i >= config_.blocks.size() ||
        mine[i].block->id() != config_.blocks[i].id) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("memory {} of the machine that comes is '{}' and of this one '{}'", i,
                              i < config_.blocks.size() ? config_.blocks[i].id : "none",
                              i < mine.size() ? mine[i].block->id() : "none"),
                  std::string(kRemedy));
    }
    if (mine[i].block->size() == config_.blocks[i].size) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("the memory '{}' of the machine that comes has {} and that of this one "
                            "{}",
                            config_.blocks[i].id, FormatSize(config_.blocks[i].size),
                            FormatSize(mine[i].block->size())),
                std::string(kRemedy));
  }
  return subject_.machine.CheckState(config_.sections);
}

Status Incoming::Load(std::span<const state::SavedSection> sections) {
  return subject_.machine.LoadState(sections);
}

Status Incoming::TakeDisks() {
  if (subject_.activate_disks) HF_TRY_STATUS(subject_.activate_disks());
  disks_taken_ = true;
  return {};
}

Status Incoming::RunGuest() {
  HF_TRY_STATUS(events_.arrived());
  runs_ = true;
  return {};
}

Status Incoming::StartPopulation() {
  auto pages = std::make_unique<PeerPages>(missing_, connection_->writer);
  peer_ = pages.get();
  LazyPopulation::Options options;
  constexpr std::uint64_t kChunk = 64 * kKiB;
  options.chunk = kChunk;
  options.background_speed = config_.postcopy_bandwidth;
  options.missing = &peer_->missing();
  LazyRestore::Events events;
  // The population stays until the connections' threads have ended, which know its source.
  events.done = [this] {
    const MutexLock lock(mutex_);
    complete_ = true;
    changed_.notify_all();
  };
  events.failed = [](const std::string&, std::uint64_t, const Error& error) { log::Error(error); };
  auto started =
      LazyRestore::Start(subject_, std::move(pages), std::move(options), std::move(events));
  if (!started) {
    peer_ = nullptr;  // it went with the source
    return Fail(std::move(started).error());
  }
  population_ = *std::move(started);
  return {};
}

void Incoming::Finished(const Status& status) {
  thread_.join();
  if (status) {
    peer_ = nullptr;
    population_.reset();
  }
  if (!status && runs_) log::Error("the guest's memory is not complete: it cannot go on");
  status_ = status ? MigrationStatus::kCompleted : MigrationStatus::kFailed;
  events_.status(status_);
  const auto done = events_.done;
  done(status);
}

}  // namespace holdfast::migration
