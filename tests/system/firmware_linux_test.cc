// SPDX-License-Identifier: Apache-2.0
// What a Linux guest is told of its machine: SMBIOS, fw_cfg; and its watchdog.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "system/device_guest.h"

namespace holdfast::test {
namespace {

class LinuxFirmware : public LinuxDeviceTest {};

TEST_F(LinuxFirmware, ReadsTheSmbiosTables) {
  constexpr std::string_view kScript =
      "cd /sys/class/dmi/id\n"
      "for f in bios_vendor bios_version sys_vendor product_name product_serial product_uuid "
      "product_family product_sku board_name chassis_asset_tag; do\n"
      "  echo \"hf: $f=$(cat $f)\"\n"
      "done\n"
      "echo hf: tables=$(wc -c </sys/firmware/dmi/tables/DMI)\n"
      "echo hf: complaints=$(dmesg | grep -ciE 'dmi.*(invalid|corrupt)')\n";
  MonitorProcess monitor(Guest(kScript) +
                         Arguments{"-uuid", "550e8400-e29b-41d4-a716-446655440000", "-smbios",
                                   "type=1,serial=ds=nocloud;s=http://10.0.2.2/,family=f,sku=s",
                                   "-smbios", "type=0,vendor=somebody", "-smbios",
                                   "type=2,product=a board", "-smbios", "type=3,asset=tag",
                                   "-smbios", "type=11,value=one,value=two"});
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(ValueOf(monitor, "bios_vendor"), "somebody") << monitor.Describe();
  EXPECT_EQ(ValueOf(monitor, "sys_vendor"), "Holdfast");
  EXPECT_EQ(ValueOf(monitor, "product_serial"), "ds=nocloud;s=http://10.0.2.2/");
  EXPECT_EQ(ValueOf(monitor, "product_uuid"), "550e8400-e29b-41d4-a716-446655440000");
  EXPECT_EQ(ValueOf(monitor, "product_family"), "f");
  EXPECT_EQ(ValueOf(monitor, "product_sku"), "s");
  EXPECT_EQ(ValueOf(monitor, "board_name"), "a board");
  EXPECT_EQ(ValueOf(monitor, "chassis_asset_tag"), "tag");
  EXPECT_NE(ValueOf(monitor, "tables"), "0");
  EXPECT_EQ(ValueOf(monitor, "complaints"), "0");
}

TEST_F(LinuxFirmware, ReadsFwCfgFiles) {
  constexpr std::string_view kScript =
      "modprobe qemu_fw_cfg\n"
      "cd /sys/firmware/qemu_fw_cfg/by_name/opt/org.example\n"
      "echo \"hf: text=$(cat text/raw)\"\n"
      "echo hf: size=$(cat file/size) read=$(wc -c <file/raw)\n";
  // Linux reads by port, byte by byte, from the start of the file for each page of it.
  const std::string path = MakePattern("fw_cfg", 5'000);
  MonitorProcess monitor(Guest(kScript) +
                         Arguments{"-fw_cfg", "opt/org.example/text,string=hello", "-fw_cfg",
                                   fmt::format("name=opt/org.example/file,file={}", path)});
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(ValueOf(monitor, "text"), "hello") << monitor.Describe();
  EXPECT_EQ(ValueOf(monitor, "size"), "5000 read=5000");
}

TEST_F(LinuxFirmware, AWatchdogThatNobodyFeedsResets) {
  constexpr std::string_view kScript =
      "rmmod i6300esb; modprobe i6300esb heartbeat=4\n"
      "[ -e /dev/watchdog ] && echo hf: watchdog=yes\n"
      "exec 3>/dev/watchdog; echo hf: armed; sleep 600\n";
  MonitorProcess monitor(Guest(kScript) + Arguments{"-device", "i6300esb", "-action",
                                                    "watchdog=reset,reboot=shutdown"});
  EXPECT_TEXT(monitor, "hf: armed");
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(ValueOf(monitor, "watchdog"), "yes") << monitor.Describe();
}

}  // namespace
}  // namespace holdfast::test
