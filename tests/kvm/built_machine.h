// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/kvm_system.h>
#include <holdfast/ram_block.h>
#include <holdfast/vm.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "base/event_loop.h"
#include "devices/device_model.h"
#include "machine/machine.h"
#include "support/kvm_fixture.h"

namespace holdfast::test {

/// Path of hello.elf, the guest of these machines.
inline std::string HelloPath() {
  if (const char* folder = std::getenv("HOLDFAST_GUESTS"))
    return std::string(folder) + "/hello.elf";
  const auto self = std::filesystem::read_symlink("/proc/self/exe");
  return (self.parent_path().parent_path() / "guests" / "hello.elf").string();
}

/// A machine with all that it stands on.
struct BuiltMachine {
  std::unique_ptr<kvm::Vm> vm;  // the machine refers to it
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<RamBlock> ram;
  std::unique_ptr<devices::Backends> backends = std::make_unique<devices::Backends>();
  std::unique_ptr<::holdfast::machine::Machine> machine;

  /// Makes all of it, with so many bytes of guest_memfd; without a machine where that fails, which
  /// fails the test.
  void Build(kvm::System& system, std::uint64_t ram_size,
             ::holdfast::machine::MachineConfig config) {
    config.backends = backends.get();
    auto made_vm = kvm::Vm::Create(system);
    ASSERT_OK(made_vm);
    vm = std::make_unique<kvm::Vm>(*std::move(made_vm));
    auto made_loop = EventLoop::Create();
    ASSERT_OK(made_loop);
    loop = *std::move(made_loop);
    auto made_ram = RamBlock::CreateGuestMemfd(*vm, "ram", ram_size, /*bind=*/false);
    ASSERT_OK(made_ram);
    ram = *std::move(made_ram);
    RamBlock* const blocks[] = {ram.get()};
    auto made_machine = ::holdfast::machine::Machine::Create(
        *loop, system, *vm, blocks, std::move(config), {.quit = [](int) {}});
    ASSERT_OK(made_machine);
    machine = *std::move(made_machine);
  }
};

}  // namespace holdfast::test
