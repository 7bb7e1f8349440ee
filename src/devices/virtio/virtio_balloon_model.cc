// SPDX-License-Identifier: Apache-2.0
// `-device virtio-balloon-pci`.
#include <memory>

#include <nlohmann/json.hpp>

#include "devices/virtio/virtio_balloon.h"
#include "devices/virtio/virtio_pci.h"

namespace holdfast::devices::virtio {
namespace {

using object::Property;
using object::PropertyType;
using object::PropertyValue;
using Config = VirtioBalloon::Config;

Status RefuseHints(Config&, const PropertyValue& value) {
  if (!std::get<bool>(value)) return {};
  return Fail(Errc::kUnsupported,
              "'free-page-hint' tells live migration what to leave out, and Holdfast has none yet",
              "Leave it out; free-page-reporting=on gives free memory back at any time.");
}

constexpr Property<Config> kProperties[] = {
    {{.name = "deflate-on-oom",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "the guest may take memory out of the balloon before it kills a process"},
     object::SetField<&Config::deflate_on_oom>},
    {{.name = "free-page-reporting",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "the guest tells of free memory, which goes back to the host at once"},
     object::SetField<&Config::free_page_reporting>},
    {{.name = "free-page-hint",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "for live migration; only off"},
     RefuseHints},
    {{.name = "page-poison",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "the guest may tell what it fills free memory with"},
     object::SetField<&Config::page_poison>},
};

Result<Config> Parse(const object::KeyValues& values, TransportOptions& options) {
  HF_TRY(const object::KeyValues own, TakeTransportOptions(values, options));
  Config config;
  HF_TRY_STATUS(object::SetProperties<Config>(kProperties, {}, config, own));
  return config;
}

Result<std::unique_ptr<pci::Function>> Make(const DeviceEnvironment& environment,
                                            std::string_view id, const object::KeyValues& values) {
  TransportOptions options;
  HF_TRY(const Config config, Parse(values, options));
  if (environment.services == nullptr || environment.services->balloon != nullptr) {
    return Fail(Errc::kInvalidArgument, "Only one balloon device is supported",
                "Leave the second one out.");
  }
  const auto changed = [emit = environment.emit](std::uint64_t actual) {
    if (emit) emit("BALLOON_CHANGE", {{"actual", actual}});
  };
  return MakeVirtioPci(environment, id, kVirtioBalloonPci.name, options,
                       std::make_unique<VirtioBalloon>(environment.loop, id, *environment.services,
                                                       config, changed));
}

}  // namespace

constexpr DeviceModel kVirtioBalloonPci = {
    .name = "virtio-balloon-pci",
    .description = "memory that the guest gives back",
    .properties =
        [] { return WithTransportProperties({std::begin(kProperties), std::end(kProperties)}); },
    .check = [](const object::KeyValues& values) -> Status {
      TransportOptions options;
      HF_TRY_STATUS(Parse(values, options));
      return {};
    },
    .create = Make,
};

}  // namespace holdfast::devices::virtio
