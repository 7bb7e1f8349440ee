# SPDX-License-Identifier: Apache-2.0
# vhost-user: devices that other processes serve. Paths from src/devices.
set(DEVICES_VHOST_USER_SOURCES
  block/nbd_flusher.cc
  block/storage_daemon.cc
  vhost_user/channel.cc
  vhost_user/connection.cc
  vhost_user/endpoint.cc
  vhost_user/front_end.cc
  virtio/vhost_user_device.cc
  virtio/vhost_user_models.cc)
set(DEVICES_VHOST_USER_TESTS
  block/nbd_flusher_test.cc
  block/storage_daemon_test.cc
  vhost_user/front_end_test.cc
  virtio/vhost_user_device_test.cc
  virtio/virtio_net_vhost_user_test.cc)
