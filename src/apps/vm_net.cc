// SPDX-License-Identifier: Apache-2.0
// The part of VirtualMachine that makes network back ends.
#include <fmt/format.h>

#include "apps/vm_builder.h"

namespace holdfast::apps {

Status VirtualMachine::BuildNet() {
  network_.set_chardevs([this](std::string_view id) { return FindChardev(id); });
  for (const NetdevRequest& netdev : options_.net.netdevs) {
    devices::net::NetdevConfig config = netdev.config;
    auto* const tap = std::get_if<devices::net::TapConfig>(&config.what);
    if (tap != nullptr && options_.takeover) {
      for (std::size_t pair = 0;; ++pair) {
        UniqueFd queue = options_.takeover->fds.Take(fmt::format("netdev/{}/{}", config.id, pair));
        if (!queue) break;
        tap->inherited.push_back(queue.release());
      }
    }
    if (Status added = network_.Add(config); !added) {
      return Fail(std::move(added).error().Wrap(netdev.option));
    }
  }
  device_backends_.netdev = [this](std::string_view id) { return network_.Find(id); };
  device_backends_.network = &network_;
  return {};
}

}  // namespace holdfast::apps
