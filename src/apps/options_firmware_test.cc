// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/options.h"

namespace holdfast::apps {
namespace {

using ::testing::HasSubstr;

Result<Options> Parse(std::initializer_list<const char*> arguments) {
  std::vector<const char*> all = {"-kernel", "k"};
  all.insert(all.end(), arguments);
  return ParseCommandLine(all);
}

TEST(FirmwareOptions, FwCfgFilesComeInTheOrderGiven) {
  const auto options = Parse({"-fw_cfg", "opt/a,string=one,,two", "-fw_cfg", "name=opt/b,file=/f"});
  ASSERT_TRUE(options) << options.error().ToString();
  const auto& files = options->machine.fw_cfg;
  ASSERT_EQ(files.size(), 2U);
  EXPECT_EQ(files[0].name, "opt/a");
  EXPECT_EQ(files[0].text, "one,two");
  EXPECT_EQ(files[1].path, "/f");
  EXPECT_TRUE(options->warnings.empty());
  const auto warned = Parse({"-fw_cfg", "etc/a,string=x"});
  ASSERT_TRUE(warned);
  ASSERT_EQ(warned->warnings.size(), 1U);
  EXPECT_THAT(warned->warnings[0], HasSubstr("opt/"));
}

TEST(FirmwareOptions, SmbiosFieldsAreKept) {
  const auto options =
      Parse({"-smbios", "type=0,vendor=V,release=2.17,uefi=on", "-smbios",
             "type=1,serial=ds=nocloud;s=http://h/,sku=S,family=F", "-smbios", "type=2,product=B",
             "-smbios", "type=3,asset=A", "-smbios", "type=4,max-speed=3000,processor-id=0x10",
             "-smbios", "type=11,value=a,value=b", "-smbios", "type=11,path=/p", "-smbios",
             "type=17,bank=K", "-smbios", "file=/t"});
  ASSERT_TRUE(options) << options.error().ToString();
  const machine::SmbiosConfig& smbios = options->machine.smbios;
  EXPECT_EQ(smbios.bios.vendor, "V");
  EXPECT_EQ(smbios.bios.major, 2);
  EXPECT_EQ(smbios.bios.minor, 17);
  EXPECT_TRUE(smbios.bios.uefi);
  EXPECT_EQ(smbios.system.serial, "ds=nocloud;s=http://h/");
  EXPECT_EQ(smbios.system.sku, "S");
  EXPECT_EQ(smbios.board->product, "B");
  EXPECT_EQ(smbios.chassis.asset, "A");
  EXPECT_EQ(smbios.processor.max_speed, 3000);
  EXPECT_EQ(smbios.processor.id, 0x10U);
  ASSERT_EQ(smbios.oem_strings.size(), 3U);
  EXPECT_EQ(smbios.oem_strings[1].value, "b");
  EXPECT_EQ(smbios.oem_strings[2].path, "/p");
  EXPECT_EQ(smbios.memory_device.bank, "K");
  EXPECT_EQ(smbios.files, std::vector<std::string>{"/t"});
}

TEST(FirmwareOptions, TheUuidIsOneWhereverItIsGiven) {
  constexpr const char* kUuid = "550e8400-e29b-41d4-a716-446655440000";
  const auto by_option = Parse({"-uuid", kUuid});
  ASSERT_TRUE(by_option);
  EXPECT_EQ(by_option->machine.smbios.system.uuid, kUuid);
  const auto by_table = Parse({"-smbios", "type=1,uuid=550E8400-e29b-41d4-a716-446655440000"});
  ASSERT_TRUE(by_table);
  EXPECT_EQ(by_table->uuid, kUuid);
  EXPECT_EQ(by_table->machine.smbios.system.uuid, kUuid);
}

TEST(FirmwareOptions, TheGenerationIdIsGivenOrMadeLater) {
  EXPECT_EQ(Parse({"-device", "vmgenid"})->machine.vmgenid->guid, "auto");
  const auto given = Parse({"-device", "vmgenid,guid=324E6EAF-D1D1-4BF6-BF41-B9BB6C91FB87"});
  ASSERT_TRUE(given) << given.error().ToString();
  EXPECT_EQ(given->machine.vmgenid->guid, "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87");
  EXPECT_FALSE(Parse({"-device", "vmgenid", "-device", "vmgenid"}));
}

TEST(FirmwareOptions, TheClockStartsWhereAndGoesByWhatIsSaid) {
  using Rtc = machine::RtcConfig;
  EXPECT_EQ(Parse({})->machine.rtc.base, Rtc::Base::kUtc);
  const auto local = Parse({"-rtc", "base=localtime,clock=vm,driftfix=none"});
  ASSERT_TRUE(local) << local.error().ToString();
  EXPECT_EQ(local->machine.rtc.base, Rtc::Base::kLocaltime);
  EXPECT_EQ(local->machine.rtc.clock, Rtc::Clock::kVm);
  EXPECT_EQ(Parse({"-rtc", "base=2006-06-17T16:01:21"})->machine.rtc.date, 1150560081);
  EXPECT_EQ(Parse({"-rtc", "base=2006-06-17"})->machine.rtc.date, 1150502400);
}

TEST(FirmwareOptions, MistakesAreNamed) {
  const struct {
    const char* option;
    const char* argument;
    const char* says;
  } cases[] = {
      {"-fw_cfg", "opt/a", "name, plus exactly one of file and string, are needed"},
      {"-fw_cfg", "opt/a,file=f,string=s", "name, plus exactly one"},
      {"-fw_cfg", "string=s", "name, plus exactly one"},
      {"-fw_cfg", "opt/a,gen_id=x", "gen_id"},
      {"-fw_cfg", "opt/0123456789012345678901234567890123456789012345678901,string=s",
       "name too long (max. 55 char)"},
      {"-smbios", "serial=x", "Must specify type= or file="},
      {"-smbios", "type=1,serail=x", "serail"},
      {"-smbios", "type=1,uuid=x", "failed to parse UUID"},
      {"-smbios", "type=0,release=1", "Invalid release"},
      {"-smbios", "type=0,release=1.256", "Invalid release"},
      {"-smbios", "type=99", "Don't know how to build fields for SMBIOS type 99"},
      {"-smbios", "type=41,designation=x", "QEMU builds SMBIOS type 41"},
      {"-smbios", "type=4,max-speed=65536", "max-speed"},
      {"-smbios", "type=one", "type"},
      {"-smbios", "file=f,serial=s", "serial"},
      {"-device", "vmgenid,guid=1", "failed to parse UUID"},
      {"-rtc", "base=2006-02-30", "invalid datetime format"},
      {"-rtc", "base=2006-06-17T24:00:00", "invalid datetime format"},
      {"-rtc", "base=now", "invalid datetime format"},
      {"-rtc", "clock=sun", "clock"},
      {"-rtc", "driftfix=slew", "driftfix=slew"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.argument);
    const auto options = Parse({c.option, c.argument});
    ASSERT_FALSE(options);
    EXPECT_THAT(options.error().message(), HasSubstr(c.says));
    EXPECT_THAT(options.error().message(), HasSubstr(c.option));
  }
}

}  // namespace
}  // namespace holdfast::apps
