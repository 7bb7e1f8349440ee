# SPDX-License-Identifier: Apache-2.0
# Network back ends. Paths from src/devices.
set(DEVICES_NET_SOURCES
  net/dgram_backend.cc
  net/net_address.cc
  net/netdev_config.cc
  net/netdev_json.cc
  net/network.cc
  net/packet_port.cc
  net/slirp_library.cc
  net/stream_backend.cc
  net/tap_backend.cc
  net/tap_config.cc
  net/user_backend.cc
  net/user_config.cc
  net/vhost_user_backend.cc)
set(DEVICES_NET_TESTS
  net/netdev_config_test.cc
  net/network_test.cc
  net/socket_backend_test.cc
  net/tap_backend_test.cc
  net/user_backend_test.cc)
