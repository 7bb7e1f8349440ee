// SPDX-License-Identifier: Apache-2.0
#include "support/guest_vm.h"

#include <abi.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <shared_mutex>
#include <thread>

namespace holdfast::test {
namespace {

// Guest physical layout below the free RAM.
constexpr std::uint64_t kGdt = 0x500;
constexpr std::uint64_t kPml4 = 0x1000;
constexpr std::uint64_t kPdpt = 0x2000;
constexpr std::uint64_t kDirectories = 0x3000;  // one for each GiB
constexpr std::uint64_t kMappedGiB = 4;
constexpr std::uint64_t kTss = 0x8000;  // with a permission bitmap for all 64 Ki ports
constexpr std::uint64_t kTssSize = 0x68;
constexpr std::uint64_t kPortBitmapSize = 65536 / 8;
constexpr std::uint64_t kStacks = 0x20000;  // a page for each vCPU, growing down
constexpr std::uint64_t kMostVcpus = 64;
static_assert(kDirectories + kMappedGiB * kPageSize <= kTss);
static_assert(kTss + kTssSize + kPortBitmapSize < guests::kLoadAddress);
static_assert(kStacks + kMostVcpus * kPageSize <= GuestVm::kFreeRam);

// Present, writable, user, accessed, dirty: nothing is left for the processor to write there, so
// that page tables do not show up in a dirty log.
constexpr std::uint64_t kTable = 0x67;
constexpr std::uint64_t kLargePage = 0xe7;
constexpr std::uint64_t kLargePageSize = 2 * kMiB;

constexpr std::uint16_t kCodeSelector = 0x30 | 3;
constexpr std::uint16_t kDataSelector = 0x28 | 3;
constexpr std::uint16_t kTaskSelector = 0x40;

constexpr int kKickSignal = SIGUSR1;

kvm_segment Segment(std::uint16_t selector, std::uint8_t type, std::uint8_t dpl, bool code) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.dpl = dpl;
  segment.s = 1;
  segment.g = 1;
  segment.l = code ? 1 : 0;
  segment.db = code ? 0 : 1;
  return segment;
}

std::uint64_t ToInteger(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}

// One vCPU's run: takes what the guest hands out until it ends.
class Session {
 public:
  // `doorbell` answers what the guest asks for in its mailbox: an error, if it asked for nonsense.
  Session(kvm::Vcpu& vcpu, std::function<std::string(std::uint64_t)> doorbell)
      : vcpu_(vcpu), doorbell_(std::move(doorbell)) {}

  GuestOutcome Run(const std::atomic<bool>& give_up) {
    while (outcome_.end_code < 0 && outcome_.error.empty()) {
      const auto ran = vcpu_.Run();
      if (!ran) {
        outcome_.error = ran.error().ToString();
      } else if (*ran == kvm::Vcpu::RunOutcome::kInterrupted) {
        vcpu_.ClearExitRequest();
        if (give_up) outcome_.error = "the guest did not end in time at " + Where();
      } else {
        HandleExit();
      }
    }
    return std::move(outcome_);
  }

 private:
  void HandleExit() {
    kvm_run& run = vcpu_.run();
    if (run.exit_reason == KVM_EXIT_IO && run.io.direction == KVM_EXIT_IO_OUT) {
      HandleOut(run.io.port, ToInteger(vcpu_.io_data()));
    } else if (run.exit_reason == KVM_EXIT_MMIO) {
      const std::uint64_t value = run.mmio.is_write
                                      ? ToInteger(std::as_bytes(std::span(run.mmio.data)))
                                      : GuestVm::kMmioValue;
      if (!run.mmio.is_write) std::memcpy(run.mmio.data, &value, sizeof value);
      outcome_.mmio.push_back({GuestAddress(run.mmio.phys_addr), run.mmio.is_write != 0, value});
    } else {
      outcome_.error = fmt::format("KVM exit {} at {}", run.exit_reason, Where());
      if (run.exit_reason == KVM_EXIT_INTERNAL_ERROR)
        outcome_.error += fmt::format(", suberror {}", run.internal.suberror);
    }
  }

  void HandleOut(std::uint16_t port, std::uint64_t value) {
    switch (port) {
      case guests::kConsolePort:
        outcome_.console += static_cast<char>(value);
        break;
      case guests::kEndPort:
        outcome_.end_code = static_cast<int>(value & 0xff);
        break;
      case guests::kDoorbellPort:
        outcome_.error = doorbell_(value);
        break;
      case guests::kReportPort:
        if (half_) {
          outcome_.reports.push_back(*half_ | value << 32);
          half_.reset();
        } else {
          half_ = value & 0xffffffff;
        }
        break;
      default:
        outcome_.error = fmt::format("output to port {:#x}", port);
    }
  }

  std::string Where() const {
    const auto regs = vcpu_.GetRegs();
    return regs ? fmt::format("rip {:#x}", regs->rip) : std::string("an unknown place");
  }

