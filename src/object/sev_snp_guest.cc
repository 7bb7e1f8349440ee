// SPDX-License-Identifier: Apache-2.0
#include "object/sev_snp_guest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/base64.h"
#include "object/backend_properties.h"
#include "object/launch_image.h"
#include "object/sev_snp_launch.h"

namespace holdfast::object {
namespace {

using Settings = SevSnpGuest::Settings;
using Blob = SevSnpGuest::Blob;

// SEV-SNP firmware ABI, section 4.3: this bit of a policy is always one.
constexpr std::uint64_t kPolicyAlwaysOne = 1ULL << 17;

Settings& Of(Object& object) {
  return static_cast<SevSnpGuest&>(object).settings();
}
const Settings& Of(const Object& object) {
  return static_cast<const SevSnpGuest&>(object).settings();
}

template <auto Member>
Status Set(Object& object, const PropertyValue& value) {
  return SetField<Member>(Of(object), value);
}
template <auto Member>
PropertyValue Get(const Object& object) {
  return GetField<Member>(Of(object));
}

Status SetReducedBits(Object& object, const PropertyValue& value) {
  Of(object).reduced_phys_bits = static_cast<std::uint32_t>(std::get<std::uint64_t>(value));
  return {};
}
PropertyValue GetReducedBits(const Object& object) {
  return std::uint64_t{Of(object).reduced_phys_bits.value_or(0)};
}

// What a blob may measure, and QEMU's sentence for one that measures otherwise.
struct BlobRule {
  std::size_t size;
  bool or_less;
  std::string_view wrong_size;
};
constexpr BlobRule kWorkaroundsRule{SevSnpGuest::kWorkaroundsSize, false,
                                    "parameter length of {} exceeds max of {}"};
constexpr BlobRule kIdBlockRule{SevSnpGuest::kIdBlockSize, false,
                                "parameter length of {} not equal to {}"};
constexpr BlobRule kIdAuthRule{SevSnpGuest::kMostIdAuth, true,
                               "parameter length:ID_AUTH {} exceeds max of {}"};
constexpr BlobRule kHostDataRule{SevSnpGuest::kHostDataSize, false,
                                 "parameter length of {} not equal to {}"};

Status SetBlobTo(Blob& blob, std::string_view name, const BlobRule& rule, const std::string& text) {
  auto bytes = DecodeBase64(text);
  const std::string hint = fmt::format("{}= takes {}{} bytes in base64.", name,
                                       rule.or_less ? "at most " : "", rule.size);
  if (!bytes) {
    return Fail(Errc::kInvalidArgument, fmt::format("Base64 data '{}' is not valid", text), hint);
  }
  if (bytes->size() > rule.size || (bytes->size() != rule.size && !rule.or_less)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format(fmt::runtime(rule.wrong_size), bytes->size(), rule.size), hint);
  }
  // The kernel reads a whole ID_AUTH, whatever was given of it.
  bytes->resize(rule.size);
  blob = {.text = text, .bytes = *std::move(bytes)};
  return {};
}

template <Blob Settings::* Member, const BlobRule* Rule>
constexpr Property<Object> BlobProperty(std::string_view name, std::string_view description) {
  Property<Object> property{};
  property.name = name;
  property.default_text = "all zero";
  property.description = description;
  property.set = [](Object& object, const PropertyValue& value) -> Status {
    // A property's name is that of its member; the table below is where both stand.
    constexpr std::string_view kName = Member == &Settings::workarounds
                                           ? "guest-visible-workarounds"
                                       : Member == &Settings::id_block ? "id-block"
                                       : Member == &Settings::id_auth  ? "id-auth"
                                                                       : "host-data";
    return SetBlobTo(Of(object).*Member, kName, *Rule, std::get<std::string>(value));
  };
  property.get = [](const Object& object) -> PropertyValue { return (Of(object).*Member).text; };
  return property;
}

static_assert(SevSnpGuest::kIdBlockSize == kvm::abi::kSnpIdBlockSize);
static_assert(SevSnpGuest::kMostIdAuth == kvm::abi::kSnpIdAuthSize);
static_assert(SevSnpGuest::kHostDataSize == kvm::abi::kSnpHostDataSize);

std::uint64_t AddressOf(const Blob& blob) noexcept {
  return blob.bytes.empty() ? 0 : reinterpret_cast<std::uint64_t>(blob.bytes.data());
}

constexpr std::uint64_t kUint32Max = std::numeric_limits<std::uint32_t>::max();

constexpr Property<Object> kProperties[] = {
    {{.name = "sev-device",
      .default_text = "/dev/sev",
      .description = "the AMD secure processor's device"},
     Set<&Settings::sev_device>,
     Get<&Settings::sev_device>},
    {{.name = "cbitpos",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "the page table bit that means encrypted; must be the host's (usually 51)",
      .max = kUint32Max},
     Set<&Settings::cbitpos>,
     Get<&Settings::cbitpos>},
    {{.name = "reduced-phys-bits",
      .type = PropertyType::kUint,
      .description = "address bits that encryption takes, 1 to 63 (usually 1)",
      .max = kUint32Max},
     SetReducedBits,
     GetReducedBits},
    {{.name = "kernel-hashes",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "hashes of kernel, initrd and command line for the firmware to check"},
     Set<&Settings::kernel_hashes>,
     Get<&Settings::kernel_hashes>},
    {{.name = "policy",
      .type = PropertyType::kUint,
      .default_text = "0x30000",
      .description = "the guest's policy (SEV-SNP firmware ABI, section 4.3)"},
     Set<&Settings::policy>,
     Get<&Settings::policy>},
    BlobProperty<&Settings::workarounds, &kWorkaroundsRule>(
        "guest-visible-workarounds", "16 bytes in base64: GOSVW of the launch"),
    BlobProperty<&Settings::id_block, &kIdBlockRule>(
        "id-block", "96 bytes in base64: the ID block, which names the measurement expected"),
    BlobProperty<&Settings::id_auth, &kIdAuthRule>(
        "id-auth", "at most 4096 bytes in base64: keys and signatures of the ID block"),
    {{.name = "author-key-enabled",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "id-auth has an author key"},
     Set<&Settings::author_key_enabled>,
     Get<&Settings::author_key_enabled>},
    {{.name = "vcek-disabled",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "the guest may not have reports signed with the chip's own key"},
     Set<&Settings::vcek_disabled>,
     Get<&Settings::vcek_disabled>},
    BlobProperty<&Settings::host_data, &kHostDataRule>(
        "host-data", "32 bytes in base64 for the guest's attestation report"),
    {{.name = "convert-in-place",
      .type = PropertyType::kEnum,
      .default_text = "auto",
      .description = "pages become private where they are; auto does where the kernel can",
      .choices = kOnOffAutoWords,
      .qom_type = "OnOffAuto"},
     Set<&Settings::convert_in_place>,
     Get<&Settings::convert_in_place>},
};

}  // namespace

