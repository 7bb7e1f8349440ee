# SPDX-License-Identifier: Apache-2.0
# vhost: queues that the kernel serves. Paths from src/devices.
set(DEVICES_VHOST_SOURCES
  vhost/kernel_vhost.cc
  virtio/vhost_vsock.cc)
set(DEVICES_VHOST_TESTS
  vhost/kernel_vhost_test.cc)
