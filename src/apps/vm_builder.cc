// SPDX-License-Identifier: Apache-2.0
#include "apps/vm_builder.h"

#include <fmt/format.h>
#include <holdfast/capabilities.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "apps/options_parse.h"
#include "apps/prealloc_progress.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "migration/cpr_transfer.h"
#include "object/confidential_guest.h"

namespace holdfast::apps {

Result<std::unique_ptr<VirtualMachine>> VirtualMachine::Build(EventLoop& loop, Options options,
                                                              std::function<bool()> interrupted) {
  std::unique_ptr<VirtualMachine> vm(new VirtualMachine(loop, std::move(options)));
  HF_TRY_STATUS(vm->BuildChardevs());
  HF_TRY_STATUS(vm->BuildConsoles());
  HF_TRY_STATUS(vm->BuildMonitors());
  Status built = vm->BuildMachine(std::move(interrupted));
  if (built) {
    vm->BuildSnapshots();
    vm->BuildMigration();
    if (vm->options_.takeover) {
      built = vm->TakeOver();
    } else if (const auto& incoming = vm->options_.incoming) {
      built = incoming->path.empty() ? vm->Await() : vm->Restore();
    }
    if (!built) built = Fail(std::move(built).error().Wrap("-incoming"));
  }
  if (!built) {
    const auto& takeover = vm->options_.takeover;
    if (takeover && takeover->arrival) takeover->arrival->Failed(built.error());
    return Fail(std::move(built).error());
  }
  return vm;
}

VirtualMachine::VirtualMachine(EventLoop& loop, Options options)
    : loop_(loop), options_(std::move(options)) {
  machine::SmbiosConfig& smbios = options_.machine.smbios;
  if (smbios.bios.version.empty()) smbios.bios.version = kVersion;
  if (smbios.system.version.empty()) smbios.system.version = options_.machine_type;
  context_.version = kVersion;
  context_.name = options_.guest_name;
  context_.uuid = options_.uuid;
  context_.machine_type = options_.machine_type;
  context_.cpu_model = options_.cpu_model;
  context_.objects = &options_.objects;
  context_.block = &block_graph_;
  context_.network = &network_;
  context_.migration_settings = &migration_settings_;
  context_.passed_fds = &passed_fds_;
  context_.device_types = DeviceTypes();
  // The functions run from the loop, and that only after the machine was built.
  context_.machine = [this]() -> machine::Machine& { return *machine_; };
  context_.vm = [this]() -> kvm::Vm& { return *vm_; };
  context_.migration = [this]() -> migration::Migration& { return *migration_; };
  context_.snapshots = [this]() -> migration::Snapshots& { return *snapshots_; };
  context_.chardevs = [this] { return Chardevs(); };
  context_.quit = [this] { QuitOnCommand(); };
  context_.human_command = [this](std::string_view line) { return human_commands_.Execute(line); };
  qmp_ = std::make_unique<control::QmpServer>(loop_, context_);
}

VirtualMachine::~VirtualMachine() {
  migration_.reset();
  snapshots_.reset();
  qmp_->Flush();
  qmp_.reset();
  monitors_.clear();
  machine_.reset();
  // The guest's last words may still be queued.
  for (const auto& backend : backends_) backend->Flush();
}

Status VirtualMachine::BuildConsoles() {
  for (std::size_t i = 0; i < options_.serial.size(); ++i) {
    HF_TRY(options_.machine.serial[i], BuildSerial(i));
  }
  if (!options_.monitor) return {};
  HF_TRY(devices::Chardev * front,
         MakeBackend("monitor", *options_.monitor, "monitor", !options_.nographic));
  if (front != nullptr) AddMonitor(*front).Greet();
  return {};
}

Result<devices::Chardev*> VirtualMachine::BuildSerial(std::size_t index) {
  constexpr std::string_view kMuxPrefix = "mon:";
  std::string_view word = options_.serial[index];
  const std::string label = fmt::format("serial{}", index);
  if (!word.starts_with(kMuxPrefix)) {
    return MakeBackend("serial", word, label, !options_.nographic);
  }
  word.remove_prefix(kMuxPrefix.size());
  HF_TRY(devices::Chardev * backend, MakeBackend("serial", word, label, false));
  if (backend == nullptr) return nullptr;
  // The monitor is made after the mux that it sits on, so the hook looks it up when it is called.
  const std::size_t monitor = monitors_.size();
  muxes_.push_back(std::make_unique<devices::ConsoleMux>(
      *backend,
      devices::ConsoleMux::Hooks{.quit = [this] { QuitOnCommand(); },
                                 .send_break = [this, index] { machine_->SendBreak(index); },
                                 .focus_changed =
                                     [this, monitor](devices::ConsoleMux::Focus focus) {
                                       if (focus == devices::ConsoleMux::Focus::kMonitor) {
                                         monitors_[monitor]->Greet();
                                       }
                                     }}));
  AddMonitor(muxes_.back()->monitor());
  return &muxes_.back()->serial();
}

Result<devices::Chardev*> VirtualMachine::MakeBackend(std::string_view option,
                                                      std::string_view word, std::string_view label,
                                                      bool terminal_signals) {
  constexpr std::string_view kChardevPrefix = "chardev:";
  if (word.starts_with(kChardevPrefix)) {
    devices::Chardev* const chardev = FindChardev(word.substr(kChardevPrefix.size()));
    if (chardev != nullptr) (void)chardev->Take();  // it is free: the options were checked for it
    return chardev;
  }
  auto made = devices::MakeChardev(loop_, word, terminal_signals);
  if (!made) return Fail(std::move(made).error().Wrap(fmt::format("-{} {}", option, word)));
  if (*made == nullptr) return nullptr;
  backends_.push_back(*std::move(made));
  devices::Chardev* backend = backends_.back().get();
  labels_.emplace_back(label);
  if (word == "pty") {
    // QEMU's line; scripts read the name of the terminal from it.
    std::string name = backend->Describe();
    if (name.starts_with("pty:")) name.erase(0, name.find_first_not_of(' ', 4));
    fmt::print("char device redirected to {} (label {})\n", name, label);
    std::fflush(stdout);
  }
  return backend;
}

std::vector<control::ChardevInfo> VirtualMachine::Chardevs() const {
  std::vector<control::ChardevInfo> all;
  for (std::size_t i = 0; i < backends_.size(); ++i) {
    all.push_back({labels_[i], backends_[i]->Describe(), true});
  }
  all.insert(all.end(), qmp_chardevs_.begin(), qmp_chardevs_.end());
  return all;
}

Status VirtualMachine::BuildMachine(std::function<bool()> interrupted) {
  HF_TRY(system_, kvm::System::Open(options_.kvm_device));
  HF_TRY_STATUS(BuildVm());
  HF_TRY_STATUS(BuildRam(std::move(interrupted)));
  HF_TRY_STATUS(BuildBlock());
  HF_TRY_STATUS(BuildNet());
  device_backends_.objects = &options_.objects;
  device_backends_.chardev = [this](std::string_view id) { return FindChardev(id); };
  options_.machine.backends = &device_backends_;
  std::vector<RamBlock*> blocks;
  for (object::MemoryBackend* backend : options_.ram) {
    backend->set_mapped(true);
    blocks.push_back(backend->block());
  }
  HF_TRY(machine_, machine::Machine::Create(loop_, *system_, *vm_, blocks, options_.machine,
                                            MachineEvents()));
  return {};
}

Status VirtualMachine::BuildVm() {
  HF_TRY_STATUS(MakeVm());
  if (options_.dirty_ring_size == 0) return {};
  const auto refuse = [&](Error error) {
    return Fail(std::move(error).Wrap(
        fmt::format("-accel kvm,dirty-ring-size={}", options_.dirty_ring_size)));
  };
  // Tried on one such (Linux 6.18.44): what a guest writes while its ring is full is lost now and
  // then, and a snapshot would be wrong without anybody noticing.
  HF_TRY(const auto host, kvm::Capabilities::Detect(*system_));
  if (!host.kernel_mode_guests) {
    return refuse({Errc::kUnsupported,
                   "this host's KVM is para-virtual, and its dirty rings lose "
                   "entries",
                   "Leave dirty-ring-size= out."});
  }
  Status enabled = vm_->EnableDirtyRings(options_.dirty_ring_size);
  return enabled ? enabled : refuse(std::move(enabled).error());
}

// What keeps memory from the host decides what the VM is and how its RAM is made.
Status VirtualMachine::MakeVm() {
  if (options_.confidential.empty()) {
    HF_TRY(vm_, kvm::Vm::Create(*system_));
    return {};
  }
  object::Object* const found = options_.objects.Find(options_.confidential);
  auto* const guest = dynamic_cast<object::ConfidentialGuest*>(found);
  if (guest == nullptr) {
    return Fail(found == nullptr ? Errc::kNotFound : Errc::kInvalidArgument,
                found == nullptr
                    ? fmt::format("-machine confidential-guest-support={}: there is no such object",
                                  options_.confidential)
                    : fmt::format("-machine confidential-guest-support={}: {} does not keep memory "
                                  "from the host",
                                  options_.confidential, found->type().name),
                fmt::format("Make one, for example with -object sw-protected-guest,id={}.",
                            found == nullptr ? options_.confidential : "cgs0"));
  }
  HF_TRY(const unsigned type, guest->ChooseVmType(*system_));
  HF_TRY(vm_, kvm::Vm::Create(*system_, type));
  HF_TRY(conversion_, guest->Initialize(*vm_));
  options_.machine.confidential = guest;
  guest->set_in_use();
  return {};
}

// Every backend has its memory from the start, as in QEMU, whether the machine uses it or not.
Status VirtualMachine::BuildRam(std::function<bool()> interrupted) {
  PreallocProgress progress(std::move(interrupted), STDERR_FILENO);
  const object::AllocateOptions how{
      .prealloc_threads = options_.machine.smp.cpus,
      .progress = [&](const object::AllocateProgress& now) { return progress.Report(now); },
      .merge = options_.machine.mem_merge,
      .dump = options_.machine.dump_guest_core,
      .conversion = conversion_,
      .inherited =
          [this](const std::string& id) {
            return options_.takeover ? options_.takeover->fds.Take("ram/" + id) : UniqueFd();
          }};
  for (const auto& object : options_.objects.objects()) {
    auto* const backend = dynamic_cast<object::MemoryBackend*>(object.get());
    if (backend != nullptr) HF_TRY_STATUS(backend->Allocate(*vm_, how));
  }
  return {};
}

control::Monitor& VirtualMachine::AddMonitor(devices::Chardev& front) {
  monitors_.push_back(std::make_unique<control::Monitor>(
      front, std::string(kVersion),
      [this](std::string_view line) { return human_commands_.Execute(line); }));
  return *monitors_.back();
}

Status VirtualMachine::Start() {
  // By now the process is confined.
  if (options_.sandbox.enabled || !options_.run_with.chroot.empty()) block_graph_.FreezeImages();
  const bool stays = options_.machine.incoming && !machine_->saved_running();
  if (options_.takeover) HF_TRY_STATUS(ClaimGuest());
  if (!options_.machine.start_paused && !stays) HF_TRY_STATUS(machine_->Resume());
  if (options_.takeover) TellOfTakeover();
  return {};
}

void VirtualMachine::OnSignal(int signal, int sender) {
  if (signal == SIGTERM && !power_button_pressed_ && machine_->running()) {
    power_button_pressed_ = true;
    log::Info("pressing the guest's power button on SIGTERM; a second SIGTERM ends the guest");
    machine_->PowerButton();
    return;
  }
  log::Error(fmt::format("terminating on signal {} from pid {}", signal, sender));
  machine_->Quit(machine::ShutdownCause::kHostSignal);
}

void VirtualMachine::QuitOnCommand() {
  machine_->Quit(machine::ShutdownCause::kHostQmpQuit);
}

void VirtualMachine::Quit(int status) {
  exit_status_ = status;
  loop_.Quit();
}

}  // namespace holdfast::apps
