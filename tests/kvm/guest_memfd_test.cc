// SPDX-License-Identifier: Apache-2.0
// The guest_memfd contract as Holdfast relies on it (Documentation/virt/kvm/api.rst 4.142).
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/guest_memfd.h>
#include <holdfast/mapping.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>

#include "kvm/ioctl.h"
#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using kvm::GuestMemfd;

constexpr auto kShared = GuestMemfd::Access::kHostShared;
constexpr auto kPrivate = GuestMemfd::Access::kPrivate;

class GuestMemfdTest : public KvmTest {
 protected:
  GuestMemfd Make(std::uint64_t pages, GuestMemfd::Access access = kShared) {
    auto memfd = GuestMemfd::Create(vm(), pages * kPageSize, access);
    EXPECT_OK(memfd);
    return *std::move(memfd);
  }
  Mapping Map(const GuestMemfd& memfd) {
    auto mapping = Mapping::MapFile(memfd.fd(), 0, memfd.size(), PROT_READ | PROT_WRITE, "it");
    EXPECT_OK(mapping);
    return *std::move(mapping);
  }
};

TEST_F(GuestMemfdTest, HasTheSizeItWasGivenAndHoldsNothingYet) {
  const GuestMemfd memfd = Make(16);
  struct stat info{};
  ASSERT_EQ(::fstat(memfd.fd(), &info), 0);
  EXPECT_EQ(info.st_size, static_cast<off_t>(16 * kPageSize));
  EXPECT_EQ(memfd.size(), 16 * kPageSize);
  EXPECT_EQ(PresentPages(Map(memfd).bytes()), 0U);
}

TEST_F(GuestMemfdTest, IsClosedByExec) {
  for (const auto access : {kShared, kPrivate})
    EXPECT_EQ(::fcntl(Make(1, access).fd(), F_GETFD), FD_CLOEXEC);
}

TEST_F(GuestMemfdTest, RefusesSizesThatCannotBe) {
  constexpr std::uint64_t kSizes[] = {0,          1,     kPageSize - 1,        kPageSize + 1,
                                      1ULL << 63, ~0ULL, ~0ULL - kPageSize + 1};
  for (const std::uint64_t size : kSizes) {
    const auto memfd = GuestMemfd::Create(vm(), size, kShared);
    ASSERT_FALSE(memfd.has_value()) << size;
    EXPECT_EQ(memfd.error().code(), Errc::kInvalidArgument) << size;
  }
}

TEST_F(GuestMemfdTest, TakesSizesFarBeyondTheHostsMemory) {
  EXPECT_OK(GuestMemfd::Create(vm(), 64 * kTiB, kShared));
}

TEST_F(GuestMemfdTest, KernelTakesTheFlagsItNamesAndNoOthers) {
  const std::uint64_t known = capabilities().guest_memfd_flags;
  for (unsigned bit = 0; bit < 64; ++bit) {
    kvm::abi::CreateGuestMemfd request{};
    request.size = kPageSize;
    request.flags = 1ULL << bit;
    const auto fd = kvm::Call(vm().fd(), kvm::kCreateGuestMemfd, request);
    EXPECT_EQ(ErrnoOf(fd), (known >> bit & 1) != 0 ? 0 : EINVAL) << "bit " << bit;
    if (fd) UniqueFd(*fd).reset();
  }
}

TEST_F(GuestMemfdTest, PrivateMemoryCannotBeMapped) {
  const auto mapping =
      Mapping::MapFile(Make(1, kPrivate).fd(), 0, kPageSize, PROT_READ, "private memory");
  EXPECT_EQ(ErrnoOf(mapping), ENODEV);
}

TEST_F(GuestMemfdTest, MappingsAreViewsOfOneMemory) {
  const GuestMemfd memfd = Make(4);
  const Mapping one = Map(memfd);
  const Mapping two = Map(memfd);
  std::memset(one.data() + kPageSize, 0x77, kPageSize);
  EXPECT_EQ(two.data()[kPageSize], std::byte{0x77});
  EXPECT_EQ(two.data()[2 * kPageSize - 1], std::byte{0x77});
  EXPECT_EQ(two.data()[2 * kPageSize], std::byte{0});
}

// Bytes of the host's memory that can never be reclaimed, which guest_memfd pages are.
std::uint64_t UnevictableBytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  std::uint64_t kib = 0;
  while (meminfo >> key >> kib) {
    if (key == "Unevictable:") return kib * kKiB;
    meminfo.ignore(100, '\n');
  }
  return 0;
}

