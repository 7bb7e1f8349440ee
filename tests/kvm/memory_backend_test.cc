// SPDX-License-Identifier: Apache-2.0
// Memory backends as they make memory: what they allocate, where, and how they fail.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <holdfast/numa_policy.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "object/memory_backend.h"
#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using object::AllocateOptions;
using object::AllocateProgress;
using object::MemoryBackend;
using object::ObjectStore;

class MemoryBackends : public KvmTest {
 protected:
  MemoryBackends() {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-mem-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  ~MemoryBackends() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  // The backend, not yet allocated; `argument` comes after "memory-backend-".
  MemoryBackend* Make(const std::string& argument) {
    const auto made = store_.AddFromOption("memory-backend-" + argument);
    EXPECT_OK(made);
    return made ? dynamic_cast<MemoryBackend*>(*made) : nullptr;
  }
  // The backend with its memory.
  MemoryBackend* Allocate(const std::string& argument, const AllocateOptions& options = {}) {
    MemoryBackend* const backend = Make(argument);
    if (backend == nullptr) return nullptr;
    const Status status = backend->Allocate(vm(), options);
    EXPECT_OK(status) << argument;
    return status ? backend : nullptr;
  }
  // The words that making the memory fails with; the object is gone afterwards.
  std::string Failure(const std::string& argument) {
    MemoryBackend* const backend = Make(argument);
    if (backend == nullptr) return "not even parsed";
    const Status status = backend->Allocate(vm());
    EXPECT_EQ(backend->block(), nullptr);
    EXPECT_OK(store_.Remove(backend->id()));
    return status ? "no failure" : status.error().message();
  }
  ObjectStore& store() { return store_; }

 private:
  std::filesystem::path folder_;
  ObjectStore store_;
};

std::size_t OpenFds() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    ++count;
  return count;
}

// The bytes of address space that this process has mapped.
std::uint64_t MappedBytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t pages = 0;
  file >> pages;
  return pages * kPageSize;
}

TEST_F(MemoryBackends, EachTypeMakesMemoryThatHoldsWhatIsWritten) {
  const struct {
    const char* argument;
    bool guest_memfd;
    bool has_fd;
  } cases[] = {
      {"ram,id=a,size=4M", false, false},
      {"ram,id=b,size=4M,share=on,reserve=off", false, true},
      {"ram,id=c,size=5000,prealloc=on", false, false},
      {"shm,id=d,size=4M", false, true},
      {"memfd,id=e,size=4M,guest-memfd=off,merge=off,dump=off", false, true},
      {"memfd,id=f,size=4M,share=off", false, true},
      {"memfd,id=g,size=4M", true, true},
      {"memfd,id=h,size=4M,guest-memfd=on,bind=on,seal=off", true, true},
      {"guest-memfd,id=i,size=4M,prealloc=on,prealloc-threads=2", true, true},
      {"guest-memfd,id=j,size=4M,bind=off,reserve=off", true, true},
  };
  for (const auto& c : cases) {
    MemoryBackend* const backend = Allocate(c.argument);
    ASSERT_NE(backend, nullptr) << c.argument;
    const RamBlock& block = *backend->block();
    EXPECT_EQ(block.guest_memfd() != nullptr, c.guest_memfd) << c.argument;
    EXPECT_EQ(block.fd() >= 0, c.has_fd) << c.argument;
    EXPECT_EQ(block.size(), AlignUp(backend->size(), kPageSize)) << c.argument;
    block.host_view().front() = std::byte{0x5a};
    block.host_view().back() = std::byte{0xa5};
    EXPECT_EQ(block.guest_view().front(), std::byte{0x5a}) << c.argument;
    EXPECT_EQ(block.guest_view().back(), std::byte{0xa5}) << c.argument;
  }
}

