// SPDX-License-Identifier: Apache-2.0
#include "migration/outgoing.h"

#include <fmt/format.h>
#include <holdfast/ram_block.h>
#include <sys/random.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "migration/patience.h"

namespace holdfast::migration {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// How often somebody who waits says that it is still there.
constexpr seconds kAliveEvery{5};

std::int64_t MillisecondsSince(std::chrono::steady_clock::time_point when) {
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - when).count();
}

Result<MigrationId> RandomId() {
  MigrationId id{};
  if (::getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size()))
    return FailErrno("random numbers");
  return id;
}

}  // namespace

Outgoing::Outgoing(const Subject& subject, Request request, Events events)
    : subject_(subject),
      request_(std::move(request)),
      events_(std::move(events)),
      main_(subject.loop),
      way_{request_.address, request_.services},
      converge_(request_.parameters),
      dirty_(subject.memory) {
  for (const auto& entry : dirty_.blocks()) {
    block_sizes_.push_back(entry.block->size());
    ram_total_ += entry.block->size();
  }
}

Result<std::unique_ptr<Outgoing>> Outgoing::Start(const Subject& subject, Request request,
                                                  Events events) {
  std::unique_ptr<Outgoing> outgoing(new Outgoing(subject, std::move(request), std::move(events)));
  Outgoing* const raw = outgoing.get();
  HF_TRY(raw->id_, RandomId());
  raw->Update(raw->request_.parameters);
  try {
    raw->thread_ = std::thread([raw] {
      Status status = raw->Work();
      raw->main_.Post([raw, status = std::move(status)] { raw->Finished(status); });
    });
  } catch (const std::system_error& error) {
    return Fail(Error::FromErrno("a thread for the migration", error.code().value()));
  }
  return outgoing;
}

Outgoing::~Outgoing() {
  if (!thread_.joinable()) return;
  cancelled_ = true;
  StopDialling();
  ShutChannels();
  main_.Close();
  thread_.join();
  (void)subject_.machine.Throttle(0);
  // The machine ends: its guest must not see another instruction.
  EndTracking();
  if (held_) subject_.machine.Release();
}

// ---- What the main thread asks ------------------------------------------------------------------

Status Outgoing::Cancel() {
  // Of a hand-over whose end is not known a person may know more.
  const bool unknown = status_ == MigrationStatus::kPostcopyPaused && !runs_there_;
  if (committed_ && !unknown) {
    return Fail(Errc::kInvalidArgument,
                "the migration cannot be cancelled any more: the guest is the other side's");
  }
  SetStatus(MigrationStatus::kCancelling);
  cancelled_ = true;
  StopDialling();
  ShutChannels();
  return {};
}

Status Outgoing::Continue() {
  if (status_ != MigrationStatus::kPreSwitchover) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Migration not in expected state: {}", ToString(status_.load())));
  }
  const MutexLock lock(mutex_);
  continue_ = true;
  changed_.notify_all();
  return {};
}

void Outgoing::Update(const Parameters& parameters) {
  limit_.Set(parameters.max_bandwidth);
}

MigrationInfo Outgoing::info() const {
  MigrationInfo info{.status = status_};
  info.total_time_ms = static_cast<std::uint64_t>(MillisecondsSince(started_));
  const auto known = [](std::int64_t ms) {
    return ms < 0 ? std::nullopt : std::optional(static_cast<std::uint64_t>(ms));
  };
  info.setup_time_ms = known(setup_ms_);
  info.downtime_ms = known(downtime_ms_);
  info.expected_downtime_ms = known(expected_ms_);
  info.ram_total = ram_total_;
  info.remaining = remaining_;
  info.transferred = transferred_;
  info.normal_pages = normal_;
  info.zero_pages = zero_;
  info.passes = passes_;
  info.dirty_rate = dirty_rate_;
  info.bandwidth = speed_;
  info.throttle = subject_.machine.throttle();
  info.postcopy_requests = urgent_requests_;
  const MutexLock lock(mutex_);
  if (info.status == MigrationStatus::kPostcopyPaused) info.error = why_paused_;
  return info;
}

void Outgoing::SetStatus(MigrationStatus status) {
  if (status_.exchange(status) == status) return;
  main_.Post([this, status] { events_.status(status); });
}

