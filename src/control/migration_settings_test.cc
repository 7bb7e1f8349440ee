// SPDX-License-Identifier: Apache-2.0
#include "migration/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/context.h"
#include "control/human_commands.h"
#include "control/qmp_commands.h"

namespace holdfast::control {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// Both monitors on the same settings.
class MigrationSettingsTest : public ::testing::Test {
 protected:
  MigrationSettingsTest() { context_.migration_settings = &settings_; }

  // What a command returns, or "error: …" of the schema or the command itself.
  Json Run(const char* name, const char* arguments = "{}") {
    const Schema::Command* const command = QmpSchema().FindCommand(name);
    if (command == nullptr) return "no command";
    const Json parsed = Json::parse(arguments);
    if (const Status ok = QmpSchema().CheckArguments(*command, parsed); !ok)
      return "error: " + ok.error().message();
    const QmpResult result = command->run(context_, parsed);
    if (!result) return "error: " + result.error().desc;
    const Status as_promised = QmpSchema().CheckResult(*command, *result);
    EXPECT_TRUE(as_promised) << as_promised.error().message();
    return *result;
  }
  std::string Ask(std::string_view line) { return commands_.Execute(line); }

  migration::Settings settings_;
  VmContext context_;
  HumanCommands commands_{context_};
};

TEST_F(MigrationSettingsTest, DefaultsAreQemus) {
  EXPECT_EQ(Run("query-migrate-parameters"), Json::parse(R"({
    "announce-initial": 50, "announce-max": 550, "announce-rounds": 5, "announce-step": 100,
    "throttle-trigger-threshold": 50, "cpu-throttle-initial": 20, "cpu-throttle-increment": 10,
    "cpu-throttle-tailslow": false, "max-cpu-throttle": 99, "tls-creds": "", "tls-hostname": "",
    "max-bandwidth": 134217728, "avail-switchover-bandwidth": 0, "max-postcopy-bandwidth": 0,
    "downtime-limit": 300, "multifd-channels": 2, "multifd-compression": "none",
    "multifd-zstd-level": 1, "zero-page-detection": "multifd", "x-vcpu-dirty-limit-period": 1000,
    "vcpu-dirty-limit": 1, "mode": "normal", "direct-io": false, "cpr-exec-command": []})"));
  const Json capabilities = Run("query-migrate-capabilities");
  EXPECT_EQ(capabilities.size(), migration::kCapabilities);
  for (const Json& one : capabilities) EXPECT_EQ(one["state"], false) << one;
}

TEST_F(MigrationSettingsTest, WhatIsSetIsShown) {
  EXPECT_EQ(Run("migrate-set-parameters", R"({"max-bandwidth": 1000, "multifd-channels": 16,
      "multifd-compression": "zstd", "tls-creds": "t", "mode": "cpr-exec", "direct-io": true,
      "cpr-exec-command": ["/new/holdfast", "-S"]})"),
            Json::object());
  const Json shown = Run("query-migrate-parameters");
  EXPECT_EQ(shown["max-bandwidth"], 1000);
  EXPECT_EQ(shown["multifd-channels"], 16);
  EXPECT_EQ(shown["multifd-compression"], "zstd");
  EXPECT_EQ(shown["tls-creds"], "t");
  EXPECT_EQ(shown["mode"], "cpr-exec");
  EXPECT_EQ(shown["direct-io"], true);
  EXPECT_EQ(shown["cpr-exec-command"], Json({"/new/holdfast", "-S"}));
  EXPECT_EQ(Run("migrate-set-parameters", R"({"tls-creds": null})"), Json::object());
  EXPECT_EQ(Run("query-migrate-parameters")["tls-creds"], "");
  EXPECT_THAT(Ask("info migrate_parameters"), HasSubstr("max-bandwidth: 1000 bytes/second\n"));
}

