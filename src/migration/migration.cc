// SPDX-License-Identifier: Apache-2.0
#include "migration/migration.h"

#include <fmt/format.h>

#include <utility>

#include "base/log.h"

namespace holdfast::migration {

namespace {

// What settings know and no migration does, with what to do instead.
constexpr struct {
  Capability capability;
  std::string_view instead;
} kNotDone[] = {
    {Capability::kDirtyLimit, "auto-converge slows all vCPUs down; postcopy-ram always ends"},
    {Capability::kPostcopyBlocktime, "the time for which vCPUs wait is not recorded"},
    {Capability::kIgnoreShared, "all memory is sent"},
    {Capability::kBackgroundSnapshot, "take a snapshot with holdfast-snapshot-save and live"},
};

Status CheckDone(const Capabilities& capabilities) {
  for (const auto& [capability, instead] : kNotDone) {
    if (!capabilities[capability]) continue;
    return Fail(Errc::kUnsupported,
                fmt::format("a migration cannot have the capability '{}' here: {}",
                            CapabilityName(capability), instead),
                "Turn it off.");
  }
  return {};
}

// These have no pages that could follow, and no connection that could be cut in several.
Status CheckLocal(const Parameters& parameters, const Capabilities& capabilities) {
  for (const Capability each : {Capability::kPostcopyRam, Capability::kPauseBeforeSwitchover}) {
    if (!capabilities[each]) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("the capability '{}' has no meaning for a migration into a file or to "
                            "a monitor of the same host",
                            CapabilityName(each)),
                "Turn it off.");
  }
  if (parameters.tls_creds.empty()) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("tls-creds is '{}', but a migration into a file or to a monitor of the "
                          "same host is not encrypted",
                          parameters.tls_creds),
              "Set tls-creds to \"\".");
}

// What a name stands for is taken at once, so that a wrong one is said at once.
Status TakeNamed(const Address& address, AddressServices& services) {
  const auto* const fd = std::get_if<FdAddress>(&address);
  const bool number = fd != nullptr && fd->name.front() >= '0' && fd->name.front() <= '9';
  if (fd == nullptr || number || !services.take_fd) return {};
  HF_TRY(UniqueFd taken, services.take_fd(fd->name));
  services.take_fd = [held = std::make_shared<UniqueFd>(std::move(taken))](
                         const std::string&) -> Result<UniqueFd> { return std::move(*held); };
  return {};
}

}  // namespace

Migration::Migration(Subject subject, About about, Settings& settings, Hooks hooks)
    : subject_(std::move(subject)),
      about_(std::move(about)),
      settings_(settings),
      hooks_(std::move(hooks)) {
  settings_.SetHooks({.changed = [this] {
    if (outgoing_ != nullptr) outgoing_->Update(settings_.parameters());
  }});
}

Migration::~Migration() {
  settings_.SetHooks({});
}

std::optional<Error> Migration::blocker() const {
  if (subject_.machine.converter() == nullptr) return std::nullopt;
  return Error(Errc::kUnsupported,
               "a confidential guest cannot be migrated: its private memory is not the host's to "
               "read");
}

Result<std::shared_ptr<const object::TlsContext>> Migration::Tls(bool server) const {
  const std::string& id = settings_.parameters().tls_creds;
  if (id.empty()) return std::shared_ptr<const object::TlsContext>();
  return hooks_.tls(id, server);
}

Status Migration::CheckFree() const {
  if (active()) {
    return Fail(Errc::kInvalidArgument, "There's a migration process in progress",
                "Wait for it, or cancel it.");
  }
  if (auto why = blocker()) return Fail(*std::move(why));
  if (subject_.machine.state() == machine::RunState::kInMigrate)
    return Fail(Errc::kInvalidArgument, "Guest is waiting for an incoming migration");
  if (subject_.machine.state() == machine::RunState::kPostMigrate) {
    return Fail(Errc::kInvalidArgument, "the guest has left already",
                "It can go somewhere else from where it is now.");
  }
  if (const std::string job = hooks_.busy ? hooks_.busy() : ""; !job.empty()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the job '{}' is under way, and there is one at a time", job),
                "Wait for it, or cancel it.");
  }
  return {};
}

