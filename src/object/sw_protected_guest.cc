// SPDX-License-Identifier: Apache-2.0
#include "object/sw_protected_guest.h"

#include <fmt/format.h>

#include <array>
#include <optional>

#include "memory/conversion_engines.h"
#include "object/property.h"

namespace holdfast::object {
namespace {

constexpr std::array<std::string_view, 4> kConversionWords = {"auto", "kernel", "guard",
                                                              "attributes"};
constexpr std::array<std::string_view, 2> kInitialWords = {"shared", "private"};

template <auto Member>
Status Set(Object& object, const PropertyValue& value) {
  return SetField<Member>(static_cast<SwProtectedGuest&>(object).own(), value);
}
template <auto Member>
PropertyValue Get(const Object& object) {
  return GetField<Member>(static_cast<const SwProtectedGuest&>(object).own());
}
using S = SwProtectedGuest::Settings;

constexpr std::array<Property<Object>, 3> kProperties = {{
    {{.name = "conversion",
      .type = PropertyType::kEnum,
      .default_text = "auto",
      .description = "how pages become private and shared: by the kernel in place, by guard pages, "
                     "or in two layers by VM attributes; auto takes the first that works",
      .choices = kConversionWords,
      .qom_type = "HoldfastConversion"},
     Set<&S::conversion>,
     Get<&S::conversion>},
    {{.name = "convert-in-place",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "a converted page keeps its place and what it holds; off is "
                     "conversion=attributes"},
     Set<&S::convert_in_place>,
     Get<&S::convert_in_place>},
    {{.name = "initial",
      .type = PropertyType::kEnum,
      .default_text = "shared",
      .description = "what all memory is when the guest starts",
      .choices = kInitialWords,
      .qom_type = "HoldfastMemoryAttribute"},
     Set<&S::initial>,
     Get<&S::initial>},
}};

using enum ConversionEngineKind;

unsigned VmTypeFor(ConversionEngineKind kind) {
  return kind == kGuard ? kvm::abi::kVmTypeDefault : kvm::abi::kVmTypeSwProtected;
}

// Tried on a VM that is forgotten again.
bool Works(const kvm::System& system, ConversionEngineKind kind) {
  const unsigned type = VmTypeFor(kind);
  const auto types = static_cast<unsigned>(system.CheckExtension(kvm::abi::kCapVmTypes));
  if (type != kvm::abi::kVmTypeDefault && (types >> type & 1U) == 0) return false;
  auto vm = kvm::Vm::Create(system, type);
  return vm && EngineWorks(*vm, kind);
}

}  // namespace

constexpr ObjectType SwProtectedGuest::kType = {
    .name = "sw-protected-guest",
    .description = "private memory that the monitor cannot reach, without encryption",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<SwProtectedGuest>(std::move(id));
    },
    .properties = kProperties,
    .qemu_only = {},
};

Status SwProtectedGuest::Complete() {
  const bool two_layers = own_.conversion == ConversionChoice::kAttributes;
  if (own_.convert_in_place && two_layers) own_.convert_in_place = false;
  if (!own_.convert_in_place && !two_layers && own_.conversion != ConversionChoice::kAuto) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("conversion={} converts in place, which convert-in-place=off rules out",
                            kConversionWords[static_cast<std::size_t>(own_.conversion)]),
                "Leave one of the two out.");
  }
  if (!own_.convert_in_place && own_.initial == MemoryAttribute::kPrivate) {
    return Fail(Errc::kInvalidArgument,
                "initial=private needs conversion in place: in two layers a page that becomes "
                "private loses what was loaded into it",
                "Leave convert-in-place=off and conversion=attributes out, or use initial=shared.");
  }
  return {};
}

Result<unsigned> SwProtectedGuest::ChooseVmType(const kvm::System& system) {
  std::vector<ConversionEngineKind> candidates;
  switch (own_.conversion) {
    case ConversionChoice::kAuto:
      if (own_.convert_in_place) candidates = {kKernel, kGuard};
      if (own_.initial == MemoryAttribute::kShared) candidates.push_back(kAttributes);
      break;
    case ConversionChoice::kKernel:
      candidates = {kKernel};
      break;
    case ConversionChoice::kGuard:
      candidates = {kGuard};
      break;
    case ConversionChoice::kAttributes:
      candidates = {kAttributes};
      break;
  }
  for (const ConversionEngineKind kind : candidates) {
    if (!Works(system, kind)) continue;
    engine_ = kind;
    return VmTypeFor(kind);
  }
  std::string needs;
  for (const ConversionEngineKind kind : candidates)
    needs +=
        fmt::format("{}{} needs {}", needs.empty() ? "" : "; ", ToString(kind), EngineNeeds(kind));
  return Fail(Errc::kUnsupported,
              fmt::format("this host cannot convert memory for sw-protected-guest '{}' with "
                          "conversion={}",
                          id(), kConversionWords[static_cast<std::size_t>(own_.conversion)]),
              fmt::format("{}. `holdfastctl probe` shows what this host offers.", needs));
}

Status SwProtectedGuest::Launch(const Guest& guest) {
  if (own_.initial == MemoryAttribute::kShared) return {};
  for (const AddressSpace::Region& region : guest.memory.regions()) {
    HF_TRY(const GuestConverter::Outcome outcome,
           guest.converter.Convert(region.base, region.size, MemoryAttribute::kPrivate));
    if (outcome.busy) {
      return Fail(
          Errc::kInvalidArgument,
          fmt::format("a device works on guest physical address {:#x}, which initial=private "
                      "makes private",
                      outcome.busy->value()),
          "Use initial=shared with this device.");
    }
  }
  return {};
}

}  // namespace holdfast::object
