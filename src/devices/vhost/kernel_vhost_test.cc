// SPDX-License-Identifier: Apache-2.0
// What is refused. The kernel's devices themselves are tested with guests (tests/system).
#include "devices/vhost/kernel_vhost.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/vhost/vhost_abi.h"
#include "devices/virtio/vhost_vsock.h"

namespace holdfast::devices::vhost {
namespace {

using ::testing::HasSubstr;

TEST(KernelVhost, SaysWhatToDoAboutADeviceThatIsNotThere) {
  const auto opened = KernelVhost::Open("/dev/no-such-vhost", "vhost_net");
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message(), HasSubstr("/dev/no-such-vhost"));
  EXPECT_THAT(opened.error().hint(), HasSubstr("modprobe vhost_net"));
}

TEST(KernelVhost, RefusesWhatIsNoVhostDevice) {
  UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto of_null = KernelVhost::Adopt(std::move(null), "vhostfd=7");
  ASSERT_FALSE(of_null);
  EXPECT_THAT(of_null.error().message(), HasSubstr("vhostfd=7 is no vhost device"));
}

// The numbers are the kernel's: as its header computes them from sizes.
TEST(KernelVhost, HasTheKernelsNumbers) {
  EXPECT_EQ(abi::kGetFeatures, 0x8008af00UL);
  EXPECT_EQ(abi::kSetFeatures, 0x4008af00UL);
  EXPECT_EQ(abi::kSetOwner, 0xaf01UL);
  EXPECT_EQ(abi::kSetMemoryTable, 0x4008af03UL);
  EXPECT_EQ(abi::kSetVringSize, 0x4008af10UL);
  EXPECT_EQ(abi::kSetVringAddress, 0x4028af11UL);
  EXPECT_EQ(abi::kSetVringBase, 0x4008af12UL);
  EXPECT_EQ(abi::kGetVringBase, 0xc008af12UL);
  EXPECT_EQ(abi::kSetVringKick, 0x4008af20UL);
  EXPECT_EQ(abi::kNetSetBackend, 0x4008af30UL);
  EXPECT_EQ(abi::kVsockSetGuestCid, 0x4008af60UL);
  EXPECT_EQ(abi::kVsockSetRunning, 0x4004af61UL);
}

TEST(VhostVsockModel, ChecksItsWords) {
  const struct {
    object::KeyValues words;
    const char* says;
  } cases[] = {
      {{}, "guest-cid property must be greater than 2"},
      {{{"guest-cid", "2"}}, "guest-cid property must be greater than 2"},
      {{{"guest-cid", "4294967295"}}, "guest-cid property must be a 32-bit number"},
      {{{"guest-cid", "-1"}}, "guest-cid"},
      {{{"guest-cid", "3"}, {"vhostfd", "x"}}, "vhostfd"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.says);
    const Status checked = virtio::kVhostVsockPci.check(c.words);
    ASSERT_FALSE(checked);
    EXPECT_THAT(checked.error().message(), HasSubstr(c.says));
  }
  EXPECT_TRUE(virtio::kVhostVsockPci.check({{"guest-cid", "3"}}));
}

}  // namespace
}  // namespace holdfast::devices::vhost
