// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The runtime of the guests that are PVH kernels of 32-bit code without paging (pvh32.S): ports,
/// memory, text on COM1.
namespace guests32 {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;

inline void Out8(u16 port, u8 value) {
  asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
inline u8 In8(u16 port) {
  u8 value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline void Out32(u16 port, u32 value) {
  asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
inline u32 In32(u16 port) {
  u32 value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline volatile u8& Byte(u32 address) {
  return *reinterpret_cast<volatile u8*>(address);
}
inline volatile u16& Half(u32 address) {
  return *reinterpret_cast<volatile u16*>(address);
}
inline volatile u32& Word(u32 address) {
  return *reinterpret_cast<volatile u32*>(address);
}

inline void Print(const char* text) {
  for (; *text != '\0'; ++text) Out8(0x3f8, static_cast<u8>(*text));
}
inline void PrintNumber(u32 value) {
  char digits[11];
  u32 at = 10;
  digits[at] = '\0';
  do digits[--at] = static_cast<char>('0' + value % 10);
  while ((value /= 10) != 0);
  Print(digits + at);
}

/// The decimal number that `text` begins with, behind blanks; moves it on. 0: there is none.
inline u32 Number(const char*& text) {
  while (*text == ' ') ++text;
  u32 value = 0;
  for (; *text >= '0' && *text <= '9'; ++text) value = value * 10 + static_cast<u32>(*text - '0');
  return value;
}

/// Ends the guest by isa-debug-exit, with (code << 1) | 1 as the monitor's exit status.
[[noreturn]] inline void End(u8 code) {
  for (;;) Out8(0x501, code);
}

}  // namespace guests32
