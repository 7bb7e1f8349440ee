// SPDX-License-Identifier: Apache-2.0
#include "migration/incoming.h"

#include <holdfast/ram_block.h>
#include <sys/eventfd.h>

#include <system_error>
#include <utility>

#include "base/log.h"
#include "migration/patience.h"

namespace holdfast::migration {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// For a source that only has to say so: the guest's disks are held for nobody meanwhile.
constexpr seconds kHandOver{20};

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
  Failed(MonitorEnds());
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
  const MutexLock lock(mutex_);
  if (info.status == MigrationStatus::kPostcopyPaused) info.error = why_paused_;
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
  (void)::eventfd_write(wake_.get(), 1);
  ShutChannels();
}

std::shared_ptr<Incoming::Connection> Incoming::main_connection() {
  const MutexLock lock(mutex_);
  return connections_.front();
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
  return postcopy_ ? AwaitMemory() : Status();
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

// ---- On the main thread -------------------------------------------------------------------------

void Incoming::Finished(const Status& status) {
  thread_.join();
  if (status) {
    peer_ = nullptr;
    population_.reset();
  }
  status_ = status ? MigrationStatus::kCompleted : MigrationStatus::kFailed;
  events_.status(status_);
  const auto done = events_.done;
  done(status);
}

}  // namespace holdfast::migration
