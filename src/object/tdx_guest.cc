// SPDX-License-Identifier: Apache-2.0
#include "object/tdx_guest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/base64.h"
#include "kvm/tdx_commands.h"
#include "object/backend_properties.h"
#include "object/launch_image.h"
#include "object/tdx_launch.h"

namespace holdfast::object {
namespace {

using Settings = TdxGuest::Settings;
using Digest = TdxGuest::Digest;
using SocketAddress = TdxGuest::SocketAddress;

// TDX module base specification, ATTRIBUTES.
constexpr std::uint64_t kSeptVeDisable = 1ULL << 28;
constexpr std::uint64_t kPks = 1ULL << 30;
constexpr std::uint64_t kPerfmon = 1ULL << 63;
// What this monitor can keep its part of.
constexpr std::uint64_t kKnownAttributes = kSeptVeDisable | kPks | kPerfmon;

Settings& Of(Object& object) {
  return static_cast<TdxGuest&>(object).settings();
}
const Settings& Of(const Object& object) {
  return static_cast<const TdxGuest&>(object).settings();
}

template <auto Member>
Status Set(Object& object, const PropertyValue& value) {
  return SetField<Member>(Of(object), value);
}
template <auto Member>
PropertyValue Get(const Object& object) {
  return GetField<Member>(Of(object));
}

Status SetSeptVeDisable(Object& object, const PropertyValue& value) {
  std::uint64_t& attributes = Of(object).attributes;
  attributes = std::get<bool>(value) ? attributes | kSeptVeDisable : attributes & ~kSeptVeDisable;
  return {};
}
PropertyValue GetSeptVeDisable(const Object& object) {
  return (Of(object).attributes & kSeptVeDisable) != 0;
}

Status SetDigestTo(Digest& digest, std::string_view name, const std::string& text) {
  const auto bytes = DecodeBase64(text);
  const std::string hint = fmt::format("{}= takes a SHA-384 digest in base64.", name);
  if (!bytes) {
    return Fail(Errc::kInvalidArgument, fmt::format("Base64 data '{}' is not valid", text), hint);
  }
  if (bytes->size() != TdxGuest::kDigestSize) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("TDX '{}' sha384 digest was {} bytes, expected {} bytes", name,
                            bytes->size(), TdxGuest::kDigestSize),
                hint);
  }
  digest.text = text;
  std::memcpy(digest.words.data(), bytes->data(), bytes->size());
  return {};
}

template <Digest Settings::* Member>
constexpr Property<Object> DigestProperty(std::string_view name, std::string_view description) {
  Property<Object> property{};
  property.name = name;
  property.default_text = "all zero";
  property.description = description;
  property.set = [](Object& object, const PropertyValue& value) -> Status {
    constexpr std::string_view kName = Member == &Settings::mrconfigid ? "mrconfigid"
                                       : Member == &Settings::mrowner  ? "mrowner"
                                                                       : "mrownerconfig";
    return SetDigestTo(Of(object).*Member, kName, std::get<std::string>(value));
  };
  property.get = [](const Object& object) -> PropertyValue { return (Of(object).*Member).text; };
  return property;
}

constexpr std::string_view kSocketTypes[] = {"inet", "unix", "vsock", "fd"};

template <std::string SocketAddress::* Member>
constexpr Property<Object> SocketProperty(std::string_view name, std::string_view description) {
  Property<Object> property{};
  property.name = name;
  property.description = description;
  property.set = [](Object& object, const PropertyValue& value) -> Status {
    Of(object).quote_generation_socket.*Member = std::get<std::string>(value);
    return {};
  };
  property.get = [](const Object& object) -> PropertyValue {
    return Of(object).quote_generation_socket.*Member;
  };
  return property;
}

constexpr Property<Object> kProperties[] = {
    {{.name = "attributes",
      .type = PropertyType::kUint,
      .default_text = "0x10000000",
      .description = "the TD's attributes (TDX module base specification)"},
     Set<&Settings::attributes>,
     Get<&Settings::attributes>},
    {{.name = "sept-ve-disable",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "bit 28 of the attributes; Linux guests want it"},
     SetSeptVeDisable,
     GetSeptVeDisable},
    DigestProperty<&Settings::mrconfigid>("mrconfigid",
                                          "digest of what the owner does not configure"),
    DigestProperty<&Settings::mrowner>("mrowner", "digest that names the owner"),
    DigestProperty<&Settings::mrownerconfig>("mrownerconfig",
                                             "digest of what the owner configures"),
    {{.name = "quote-generation-socket.type",
      .type = PropertyType::kEnum,
      .description = "where quotes for attestation come from",
      .choices = kSocketTypes,
      .qom_type = "SocketAddressType"},
     [](Object& object, const PropertyValue& value) -> Status {
       Of(object).quote_generation_socket.type = std::get<std::uint64_t>(value);
       return {};
     },
     [](const Object& object) -> PropertyValue {
       return Of(object).quote_generation_socket.type.value_or(0);
     }},
    SocketProperty<&SocketAddress::host>("quote-generation-socket.host", "of type inet"),
    SocketProperty<&SocketAddress::port>("quote-generation-socket.port", "of types inet and vsock"),
    SocketProperty<&SocketAddress::path>("quote-generation-socket.path", "of type unix"),
    SocketProperty<&SocketAddress::cid>("quote-generation-socket.cid", "of type vsock"),
    SocketProperty<&SocketAddress::str>("quote-generation-socket.str", "of type fd"),
    {{.name = "convert-in-place",
      .type = PropertyType::kEnum,
      .default_text = "auto",
      .description = "pages become private where they are; auto does where the kernel can",
      .choices = kOnOffAutoWords,
      .qom_type = "OnOffAuto"},
     Set<&Settings::convert_in_place>,
     Get<&Settings::convert_in_place>},
};