TEST_F(MemoryBackends, GuestMemfdAutoTellsWhatItBecame) {
  const struct {
    const char* argument;
    std::uint64_t became;
  } cases[] = {{"memfd,id=a,size=1M", 1}, {"memfd,id=b,size=1M,share=off", 2}};
  for (const auto& c : cases) {
    MemoryBackend* const backend = Allocate(c.argument);
    ASSERT_NE(backend, nullptr);
    EXPECT_EQ(backend->Get("guest-memfd"), object::PropertyValue(c.became)) << c.argument;
  }
}

TEST_F(MemoryBackends, AFileKeepsWhatIsWrittenUnlessToldNotTo) {
  const auto first_byte = [&](const std::string& name) {
    std::ifstream file(Path(name), std::ios::binary);
    return file.get();
  };
  const struct {
    const char* name;
    const char* extra;
    int expected;
  } cases[] = {
      {"shared", ",share=on", 0x5a},
      {"private", "", 0},
      {"discarded", ",share=on,discard-data=on", 0},
      {"aligned", ",share=on,align=2M", 0x5a},
  };
  for (const auto& c : cases) {
    MemoryBackend* const backend =
        Allocate(std::string("file,id=m,size=1M,mem-path=") + Path(c.name) + c.extra);
    ASSERT_NE(backend, nullptr);
    backend->block()->host_view().front() = std::byte{0x5a};
    if (std::string_view(c.name) == "aligned") {
      EXPECT_EQ(backend->block()->guest_view_address() % (2 * kMiB), 0U);
    }
    ASSERT_OK(store().Remove("m"));
    EXPECT_EQ(first_byte(c.name), c.expected) << c.name;
    EXPECT_EQ(std::filesystem::file_size(Path(c.name)), kMiB) << c.name;
  }
  // From its offset on, read only; and in a folder without leaving anything behind.
  MemoryBackend* const offset =
      Allocate("file,id=o,size=512k,offset=512k,readonly=on,mem-path=" + Path("shared"));
  ASSERT_NE(offset, nullptr);
  EXPECT_FALSE(offset->block()->readonly()) << "private memory, the file stays as it is";
  MemoryBackend* const rom = Allocate(
      "file,id=r,size=1M,readonly=on,share=on,prealloc=on,"
      "mem-path=" +
      Path("shared"));
  ASSERT_NE(rom, nullptr);
  EXPECT_TRUE(rom->block()->readonly());
  EXPECT_EQ(rom->block()->host_view().front(), std::byte{0x5a});
  std::filesystem::create_directory(Path("folder"));
  ASSERT_NE(Allocate("file,id=f,size=1M,mem-path=" + Path("folder")), nullptr);
  EXPECT_TRUE(std::filesystem::is_empty(Path("folder")));
}