TEST_F(GuestMemfdTest, AllocationTakesTheMemoryAndHolesGiveItBack) {
  constexpr std::uint64_t kPages = 64 * kMiB / kPageSize;
  constexpr std::uint64_t kMost = 16 * kMiB;  // what the rest of the machine may do meanwhile
  const GuestMemfd memfd = Make(2 * kPages);
  bool seen = false;
  // The count is the whole machine's; whoever else runs guests right now may spoil a round.
  for (int round = 0; round < 5 && !seen; ++round) {
    const std::uint64_t before = UnevictableBytes();
    ASSERT_OK(memfd.Allocate(kPages * kPageSize, kPages * kPageSize));
    const std::uint64_t allocated = UnevictableBytes();
    ASSERT_OK(memfd.PunchHole(0, memfd.size()));
    const std::uint64_t after = UnevictableBytes();
    seen = allocated > before + kPages * kPageSize - kMost &&
           allocated < before + kPages * kPageSize + kMost && after < before + kMost;
  }
  EXPECT_TRUE(seen);
}

TEST_F(GuestMemfdTest, AllocatedPagesAreZeroAndCountedByMincoreOnceUsed) {
  // mincore asks whether a page is up to date, and allocation leaves the zeroing to the first use.
  const GuestMemfd memfd = Make(64);
  const Mapping view = Map(memfd);
  ASSERT_OK(memfd.Allocate(8 * kPageSize, 5 * kPageSize));
  EXPECT_EQ(PresentPages(view.bytes()), 0U);
  for (std::uint64_t page = 8; page < 13; ++page)
    EXPECT_EQ(view.data()[page * kPageSize], std::byte{0});
  EXPECT_EQ(PresentPages(view.bytes()), 5U);
}

TEST_F(GuestMemfdTest, AllocationKeepsContents) {
  const GuestMemfd memfd = Make(4);
  const Mapping view = Map(memfd);
  view.data()[kPageSize] = std::byte{9};
  ASSERT_OK(memfd.Allocate(0, memfd.size()));
  EXPECT_EQ(view.data()[kPageSize], std::byte{9});
  EXPECT_EQ(view.data()[2 * kPageSize], std::byte{0});
}

TEST_F(GuestMemfdTest, PunchedHolesAreFreedAndZeroInEveryView) {
  const GuestMemfd memfd = Make(8);
  const Mapping one = Map(memfd);
  const Mapping two = Map(memfd);
  std::memset(one.data(), 0x55, one.size());
  ASSERT_OK(memfd.PunchHole(2 * kPageSize, 3 * kPageSize));
  EXPECT_EQ(PresentPages(one.bytes()), 5U);
  for (const Mapping* view : {&one, &two}) {
    EXPECT_EQ(view->data()[2 * kPageSize - 1], std::byte{0x55});
    EXPECT_EQ(view->data()[2 * kPageSize], std::byte{0});
    EXPECT_EQ(view->data()[5 * kPageSize - 1], std::byte{0});
    EXPECT_EQ(view->data()[5 * kPageSize], std::byte{0x55});
  }
}

TEST_F(GuestMemfdTest, RefusesRangesThatAreNotItsOwnPages) {
  const GuestMemfd memfd = Make(4);
  const struct {
    const char* why;
    std::uint64_t offset, length;
    int allocate, punch;
  } cases[] = {
      {"empty", 0, 0, EINVAL, EINVAL},
      {"unaligned offset", 1, kPageSize, EINVAL, EINVAL},
      {"unaligned length", 0, 100, EINVAL, EINVAL},
      {"negative offset", ~0ULL - kPageSize + 1, kPageSize, EINVAL, EINVAL},
      {"past the end", 2 * kPageSize, 3 * kPageSize, EINVAL, 0},  // a hole may hang over
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.why);
    EXPECT_EQ(ErrnoOf(memfd.Allocate(c.offset, c.length)), c.allocate);
    EXPECT_EQ(ErrnoOf(memfd.PunchHole(c.offset, c.length)), c.punch);
  }
  EXPECT_EQ(PresentPages(Map(memfd).bytes()), 0U);
}