// As QEMU does by the schema: exactly the members that the address's type has.
Status CheckSocket(const SocketAddress& socket) {
  struct Member {
    std::string_view name;
    const std::string& value;
    std::string_view types;
  };
  const Member members[] = {{"host", socket.host, "inet"},
                            {"port", socket.port, "inet vsock"},
                            {"path", socket.path, "unix"},
                            {"cid", socket.cid, "vsock"},
                            {"str", socket.str, "fd"}};
  const std::string_view type = socket.type ? kSocketTypes[*socket.type] : "";
  for (const Member& member : members) {
    const bool wanted = !type.empty() && member.types.find(type) != std::string_view::npos;
    if (wanted && member.value.empty()) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Parameter 'quote-generation-socket.{}' is missing", member.name));
    }
    if (wanted || member.value.empty()) continue;
    if (type.empty()) {
      return Fail(Errc::kInvalidArgument, "Parameter 'quote-generation-socket.type' is missing",
                  "It is inet, unix, vsock or fd.");
    }
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameter 'quote-generation-socket.{}' is unexpected", member.name),
                fmt::format("An address of type {} has no such member.", type));
  }
  return {};
}

}  // namespace

constexpr ObjectType TdxGuest::kType = {
    .name = "tdx-guest",
    .description = "a confidential guest of Intel's TDX",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<TdxGuest>(std::move(id));
    },
    .properties = kProperties,
    .qemu_only = {},
};

Status TdxGuest::Complete() {
  if ((settings_.attributes & ~kKnownAttributes) != 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Some unsupported TD attribute bits being requested: {:#x} (supported: "
                            "{:#x})",
                            settings_.attributes, kKnownAttributes),
                fmt::format("attributes= of the object '{}' may have bit 28 (SEPT_VE_DISABLE), 30 "
                            "(PKS) and 63 (PERFMON).",
                            id()));
  }
  return CheckSocket(settings_.quote_generation_socket);
}

Status TdxGuest::MayChange(const PropertyInfo& property, const PropertyValue& /*value*/) const {
  return Fail(
      Errc::kInvalidArgument,
      fmt::format("Property '{}.{}' can not be changed any more", kType.name, property.name),
      "Give it when the object is made.");
}

Result<unsigned> TdxGuest::ChooseVmType(const kvm::System& system) {
  if (!host_) host_ = ReadConfidentialHost(system);
  HF_TRY_STATUS(CheckTdxHost(*host_));
  HF_TRY(cpuid_, system.SupportedCpuid());
  return kvm::abi::kVmTypeTdx;
}

Result<ConversionEngineKind> TdxGuest::Initialize(kvm::Vm& vm) {
  HF_TRY(const kvm::TdxLimits limits, kvm::TdxCapabilities(vm));
  if ((settings_.attributes & ~limits.attributes) != 0) {
    return Fail(Errc::kUnsupported,
                fmt::format("Invalid attributes {:#x} for TDX VM (KVM supported: {:#x})",
                            settings_.attributes, limits.attributes),
                fmt::format("Change attributes= of the object '{}'.", id()));
  }
  HF_TRY_STATUS(SetTdxClock(vm));
  kvm::abi::TdxInitVm init{};
  init.attributes = settings_.attributes;
  init.xfam = TdxXfam(cpuid_, limits);
  const auto copy = [](std::uint64_t(&to)[kDigestWords], const Digest& from) {
    std::copy(from.words.begin(), from.words.end(), to);
  };
  copy(init.mrconfigid, settings_.mrconfigid);
  copy(init.mrowner, settings_.mrowner);
  copy(init.mrownerconfig, settings_.mrownerconfig);
  HF_TRY_STATUS(kvm::TdxInitVm(vm, init, TdxCpuid(cpuid_, limits)));
  HF_TRY(engine_, ChooseEncryptedEngine(vm, id(), settings_.convert_in_place));
  return engine_;
}

Status TdxGuest::Launch(const Guest& guest) {
  return LaunchTdx(guest, engine_ == ConversionEngineKind::kKernel);
}

}  // namespace holdfast::object