Status Migration::Migrate(const ChannelAddresses& to) {
  const Parameters& parameters = settings_.parameters();
  const Capabilities& capabilities = settings_.capabilities();
  HF_TRY_STATUS(CheckFree());
  HF_TRY_STATUS(CheckDone(capabilities));
  HF_TRY_STATUS(capabilities.Check(parameters));
  const bool file = std::holds_alternative<FileAddress>(to.main);
  if (to.cpr && parameters.mode != Mode::kCprTransfer) {
    return Fail(Errc::kInvalidArgument, "a channel of the type 'cpr' needs mode=cpr-transfer",
                "Set the parameter mode, or leave the channel out.");
  }
  if (capabilities[Capability::kMappedRam] && !file) {
    return Fail(Errc::kInvalidArgument, "Migration requires seekable transport (e.g. file)",
                "Turn mapped-ram off, or migrate to file:PATH.");
  }
  if (parameters.mode == Mode::kNormal && !file) return ToPeer(to.main);
  HF_TRY_STATUS(CheckLocal(parameters, capabilities));
  HF_TRY(local_, StartLocal(to));
  Began(MigrationStatus::kActive);
  return {};
}

Result<std::unique_ptr<LocalMigration>> Migration::StartLocal(const ChannelAddresses& to) {
  LocalMigration::Events events{.status = hooks_.status_changed,
                                .done = [this](const Status& status) {
                                  Ended(local_->info(), status);
                                  local_.reset();
                                }};
  const Parameters& parameters = settings_.parameters();
  if (parameters.mode == Mode::kCprExec)
    return LocalMigration::ToProgram(subject_, parameters.cpr_exec_command, std::move(events));
  if (parameters.mode == Mode::kCprTransfer) {
    const Address& address = to.cpr ? *to.cpr : to.main;
    const auto* const socket = std::get_if<UnixAddress>(&address);
    if (socket != nullptr) return LocalMigration::ToMonitor(subject_, socket->path, events);
    return Fail(Errc::kInvalidArgument,
                fmt::format("descriptors cannot be passed to '{}'", Describe(address)),
                "Name the Unix socket that the other monitor waits on, unix:PATH.");
  }
  const auto* const file = std::get_if<FileAddress>(&to.main);
  if (file == nullptr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("with mode=cpr-reboot a machine cannot go to '{}'", Describe(to.main)),
                "Use file:PATH.");
  }
  if (file->offset != 0) {
    return Fail(
        Errc::kUnsupported,
        fmt::format("'{}' does not begin at offset 0, as a snapshot has to", Describe(to.main)),
        "Leave the offset out.");
  }
  return LocalMigration::ToFile(
      subject_,
      {.path = file->path,
       .live = parameters.mode == Mode::kNormal,
       .zstd = parameters.multifd_compression == Compression::kZstd,
       .downtime_limit_ms = parameters.downtime_limit},
      {.creator = about_.creator, .name = about_.name, .command_line = about_.command_line},
      std::move(events));
}

Status Migration::ToPeer(const Address& to) {
  const Parameters& parameters = settings_.parameters();
  const Capabilities& capabilities = settings_.capabilities();
  const bool one = std::holds_alternative<FdAddress>(to) || std::holds_alternative<ExecAddress>(to);
  if (one && (capabilities[Capability::kMultifd] || capabilities[Capability::kPostcopyPreempt])) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("'{}' is one connection, and multifd and postcopy-preempt need several",
                            Describe(to)),
                "Turn these capabilities off, or use tcp: or unix:.");
  }
  HF_TRY(auto tls, Tls(false));
  AddressServices services = hooks_.services;
  HF_TRY_STATUS(TakeNamed(to, services));
  Outgoing::Request request{
      .address = to,
      .parameters = parameters,
      .capabilities = capabilities,
      .creator = about_.creator,
      .name = about_.name,
      .uuid = capabilities[Capability::kValidateUuid] ? about_.uuid : std::string(),
      .tls = std::move(tls),
      .services = std::move(services)};
  Outgoing::Events events{
      .status = hooks_.status_changed, .pass = hooks_.pass, .done = [this](const Status& status) {
        Ended(outgoing_->info(), status);
        outgoing_.reset();
      }};
  HF_TRY(outgoing_, Outgoing::Start(subject_, std::move(request), std::move(events)));
  Began(MigrationStatus::kSetup);
  return {};
}

