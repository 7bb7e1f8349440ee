# SPDX-License-Identifier: Apache-2.0
# Disks on the host's side. Paths from src/devices.
set(DEVICES_BLOCK_SOURCES
  block/block_graph.cc
  block/block_graph_images.cc
  block/disk_options.cc
  block/drive.cc
  block/file_device.cc
  block/file_op.cc
  block/image_lock.cc
  block/image_program.cc
  block/node_options.cc
  block/null_device.cc
  block/raw_device.cc
  block/thread_submitter.cc
  block/uring.cc
  block/uring_submitter.cc
  scsi/scsi_bus.cc
  scsi/scsi_cd.cc
  scsi/scsi_cdb.cc
  scsi/scsi_disk.cc
  scsi/scsi_disk_state.cc
  scsi/scsi_models.cc
  scsi/scsi_pages.cc)
set(DEVICES_BLOCK_TESTS
  block/block_graph_test.cc
  block/drive_test.cc
  block/file_device_test.cc
  block/image_program_test.cc
  block/node_options_test.cc
  scsi/scsi_disk_test.cc)
# Linked in, as fmt is: one program for every distribution. Not in base, which is part of libholdfast.
find_library(HOLDFAST_LIBURING liburing.a REQUIRED)
