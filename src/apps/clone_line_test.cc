// SPDX-License-Identifier: Apache-2.0
#include "apps/clone_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace holdfast::apps {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Line = std::vector<std::string>;

ClonePlan Plan(Line saved, Line more = {}) {
  ClonePlan plan{.saved = {"-kernel", "k"},
                 .more = std::move(more),
                 .snapshot = "/s/a,b",
                 .folders = {"/c/clone-0", "/c/clone-1"}};
  plan.saved.insert(plan.saved.end(), saved.begin(), saved.end());
  return plan;
}

// The words of clone 1.
Line Second(const ClonePlan& plan) {
  auto lines = MakeCloneLines(plan);
  if (!lines) {
    ADD_FAILURE() << lines.error().ToString();
    return {};
  }
  return lines->at(1).words;
}
// What stands behind an option.
Line Values(const Line& line, std::string_view option) {
  Line values;
  for (std::size_t i = 0; i + 1 < line.size(); ++i) {
    if (line[i] == option) values.push_back(line[i + 1]);
  }
  return values;
}

TEST(CloneLineTest, EachHasItsOwnNameSocketsAndPidfile) {
  const Line line = Second(
      Plan({"-name", "web", "-nographic", "-m", "1G", "-S", "-qmp", "unix:/old,server=on,wait=off",
            "-pidfile", "/old.pid", "-D", "/old.log", "-incoming", "file:/older"}));
  EXPECT_EQ(Values(line, "-name"), Line{"guest=web-1"});
  EXPECT_EQ(Values(line, "-qmp"), Line{"unix:/c/clone-1/qmp.sock,server=on,wait=off"});
  EXPECT_EQ(Values(line, "-serial"), Line{"unix:/c/clone-1/console.sock,server=on,wait=off"});
  EXPECT_EQ(Values(line, "-pidfile"), Line{"/c/clone-1/pid"});
  EXPECT_EQ(Values(line, "-incoming"), Line{"file:/s/a,,b"});
  EXPECT_EQ(Values(line, "-display"), Line{"none"});
  EXPECT_EQ(Values(line, "-m"), Line{"1G"});
  for (const char* const gone : {"-nographic", "-S", "-D"}) EXPECT_THAT(line, Not(Contains(gone)));
}

TEST(CloneLineTest, ConsolesAndChardevsBecomeSocketsInTheFolder) {
  const Line line =
      Second(Plan({"-serial", "mon:stdio", "-serial", "null", "-serial", "file:/x", "-serial",
                   "chardev:c", "-chardev", "socket,id=c,host=h,port=1,server=on", "-chardev",
                   "file,id=f,path=/y", "-chardev", "pty,id=p", "-mon", "chardev=p"}));
  EXPECT_EQ(Values(line, "-serial"),
            (Line{"unix:/c/clone-1/console.sock,server=on,wait=off", "null",
                  "unix:/c/clone-1/console2.sock,server=on,wait=off", "chardev:c"}));
  EXPECT_EQ(Values(line, "-chardev"), (Line{"socket,id=c,path=/c/clone-1/c.sock,server=on,wait=off",
                                            "file,id=f,path=/c/clone-1/f.out", "pty,id=p"}));
}

TEST(CloneLineTest, WithoutDefaultsThereIsNoMoreThanThereWas) {
  const Line line = Second(Plan({"-nodefaults", "-daemonize"}));
  EXPECT_EQ(Values(line, "-serial"), Line{});
  EXPECT_THAT(line, Not(Contains("-daemonize")));
}

TEST(CloneLineTest, OptionsOfTheUserTakeThePlaceOfThoseWithTheirId) {
  const Line line =
      Second(Plan({"-netdev", "user,id=a", "-netdev", "user,id=b,hostfwd=tcp::2222-:22", "-device",
                   "virtio-rng-pci", "-device", "virtio-net-pci,netdev=b", "-serial", "stdio"},
                  {"-netdev", "user,id=b,hostfwd=tcp::22%n-:22", "-serial", "file:/log-%n-100%%",
                   "-device", "virtio-net-pci,netdev=b,mac=52:54:00:00:00:0%n", "-append", "x"}));
  EXPECT_EQ(Values(line, "-netdev"), (Line{"user,id=a", "user,id=b,hostfwd=tcp::221-:22"}));
  EXPECT_EQ(Values(line, "-device"),
            (Line{"virtio-rng-pci", "virtio-net-pci,netdev=b,mac=52:54:00:00:00:01"}));
  EXPECT_EQ(Values(line, "-serial"), Line{"file:/log-1-100%"});
  EXPECT_EQ(Values(line, "-append"), Line{"x"});
}

TEST(CloneLineTest, TheGenerationIdIsNewAndAddressesAreOnRequest) {
  ClonePlan plan = Plan({"-device", "vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"});
  plan.new_mac = true;
  plan.prefault = true;
  const Line line = Second(plan);
  EXPECT_EQ(Values(line, "-device"), Line{"vmgenid"});
  EXPECT_EQ(Values(line, "-incoming"), Line{"file:/s/a,,b,prefault=on,new-mac=on"});
}

