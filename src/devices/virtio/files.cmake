# SPDX-License-Identifier: Apache-2.0
# virtio: queues, the PCI transport, device types. Paths from src/devices.
set(DEVICES_VIRTIO_SOURCES
  virtio/device.cc
  virtio/packed_ring.cc
  virtio/pci_transport.cc
  virtio/pci_transport_registers.cc
  virtio/queue.cc
  virtio/serial_port.cc
  virtio/split_ring.cc
  virtio/transport_queue.cc
  virtio/virtio_blk.cc
  virtio/virtio_blk_pci.cc
  virtio/virtio_balloon.cc
  virtio/virtio_balloon_model.cc
  virtio/virtio_net.cc
  virtio/virtio_net_control.cc
  virtio/virtio_net_pci.cc
  virtio/virtio_net_vhost.cc
  virtio/virtio_pci.cc
  virtio/virtio_rng.cc
  virtio/virtio_scsi.cc
  virtio/virtio_scsi_pci.cc
  virtio/virtio_serial.cc
  virtio/virtio_serial_models.cc)
set(DEVICES_VIRTIO_TESTS
  virtio/pci_transport_test.cc
  virtio/queue_test.cc
  virtio/virtio_blk_test.cc
  virtio/virtio_balloon_test.cc
  virtio/virtio_net_control_test.cc
  virtio/virtio_net_test.cc
  virtio/virtio_rng_test.cc
  virtio/virtio_scsi_test.cc
  virtio/virtio_serial_test.cc)
# The driver's side, for tests here, in tests/kvm and for fuzzing.
set(DEVICES_TESTING_SOURCES
  virtio/test_driver.cc)
