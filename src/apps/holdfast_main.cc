// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>

#include "apps/options.h"
#include "apps/process.h"
#include "apps/vm_builder.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "migration/cpr_transfer.h"

namespace holdfast::apps {
namespace {

int Print(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  return written && std::fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

// From options to the end of the guest. `daemon` is the caller's, so that the process that waits
// in the foreground hears of a failure only after the sentence about it is printed.
// @return the exit status.
Result<int> Run(Options options, std::optional<Daemon>& daemon) {
  HF_TRY_STATUS(SetUpProcess(options));
  HF_TRY(const Confinement confinement, Confinement::Prepare(options));
  if (options.daemonize) {
    HF_TRY(daemon, Daemon::Enter());
  }
  std::optional<PidFile> pidfile;
  if (!options.pidfile.empty()) {
    HF_TRY(PidFile created, PidFile::Create(options.pidfile));
    pidfile.emplace(std::move(created));
  }
  HF_TRY(const std::unique_ptr<EventLoop> loop, EventLoop::Create());
  VirtualMachine* running = nullptr;
  HF_TRY(
      const std::unique_ptr<Signals> signals,
      Signals::Create(*loop, [&](int signal, int sender) { running->OnSignal(signal, sender); }));
  HF_TRY(const std::unique_ptr<VirtualMachine> vm,
         VirtualMachine::Build(*loop, std::move(options), [&] { return signals->pending(); }));
  running = vm.get();
  HF_TRY_STATUS(confinement.Enter());
  HF_TRY_STATUS(vm->Start());
  if (daemon) HF_TRY_STATUS(daemon->Ready());
  HF_TRY_STATUS(loop->Run());
  return vm->exit_status();
}

}  // namespace
}  // namespace holdfast::apps

int main(int argc, char** argv) {
  using namespace holdfast;
  auto options = apps::ParseCommandLine({argv + 1, static_cast<std::size_t>(argc - 1)});
  if (!options) {
    log::Error(options.error());
    return EXIT_FAILURE;
  }
  if (options->print) return apps::Print(*options->print);
  auto takeover = migration::TakeoverFromEnvironment();
  if (!takeover) {
    log::Error(takeover.error());
    return EXIT_FAILURE;
  }
  if (!*takeover && !options->cpr_path.empty()) {
    takeover->emplace();
    auto arrival = migration::CprArrival::Wait(options->cpr_path, (*takeover)->fds);
    if (!arrival) {
      log::Error(std::move(arrival).error().Wrap("-incoming"));
      return EXIT_FAILURE;
    }
    (*takeover)->arrival = *std::move(arrival);
  }
  if (*takeover) {
    options->takeover = std::make_shared<migration::Takeover>(**std::move(takeover));
    options->machine.incoming = true;
  }
  std::optional<apps::Daemon> daemon;
  const Result<int> status = apps::Run(*std::move(options), daemon);
  if (!status) {
    log::Error(status.error());
    return EXIT_FAILURE;
  }
  return *status;
}