constexpr ObjectType SevSnpGuest::kType = {
    .name = "sev-snp-guest",
    .description = "a confidential guest of AMD's SEV-SNP",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<SevSnpGuest>(std::move(id));
    },
    .properties = kProperties,
    .qemu_only = {},
};

Status SevSnpGuest::Complete() {
  if (!settings_.reduced_phys_bits) {
    return Fail(Errc::kInvalidArgument, "Parameter 'reduced-phys-bits' is missing",
                "It is 1 on all processors with SEV-SNP so far.");
  }
  const std::uint32_t bits = *settings_.reduced_phys_bits;
  if (bits < 1 || bits > 63) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("reduced_phys_bits check failed, it should be in the range of 1 to 63, "
                            "requested '{}'",
                            bits),
                "It is 1 on all processors with SEV-SNP so far.");
  }
  if ((settings_.policy & kPolicyAlwaysOne) == 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("policy={:#x} of the object '{}' is no policy: bit 17 must be one",
                            settings_.policy, id()),
                fmt::format("Did you mean policy={:#x}?", settings_.policy | kPolicyAlwaysOne));
  }
  if (!settings_.id_block.bytes.empty() && settings_.id_auth.bytes.empty()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("id-block= of the object '{}' needs id-auth=", id()),
                "The firmware takes an ID block only with the signatures that belong to it.");
  }
  return {};
}