void Migration::Began(MigrationStatus status) {
  last_.reset();
  settings_.set_running(true);
  hooks_.status_changed(status);
}

Status Migration::Listen(const Address& from, bool exit_on_error) {
  if (subject_.machine.state() != machine::RunState::kInMigrate)
    return Fail(Errc::kInvalidArgument, "'-incoming' was not specified on the command line");
  if (incoming_ != nullptr)
    return Fail(Errc::kInvalidArgument, "The incoming migration has already been started");
  if (std::holds_alternative<FileAddress>(from)) {
    return Fail(Errc::kUnsupported, fmt::format("'{}' cannot be waited for", Describe(from)),
                "Start the monitor with -incoming file:PATH.");
  }
  HF_TRY(auto tls, Tls(true));
  Incoming::Request request{
      .uuid = about_.uuid, .tls = std::move(tls), .services = hooks_.services};
  Incoming::Events events{.status = hooks_.status_changed,
                          .arrived = hooks_.arrived,
                          .done = [this, exit_on_error](const Status& status) {
                            Ended(incoming_->info(), status);
                            if (status) {
                              incoming_.reset();
                              return;
                            }
                            log::Error(status.error());
                            const bool waits =
                                subject_.machine.state() == machine::RunState::kInMigrate;
                            // A guest that has begun to run without all of its memory stays as it
                            // is, to be looked at.
                            if (waits) incoming_.reset();
                            if (exit_on_error) hooks_.give_up(status.error());
                          }};
  HF_TRY(incoming_, Incoming::Start(subject_, from, std::move(request), std::move(events)));
  Began(MigrationStatus::kSetup);
  return {};
}

void Migration::Ended(const MigrationInfo& info, const Status& status) {
  settings_.set_running(false);
  last_ = info;
  if (!status && info.status == MigrationStatus::kFailed) last_->error = status.error();
}

std::optional<Address> Migration::listening() const {
  if (incoming_ == nullptr) return std::nullopt;
  return incoming_->address();
}

MigrationInfo Migration::info() const {
  if (last_) return *last_;
  if (outgoing_ != nullptr) return outgoing_->info();
  if (incoming_ != nullptr) return incoming_->info();
  if (local_ != nullptr) return local_->info();
  return {};
}

Status Migration::Cancel() {
  if (local_ != nullptr) return local_->Cancel();
  return outgoing_ == nullptr ? Status() : outgoing_->Cancel();
}

Status Migration::Continue() {
  if (outgoing_ != nullptr) return outgoing_->Continue();
  return Fail(Errc::kInvalidArgument,
              fmt::format("Migration not in expected state: {}", ToString(info().status)));
}

Status Migration::Pause() {
  if (outgoing_ != nullptr) return outgoing_->Pause();
  return incoming_ != nullptr ? incoming_->Pause() : Fail(NotInPostcopy());
}

Status Migration::Resume(const Address& to) {
  if (outgoing_ == nullptr || info().status != MigrationStatus::kPostcopyPaused)
    return Fail(Errc::kInvalidArgument, "Cannot resume if there is no paused migration");
  AddressServices services = hooks_.services;
  HF_TRY_STATUS(TakeNamed(to, services));
  return outgoing_->Resume(to, std::move(services));
}

Status Migration::Recover(const Address& from) {
  if (incoming_ != nullptr) return incoming_->Recover(from);
  return Fail(Errc::kInvalidArgument, "Migrate recover can only be run when postcopy is paused.");
}

Status Migration::StartPostcopy() {
  if (outgoing_ != nullptr) return outgoing_->StartPostcopy();
  return Fail(Errc::kInvalidArgument, "Start postcopy after migration has been started",
              "Use migrate first, with the capability postcopy-ram on.");
}

}  // namespace holdfast::migration
