// SPDX-License-Identifier: Apache-2.0
#include "control/migration_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include "control/qmp_commands.h"

namespace holdfast::control {
namespace {

using migration::MigrationInfo;
using migration::MigrationStatus;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr MigrationStatus kAll[] = {
    MigrationStatus::kNone,           MigrationStatus::kSetup,
    MigrationStatus::kCancelling,     MigrationStatus::kCancelled,
    MigrationStatus::kActive,         MigrationStatus::kPostcopyDevice,
    MigrationStatus::kPostcopyActive, MigrationStatus::kPreSwitchover,
    MigrationStatus::kDevice,         MigrationStatus::kCompleted,
    MigrationStatus::kFailed};

MigrationInfo Running() {
  MigrationInfo info;
  info.status = MigrationStatus::kActive;
  info.total_time_ms = 1500;
  info.setup_time_ms = 3;
  info.expected_downtime_ms = 40;
  info.ram_total = kGiB;
  info.remaining = 64 * kMiB;
  info.transferred = 512 * kMiB;
  info.normal_pages = 1000;
  info.zero_pages = 7;
  info.passes = 2;
  info.dirty_rate = 300;
  info.bandwidth = 125'000'000;
  return info;
}

TEST(MigrationReport, WhateverItSaysIsInTheSchema) {
  const Schema::Command* const query = QmpSchema().FindCommand("query-migrate");
  ASSERT_NE(query, nullptr);
  for (const MigrationStatus status : kAll) {
    for (const bool incoming : {false, true}) {
      MigrationInfo info = Running();
      info.status = status;
      info.incoming = incoming;
      info.downtime_ms = 12;
      info.throttle = 20;
      info.error = Error(Errc::kSystem, "no room");
      const Json json = MigrationJson(info);
      const Status fits = QmpSchema().CheckResult(*query, json);
      EXPECT_TRUE(fits) << json << fits.error().message();
      EXPECT_EQ(json.value("status", "none"), ToString(status));
      if (status == MigrationStatus::kNone) continue;
      EXPECT_TRUE(QmpSchema().CheckEvent("MIGRATION", {{"status", ToString(status)}}));
    }
  }
  EXPECT_TRUE(QmpSchema().CheckEvent("MIGRATION_PASS", {{"pass", 3}}));
}

TEST(MigrationReport, NumbersAreQemus) {
  const Json json = MigrationJson(Running());
  EXPECT_EQ(json, Json::parse(R"({
    "status": "active", "total-time": 1500, "setup-time": 3, "expected-downtime": 40,
    "ram": {"transferred": 536870912, "remaining": 67108864, "total": 1073741824, "duplicate": 7,
            "normal": 1000, "normal-bytes": 4096000, "dirty-pages-rate": 300, "mbps": 1000.0,
            "dirty-sync-count": 2, "postcopy-requests": 0, "page-size": 4096,
            "pages-per-second": 30517, "dirty-sync-missed-zero-copy": 0}})"));
}

TEST(MigrationReport, AGuestThatIsSlowedDownIsShown) {
  MigrationInfo info = Running();
  EXPECT_THAT(MigrationText(info), Not(HasSubstr("Throttle")));
  info.throttle = 30;
  EXPECT_EQ(MigrationJson(info)["cpu-throttle-percentage"], 30);
  EXPECT_THAT(MigrationText(info), HasSubstr("CPU Throttle (%): \t30\n"));
}

TEST(MigrationReport, OnlyOneUnderWayHasADowntimeToExpect) {
  MigrationInfo info = Running();
  info.status = MigrationStatus::kCompleted;
  info.downtime_ms = 12;
  const Json json = MigrationJson(info);
  EXPECT_EQ(json["downtime"], 12);
  EXPECT_FALSE(json.contains("expected-downtime"));
  EXPECT_THAT(MigrationText(info), HasSubstr("total=1500, setup=3, down=12\n"));
}

TEST(MigrationReport, NothingIsSaidWhereThereWasNone) {
  EXPECT_EQ(MigrationJson({}), Json::object());
  EXPECT_EQ(MigrationText({}), "");
}

TEST(MigrationReport, TheHumanMonitorShowsTheSame) {
  MigrationInfo info = Running();
  const std::string text = MigrationText(info);
  EXPECT_THAT(text, HasSubstr("Status: \t\tactive\n"));
  EXPECT_THAT(text, HasSubstr("total=1500, setup=3, exp_down=40\n"));
  EXPECT_THAT(text, HasSubstr("Throughput (Mbps): \t1000.00\n"));
  EXPECT_THAT(text, HasSubstr("transferred=512 MiB, remain=64 MiB\n"));
  info.status = MigrationStatus::kFailed;
  info.error = Error(Errc::kSystem, "no room");
  EXPECT_THAT(MigrationText(info), HasSubstr("Error: \t\t\tno room\n"));
  info.incoming = true;
  EXPECT_THAT(MigrationText(info), Not(HasSubstr("RAM info")));
}

TEST(MigrationReport, OnlySocketsHaveAnAddressToConnectTo) {
  EXPECT_EQ(SocketAddressJson(migration::TcpAddress{"::1", "4444"}),
            Json::parse(R"({"type": "inet", "host": "::1", "port": "4444"})"));
  EXPECT_EQ(SocketAddressJson(migration::UnixAddress{"/s"}),
            Json::parse(R"({"type": "unix", "path": "/s"})"));
  EXPECT_EQ(SocketAddressJson(migration::FdAddress{"5"}), std::nullopt);
  EXPECT_EQ(SocketAddressJson(migration::FileAddress{"/f"}), std::nullopt);
}

// The address of a channel is an object within an object, whose members stand side by side.
TEST(MigrationReport, ChannelsAreCheckedByTheSchema) {
  const Schema::Command* const migrate = QmpSchema().FindCommand("migrate");
  ASSERT_NE(migrate, nullptr);
  const auto check = [&](const char* address) {
    const Json arguments = {
        {"channels", {{{"channel-type", "main"}, {"addr", Json::parse(address)}}}}};
    const Status status = QmpSchema().CheckArguments(*migrate, arguments);
    return status ? std::string("good") : status.error().message();
  };
  EXPECT_EQ(check(R"({"transport": "socket", "type": "inet", "host": "h", "port": "1"})"), "good");
  EXPECT_EQ(check(R"({"transport": "socket", "type": "unix", "path": "/s"})"), "good");
  EXPECT_EQ(check(R"({"transport": "exec", "args": ["/bin/cat"]})"), "good");
  EXPECT_EQ(check(R"({"transport": "file", "filename": "f", "offset": 5})"), "good");
  EXPECT_THAT(check(R"({"transport": "socket", "type": "unix"})"), HasSubstr("path' is missing"));
  EXPECT_THAT(check(R"({"transport": "socket"})"), HasSubstr("type' is missing"));
  EXPECT_THAT(check(R"({"transport": "socket", "type": "unix", "path": "/s", "port": "1"})"),
              HasSubstr("port' is unexpected"));
  EXPECT_THAT(check(R"({"transport": "pigeon"})"), HasSubstr("does not accept value 'pigeon'"));
}

}  // namespace
}  // namespace holdfast::control