void Outgoing::StopDialling() {
  const MutexLock lock(mutex_);
  (void)stop_.request_stop();
}

void Outgoing::Lost(const Error& error) {
  {
    const MutexLock lock(mutex_);
    // Whoever finds a connection shut is not the first to notice.
    if (!lost_ && error.os_errno() != ECANCELED) lost_ = error;
  }
  ShutChannels();
}

void Outgoing::ShutChannels() noexcept {
  const MutexLock lock(mutex_);
  for (const auto& channel : channels_) channel->Shutdown();
  changed_.notify_all();
}

// ---- On the migration's thread ------------------------------------------------------------------

Status Outgoing::Work() {
  Status status = Open();
  bool postcopy = false;
  if (status) status = SendWhileRunning();
  if (status) {
    postcopy = PostcopyWanted();
    status = HandOver(postcopy);
  }
  if (status && postcopy) status = ServeMemory();
  if (!status) status = Fail(Explain(status.error()));
  if (cancelled_ && !committed_) status = Fail(Errc::kInvalidArgument, "it was cancelled");
  if (!status && answers_ != nullptr && !SaidByPeer(status.error()) && !cancelled_)
    writers_.front()->WriteError(status.error());
  ShutChannels();
  std::unique_ptr<PageServer> server;
  {
    const MutexLock lock(mutex_);
    server = std::move(server_);
  }
  server.reset();
  answers_.reset();
  // The other side lets go of the disks when it notices.
  if (!status && !committed_ && disks_given_up_ && subject_.activate_disks) {
    constexpr unsigned kTries = 200;
    for (unsigned i = 0; i < kTries && disks_given_up_; ++i) {
      const Status taken = main_.Run([this] { return TakeDisksBack(); });
      if (!taken) std::this_thread::sleep_for(milliseconds(200));
    }
  }
  return status;
}

Result<FrameWriter*> Outgoing::Dial(ChannelKind kind, std::uint32_t index) {
  ConnectOptions options;
  options.tls.credentials = request_.tls;
  options.tls.hostname = request_.parameters.tls_hostname;
  options.services = way_.services;
  {
    const MutexLock lock(mutex_);
    options.cancel = stop_.get_token();
  }
  HF_TRY(auto connected, Connect(way_.to, options));
  Channel* const channel = connected.get();
  channel->SetStallTimeout(kStall);
  writers_.push_back(std::make_unique<FrameWriter>(*channel));
  FrameWriter* const writer = writers_.back().get();
  {
    const MutexLock lock(mutex_);
    channels_.push_back(std::move(connected));
    // Who shut them all before it was in the list did not see it.
    if (cancelled_ || lost_) channel->Shutdown();
  }
  HF_TRY_STATUS(channel->WriteAll(EncodeHello({.kind = kind, .id = id_, .index = index})));
  if (kind != ChannelKind::kMain && kind != ChannelKind::kRecover) return writer;
  HF_TRY(const bool there, channel->WaitReadable(kPatience));
  if (!there) return Fail(Errc::kSystem, fmt::format("{} does not answer", channel->peer()));
  std::array<std::byte, Hello::kSize> answer;
  HF_TRY_STATUS(channel->ReadAll(answer));
  HF_TRY(const Hello hello, DecodeHello(answer));
  if (hello.id != id_ || hello.kind != kind)
    return Fail(Errc::kMalformed, fmt::format("{} answers another migration", channel->peer()));
  return writer;
}