TEST_F(GuestMemfdTest, OutlivesTheVmItWasMadeFor) {
  auto other = kvm::Vm::Create(system());
  ASSERT_OK(other);
  std::optional<kvm::Vm> short_lived(*std::move(other));
  auto memfd = GuestMemfd::Create(*short_lived, kPageSize, kShared);
  ASSERT_OK(memfd);
  const Mapping view = Map(*memfd);
  view.data()[0] = std::byte{1};
  short_lived.reset();
  EXPECT_EQ(view.data()[0], std::byte{1});
  ASSERT_OK(memfd->PunchHole(0, kPageSize));
  EXPECT_EQ(view.data()[0], std::byte{0});
}

// ---- RamBlock -------------------------------------------------------------------------------

// The VmFlags line of /proc/self/smaps for the mapping that starts at `address`.
std::string VmFlags(std::uint64_t address) {
  std::ifstream smaps("/proc/self/smaps");
  std::ostringstream start;
  start << std::hex << address << '-';
  std::string line;
  bool found = false;
  while (std::getline(smaps, line)) {
    if (line.starts_with(start.str())) found = true;
    if (found && line.starts_with("VmFlags:")) return line + " ";
  }
  return {};
}

TEST_F(GuestMemfdTest, RamBlockHasTwoViewsThatNeitherForkNorDump) {
  const auto block = RamBlock::CreateGuestMemfd(vm(), "ram", 16 * kPageSize, false);
  ASSERT_OK(block);
  const auto host = reinterpret_cast<std::uint64_t>((*block)->host_view().data());
  const std::uint64_t guest = (*block)->guest_view_address();
  EXPECT_NE(host, guest);
  for (const std::uint64_t view : {host, guest}) {
    EXPECT_THAT(VmFlags(view), ::testing::HasSubstr(" dc "));  // not copied on fork
    EXPECT_THAT(VmFlags(view), ::testing::HasSubstr(" dd "));  // not dumped
  }
  EXPECT_EQ((*block)->fd(), (*block)->guest_memfd()->fd());
}

TEST_F(GuestMemfdTest, RamBlockOfABadSizeSaysWhichSize) {
  const auto block = RamBlock::CreateGuestMemfd(vm(), "ram", kPageSize + 1, false);
  ASSERT_FALSE(block.has_value());
  EXPECT_EQ(block.error().code(), Errc::kInvalidArgument);
  EXPECT_THAT(block.error().message(), ::testing::HasSubstr("0x1001"));
}

// What live upgrade is built on: the VM that made the memory is gone, its memory is not.
TEST_F(GuestMemfdTest, BecomesUnboundMemoryOfAnotherVm) {
  UniqueFd fd;
  {
    auto first = kvm::Vm::Create(system());
    ASSERT_OK(first);
    auto block = RamBlock::CreateGuestMemfd(*first, "m", 16 * kPageSize, true);
    ASSERT_OK(block);
    std::memset((*block)->host_view().data(), 0x5a, 4 * kPageSize);
    fd = UniqueFd(::dup((*block)->fd()));
  }
  auto block = RamBlock::AdoptGuestMemfd("m", std::move(fd), 16 * kPageSize);
  ASSERT_OK(block);
  EXPECT_FALSE((*block)->bound());
  EXPECT_NE((*block)->guest_memfd(), nullptr);
  EXPECT_EQ(PresentPages((*block)->host_view()), 4U) << "nothing is allocated";
  EXPECT_EQ((*block)->host_view()[kPageSize], std::byte{0x5a});
  AddressSpace space(&vm());
  ASSERT_OK(space.AddRam(GuestAddress(0), 16 * kPageSize, **block, 0));
  std::byte read{};
  ASSERT_OK(space.Read(GuestAddress(3 * kPageSize), std::span(&read, 1)));
  EXPECT_EQ(read, std::byte{0x5a});
}

TEST_F(GuestMemfdTest, TellsItselfFromOtherFiles) {
  const GuestMemfd memfd = Make(2);
  EXPECT_TRUE(GuestMemfd::Is(memfd.fd()));
  const UniqueFd plain(::memfd_create("plain", MFD_CLOEXEC));
  EXPECT_FALSE(GuestMemfd::Is(plain.get()));
  EXPECT_FALSE(GuestMemfd::Is(-1));
  EXPECT_FALSE(GuestMemfd::Adopt(UniqueFd(::dup(plain.get())), kPageSize));
  EXPECT_FALSE(GuestMemfd::Adopt(UniqueFd(::dup(memfd.fd())), kPageSize)) << "of another size";
  EXPECT_OK(GuestMemfd::Adopt(UniqueFd(::dup(memfd.fd())), 2 * kPageSize));
}

}  // namespace
}  // namespace holdfast::test
