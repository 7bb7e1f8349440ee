# SPDX-License-Identifier: Apache-2.0
# PCI Express. Paths from src/devices.
set(DEVICES_PCI_SOURCES
  pci/bridge.cc
  pci/function.cc
  pci/function_state.cc
  pci/msix.cc
  pci/pci_bus.cc
  pci/pci_host.cc
  pci/resources.cc
  pci/root_port.cc
  pci/test_device.cc)
set(DEVICES_PCI_TESTS
  pci/function_state_test.cc
  pci/function_test.cc
  pci/pci_host_test.cc)