Status Outgoing::Open() {
  HF_TRY(FrameWriter* const main, Dial(ChannelKind::kMain, 0));
  HF_TRY_STATUS(main_.Run([this] { return StartTracking(); }));
  HF_TRY_STATUS(HearAnswers());
  MigrationConfig config{.creator = request_.creator,
                         .name = request_.name,
                         .uuid = request_.uuid,
                         .postcopy = Is(Capability::kPostcopyRam),
                         .urgent_channel = Is(Capability::kPostcopyPreempt),
                         .postcopy_bandwidth = request_.parameters.max_postcopy_bandwidth};
  if (Is(Capability::kMultifd)) config.page_channels = request_.parameters.multifd_channels;
  for (const auto& entry : dirty_.blocks())
    config.blocks.push_back({entry.block->id(), entry.block->size()});
  config.sections = std::exchange(sections_, {});
  // A server that pages may be asked of has to be there before the first of them can be.
  const std::uint32_t page_channels = config.page_channels;
  const bool urgent = config.urgent_channel;
  HF_TRY_STATUS(main->Write(FrameType::kConfig, EncodeConfig(std::move(config))));
  HF_TRY_STATUS(answers_->Wait(FrameType::kAccepted, kPatience));
  std::vector<FrameWriter*> for_pages;
  for (std::uint32_t i = 0; i < page_channels; ++i) {
    HF_TRY(FrameWriter* const writer, Dial(ChannelKind::kPages, i));
    for_pages.push_back(writer);
  }
  // The main connection ends each pass too, so that it knows what was before it.
  for_pages.insert(for_pages.begin(), main);
  if (urgent) {
    HF_TRY(urgent_, Dial(ChannelKind::kUrgent, 0));
  }
  const bool zstd =
      request_.parameters.multifd_compression == Compression::kZstd && Is(Capability::kMultifd);
  sender_ = std::make_unique<PageSender>(
      subject_.memory, std::move(for_pages),
      PageSender::Options{.zstd = zstd, .zstd_level = request_.parameters.multifd_zstd_level},
      limit_, cancelled_);
  setup_ms_ = MillisecondsSince(started_);
  return {};
}

Status Outgoing::HearAnswers() {
  Channel* channel = nullptr;
  {
    const MutexLock lock(mutex_);
    channel = channels_.front().get();
  }
  HF_TRY(answers_, ReturnPath::Start(*channel, block_sizes_,
                                     {.request =
                                          [this](const PageRequest& request) {
                                            const Status served = Serve(request);
                                            if (!served) Lost(served.error());
                                          },
                                      .ended = [this](const Error& error) { Lost(error); }}));
  return {};
}

void Outgoing::Measure(std::uint64_t bytes, Clock::time_point since) {
  // Of a few pages no speed can be told.
  constexpr std::uint64_t kEnough = 1024 * 1024;
  const std::chrono::duration<double> took = Clock::now() - since;
  if (bytes >= kEnough && took.count() > 0)
    speed_ = static_cast<std::uint64_t>(static_cast<double>(bytes) / took.count());
  CountSent();
  normal_ = sender_->sent().normal.load();
  zero_ = sender_->sent().zero.load();
  passes_ = sender_->passes();
}

bool Outgoing::MayFinish(std::uint64_t pending) const {
  const Parameters& parameters = request_.parameters;
  const std::uint64_t speed = parameters.avail_switchover_bandwidth != 0
                                  ? parameters.avail_switchover_bandwidth
                                  : speed_.load();
  if (pending == 0) return true;
  return speed != 0 && static_cast<double>(pending) / static_cast<double>(speed) * 1000 <=
                           static_cast<double>(parameters.downtime_limit);
}

Status Outgoing::SendWhileRunning() {
  SetStatus(MigrationStatus::kActive);
  // All of it is new, which the pass over everything brings.
  HF_TRY_STATUS(tracker_->Collect(dirty_));
  dirty_.ClearAll();
  {
    const MutexLock lock(mutex_);
    interruptible_ = sender_.get();
    if (postcopy_wanted_) sender_->Interrupt();
  }
  std::uint64_t normal = 0;  // pages of the last pass
  const auto pass = [&](auto&& send) -> Status {
    main_.Post([this, number = sender_->passes() + 1] { events_.pass(number); });
    const std::uint64_t before = sender_->sent().normal;
    const auto since = Clock::now();
    HF_TRY_STATUS(send());
    normal = sender_->sent().normal - before;
    Measure(normal * kPageSize, since);
    return {};
  };
  auto since = Clock::now();
  Status sent = pass([this] { return sender_->SendAll(); });
  while (sent && !PostcopyWanted()) {
    sent = tracker_->Collect(dirty_);
    if (!sent) break;
    const std::uint64_t pages = dirty_.count();
    const std::chrono::duration<double> took = Clock::now() - since;
    since = Clock::now();
    if (took.count() > 0)
      dirty_rate_ = static_cast<std::uint64_t>(static_cast<double>(pages) / took.count());
    remaining_ = pages * kPageSize;
    if (speed_ != 0) expected_ms_ = static_cast<std::int64_t>(pages * kPageSize * 1000 / speed_);
    if (MayFinish(pages * kPageSize)) break;
    if (Is(Capability::kAutoConverge)) SlowGuestDown(normal, pages);
    sent = pass([this] { return sender_->Send(dirty_); });
    if (sent) {
      // What an interrupted pass left is in unsent().
      dirty_.ClearAll();
    }
  }
  const MutexLock lock(mutex_);
  interruptible_ = nullptr;
  return sent;
}

