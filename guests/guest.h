// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "abi.h"

/// The runtime of the freestanding guests: ports. Nothing else is linked in.
namespace guests {

inline constexpr unsigned long kPageSize = 4096;

inline void Out8(unsigned short port, unsigned char value) {
  asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

inline void Out32(unsigned short port, unsigned value) {
  asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

inline void Print(const char* text) {
  for (; *text != '\0'; ++text) Out8(kConsolePort, static_cast<unsigned char>(*text));
}

/// Hands one value to the test.
inline void Report(unsigned long value) {
  Out32(kReportPort, static_cast<unsigned>(value));
  Out32(kReportPort, static_cast<unsigned>(value >> 32));
}

/// Ends this vCPU's work. A test (or the debug-exit device) does not come back from the port.
[[noreturn]] inline void End(unsigned char code) {
  for (;;) Out8(kEndPort, code);
}

inline volatile unsigned long& Word(unsigned long address) {
  return *reinterpret_cast<volatile unsigned long*>(address);
}

}  // namespace guests

/// The guest's first function; the linker script puts it first.
#define GUEST_ENTRY extern "C" [[noreturn]] __attribute__((section(".text.start"))) void