TEST(CloneLineTest, WrittenImagesAreCopiedAndOthersStay) {
  ClonePlan plan = Plan({"-drive", "file=/d/a,,b.raw,format=raw,if=virtio", "-drive",
                         "file=/d/ro,readonly=on,if=virtio", "-hda", "/d/h", "-blockdev",
                         R"({"driver":"raw","node-name":"n","file":{"driver":"file",)"
                         R"("filename":"/d/j.img"}})",
                         "-blockdev", "file,node-name=m,filename=/d/m.img"});
  plan.copy_disks = true;
  const auto lines = MakeCloneLines(plan);
  ASSERT_TRUE(lines) << lines.error().ToString();
  std::vector<std::string> copies;
  for (const auto& copy : lines->at(1).copies) copies.push_back(copy.from + " " + copy.to);
  EXPECT_THAT(copies,
              ElementsAre("/d/a,b.raw /c/clone-1/disk0.raw", "/d/h /c/clone-1/disk1",
                          "/d/j.img /c/clone-1/disk2.img", "/d/m.img /c/clone-1/disk3.img"));
  const Line& line = lines->at(1).words;
  EXPECT_EQ(Values(line, "-drive"), (Line{"file=/c/clone-1/disk0.raw,format=raw,if=virtio",
                                          "file=/d/ro,readonly=on,if=virtio"}));
  EXPECT_EQ(Values(line, "-hda"), Line{"/c/clone-1/disk1"});
  EXPECT_THAT(Values(line, "-blockdev").at(0), HasSubstr("/c/clone-1/disk2.img"));
  EXPECT_EQ(Values(line, "-blockdev").at(1), "file,node-name=m,filename=/c/clone-1/disk3.img");
}

TEST(CloneLineTest, WhatIsReadOnlyOrForgottenIsShared) {
  for (const Line& saved : {Line{"-cdrom", "/d/iso"}, Line{"-drive", "file=/d/a,readonly=on"},
                            Line{"-drive", "file=/d/a,if=virtio,snapshot=on"},
                            Line{"-blockdev", "file,node-name=m,filename=/m,read-only=on"},
                            Line{"-netdev", "user,id=n"}, Line{"-fw_cfg", "opt/a,file=/f"}}) {
    EXPECT_TRUE(MakeCloneLines(Plan(saved))) << saved.at(1);
  }
  // The options of the clones may say so, too.
  EXPECT_TRUE(MakeCloneLines(Plan({"-drive", "file=/d/a,id=x,if=virtio"},
                                  {"-drive", "file=/d/a,id=x,if=virtio,readonly=on"})));
  EXPECT_TRUE(MakeCloneLines(Plan({"-drive", "file=/d/a,if=virtio"}, {"-snapshot"})));
}

TEST(CloneLineTest, WhatOneAloneCanHaveIsRefusedInASentence) {
  const struct {
    Line saved;
    Line more;
    const char* says;
    const char* remedy;
  } cases[] = {
      {{"-drive", "file=/d/a,if=virtio"},
       {},
       "-drive file=/d/a,if=virtio: the disk image '/d/a' would be both the saved machine's and "
       "clone 0's",
       "Write --copy-disks"},
      {{}, {"-hda", "/d/b"}, "'/d/b' would be both clone 0's and clone 1's", "--copy-disks"},
      {{"-netdev", "user,id=n,hostfwd=tcp::2222-:22"},
       {},
       "the TCP port 2222 of the host's address 0.0.0.0",
       "with %n"},
      {{"-nic", "user,hostfwd=udp:127.0.0.1:53-:53"},
       {},
       "the UDP port 53 of the host's address 127.0.0.1",
       "with %n"},
      {{"-netdev", "tap,id=n,ifname=tap7"}, {}, "the network interface 'tap7'", "with %n"},
      {{"-netdev", "stream,id=n,addr.type=unix,addr.path=/sw"}, {}, "unix:/sw", "with %n"},
      {{"-chardev", "socket,id=v,path=/vhost"}, {}, "the socket unix:/vhost", "with %n"},
      {{"-device", "vhost-vsock-pci,guest-cid=3"}, {}, "the guest-cid 3", "with %n"},
      {{"-object", "memory-backend-file,id=m,size=128M,mem-path=/shm,share=on", "-machine",
        "memory-backend=m"},
       {},
       "the memory in '/shm'",
       "share=off"},
      {{}, {"-qmp", "tcp:localhost:4444,server=on"}, "tcp:localhost:4444", "with %n"},
      {{}, {"-serial", "file:/log"}, "the file '/log'", "with %n"},
      {{}, {"-incoming", "file:x"}, "-incoming cannot be given for clones", "Leave it out"},
      {{}, {"-daemonize"}, "-daemonize cannot be given for clones", "Leave it out"},
      {{}, {"-bogus"}, "-bogus: invalid option", ""},
      {{}, {"-m"}, "-m: requires an argument", "Write -m"},
      {{}, {"-m", "x"}, "-m x", ""},
      {{}, {"-version"}, "help cannot be given", ""},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.says);
    const auto lines = MakeCloneLines(Plan(c.saved, c.more));
    ASSERT_FALSE(lines);
    EXPECT_THAT(lines.error().ToString(), HasSubstr(c.says));
    EXPECT_THAT(lines.error().ToString(), HasSubstr(c.remedy));
  }
}

}  // namespace
}  // namespace holdfast::apps