TEST_F(MigrationSettingsTest, WrongParametersAreRefusedInQemusWordsAndChangeNothing) {
  const struct {
    const char* arguments;
    const char* error;
  } cases[] = {
      {R"({"downtime-limit": 2000001})",
       "error: Option downtime-limit expects an integer in the range of 0 to (2000 * 1000) ms"},
      {R"({"multifd-channels": 0})",
       "error: Option multifd-channels expects a value between 1 and 255"},
      {R"({"multifd-channels": 256})", "error: Parameter 'multifd-channels' expects uint8_t"},
      {R"({"cpu-throttle-initial": 100})",
       "error: Option cpu-throttle-initial expects an integer in the range of 1 to 99"},
      {R"({"cpu-throttle-initial": 60, "max-cpu-throttle": 59})",
       "error: Option max-cpu-throttle expects an integer in the range of cpu-throttle-initial to "
       "99"},
      {R"({"multifd-zstd-level": 21})",
       "error: Option multifd-zstd-level expects a value between 0 and 20"},
      {R"({"announce-rounds": 1001})",
       "error: Option announce-rounds expects a value between 0 and 1000"},
      {R"({"x-vcpu-dirty-limit-period": 0})",
       "error: Option x-vcpu-dirty-limit-period expects a value between 1 and 1000"},
      {R"({"mode": "cpr"})", "error: Parameter 'mode' does not accept value 'cpr'"},
      {R"({"multifd-compression": "zlib"})",
       "error: Parameter 'multifd-compression' does not accept value 'zlib'"},
      {R"({"nosuch": 1})", "error: Parameter 'nosuch' is unexpected"},
      {R"({"tls-authz": "a"})",
       "error: Parameter 'tls-authz' is not available: every client is "
       "let in that the CA has signed"},
      {R"({"max-bandwidth": 7, "multifd-channels": 0})",
       "error: Option multifd-channels expects a value between 1 and 255"},
  };
  const Json before = Run("query-migrate-parameters");
  for (const auto& c : cases)
    EXPECT_EQ(Run("migrate-set-parameters", c.arguments), c.error) << c.arguments;
  EXPECT_EQ(Run("query-migrate-parameters"), before);
}

TEST_F(MigrationSettingsTest, CapabilitiesThatDoNotGoTogetherAreRefusedInQemusWords) {
  const struct {
    std::vector<const char*> on;
    const char* error;
  } cases[] = {
      {{"postcopy-preempt"}, "Postcopy preempt requires postcopy-ram"},
      {{"postcopy-ram", "x-ignore-shared"}, "Postcopy is not compatible with ignore-shared"},
      {{"mapped-ram", "postcopy-ram"}, "Mapped-ram migration is incompatible with postcopy"},
      {{"dirty-limit", "auto-converge"},
       "dirty-limit conflicts with auto-converge either of then available currently"},
      {{"background-snapshot", "multifd"}, "Background-snapshot is not compatible with multifd"},
      {{"events", "xbzrle"},
       "Capability 'xbzrle' is not available: pages are sent whole, or compressed with "
       "multifd-compression=zstd"},
  };
  for (const auto& c : cases) {
    Json list = Json::array();
    for (const char* name : c.on) list.push_back({{"capability", name}, {"state", true}});
    EXPECT_EQ(Run("migrate-set-capabilities", Json{{"capabilities", list}}.dump().c_str()),
              std::string("error: ") + c.error);
    EXPECT_EQ(settings_.capabilities(), migration::Capabilities());
  }
}

TEST_F(MigrationSettingsTest, MappedRamExcludesCompressionAndTlsWhicheverComesFirst) {
  constexpr const char* kRefused =
      "error: Mapped-ram only available for non-compressed non-TLS multifd migration";
  constexpr const char* kMapped =
      R"({"capabilities": [{"capability": "mapped-ram", "state": true}]})";
  EXPECT_EQ(Run("migrate-set-parameters", R"({"multifd-compression": "zstd"})"), Json::object());
  EXPECT_EQ(Run("migrate-set-capabilities", kMapped), kRefused);
  EXPECT_EQ(Run("migrate-set-parameters", R"({"multifd-compression": "none"})"), Json::object());
  EXPECT_EQ(Run("migrate-set-capabilities", kMapped), Json::object());
  EXPECT_EQ(Run("migrate-set-parameters", R"({"tls-creds": "t"})"), kRefused);
}

