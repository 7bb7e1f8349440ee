# SPDX-License-Identifier: Apache-2.0
# Loading a guest: RAM layout, memory map, bzImage and PVH loaders. Paths from src/machine.
set(MACHINE_BOOT_SOURCES
  boot/boot_source.cc
  boot/bzimage.cc
  boot/e820.cc
  boot/guest_image.cc
  boot/long_mode.cc
  boot/placement.cc
  boot/pvh.cc
  boot/ram_layout.cc)
set(MACHINE_BOOT_TESTS
  boot/boot_source_test.cc
  boot/bzimage_test.cc
  boot/e820_test.cc
  boot/guest_image_test.cc
  boot/long_mode_test.cc
  boot/pvh_test.cc
  boot/ram_layout_test.cc
  boot/test_images.cc)
