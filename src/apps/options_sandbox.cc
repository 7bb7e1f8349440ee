// SPDX-License-Identifier: Apache-2.0
// -sandbox, and -run-with with its older spellings -runas and -chroot.
#include <fmt/format.h>

#include <array>

#include "apps/options_parse.h"
#include "object/keyval.h"
#include "object/property.h"

namespace holdfast::apps {
namespace {

using object::KeyValues;
using object::Property;
using object::PropertyType;
using object::PropertyValue;

constexpr std::array<std::string_view, 2> kAllowDeny = {"deny", "allow"};
constexpr std::array<std::string_view, 3> kPrivileges = {"deny", "allow", "children"};

template <bool SandboxOptions::* Member>
Status SetGroup(SandboxOptions& sandbox, const PropertyValue& value) {
  sandbox.*Member = std::get<std::uint64_t>(value) != 0;
  return {};
}

constexpr Property<SandboxOptions> kSandboxProperties[] = {
    {{.name = "enable",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "confine the process"},
     object::SetField<&SandboxOptions::enabled>},
    {{.name = "obsolete",
      .type = PropertyType::kEnum,
      .default_text = "deny",
      .description = "system calls that only old C libraries make",
      .choices = kAllowDeny},
     SetGroup<&SandboxOptions::obsolete>},
    {{.name = "elevateprivileges",
      .type = PropertyType::kEnum,
      .default_text = "deny",
      .description = "changing user and group, and keeping capabilities; other programs never "
                     "get more privileges",
      .choices = kPrivileges},
     SetGroup<&SandboxOptions::elevate_privileges>},
    {{.name = "spawn",
      .type = PropertyType::kEnum,
      .default_text = "deny",
      .description = "starting other programs",
      .choices = kAllowDeny},
     SetGroup<&SandboxOptions::spawn>},
    {{.name = "resourcecontrol",
      .type = PropertyType::kEnum,
      .default_text = "deny",
      .description = "changing limits, priorities and processor affinity",
      .choices = kAllowDeny},
     SetGroup<&SandboxOptions::resource_control>},
};

constexpr Property<RunWithOptions> kRunWithProperties[] = {
    {{.name = "async-teardown",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "a process of its own gives the guest's memory back at the end"},
     object::SetField<&RunWithOptions::async_teardown>},
    {{.name = "chroot", .description = "the folder that becomes the root of the file system"},
     object::SetField<&RunWithOptions::chroot>},
    {{.name = "user",
      .description = "become this user, a name or uid:gid, before the guest starts"},
     object::SetField<&RunWithOptions::user>},
};
constexpr std::array<std::string_view, 1> kQemuRunWith = {"exit-with-parent"};

}  // namespace

Status ParseSandbox(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument, "enable"));
  if (object::WantsHelp(values)) {
    options.print = object::DescribeProperties<SandboxOptions>("sandbox", kSandboxProperties);
    return {};
  }
  return object::SetProperties<SandboxOptions>(kSandboxProperties, {}, options.sandbox, values);
}

Status ParseRunWith(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument));
  if (object::WantsHelp(values)) {
    options.print = object::DescribeProperties<RunWithOptions>("run-with", kRunWithProperties);
    return {};
  }
  return object::SetProperties<RunWithOptions>(kRunWithProperties, kQemuRunWith, options.run_with,
                                               values);
}

Status ParseRunAs(Options& options, std::string_view argument) {
  options.run_with.user = argument;
  return {};
}

Status ParseChroot(Options& options, std::string_view argument) {
  options.run_with.chroot = argument;
  return {};
}

}  // namespace holdfast::apps
