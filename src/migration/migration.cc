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
    {Capability::kMappedRam, "take a snapshot with holdfast-snapshot-save: its file is one"},
};

Status CheckDone(const Parameters& parameters, const Capabilities& capabilities) {
  for (const auto& [capability, instead] : kNotDone) {
    if (!capabilities[capability]) continue;
    return Fail(Errc::kUnsupported,
                fmt::format("a migration cannot have the capability '{}' here: {}",
                            CapabilityName(capability), instead),
                "Turn it off.");
  }
  if (parameters.mode == Mode::kNormal) return {};
  return Fail(Errc::kUnsupported, "the parameter mode can only be 'normal' here",
              "Set it to normal.");
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

Status Migration::Migrate(const Address& to) {
  if (outgoing_ != nullptr || incoming_ != nullptr) {
    return Fail(Errc::kInvalidArgument, "There's a migration process in progress",
                "Wait for it, or cancel it.");
  }
  const Parameters& parameters = settings_.parameters();
  const Capabilities& capabilities = settings_.capabilities();
  HF_TRY_STATUS(CheckDone(parameters, capabilities));
  if (auto why = blocker()) return Fail(*std::move(why));
  if (subject_.machine.state() == machine::RunState::kInMigrate)
    return Fail(Errc::kInvalidArgument, "Guest is waiting for an incoming migration");
  if (const std::string job = hooks_.busy ? hooks_.busy() : ""; !job.empty()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the job '{}' is under way, and there is one at a time", job),
                "Wait for it, or cancel it.");
  }
  if (std::holds_alternative<FileAddress>(to)) {
    return Fail(Errc::kUnsupported,
                fmt::format("'{}' is no address to migrate to: a machine goes into a file as a "
                            "snapshot",
                            Describe(to)),
                "Use holdfast-snapshot-save, 'holdfastctl snapshot create --live --stop'.");
  }
  const bool one = std::holds_alternative<FdAddress>(to) || std::holds_alternative<ExecAddress>(to);
  if (one && (capabilities[Capability::kMultifd] || capabilities[Capability::kPostcopyPreempt])) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("'{}' is one connection, and multifd and postcopy-preempt need several",
                            Describe(to)),
                "Turn these capabilities off, or use tcp: or unix:.");
  }
  HF_TRY_STATUS(capabilities.Check(parameters));
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
  last_.reset();
  settings_.set_running(true);
  hooks_.status_changed(MigrationStatus::kSetup);
  return {};
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
  last_.reset();
  settings_.set_running(true);
  hooks_.status_changed(MigrationStatus::kSetup);
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
  return {};
}

Status Migration::Cancel() {
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