TEST_F(MigrationSettingsTest, CapabilitiesStayAsTheyAreDuringAMigrationAndParametersMayChange) {
  settings_.set_running(true);
  int changes = 0;
  settings_.SetHooks({.changed = [&] { ++changes; }});
  EXPECT_EQ(Run("migrate-set-capabilities",
                R"({"capabilities": [{"capability": "events", "state": true}]})"),
            "error: There's a migration process in progress");
  EXPECT_EQ(Run("migrate-set-parameters", R"({"max-bandwidth": 5})"), Json::object());
  EXPECT_EQ(Run("migrate-set-parameters", R"({"multifd-channels": 0})").is_string(), true);
  EXPECT_EQ(changes, 1) << "one change, and one that is none";
}

TEST_F(MigrationSettingsTest, TheHostHasASayInCapabilities) {
  settings_.SetHooks({.check = [](const auto&, const migration::Capabilities& wanted) -> Status {
    if (!wanted[migration::Capability::kDirtyLimit]) return {};
    return Fail(Errc::kUnsupported, "no ring");
  }});
  EXPECT_EQ(Ask("migrate_set_capability dirty-limit on"), "Error: no ring\n");
  EXPECT_EQ(Ask("migrate_set_capability events on"), "");
  EXPECT_EQ(settings_.capabilities(), migration::Capabilities({migration::Capability::kEvents}));
}

TEST_F(MigrationSettingsTest, PeopleSetThemWithWordsAndUnits) {
  const struct {
    const char* line;
    const char* shows;
  } cases[] = {
      {"migrate_set_parameter max-bandwidth 32", "\nmax-bandwidth: 33554432 bytes/second\n"},
      {"migrate_set_parameter max-bandwidth 2G", "\nmax-bandwidth: 2147483648 bytes/second\n"},
      {"migrate_set_parameter max-postcopy-bandwidth 4096",
       "\nmax-postcopy-bandwidth: 4096 bytes/second\n"},
      {"migrate_set_parameter downtime-limit 50", "\ndowntime-limit: 50 ms\n"},
      {"migrate_set_parameter direct-io on", "\ndirect-io: on\n"},
      {"migrate_set_parameter multifd-compression zstd", "\nmultifd-compression: zstd\n"},
      {"migrate_set_parameter tls-creds tls0", "\ntls-creds: 'tls0'\n"},
      {"migrate_set_parameter tls-creds", "\ntls-creds: ''\n"},
      {"migrate_set_parameter cpr-exec-command  /bin/new   -S",
       "\ncpr-exec-command: /bin/new -S\n"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Ask(c.line), "") << c.line;
    EXPECT_THAT(Ask("info migrate_parameters"), HasSubstr(c.shows)) << c.line;
  }
  EXPECT_EQ(Ask("migrate_set_capability auto-converge on"), "");
  EXPECT_THAT(Ask("info migrate_capabilities"), HasSubstr("\nauto-converge: on\nevents: off\n"));
}

TEST_F(MigrationSettingsTest, PeopleAreToldWhatIsWrong) {
  const struct {
    const char* line;
    const char* error;
  } cases[] = {
      {"migrate_set_parameter nosuch 1", "Error: Invalid parameter 'nosuch'"},
      {"migrate_set_parameter", "Error: Invalid parameter ''"},
      {"migrate_set_parameter mode cpr", "Error: Parameter 'mode' does not accept value 'cpr'"},
      {"migrate_set_parameter multifd-channels 300",
       "Error: Option multifd-channels expects a value between 1 and 255"},
      {"migrate_set_parameter multifd-channels many",
       "Error: Parameter 'multifd-channels' expects"},
      {"migrate_set_parameter max-bandwidth ", "Error: Parameter 'max-bandwidth' expects"},
      {"migrate_set_capability nosuch on", "Error: Invalid parameter 'nosuch'"},
      {"migrate_set_capability events maybe", "Error: migrate_set_capability events: on or off?"},
  };
  for (const auto& c : cases) EXPECT_THAT(Ask(c.line), StartsWith(c.error)) << c.line;
}

}  // namespace
}  // namespace holdfast::control