Status SevSnpGuest::MayChange(const PropertyInfo& property, const PropertyValue& /*value*/) const {
  return Fail(
      Errc::kInvalidArgument,
      fmt::format("Property '{}.{}' can not be changed any more", kType.name, property.name),
      "Give it when the object is made.");
}

Result<unsigned> SevSnpGuest::ChooseVmType(const kvm::System& system) {
  if (!host_) host_ = ReadConfidentialHost(system);
  HF_TRY_STATUS(CheckSnpHost(*host_));
  if (settings_.kernel_hashes) {
    return Fail(Errc::kUnsupported,
                "SEV: kernel specified but guest firmware has no hashes table GUID",
                fmt::format("Leave kernel-hashes=on of the object '{}' out: without a firmware "
                            "between, kernel, initrd and command line are measured themselves.",
                            id()));
  }
  if (host_->encryption.cbitpos != settings_.cbitpos) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("cbitpos check failed, host '{}' requested '{}'",
                            host_->encryption.cbitpos, settings_.cbitpos),
                fmt::format("Use cbitpos={}.", host_->encryption.cbitpos));
  }
  return kvm::abi::kVmTypeSnp;
}

Result<ConversionEngineKind> SevSnpGuest::Initialize(kvm::Vm& vm) {
  HF_TRY(device_, kvm::SevDevice::Open(settings_.sev_device));
  HF_TRY(platform_, device_->SnpStatus());
  const kvm::SnpCommands commands(vm, *device_);
  HF_TRY_STATUS(commands.Init(0));
  kvm::abi::SnpLaunchStart start{};
  start.policy = settings_.policy;
  std::copy(settings_.workarounds.bytes.begin(), settings_.workarounds.bytes.end(),
            start.gosvw.begin());
  HF_TRY_STATUS(commands.LaunchStart(start));
  HF_TRY(engine_, ChooseEncryptedEngine(vm, id(), settings_.convert_in_place));
  return engine_;
}

Status SevSnpGuest::Launch(const Guest& guest) {
  const kvm::Vcpu& first = *guest.vcpus.front();
  const kvm::SnpCommands commands(guest.vm, *device_);
  HF_TRY_STATUS(PrepareSnpLinux(guest.memory, first, settings_.cbitpos));
  HF_TRY(const std::vector<kvm_cpuid_entry2> cpuid, first.GetCpuid());
  HF_TRY(const kvm::abi::SnpCpuidPage page,
         MakeSnpCpuidPage(cpuid, {.cbitpos = settings_.cbitpos,
                                  .reduced_phys_bits = *settings_.reduced_phys_bits}));
  HF_TRY_STATUS(LaunchSnpMemory(commands, guest, page, engine_ == ConversionEngineKind::kKernel));
  kvm::abi::SnpLaunchFinish finish{};
  finish.id_block_uaddr = AddressOf(settings_.id_block);
  finish.id_auth_uaddr = AddressOf(settings_.id_auth);
  finish.id_block_en = settings_.id_block.bytes.empty() ? 0 : 1;
  finish.auth_key_en = settings_.author_key_enabled ? 1 : 0;
  finish.vcek_disabled = settings_.vcek_disabled ? 1 : 0;
  std::copy(settings_.host_data.bytes.begin(), settings_.host_data.bytes.end(),
            finish.host_data.begin());
  HF_TRY_STATUS(commands.LaunchFinish(finish));
  launched_ = true;
  return {};
}

}  // namespace holdfast::object
