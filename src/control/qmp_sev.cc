// SPDX-License-Identifier: Apache-2.0
// query-sev, query-sev-capabilities and query-sev-launch-measure, and the text for people.
#include <fmt/format.h>

#include "base/base64.h"
#include "control/human_commands.h"
#include "control/qmp_commands.h"
#include "kvm/sev_commands.h"
#include "machine/machine.h"
#include "object/confidential_host.h"
#include "object/sev_snp_guest.h"

namespace holdfast::control {
namespace {

// SEV-SNP firmware ABI, section 4.3.
constexpr std::uint64_t kPolicySmt = 1ULL << 16;
constexpr std::uint64_t kPolicyDebug = 1ULL << 19;

// The guest's object, null where it is no SEV one.
const object::SevSnpGuest* SevGuest(VmContext& vm) {
  return dynamic_cast<const object::SevSnpGuest*>(vm.machine().config().confidential);
}

std::string_view StateOf(const object::SevSnpGuest& guest) {
  return guest.launched() ? "running" : "launch-update";
}

QmpResult QuerySev(VmContext& vm, const Json&) {
  Json info = {{"enabled", false},  {"api-major", 0},    {"api-minor", 0}, {"build-id", 0},
               {"state", "uninit"}, {"sev-type", "sev"}, {"policy", 0},    {"handle", 0}};
  const object::SevSnpGuest* const guest = SevGuest(vm);
  if (guest == nullptr) return info;
  const kvm::abi::SnpPlatformStatus& platform = guest->platform();
  return Json{{"enabled", true},
              {"api-major", platform.api_major},
              {"api-minor", platform.api_minor},
              {"build-id", platform.build_id & 0xffU},
              {"state", StateOf(*guest)},
              {"sev-type", "sev-snp"},
              {"snp-policy", guest->settings().policy}};
}

QmpResult QuerySevCapabilities(VmContext& vm, const Json&) {
  if (!kvm::SevIsEnabled(vm.vm())) {
    return QmpFail("SEV is not enabled in KVM",
                   "It needs an AMD processor with SEV, and kvm_amd loaded with sev=1.");
  }
  const object::SevSnpGuest* const guest = SevGuest(vm);
  HF_QMP_TRY(const kvm::SevDevice device,
             kvm::SevDevice::Open(guest != nullptr ? guest->settings().sev_device : "/dev/sev"));
  HF_QMP_TRY(const kvm::SevDevice::PlatformKey key, device.ExportPdh());
  HF_QMP_TRY(const std::vector<std::byte> cpu, device.CpuId());
  const object::EncryptionBits bits = object::ReadEncryptionBits();
  return Json{{"pdh", EncodeBase64(key.pdh)},
              {"cert-chain", EncodeBase64(key.chain)},
              {"cpu0-id", EncodeBase64(cpu)},
              {"cbitpos", bits.cbitpos},
              {"reduced-phys-bits", 1}};
}

// There is one only for guests of SEV without SNP; those of SNP ask for a report themselves.
QmpResult QuerySevLaunchMeasure(VmContext&, const Json&) {
  return QmpFail("SEV launch measurement is not available",
                 "A guest of SEV-SNP asks the firmware itself for an attestation report.");
}

}  // namespace

Result<std::string> HumanCommands::InfoSev(std::string_view) {
  const object::SevSnpGuest* const guest = SevGuest(context_);
  if (guest == nullptr) return "SEV is not enabled\n";
  const kvm::abi::SnpPlatformStatus& platform = guest->platform();
  const auto on = [&](std::uint64_t bit) {
    return (guest->settings().policy & bit) != 0 ? "on" : "off";
  };
  return fmt::format(
      "SEV type: sev-snp\nstate: {}\nbuild: {}\napi version: {}.{}\ndebug: {}\nSMT allowed: {}\n",
      StateOf(*guest), platform.build_id & 0xffU, platform.api_major, platform.api_minor,
      on(kPolicyDebug), on(kPolicySmt));
}

void DefineSevCommands(Schema& schema) {
  schema.Enum("SevState", {"uninit", "launch-update", "launch-secret", "running", "send-update",
                           "receive-update"});
  schema.Enum("SevGuestType", {"sev", "sev-snp"});
  schema.Struct("SevGuestInfo", {{"policy", "uint32"}, {"handle", "uint32"}});
  schema.Struct("SevSnpGuestInfo", {{"snp-policy", "uint64"}});
  schema.Union("SevInfo",
               {{"enabled", "bool"},
                {"api-major", "uint8"},
                {"api-minor", "uint8"},
                {"build-id", "uint8"},
                {"state", "SevState"},
                {"sev-type", "SevGuestType"}},
               "sev-type", {{"sev", "SevGuestInfo"}, {"sev-snp", "SevSnpGuestInfo"}});
  schema.AddCommand("query-sev", {.result = "SevInfo", .run = QuerySev});
  schema.Struct("SevCapability", {{"pdh", "str"},
                                  {"cert-chain", "str"},
                                  {"cpu0-id", "str"},
                                  {"cbitpos", "int"},
                                  {"reduced-phys-bits", "int"}});
  schema.AddCommand("query-sev-capabilities",
                    {.result = "SevCapability", .run = QuerySevCapabilities});
  schema.Struct("SevLaunchMeasureInfo", {{"data", "str"}});
  schema.AddCommand("query-sev-launch-measure",
                    {.result = "SevLaunchMeasureInfo", .run = QuerySevLaunchMeasure});
}

}  // namespace holdfast::control