TEST_F(MemoryBackends, WhatCannotBeMadeIsRefusedInQemusWords) {
  std::ofstream(Path("small")) << "abc";
  const std::string file = "file,id=m,size=64M,mem-path=";
  const struct {
    std::string argument;
    std::string message;
  } cases[] = {
      {"ram,id=m,size=4E", "cannot set up guest memory 'm': Cannot allocate memory"},
      {"ram,id=m,size=0xffffffffffffffff",
       "cannot set up guest memory 'm': Cannot allocate memory"},
      {"guest-memfd,id=m,size=4E", "cannot set up guest memory 'm': Cannot allocate memory"},
      {file + "/nonexist/x",
       "can't open backing store /nonexist/x for guest RAM: No such file or directory"},
      {file + "/tmp,readonly=on", "can't open backing store /tmp for guest RAM: Is a directory"},
      {file + Path("new") + ",readonly=on",
       "can't open backing store " + Path("new") + " for guest RAM: No such file or directory"},
      {file + Path("new") + ",align=3000", "alignment 0xbb8 must be multiples of page size 0x1000"},
      {file + Path("new") + ",align=12288", "alignment 0x3000 must be a power of two"},
      {file + Path("new") + ",offset=100", "offset 0x64 must be multiples of page size 0x1000"},
      {file + Path("small"),
       "m backing store size 0x3 is too small for 'size' option 0x4000000 plus 'offset' option "
       "0x0"},
      {file + Path("new") + ",offset=0xfffffffffffff000",
       "m backing store size 0x0 is too small for 'size' option 0x4000000 plus 'offset' option "
       "0xfffffffffffff000"},
      {file + "/dev/null", "unable to map backing store for guest RAM: No such device"},
      {"memfd,id=m,size=3M,hugetlb=on,hugetlbsize=2M",
       "failed to resize memfd to 3145728: Invalid argument"},
      {"memfd,id=m,size=1M,hugetlb=on,hugetlbsize=64k",
       "failed to create memfd with flags 0x40000007: No such device"},
      {"ram,id=m,size=1M,policy=bind,host-nodes=7",
       "cannot bind memory to host NUMA nodes: Invalid argument"},
      {"guest-memfd,id=m,size=1M,prealloc=on,policy=bind,host-nodes=7",
       "cannot bind memory to host NUMA nodes: Invalid argument"},
  };
  const std::size_t fds = OpenFds();
  for (const auto& c : cases) EXPECT_EQ(Failure(c.argument), c.message) << c.argument;
  EXPECT_EQ(OpenFds(), fds);
  EXPECT_FALSE(std::filesystem::exists(Path("new"))) << "a file that was made for nothing";
  EXPECT_EQ(std::filesystem::file_size(Path("small")), 3U);
}

TEST_F(MemoryBackends, HugePagesThatAreNotThereAreRefused) {
  std::ifstream file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  std::uint64_t free = 0;
  file >> free;
  const std::string size = std::to_string((free + 1) * 2) + "M";
  EXPECT_EQ(Failure("memfd,id=m,hugetlb=on,hugetlbsize=2M,size=" + size),
            "unable to map backing store for guest RAM: Cannot allocate memory");
}

TEST_F(MemoryBackends, PreallocationTouchesEveryPageWithAnyNumberOfThreads) {
  for (const char* type : {"guest-memfd", "ram", "memfd,guest-memfd=off", "shm"}) {
    for (const unsigned threads : {1U, 2U, 4U}) {
      MemoryBackend* const backend =
          Allocate(std::string(type) +
                   ",id=m,size=65540k,prealloc=on,prealloc-threads=" + std::to_string(threads));
      ASSERT_NE(backend, nullptr);
      EXPECT_EQ(PresentPages(backend->block()->host_view()) * kPageSize, backend->size())
          << type << ", " << threads << " threads";
      ASSERT_OK(store().Remove("m"));
    }
  }
}

TEST_F(MemoryBackends, WithoutPreallocationNothingIsAllocated) {
  MemoryBackend* const backend = Allocate("guest-memfd,id=m,size=64M");
  ASSERT_NE(backend, nullptr);
  const auto placement = QueryPlacement(*backend->block());
  ASSERT_OK(placement);
  EXPECT_EQ(placement->allocated, 0U);
  EXPECT_EQ(PresentPages(backend->block()->host_view()), 0U) << "asking allocated memory";
}

TEST_F(MemoryBackends, ThePlacementQueryCountsWhatWasTouchedThroughEitherView) {
  for (const char* type : {"guest-memfd", "ram", "memfd,guest-memfd=off"}) {
    MemoryBackend* const backend = Allocate(std::string(type) + ",id=m,size=96M");
    ASSERT_NE(backend, nullptr);
    const RamBlock& block = *backend->block();
    block.guest_view()[0] = std::byte{1};
    block.host_view()[40 * kMiB] = std::byte{1};
    const auto placement = QueryPlacement(block);
    ASSERT_OK(placement);
    std::uint64_t on_nodes = 0;
    for (const auto& [node, bytes] : placement->nodes) on_nodes += bytes;
    EXPECT_EQ(on_nodes, placement->allocated) << type;
    // A huge page may have come with each; never more.
    EXPECT_GE(placement->allocated, 2 * kPageSize) << type;
    EXPECT_LE(placement->allocated, 4 * kMiB) << type;
    std::vector<std::int16_t> nodes(1);
    ASSERT_OK(QueryPageNodes(block, 80 * kMiB, nodes));
    EXPECT_EQ(nodes[0], kNoNode) << type;
    EXPECT_FALSE(QueryPageNodes(block, block.size(), nodes)) << "outside the block";
    EXPECT_FALSE(QueryPageNodes(block, 1, nodes)) << "not a page";
    ASSERT_OK(store().Remove("m"));
  }
}

