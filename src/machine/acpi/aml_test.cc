// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/aml.h"

#include <gtest/gtest.h>

namespace holdfast::machine::acpi::aml {
namespace {

using Bytes = std::vector<std::uint8_t>;

TEST(Aml, EncodesPackageLengthsAcrossEveryBoundary) {
  const struct {
    std::size_t size;
    Bytes want;
  } kCases[] = {
      {0, {0x01}},
      {62, {0x3f}},
      {63, {0x41, 0x04}},  // 65: the second byte counts too
      {4093, {0x4f, 0xff}},
      {4094, {0x81, 0x00, 0x01}},  // 4097
      {(1u << 20) - 4, {0x8f, 0xff, 0xff}},
      {(1u << 20) - 3, {0xc1, 0x00, 0x00, 0x01}},
      {(1u << 28) - 5, {0xcf, 0xff, 0xff, 0xff}},
  };
  for (const auto& c : kCases) EXPECT_EQ(PackageLength(c.size), c.want) << c.size;
}

TEST(Aml, PacksIntegersAsShortAsTheyGo) {
  const struct {
    std::uint64_t value;
    Bytes want;
  } kCases[] = {
      {0, {0x00}},
      {1, {0x01}},
      {2, {0x0a, 2}},
      {0xff, {0x0a, 0xff}},
      {0x100, {0x0b, 0x00, 0x01}},
      {0xffff, {0x0b, 0xff, 0xff}},
      {0x10000, {0x0c, 0, 0, 1, 0}},
      {0xffffffff, {0x0c, 0xff, 0xff, 0xff, 0xff}},
      {0x100000000, {0x0e, 0, 0, 0, 0, 1, 0, 0, 0}},
  };
  for (const auto& c : kCases) EXPECT_EQ(Integer(c.value).bytes, c.want) << c.value;
}

TEST(Aml, EncodesNamesOfEveryLength) {
  const struct {
    std::string_view path;
    Bytes want;  // between NameOp and the value
  } kCases[] = {
      {"_HID", {'_', 'H', 'I', 'D'}},
      {"RTC", {'R', 'T', 'C', '_'}},
      {"\\_S5", {'\\', '_', 'S', '5', '_'}},
      {"^^FOO", {'^', '^', 'F', 'O', 'O', '_'}},
      {"\\_SB.COM1", {'\\', 0x2e, '_', 'S', 'B', '_', 'C', 'O', 'M', '1'}},
      {"A.B.C", {0x2f, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_'}},
      {"\\", {'\\', 0}},
  };
  for (const auto& c : kCases) {
    Bytes want{0x08};
    want.insert(want.end(), c.want.begin(), c.want.end());
    want.push_back(0x00);
    EXPECT_EQ(Name(c.path, Integer(0)).bytes, want) << c.path;
  }
}

TEST(Aml, EncodesTermsAsTheSpecificationSays) {
  const struct {
    const char* why;
    Term term;
    Bytes want;
  } kCases[] = {
      {"a string", String("ab"), {0x0d, 'a', 'b', 0}},
      {"PNP0501", EisaId("PNP0501"), {0x0c, 0x41, 0xd0, 0x05, 0x01}},
      {"PNP0B00, a hexadecimal letter", EisaId("PNP0B00"), {0x0c, 0x41, 0xd0, 0x0b, 0x00}},
      {"_S5's package", Package({Integer(0), Integer(0)}), {0x12, 0x04, 2, 0, 0}},
      {"a buffer", Buffer({1, 2, 3}), {0x11, 0x06, 0x0a, 3, 1, 2, 3}},
      {"an empty scope", Scope("\\_SB", {}), {0x10, 0x06, '\\', '_', 'S', 'B', '_'}},
      {"a device", Device("DEV0", {}), {0x5b, 0x82, 0x05, 'D', 'E', 'V', '0'}},
      {"a serialized method with one argument",
       Method("_STA", 1, true, {Return(Integer(15))}),
       {0x14, 0x09, '_', 'S', 'T', 'A', 0x09, 0xa4, 0x0a, 15}},
      {"a notification",
       Notify("\\_SB.VGEN", 0x80),
       {0x86, '\\', 0x2e, '_', 'S', 'B', '_', 'V', 'G', 'E', 'N', 0x0a, 0x80}},
      {"resources",
       ResourceTemplate({IoPorts(0x3f8, 8), IsaIrq(4)}),
       {0x11, 0x10, 0x0a, 13, 0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x22, 0x10, 0, 0x79, 0}},
      {"memory",
       ResourceTemplate({Memory32(0xfed00000, 0x400, true)}),
       {0x11, 0x11, 0x0a, 14, 0x86, 9, 0, 1, 0, 0, 0xd0, 0xfe, 0, 4, 0, 0, 0x79, 0}},
  };
  for (const auto& c : kCases) EXPECT_EQ(c.term.bytes, c.want) << c.why;
}

}  // namespace
}  // namespace holdfast::machine::acpi::aml