Status Outgoing::WaitForContinue() {
  while (true) {
    {
      const MutexLock lock(mutex_);
      const auto until = Clock::now() + kAliveEvery;
      while (!continue_ && !cancelled_ && Clock::now() < until) changed_.wait_until(mutex_, until);
      if (cancelled_) return Fail(Errc::kInvalidArgument, "it was cancelled");
      if (continue_) return {};
    }
    if (const auto error = answers_->error()) return Fail(*error);
    HF_TRY_STATUS(writers_.front()->Write(FrameType::kAlive));
  }
}

// From the guest's last instruction here to its first there.
Status Outgoing::HandOver(bool postcopy) {
  FrameWriter& main = *writers_.front();
  stood_ = Clock::now();
  HF_TRY_STATUS(main_.Run([this] { return StandStill(); }));
  if (Is(Capability::kPauseBeforeSwitchover)) {
    SetStatus(MigrationStatus::kPreSwitchover);
    HF_TRY_STATUS(WaitForContinue());
  }
  SetStatus(postcopy ? MigrationStatus::kPostcopyDevice : MigrationStatus::kDevice);
  HF_TRY_STATUS(main_.Run([this] { return SaveSections(); }));
  HF_TRY_STATUS(tracker_->Collect(dirty_));
  if (postcopy) {
    (void)dirty_.Merge(sender_->unsent());
    HF_TRY_STATUS(StartServer());
    HF_TRY_STATUS(SendMissing(dirty_));
    remaining_ = dirty_.count() * kPageSize;
  } else {
    HF_TRY_STATUS(sender_->Send(dirty_));
    Measure(0, stood_);
    remaining_ = 0;
  }
  HF_TRY_STATUS(main.Write(FrameType::kState, EncodeSections(std::move(sections_))));
  HF_TRY_STATUS(answers_->Wait(FrameType::kLoaded, kPatience));
  HF_TRY_STATUS(main_.Run([this] { return GiveUpDisks(); }));
  HF_TRY_STATUS(main.Write(FrameType::kActivate));
  HF_TRY_STATUS(answers_->Wait(FrameType::kActive, kPatience));
  if (cancelled_) return Fail(Errc::kInvalidArgument, "it was cancelled");
  // From here on only the other side knows whether it runs.
  committed_ = true;
  Status running = main.Write(FrameType::kRun);
  if (running) running = answers_->Wait(FrameType::kRunning, kPatience);
  if (!running) {
    Error error = std::move(running).error();
    if (SaidByPeer(error)) {
      committed_ = false;  // it says that it does not
      return Fail(std::move(error));
    }
    error = std::move(error)
                .Wrap(
                    "the connection broke while the guest changed sides, and whether it runs "
                    "there is not known")
                .WithHint(
                    "Look at the other side; only if the guest does not run there, let it "
                    "go on here with 'cont'.");
    if (!postcopy) return Fail(std::move(error));
    // If it does, it comes for its memory.
    {
      const MutexLock lock(mutex_);
      lost_ = std::move(error);
    }
    ShutChannels();
    return {};
  }
  runs_there_ = true;
  downtime_ms_ = MillisecondsSince(stood_);
  return {};
}

// ---- The end, on the main thread ---------------------------------------------------------------

void Outgoing::Finished(Status status) {
  thread_.join();
  (void)subject_.machine.Throttle(0);
  if (committed_) {
    if (std::exchange(held_, false)) subject_.machine.Release();
    EndTracking();
    subject_.machine.Pause(machine::RunState::kPostMigrate);
  } else {
    GoOn();
  }
  status_ = status                      ? MigrationStatus::kCompleted
            : cancelled_ && !committed_ ? MigrationStatus::kCancelled
                                        : MigrationStatus::kFailed;
  events_.status(status_);
  const auto done = events_.done;
  done(status);
}

}  // namespace holdfast::migration