  kvm::Vcpu& vcpu_;
  const std::function<std::string(std::uint64_t)> doorbell_;
  GuestOutcome outcome_;
  std::optional<std::uint64_t> half_;
};

void IgnoreSignal(int) {}

}  // namespace

double ScaledSeconds(double seconds) {
  const char* slowness = std::getenv("HOLDFAST_TEST_SLOWNESS");
  const double factor = slowness != nullptr ? std::strtod(slowness, nullptr) : 1.0;
  return factor > 0 ? seconds * factor : seconds;
}

Result<std::unique_ptr<GuestVm>> GuestVm::Create(const Options& options) {
  HF_TRY(kvm::System system, kvm::System::Open());
  const bool two_layers = options.conversion == ConversionEngineKind::kAttributes;
  HF_TRY(kvm::Vm vm, kvm::Vm::Create(system, two_layers ? kvm::abi::kVmTypeSwProtected
                                                        : kvm::abi::kVmTypeDefault));
  std::unique_ptr<GuestVm> guest(new GuestVm(std::move(system), std::move(vm), options.patience));
  if (options.dirty_ring != 0) HF_TRY_STATUS(guest->vm_.EnableDirtyRings(options.dirty_ring));
  if (options.memfd) {
    HF_TRY(guest->ram_, RamBlock::CreateMemfd("ram", options.ram_size));
  } else if (two_layers) {
    HF_TRY(guest->ram_, RamBlock::CreateTwoLayer(guest->vm_, "ram", options.ram_size));
  } else {
    const bool bound = options.bound || options.conversion;
    HF_TRY(guest->ram_, RamBlock::CreateGuestMemfd(guest->vm_, "ram", options.ram_size, bound));
  }
  if (options.conversion)
    HF_TRY_STATUS(guest->ram_->EnableConversion(guest->vm_, *options.conversion));
  const std::uint64_t high = options.high_ram != 0 ? options.ram_size / 2 : 0;
  const std::uint64_t low = options.ram_size - high;
  HF_TRY_STATUS(guest->space_.AddRam(GuestAddress(0), low, *guest->ram_, 0));
  if (high != 0) {
    HF_TRY_STATUS(guest->space_.AddRam(GuestAddress(options.high_ram), high, *guest->ram_, low));
  }
  HF_TRY_STATUS(guest->LayTables());
  for (unsigned id = 0; id < options.vcpus; ++id) {
    HF_TRY(kvm::Vcpu vcpu, kvm::Vcpu::Create(guest->vm_, id));
    HF_TRY(const auto cpuid, guest->system_.SupportedCpuid());
    HF_TRY_STATUS(vcpu.SetCpuid(cpuid));
    guest->vcpus_.push_back(std::move(vcpu));
  }
  return guest;
}

std::string GuestVm::OnDoorbell(std::uint64_t page) {
  const GuestAddress address(page * kPageSize);
  guests::Mailbox mailbox{};
  if (const auto read = space_.Read(address, std::as_writable_bytes(std::span(&mailbox, 1))); !read)
    return read.error().ToString();
  if (mailbox.pages == 0) {
    mailbox.result = guests::kConverted;
  } else {
    const std::shared_lock one_of_many(conversions_);
    const auto outcome = converter_.Convert(
        GuestAddress(mailbox.address), mailbox.pages * kPageSize,
        mailbox.to_private != 0 ? MemoryAttribute::kPrivate : MemoryAttribute::kShared);
    mailbox.result = !outcome        ? guests::kRefused
                     : outcome->busy ? guests::kBusy
                                     : guests::kConverted;
  }
  const auto written = space_.Write(address, std::as_bytes(std::span(&mailbox, 1)));
  return written ? std::string() : written.error().ToString();
}

Status GuestVm::LayTables() {
  SetWord(kPml4, kPdpt | kTable);
  for (std::uint64_t gib = 0; gib < kMappedGiB; ++gib) {
    const std::uint64_t directory = kDirectories + gib * kPageSize;
    SetWord(kPdpt + gib * 8, directory | kTable);
    for (std::uint64_t i = 0; i < 512; ++i)
      SetWord(directory + i * 8, (gib * kGiB + i * kLargePageSize) | kLargePage);
  }
  // Flat ring-3 code and data; ring 0 has none, nothing of the guest runs there.
  SetWord(kGdt + (kCodeSelector & ~7U), 0x00affb000000ffff);
  SetWord(kGdt + (kDataSelector & ~7U), 0x00cff3000000ffff);
  // Ring 3 may use every port, twice over: by a permission bitmap of zeroes (and the byte of ones
  // that ends it), because a para-virtual KVM drops IOPL 3 from the flags; and by IOPL 3, because
  // QEMU's emulated processor does not accept a busy TSS's bitmap.
  SetWord(kTss + 0x60, kTssSize << 48);
  SetWord(kTss + kTssSize + kPortBitmapSize, 0xff);
  return {};
}