TEST_F(MemoryBackends, GivingUpLeavesNothingBehind) {
  const std::size_t fds = OpenFds();
  const std::uint64_t mapped = MappedBytes();
  MemoryBackend* const backend = Make("guest-memfd,id=m,size=4G,prealloc=on");
  ASSERT_NE(backend, nullptr);
  std::uint64_t total = 0;
  const Status status = backend->Allocate(
      vm(), {.prealloc_threads = 2, .progress = [&](const AllocateProgress& progress) {
               total = progress.total;
               EXPECT_EQ(progress.id, "m");
               return false;
             }});
  ASSERT_FALSE(status) << "it took less than the first report";
  EXPECT_EQ(status.error().message(), "interrupted while preallocating 'm'");
  EXPECT_EQ(status.error().os_errno(), EINTR);
  EXPECT_EQ(total, 4 * kGiB);
  EXPECT_EQ(backend->block(), nullptr);
  EXPECT_EQ(OpenFds(), fds);
  // The stacks of ended threads are kept for the next ones.
  EXPECT_LT(MappedBytes(), mapped + 256 * kMiB);
}

TEST_F(MemoryBackends, TooMuchMemoryIsAnErrorThatNamesPlaceAndAmount) {
  const std::string failure = Failure("guest-memfd,id=m,size=8T,prealloc=on");
  EXPECT_TRUE(
      failure.starts_with("qemu_prealloc_mem: preallocating memory failed: Cannot allocate "
                          "memory: 'm' needs 8 TiB of "))
      << failure;
  const std::string bound =
      Failure("guest-memfd,id=m,size=8T,prealloc=on,policy=bind,host-nodes=0");
  EXPECT_NE(bound.find("'m' needs 8 TiB of host node 0, which has "), std::string::npos) << bound;
}

TEST_F(MemoryBackends, OnlyMergeAndDumpChangeOnceTheMemoryIsThere) {
  MemoryBackend* const backend = Allocate("memfd,id=m,size=1M,guest-memfd=off");
  ASSERT_NE(backend, nullptr);
  EXPECT_EQ(backend->Set("size", std::uint64_t{4096}).error().message(),
            "cannot change property size of memory-backend-memfd ");
  EXPECT_EQ(backend->Set("share", false).error().message(), "cannot change property value");
  EXPECT_EQ(backend->Set("policy", std::uint64_t{1}).error().message(),
            "cannot change property value");
  EXPECT_OK(backend->Set("share", true)) << "what it is already";
  EXPECT_OK(backend->Set("merge", false));
  EXPECT_OK(backend->Set("dump", false));
  EXPECT_EQ(backend->Get("dump"), object::PropertyValue(false));
}

TEST_F(MemoryBackends, MergeAndDumpAreTheMachinesWhereNobodySays) {
  const struct {
    const char* argument;
    bool merge;
    bool dump;
  } cases[] = {
      {"ram,id=a,size=1M", false, false},
      {"ram,id=b,size=1M,merge=on,dump=on", true, true},
  };
  for (const auto& c : cases) {
    MemoryBackend* const backend = Allocate(c.argument, {.merge = false, .dump = false});
    ASSERT_NE(backend, nullptr);
    EXPECT_EQ(backend->Get("merge"), object::PropertyValue(c.merge)) << c.argument;
    EXPECT_EQ(backend->Get("dump"), object::PropertyValue(c.dump)) << c.argument;
  }
}

