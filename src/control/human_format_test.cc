// SPDX-License-Identifier: Apache-2.0
#include "control/human_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace holdfast::control {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> Bytes(std::initializer_list<unsigned> values) {
  std::vector<std::byte> bytes;
  for (const unsigned value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

TEST(DumpFormat, ReadsCountFormatAndSizeInAnyUsualForm) {
  const struct {
    const char* text;
    std::uint64_t count;
    char format;
    unsigned size;
  } cases[] = {{"", 1, 'x', 4},  {"8", 8, 'x', 4},   {"8xg", 8, 'x', 8}, {"xb", 1, 'x', 1},
               {"c", 1, 'c', 1}, {"4cg", 4, 'c', 1}, {"3dh", 3, 'd', 2}, {"65536b", 65536, 'x', 1}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    const auto format = ParseDumpFormat(c.text);
    ASSERT_TRUE(format) << format.error().ToString();
    EXPECT_EQ(format->count, c.count);
    EXPECT_EQ(format->format, c.format);
    EXPECT_EQ(format->size, c.size);
  }
}

TEST(DumpFormat, RefusesWhatIsTooMuchOrUnknown) {
  const struct {
    const char* text;
    const char* says;
  } cases[] = {{"z", "'z' is not known"},
               {"i", "no disassembler"},
               {"65537b", "at most 65536 bytes"},
               {"16385w", "at most 65536 bytes"},
               {"99999999999999999999", "at most 65536 bytes"}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    const auto format = ParseDumpFormat(c.text);
    ASSERT_FALSE(format);
    EXPECT_THAT(format.error().ToString(), HasSubstr(c.says));
  }
}

TEST(FormatDump, ShowsValuesAsQemuDoes) {
  const auto data = Bytes({0x41, 0x42, 0x27, 0xff, 0x01, 0x00, 0x00, 0x80, 0x0a});
  const struct {
    DumpFormat format;
    std::size_t bytes;
    const char* text;
  } cases[] = {
      {{2, 'x', 4}, 8, "0000000000001000: 0xff274241 0x80000001\n"},
      {{1, 'x', 8}, 8, "0000000000001000: 0x80000001ff274241\n"},
      {{4, 'x', 1}, 4, "0000000000001000: 0x41 0x42 0x27 0xff\n"},
      {{9, 'x', 1},
       9,
       "0000000000001000: 0x41 0x42 0x27 0xff 0x01 0x00 0x00 0x80\n0000000000001008: 0x0a\n"},
      {{1, 'd', 4}, 4, "0000000000001000:  -14204351\n"},
      {{1, 'u', 4}, 4, "0000000000001000: 4280762945\n"},
      {{1, 'o', 2}, 2, "0000000000001000: 0 41101\n"},
      {{4, 'c', 1}, 4, "0000000000001000: 'A' 'B' '\\'' '\\xff'\n"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(FormatDump(c.format, 0x1000, std::span(data).first(c.bytes)), c.text);
  }
}

TEST(EvaluateAddress, AddsNumbersAndRegisters) {
  machine::VcpuRegisters set;
  set.regs.rip = 0xffffffff81000000;
  set.regs.rsp = 0x8000;
  set.sregs.cr3 = 0x5000;
  const struct {
    const char* text;
    std::uint64_t value;
  } cases[] = {{"0x1000", 0x1000}, {"4096", 4096},          {"010", 8},
               {"0", 0},           {"$rip", set.regs.rip},  {"$pc", set.regs.rip},
               {"$sp-16", 0x7ff0}, {"$cr3+0x10+1", 0x5011}, {"$rsp-0x9000", ~0xfffULL}};
  for (const auto& c : cases) {
    const auto value = EvaluateAddress(c.text, set);
    ASSERT_TRUE(value) << c.text;
    EXPECT_EQ(*value, c.value) << c.text;
  }
  for (const char* text :
       {"", "x", "$nope", "0x", "1+", "-1", "08", "0x10000000000000000", "1 2"}) {
    EXPECT_FALSE(EvaluateAddress(text, set)) << text;
  }
}

TEST(FormatRegisters, ShowsLongModeSegmentsAndFlags) {
  machine::VcpuRegisters set;
  set.regs.rax = 0x1122;
  set.regs.rflags = 0x246;
  set.sregs.efer = 0x500;
  set.sregs.cs = {.base = 0,
                  .limit = 0xffffffff,
                  .selector = 0x10,
                  .type = 11,
                  .present = 1,
                  .dpl = 0,
                  .db = 0,
                  .s = 1,
                  .l = 1,
                  .g = 1,
                  .avl = 0,
                  .unusable = 0,
                  .padding = 0};
  set.sregs.ds = {.base = 0,
                  .limit = 0xffffffff,
                  .selector = 0x18,
                  .type = 3,
                  .present = 1,
                  .dpl = 0,
                  .db = 1,
                  .s = 1,
                  .l = 0,
                  .g = 1,
                  .avl = 0,
                  .unusable = 0,
                  .padding = 0};
  set.sregs.tr = {.base = 0,
                  .limit = 0x67,
                  .selector = 0x40,
                  .type = 11,
                  .present = 1,
                  .dpl = 0,
                  .db = 0,
                  .s = 0,
                  .l = 0,
                  .g = 0,
                  .avl = 0,
                  .unusable = 0,
                  .padding = 0};
  const std::string text = FormatRegisters(2, set);
  EXPECT_THAT(text, HasSubstr("CPU#2\nRAX=0000000000001122 RBX="));
  EXPECT_THAT(text, HasSubstr("RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\n"));
  EXPECT_THAT(text, HasSubstr("CS =0010 0000000000000000 ffffffff 00a09b00 DPL=0 CS64 [-RA]\n"));
  EXPECT_THAT(text, HasSubstr("DS =0018 0000000000000000 ffffffff 00c09300 DPL=0 DS   [-WA]\n"));
  EXPECT_THAT(text, HasSubstr("TR =0040 0000000000000000 00000067 00008b00 DPL=0 TSS64-busy\n"));
  EXPECT_THAT(text, HasSubstr("ES =0000 0000000000000000 00000000 00000000\n"));
  EXPECT_THAT(text, HasSubstr("EFER=0000000000000500\n"));
}

TEST(FormatMemoryTree, ListsRangesInBothForms) {
  const std::vector<MemoryTreeRow> rows = {{0, 0x9ffff, "ram", "pc.ram", 0},
                                           {0x100000000, 0x13fffffff, "ram", "pc.ram", 0x80000000}};
  EXPECT_EQ(FormatMemoryTree("memory", "system", ~0ULL, rows, true),
            " AS \"memory\", root: system\n Root memory region: system\n"
            "  0000000000000000-000000000009ffff (prio 0, ram): pc.ram\n"
            "  0000000100000000-000000013fffffff (prio 0, ram): pc.ram @0000000080000000\n\n");
  EXPECT_THAT(FormatMemoryTree("I/O", "io", 0xffff, {}, false),
              HasSubstr("address-space: I/O\n  0000000000000000-000000000000ffff (prio 0, i/o): "
                        "io\n"));
}

TEST(FormatRamBlocks, HasAColumnForEachOfQemus) {
  const std::vector<RamBlockRow> rows = {{"pc.ram", 0, 0x8000000, 0x7f0000000000, false}};
  EXPECT_EQ(FormatRamBlocks(rows),
            "              Block Name    PSize              Offset               Used              "
            "Total                HVA  RO\n"
            "                  pc.ram    4 KiB  0x0000000000000000 0x0000000008000000 "
            "0x0000000008000000 0x00007f0000000000  rw\n");
}

}  // namespace
}  // namespace holdfast::control