Status GuestVm::StartInRing3(kvm::Vcpu& vcpu, const Arguments& arguments) const {
  HF_TRY(kvm_sregs sregs, vcpu.GetSregs());
  sregs.cs = Segment(kCodeSelector, 0xb, 3, true);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = Segment(kDataSelector, 0x3, 3, false);
  sregs.tr = kvm_segment{};
  sregs.tr.selector = kTaskSelector;
  sregs.tr.base = kTss;
  sregs.tr.limit = kTssSize + kPortBitmapSize;
  sregs.tr.type = 0xb;  // a busy 64-bit TSS; VM entry insists on one
  sregs.tr.present = 1;
  sregs.ldt = kvm_segment{};
  sregs.ldt.unusable = 1;
  sregs.gdt.base = kGdt;
  sregs.gdt.limit = 0x4f;
  sregs.idt.base = 0;
  sregs.idt.limit = 0;     // any exception ends the guest
  sregs.cr0 = 0x80050033;  // PG, AM, WP, NE, ET, MP, PE
  sregs.cr3 = kPml4;
  sregs.cr4 = 0x620;   // OSXMMEXCPT, OSFXSR, PAE
  sregs.efer = 0x500;  // LMA, LME
  HF_TRY_STATUS(vcpu.SetSregs(sregs));
  kvm_regs regs{};
  regs.rip = guests::kLoadAddress;
  // A return address would lie below: the ABI wants rsp + 8 to be a multiple of 16 at the entry.
  regs.rsp = kStacks + (vcpu.id() + 1) * kPageSize - 8;
  regs.rflags = 0x3002;  // IOPL 3
  regs.rdi = arguments.a;
  regs.rsi = arguments.b;
  regs.rdx = arguments.c;
  regs.rcx = arguments.d;
  regs.r8 = arguments.e;
  return vcpu.SetRegs(regs);
}

std::vector<GuestOutcome> GuestVm::Run(std::span<const std::byte> image,
                                       const std::vector<Arguments>& arguments) {
  std::vector<GuestOutcome> outcomes(arguments.size());
  const Status loaded = space_.Write(GuestAddress(guests::kLoadAddress), image);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    Status started = loaded;
    if (started) started = StartInRing3(vcpus_.at(i), arguments[i]);
    if (!started) {
      outcomes[i].error = started.error().ToString();
      return outcomes;
    }
  }

  struct sigaction action{};
  action.sa_handler = IgnoreSignal;
  ::sigaction(kKickSignal, &action, nullptr);

  std::atomic<bool> give_up = false;
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t running = arguments.size();  // guarded by mutex
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    threads.emplace_back([&, i] {
      outcomes[i] =
          Session(vcpus_[i], [this](std::uint64_t page) { return OnDoorbell(page); }).Run(give_up);
      const std::lock_guard lock(mutex);
      --running;
      changed.notify_one();
    });
  }
  {
    std::unique_lock lock(mutex);
    const auto limit = std::chrono::duration<double>(ScaledSeconds(patience_));
    if (!changed.wait_for(lock, limit, [&] { return running == 0; })) {
      give_up = true;
      for (std::size_t i = 0; i < threads.size(); ++i) {
        vcpus_[i].RequestExit();
        ::pthread_kill(threads[i].native_handle(), kKickSignal);
      }
    }
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

GuestOutcome GuestVm::Run(std::span<const std::byte> image, const Arguments& arguments) {
  return Run(image, std::vector{arguments})[0];
}

void GuestVm::WritePattern(std::uint64_t start, std::uint64_t pages, std::uint64_t seed) {
  std::array<std::uint64_t, kPageSize / 8> words{};
  for (std::uint64_t page = start; page < start + pages * kPageSize; page += kPageSize) {
    for (std::uint64_t i = 0; i < words.size(); ++i) words[i] = guests::Pattern(seed, page + 8 * i);
    const Status written = space_.Write(GuestAddress(page), std::as_bytes(std::span(words)));
    EXPECT_TRUE(written.has_value());
  }
}

std::uint64_t GuestVm::Word(std::uint64_t address) const {
  std::uint64_t value = 0;
  const Status read =
      space_.Read(GuestAddress(address), std::as_writable_bytes(std::span(&value, 1)));
  EXPECT_TRUE(read.has_value());
  return value;
}

void GuestVm::SetWord(std::uint64_t address, std::uint64_t value) {
  const Status written = space_.Write(GuestAddress(address), std::as_bytes(std::span(&value, 1)));
  EXPECT_TRUE(written.has_value());
}

kvm::Memslot GuestVm::RamSlot(bool bound, std::uint32_t flags) const {
  kvm::Memslot slot;
  slot.slot = space_.regions()[0].memslot;
  slot.flags = flags;
  slot.size = ram_->size();
  slot.userspace_addr = ram_->guest_view_address();
  if (bound) slot.guest_memfd = ram_->guest_memfd();
  return slot;
}

}  // namespace holdfast::test