TEST_F(MemoryBackends, TenThousandComeAndGoWithoutATrace) {
  const char* const arguments[] = {
      "memory-backend-guest-memfd,id=m,size=64k,prealloc=on",
      "memory-backend-ram,id=m,size=64k,prealloc=on",
      "memory-backend-memfd,id=m,size=64k,guest-memfd=off",
      "memory-backend-shm,id=m,size=64k",
  };
  std::size_t fds = 0;
  std::uint64_t mapped = 0;
  for (int round = 0; round < 10'000; ++round) {
    // The first rounds fill what the C library keeps.
    if (round == 100) {
      fds = OpenFds();
      mapped = MappedBytes();
    }
    const auto made = store().AddFromOption(arguments[round % std::size(arguments)]);
    ASSERT_OK(made);
    auto* const backend = dynamic_cast<MemoryBackend*>(*made);
    ASSERT_OK(backend->Allocate(vm()));
    backend->block()->host_view().front() = std::byte{1};
    ASSERT_OK(store().Remove("m"));
  }
  EXPECT_EQ(OpenFds(), fds);
  EXPECT_LE(MappedBytes(), mapped + kMiB);
}

// As a monitor does that takes another's guest over.
TEST_F(MemoryBackends, TakeOverTheMemoryOfAnotherMonitor) {
  const struct {
    const char* before;
    const char* after;
    const char* error;
  } kCases[] = {
      {"guest-memfd,id=a,size=1M", "guest-memfd,id=b,size=1M", ""},
      {"guest-memfd,id=a,size=1M", "guest-memfd,id=b,size=1M,prealloc=on", ""},
      {"guest-memfd,id=a,size=1M", "memfd,id=b,size=1M", ""},
      {"memfd,id=a,size=1M,guest-memfd=off", "memfd,id=b,size=1M", ""},
      {"ram,id=a,size=1M,share=on", "ram,id=b,size=1M,share=on", ""},
      {"shm,id=a,size=1M", "shm,id=b,size=1M", ""},
      {"guest-memfd,id=a,size=1M", "guest-memfd,id=b,size=2M",
       "the guest's memory 'b' has 1 MiB, not 2 MiB"},
      {"guest-memfd,id=a,size=1M", "guest-memfd,id=b,size=1M,bind=on",
       "bind=on of 'b' cannot be had for memory that another monitor made: a guest_memfd is bound "
       "to the VM it was made in"},
      {"guest-memfd,id=a,size=1M", "memfd,id=b,size=1M,guest-memfd=off",
       "the guest's memory 'b' is a guest_memfd, which memory-backend-memfd 'b' cannot be"},
      {"memfd,id=a,size=1M,guest-memfd=off", "guest-memfd,id=b,size=1M",
       "the guest's memory 'b' is a shared file, which memory-backend-guest-memfd 'b' cannot be"},
      {"ram,id=a,size=1M,share=on", "ram,id=b,size=1M",
       "the guest's memory 'b' is a shared file, which memory-backend-ram 'b' cannot be"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(std::string(c.before) + " -> " + c.after);
    const MemoryBackend* const before = Allocate(c.before);
    ASSERT_NE(before, nullptr);
    before->block()->host_view()[4096] = std::byte{0x5a};
    MemoryBackend* const after = Make(c.after);
    ASSERT_NE(after, nullptr);
    const Status status = after->Allocate(vm(), {.inherited = [&](const std::string& id) {
                                            EXPECT_EQ(id, "b");
                                            return UniqueFd(::dup(before->block()->fd()));
                                          }});
    EXPECT_EQ(status ? "" : status.error().message(), c.error);
    if (status) {
      EXPECT_EQ(after->block()->host_view()[4096], std::byte{0x5a});
    }
    EXPECT_OK(store().Remove("b"));
    EXPECT_OK(store().Remove("a"));
  }
}

}  // namespace
}  // namespace holdfast::test
