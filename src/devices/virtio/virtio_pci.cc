// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_pci.h"

#include <algorithm>

#include "devices/virtio/pci_transport.h"

namespace holdfast::devices::virtio {
namespace {

using object::Property;
using object::PropertyType;

// What is read and has no choice behind it.
struct Words : TransportOptions {
  std::uint64_t disable_legacy = 0;
  bool disable_modern = false;
  bool ats = false;
  bool page_per_vq = false;
};

constexpr std::string_view kOnOffAuto[] = {"auto", "on", "off"};

Status SetVectors(Words& words, const object::PropertyValue& value) {
  words.vectors = std::get<std::uint64_t>(value);
  return {};
}
template <auto Member>
Status SetOption(Words& words, const object::PropertyValue& value) {
  return object::SetFieldOf<TransportOptions, Member>(words, value);
}

constexpr Property<Words> kProperties[] = {
    {{.name = "packed",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "offer packed virtqueues"},
     SetOption<&TransportOptions::packed>},
    {{.name = "event_idx",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "offer event indices, which save interrupts"},
     SetOption<&TransportOptions::event_index>},
    {{.name = "indirect_desc",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "offer indirect descriptors"},
     SetOption<&TransportOptions::indirect>},
    {{.name = "iommu_platform",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "let the guest treat its memory as behind an IOMMU"},
     SetOption<&TransportOptions::iommu_platform>},
    {{.name = "vectors",
      .type = PropertyType::kUint,
      .default_text = "one a queue and one",
      .description = "MSI-X vectors, 0 for none",
      .max = 2048},
     SetVectors},
    {{.name = "disable-legacy",
      .type = PropertyType::kEnum,
      .default_text = "auto",
      .description = "accepted; there is no legacy interface",
      .choices = kOnOffAuto},
     object::SetField<&Words::disable_legacy>},
    {{.name = "disable-modern",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "only off: the modern interface is the only one"},
     object::SetField<&Words::disable_modern>},
    {{.name = "ats",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "accepted; there is no address translation service"},
     object::SetField<&Words::ats>},
    {{.name = "page-per-vq",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "accepted; each queue has a doorbell of its own anyway"},
     object::SetField<&Words::page_per_vq>},
};

}  // namespace

Result<object::KeyValues> TakeTransportOptions(const object::KeyValues& values,
                                               TransportOptions& options) {
  Words words;
  object::KeyValues rest;
  for (const object::KeyValue& entry : values) {
    const bool known = std::ranges::any_of(
        kProperties, [&](const auto& property) { return property.name == entry.key; });
    if (!known) {
      rest.push_back(entry);
      continue;
    }
    HF_TRY_STATUS(object::SetProperty<Words>(kProperties, {}, words, entry));
  }
  if (words.disable_modern) {
    return Fail(Errc::kUnsupported, "disable-modern=on asks for a legacy virtio device",
                "Leave it out: Holdfast's virtio devices are modern ones (virtio 1.0 and later).");
  }
  options = words;
  return rest;
}

std::vector<object::PropertyInfo> WithTransportProperties(std::vector<object::PropertyInfo> own) {
  own.insert(own.end(), std::begin(kProperties), std::end(kProperties));
  return own;
}

Result<std::unique_ptr<pci::Function>> MakeVirtioPci(const DeviceEnvironment& environment,
                                                     std::string_view id, std::string_view model,
                                                     const TransportOptions& options,
                                                     std::unique_ptr<Device> device) {
  return PciTransport::Create(environment, id, model, options, std::move(device));
}

}  // namespace holdfast::devices::virtio
