// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

#include "object/memory_backend.h"
#include "object/property.h"

namespace holdfast::object {

/// The words of OnOffAuto and Bind.
inline constexpr std::array<std::string_view, 3> kOnOffAutoWords = {"auto", "on", "off"};
/// The words of NumaMode.
inline constexpr std::array<std::string_view, 4> kNumaModeWords = {"default", "preferred", "bind",
                                                                   "interleave"};
/// QEMU's properties of memory backends that Holdfast has not.
inline constexpr std::array<std::string_view, 1> kBackendQemuOnly = {
    "x-use-canonical-path-for-ramblock-id"};

/// Setter and getter of a member of Backend::Settings.
template <typename Backend, auto Member>
Status SetOwn(Object& object, const PropertyValue& value) {
  return SetField<Member>(static_cast<Backend&>(object).own(), value);
}
template <typename Backend, auto Member>
PropertyValue GetOwn(const Object& object) {
  return GetField<Member>(static_cast<const Backend&>(object).own());
}

namespace internal {
Status SetSize(Object& object, const PropertyValue& value);
PropertyValue GetSize(const Object& object);
Status SetPreallocThreads(Object& object, const PropertyValue& value);
PropertyValue GetPreallocThreads(const Object& object);
Status SetPreallocContext(Object& object, const PropertyValue& value);
Status SetHostNodes(Object& object, const PropertyValue& value);

template <auto Member>
Status SetCommon(Object& object, const PropertyValue& value) {
  return SetField<Member>(static_cast<MemoryBackend&>(object).settings(), value);
}
template <auto Member>
PropertyValue GetCommon(const Object& object) {
  return GetField<Member>(static_cast<const MemoryBackend&>(object).settings());
}
// A switch that is as the machine has it until it is set: on, as far as anybody can tell.
template <std::optional<bool> MemorySettings::* Member>
Status SetOptional(Object& object, const PropertyValue& value) {
  static_cast<MemoryBackend&>(object).settings().*Member = std::get<bool>(value);
  return {};
}
template <std::optional<bool> MemorySettings::* Member>
PropertyValue GetOptional(const Object& object) {
  return (static_cast<const MemoryBackend&>(object).settings().*Member).value_or(true);
}
template <std::optional<bool> MemorySettings::* Member>
constexpr Property<Object> MachineSwitch(std::string_view name, std::string_view machine_option,
                                         std::string_view description) {
  return {{.name = name,
           .type = PropertyType::kBool,
           .default_text = machine_option,
           .description = description},
          SetOptional<Member>,
          GetOptional<Member>};
}
template <auto Member>
constexpr Property<Object> Switch(std::string_view name, std::string_view default_text,
                                  std::string_view description) {
  return {{.name = name,
           .type = PropertyType::kBool,
           .default_text = default_text,
           .description = description},
          SetCommon<Member>,
          GetCommon<Member>};
}
}  // namespace internal

/// The properties of every memory backend; the types differ in what `share` is by default.
constexpr std::array<Property<Object>, 10> CommonProperties(std::string_view share_default) {
  using S = MemorySettings;
  return {{
      {{.name = "size",
        .type = PropertyType::kSize,
        .description = "how large the memory is; needed"},
       internal::SetSize,
       internal::GetSize},
      internal::Switch<&S::share>("share", share_default,
                                  "what is written is seen by all who map the memory"),
      internal::Switch<&S::prealloc>("prealloc", "off",
                                     "allocate all of it before the guest starts"),
      {{.name = "prealloc-threads",
        .type = PropertyType::kUint,
        .default_text = "the number of vCPUs",
        .description = "how many threads allocate it",
        .max = 0xffffffff},
       internal::SetPreallocThreads,
       internal::GetPreallocThreads},
      {{.name = "prealloc-context",
        .description = "a thread-context object, which Holdfast does not have"},
       internal::SetPreallocContext},
      internal::Switch<&S::reserve>("reserve", "on", "set swap space aside for it"),
      internal::MachineSwitch<&S::merge>(
          "merge", "-machine mem-merge",
          "let the kernel merge equal pages; guest_memfd is never merged"),
      internal::MachineSwitch<&S::dump>("dump", "-machine dump-guest-core",
                                        "have it in core dumps; guest_memfd is never dumped"),
      {{.name = "host-nodes",
        .type = PropertyType::kUint16List,
        .description = "host NUMA nodes that the policy speaks of: 0-1 or 0,host-nodes=2"},
       internal::SetHostNodes,
       internal::GetCommon<&S::host_nodes>},
      {{.name = "policy",
        .type = PropertyType::kEnum,
        .default_text = "default",
        .description = "how the host's NUMA nodes are chosen for it; guest_memfd before Linux 6.19 "
                       "needs prealloc=on with it",
        .choices = kNumaModeWords,
        .qom_type = "HostMemPolicy"},
       internal::SetCommon<&S::policy>,
       internal::GetCommon<&S::policy>},
  }};
}

/// The common properties and then the type's own.
template <std::size_t N>
constexpr auto WithCommonProperties(std::string_view share_default,
                                    const std::array<Property<Object>, N>& own) {
  constexpr std::size_t kCommon = CommonProperties("").size();
  std::array<Property<Object>, kCommon + N> all;
  std::size_t next = 0;
  for (const Property<Object>& property : CommonProperties(share_default)) all[next++] = property;
  for (const Property<Object>& property : own) all[next++] = property;
  return all;
}

/// The property `bind` of the types that can be guest_memfd.
template <typename Backend>
constexpr Property<Object> BindProperty() {
  return {{.name = "bind",
           .type = PropertyType::kEnum,
           .default_text = "auto",
           .description = "bind the memslots to the guest_memfd (KVM_MEM_GUEST_MEMFD): the guest's "
                          "page faults need no user-space mapping, but KVM cannot log dirty pages; "
                          "auto is off for an ordinary VM",
           .choices = kOnOffAutoWords,
           .qom_type = "OnOffAuto"},
          SetOwn<Backend, &Backend::Settings::bind>,
          GetOwn<Backend, &Backend::Settings::bind>};
}

/// The error of a property that cannot have this value.
Error NotThisValue(std::string_view property, std::string_view type, std::string_view value,
                   std::string hint);

}  // namespace holdfast::object
