// SPDX-License-Identifier: Apache-2.0
// The part of VirtualMachine that makes network back ends.
#include "apps/vm_builder.h"

namespace holdfast::apps {

Status VirtualMachine::BuildNet() {
  network_.set_chardevs([this](std::string_view id) { return FindChardev(id); });
  for (const NetdevRequest& netdev : options_.net.netdevs) {
    if (Status added = network_.Add(netdev.config); !added) {
      return Fail(std::move(added).error().Wrap(netdev.option));
    }
  }
  device_backends_.netdev = [this](std::string_view id) { return network_.Find(id); };
  device_backends_.network = &network_;
  return {};
}

}  // namespace holdfast::apps
