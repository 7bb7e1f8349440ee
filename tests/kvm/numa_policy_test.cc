// SPDX-License-Identifier: Apache-2.0
// NUMA policies, judged by where the kernel says each page is. In the lab there are two nodes;
// elsewhere one, and then only what one node can show is looked at.
#include <gtest/gtest.h>
#include <holdfast/mapping.h>
#include <holdfast/numa_policy.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <vector>

#include "object/memory_backend.h"
#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using object::MemoryBackend;

constexpr std::uint64_t kSize = 64 * kMiB;
constexpr std::pair kFirstWithPolicy{6, 19};

class NumaPolicies : public KvmTest {
 protected:
  void SetUp() override {
    KvmTest::SetUp();
    if (IsSkipped()) return;
    if (!std::filesystem::exists("/sys/devices/system/node/node1"))
      GTEST_SKIP() << "this host has one NUMA node";
  }
  Result<MemoryBackend*> Make(const std::string& argument) {
    HF_TRY(object::Object * made, store_.AddFromOption("memory-backend-" + argument));
    auto* const backend = dynamic_cast<MemoryBackend*>(made);
    HF_TRY_STATUS(backend->Allocate(vm(), {.prealloc_threads = 2}));
    return backend;
  }
  object::ObjectStore& store() { return store_; }

 private:
  object::ObjectStore store_;
};

// Each page's node as the kernel sees it through a mapping of the test's own, and without a
// function of the library.
std::map<int, std::uint64_t> PagesByNode(const RamBlock& block) {
  std::map<int, std::uint64_t> pages;
  auto mapping = Mapping::MapFile(block.fd(), 0, block.size(), PROT_READ | PROT_WRITE, "a look");
  std::byte* start = mapping ? mapping->data() : block.guest_view().data();
  EXPECT_EQ(::madvise(start, block.size(), MADV_POPULATE_READ), 0);
  for (std::uint64_t offset = 0; offset < block.size(); offset += kPageSize) {
    void* page = start + offset;
    int node = -1;
    EXPECT_EQ(::syscall(SYS_move_pages, 0, 1UL, &page, nullptr, &node, 0), 0);
    ++pages[node];
  }
  return pages;
}

TEST_F(KvmTest, PolicyOnGuestMemfdIsFoundByWhatTheKernelDoes) {
  const auto takes = GuestMemfdTakesPolicy(vm());
  ASSERT_OK(takes);
  EXPECT_EQ(*takes, KernelRelease() >= kFirstWithPolicy);
  EXPECT_EQ(*takes, capabilities().guest_memfd_mempolicy);
}

TEST_F(NumaPolicies, EveryPageIsWhereThePolicyWantsIt) {
  for (const char* type : {"guest-memfd", "ram", "memfd,guest-memfd=off", "shm"}) {
    const std::string size = ",size=64M,prealloc=on";
    const auto bound = Make(std::string(type) + ",id=b,policy=bind,host-nodes=1" + size);
    ASSERT_OK(bound);
    EXPECT_EQ(PagesByNode(*(*bound)->block()),
              (std::map<int, std::uint64_t>{{1, kSize / kPageSize}}))
        << type;
    const auto preferred = Make(std::string(type) + ",id=p,policy=preferred,host-nodes=1" + size);
    ASSERT_OK(preferred);
    EXPECT_EQ(PagesByNode(*(*preferred)->block()),
              (std::map<int, std::uint64_t>{{1, kSize / kPageSize}}))
        << type;
    const auto spread = Make(std::string(type) + ",id=i,policy=interleave,host-nodes=0-1" + size);
    ASSERT_OK(spread);
    const auto pages = PagesByNode(*(*spread)->block());
    ASSERT_EQ(pages.size(), 2U) << type;
    EXPECT_NEAR(static_cast<double>(pages.at(0)), static_cast<double>(pages.at(1)),
                static_cast<double>(kSize / kPageSize) / 32)
        << type;
    // And the library's own view agrees.
    const auto placement = QueryPlacement(*(*spread)->block());
    ASSERT_OK(placement);
    EXPECT_EQ(placement->allocated, kSize) << type;
    EXPECT_EQ(placement->nodes.at(0), pages.at(0) * kPageSize) << type;
    for (const char* id : {"b", "p", "i"}) ASSERT_OK(store().Remove(id));
  }
}

TEST_F(NumaPolicies, WithoutPreallocationThePolicyHoldsOrIsRefused) {
  const auto made = Make("guest-memfd,id=m,size=64M,policy=bind,host-nodes=1");
  if (KernelRelease() < kFirstWithPolicy) {
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().message(),
              "policy=bind of 'm' has no effect on guest_memfd with this kernel");
    EXPECT_NE(made.error().hint().find("Linux 6.19"), std::string::npos);
    EXPECT_NE(made.error().hint().find("prealloc=on"), std::string::npos);
    return;
  }
  ASSERT_OK(made);
  EXPECT_EQ(PagesByNode(*(*made)->block()), (std::map<int, std::uint64_t>{{1, kSize / kPageSize}}));
}

TEST_F(NumaPolicies, AutoTakesAMemfdWhereGuestMemfdIgnoresThePolicy) {
  const auto made = Make("memfd,id=m,size=64M,policy=bind,host-nodes=1");
  ASSERT_OK(made);
  EXPECT_EQ((*made)->block()->guest_memfd() != nullptr, KernelRelease() >= kFirstWithPolicy);
  EXPECT_EQ(PagesByNode(*(*made)->block()), (std::map<int, std::uint64_t>{{1, kSize / kPageSize}}));
}

TEST_F(NumaPolicies, ANodeThatIsTooSmallIsAnErrorAndNotAKill) {
  for (const char* type : {"guest-memfd", "ram"}) {
    const auto made =
        Make(std::string(type) + ",id=m,size=6G,prealloc=on,policy=bind,host-nodes=1");
    ASSERT_FALSE(made);
    EXPECT_NE(made.error().message().find("'m' needs 6 GiB of host node 1, which has "),
              std::string::npos)
        << made.error().message();
    ASSERT_OK(store().Remove("m"));
  }
}

}  // namespace
}  // namespace holdfast::test
