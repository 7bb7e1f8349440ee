// SPDX-License-Identifier: Apache-2.0
// `-device virtio-balloon-pci`.
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "base/event_loop.h"
#include "devices/virtio/virtio_balloon.h"
#include "devices/virtio/virtio_pci.h"

namespace holdfast::devices::virtio {
namespace {

using object::Property;
using object::PropertyType;
using object::PropertyValue;
using Config = VirtioBalloon::Config;

struct Words : Config {
  std::string iothread;
};

template <auto Member>
Status SetConfig(Words& words, const PropertyValue& value) {
  return object::SetFieldOf<Config, Member>(words, value);
}

constexpr Property<Words> kProperties[] = {
    {{.name = "iothread", .description = "id of the iothread that serves it"},
     object::SetField<&Words::iothread>},
    {{.name = "deflate-on-oom",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "the guest may take memory out of the balloon before it kills a process"},
     SetConfig<&Config::deflate_on_oom>},
    {{.name = "free-page-reporting",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "the guest tells of free memory, which goes back to the host at once"},
     SetConfig<&Config::free_page_reporting>},
    {{.name = "free-page-hint",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "the guest can be asked what a copy of its memory may leave out; needs "
                     "iothread="},
     SetConfig<&Config::free_page_hint>},
    {{.name = "page-poison",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "the guest may tell what it fills free memory with"},
     SetConfig<&Config::page_poison>},
};

Result<Words> Parse(const object::KeyValues& values, TransportOptions& options) {
  HF_TRY(const object::KeyValues own, TakeTransportOptions(values, options));
  Words words;
  HF_TRY_STATUS(object::SetProperties<Words>(kProperties, {}, words, own));
  if (words.free_page_hint && words.iothread.empty()) {
    return Fail(Errc::kInvalidArgument, "'free-page-hint' requires 'iothread' to be set",
                "Add -object iothread,id=ID, and iothread=ID here.");
  }
  return words;
}

Result<std::unique_ptr<pci::Function>> Make(const DeviceEnvironment& environment,
                                            std::string_view id, const object::KeyValues& values) {
  TransportOptions options;
  HF_TRY(const Words words, Parse(values, options));
  if (environment.services == nullptr || environment.services->balloon != nullptr) {
    return Fail(Errc::kInvalidArgument, "Only one balloon device is supported",
                "Leave the second one out.");
  }
  HF_TRY(const DeviceThread thread,
         DeviceThread::Find(environment, kVirtioBalloonPci.name, words.iothread));
  // The token goes with the device: no event of a balloon that is gone.
  const auto changed = [emit = environment.emit, main = &environment.loop,
                        token = std::make_shared<int>()](std::uint64_t actual) {
    main->Post([emit, actual, alive = std::weak_ptr<int>(token)] {
      if (emit && !alive.expired()) emit("BALLOON_CHANGE", {{"actual", actual}});
    });
  };
  return MakeVirtioPci(
      environment, id, kVirtioBalloonPci.name, options,
      std::make_unique<VirtioBalloon>(thread, id, *environment.services, words, changed));
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
