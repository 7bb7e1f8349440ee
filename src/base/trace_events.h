// SPDX-License-Identifier: Apache-2.0
#pragma once

// All trace events: name and fmt format of the arguments, alphabetical. Where QEMU has an event of
// the same meaning, name and text are QEMU's, so that scripts made for it keep working.
// clang-format off
#define HF_TRACE_EVENTS(X)                                                                          \
  X(cpu_in, "addr 0x{:x}({}) value {}")                                                             \
  X(cpu_out, "addr 0x{:x}({}) value {}")                                                            \
  X(kvm_convert_memory, "start 0x{:x} size 0x{:x} {}")                                              \
  X(kvm_memory_fault, "start 0x{:x} size 0x{:x} flags 0x{:x}")                                      \
  X(kvm_run_exit, "cpu_index {}, reason {}")                                                        \
  X(kvm_set_user_memory,                                                                            \
    "AddrSpace#{} Slot#{} flags=0x{:x} gpa=0x{:x} size=0x{:x} ua=0x{:x} guest_memfd={} "            \
    "guest_memfd_offset=0x{:x} ret={}")                                                             \
  X(memory_backend_create, "id {} type {} size 0x{:x} fd {}")                                       \
  X(qemu_system_powerdown_request, "")                                                              \
  X(qemu_system_shutdown_request, "reason={}")                                                      \
  X(runstate_set, "current_run_state {} ({}) new_state {} ({})")                                    \
  X(system_reset_request, "reason={}")
// clang-format on
