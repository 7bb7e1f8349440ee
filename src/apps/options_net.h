// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "devices/net/netdev_config.h"
#include "object/keyval.h"

namespace holdfast::apps {

/// One network back end: -netdev, or the back end's part of -nic or -net.
struct NetdevRequest {
  std::string option;  ///< as written, "-netdev user,id=net0", for messages
  devices::net::NetdevConfig config;
};

/// One network card of -nic or -net nic: what virtio-net-pci is made with.
struct NicRequest {
  std::string option;
  object::KeyValues values;
};

/// What the command line says about networks.
struct NetOptions {
  std::vector<NetdevRequest> netdevs;
  std::vector<NicRequest> nics;
  // -net: a card and a back end that belong together without saying so.
  std::vector<NetdevRequest> old_netdevs;
  std::vector<NicRequest> old_nics;
};

}  // namespace holdfast::apps
