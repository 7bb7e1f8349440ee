// SPDX-License-Identifier: Apache-2.0
#include "machine/smbios/smbios.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "machine/boot/layout.h"

namespace holdfast::machine::smbios {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace std::string_literals;       // NOLINT: literals only
using namespace std::string_view_literals;  // NOLINT: literals only

struct Structure {
  std::string bytes;  ///< the formatted part
  std::vector<std::string> texts;

  std::uint64_t Number(std::size_t offset, unsigned size) const {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data() + offset, size);
    return value;
  }
  std::string Text(std::size_t offset) const {
    const auto index = static_cast<std::size_t>(Number(offset, 1));
    return index == 0 ? "" : texts.at(index - 1);
  }
};

// Reads a block as a guest does: from the entry point.
std::multimap<int, Structure> Walk(const Tables& tables) {
  std::multimap<int, Structure> found;
  const std::string all(reinterpret_cast<const char*>(tables.bytes.data()), tables.bytes.size());
  std::size_t entry = 0;
  for (std::size_t at = 0; at + 24 <= all.size(); at += 16) {
    const std::uint64_t where = tables.address.value() + at;
    if (where % 16 == 0 && where >= 0xf0000 && all.compare(at, 5, "_SM3_") == 0) entry = at;
  }
  EXPECT_NE(entry, 0U);
  EXPECT_EQ(std::accumulate(all.begin() + static_cast<std::ptrdiff_t>(entry),
                            all.begin() + static_cast<std::ptrdiff_t>(entry) + 24, 0,
                            [](int sum, char c) { return sum + static_cast<unsigned char>(c); }) %
                256,
            0);
  std::uint32_t size = 0;
  std::uint64_t address = 0;
  std::memcpy(&size, all.data() + entry + 12, 4);
  std::memcpy(&address, all.data() + entry + 16, 8);
  EXPECT_GE(address, tables.address.value());
  std::size_t at = address - tables.address.value();
  const std::size_t end = at + size;
  EXPECT_LE(end, entry);
  while (at + 4 <= end) {
    const auto length = static_cast<unsigned char>(all[at + 1]);
    Structure one{all.substr(at, length), {}};
    std::size_t text = at + length;
    while (all[text] != 0) {
      one.texts.emplace_back(all.c_str() + text);
      text += one.texts.back().size() + 1;
    }
    at = text + (one.texts.empty() ? 2 : 1);
    found.emplace(static_cast<unsigned char>(one.bytes[0]), std::move(one));
  }
  EXPECT_EQ(at, end);
  return found;
}

class SmbiosTest : public ::testing::Test {
 protected:
  std::multimap<int, Structure> Good() {
    auto tables = Build(config_, {.smp = smp_, .ram = ram_, .processor_id = 0x0123456789abcdef});
    if (!tables) {
      ADD_FAILURE() << tables.error().ToString();
      return {};
    }
    EXPECT_EQ(tables->address.value() + tables->bytes.size(), boot::kAcpiArea.end());
    return Walk(*tables);
  }
  std::string Bad() {
    auto tables = Build(config_, {.smp = smp_, .ram = ram_});
    return tables ? "" : tables.error().message();
  }

  SmbiosConfig config_;
  CpuTopology smp_;
  std::vector<boot::RamRange> ram_ = {{GuestAddress(0), 2 * kGiB, 0},
                                      {GuestAddress(4 * kGiB), 38 * kGiB, 2 * kGiB}};
};

TEST_F(SmbiosTest, TellsWhoMadeTheMachineAndThatItIsVirtual) {
  const auto tables = Good();
  const Structure& bios = tables.find(0)->second;
  EXPECT_EQ(bios.Text(4), "Holdfast");
  EXPECT_EQ(bios.Number(0x13, 1) & 0x10, 0x10U) << "virtual machine";
  EXPECT_EQ(tables.find(1)->second.Text(4), "Holdfast");
  EXPECT_EQ(tables.count(2), 0U) << "no board unless asked for";
  EXPECT_EQ(tables.find(3)->second.bytes.size(), 0x16U);
  EXPECT_EQ(tables.count(127), 1U);
}

TEST_F(SmbiosTest, SystemHasTheWordsOfTheCommandLine) {
  config_.system = {.manufacturer = "m",
                    .product = "p",
                    .version = "v",
                    .serial = "ds=nocloud",
                    .uuid = "00112233-4455-6677-8899-aabbccddeeff",
                    .sku = "",
                    .family = "f"};
  SmbiosConfig::Board board;
  board.location = "here";
  config_.board = board;
  const auto tables = Good();
  const Structure& system = tables.find(1)->second;
  EXPECT_EQ(system.bytes.size(), 0x1bU);
  EXPECT_EQ(system.Text(7), "ds=nocloud");
  EXPECT_EQ(system.bytes.substr(8, 16),
            "\x33\x22\x11"
            "\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff"s);
  EXPECT_EQ(system.Text(0x19), "");
  EXPECT_EQ(system.Text(0x1a), "f");
  EXPECT_EQ(tables.find(2)->second.Text(0x0a), "here");
}

TEST_F(SmbiosTest, OneProcessorForEachSocket) {
  smp_ = {.cpus = 8, .max_cpus = 8, .sockets = 2, .cores = 2, .threads = 2};
  const auto tables = Good();
  ASSERT_EQ(tables.count(4), 2U);
  const Structure& second = std::next(tables.find(4))->second;
  EXPECT_EQ(second.bytes.size(), 0x30U);
  EXPECT_EQ(second.Text(4), "CPU 1");
  EXPECT_EQ(second.Number(8, 8), 0x0123456789abcdefU);
  EXPECT_EQ(second.Number(0x23, 1), 2U);
  EXPECT_EQ(second.Number(0x25, 1), 4U);
}

TEST_F(SmbiosTest, MemoryIsInDevicesOf16GiBAndInItsRanges) {
  const auto tables = Good();
  EXPECT_EQ(tables.find(16)->second.Number(7, 4), 40 * kGiB / kKiB);
  ASSERT_EQ(tables.count(17), 3U);
  std::uint64_t mib = 0;
  for (auto [at, end] = tables.equal_range(17); at != end; ++at) {
    EXPECT_EQ(at->second.bytes.size(), 0x28U);
    mib += at->second.Number(0x0c, 2);
  }
  EXPECT_EQ(mib, 40 * kKiB);
  ASSERT_EQ(tables.count(19), 2U);
  EXPECT_EQ(std::next(tables.find(19))->second.Number(4, 4), 4 * kGiB / kKiB);
}

TEST_F(SmbiosTest, OemStringsComeInOrder) {
  config_.oem_strings = {{.value = "one", .path = {}}, {.value = "two", .path = {}}};
  const auto tables = Good();
  EXPECT_EQ(tables.find(11)->second.Number(4, 1), 2U);
  EXPECT_THAT(tables.find(11)->second.texts, ElementsAre("one", "two"));
}

TEST_F(SmbiosTest, AFileReplacesTheStructureOfItsType) {
  const std::string path = ::testing::TempDir() + "smbios_structure";
  const auto write = [&](std::string_view bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    config_.files = {path};
  };
  write("\x03\x05\x00\x03\x01mine\0\0"sv);
  const auto tables = Good();
  ASSERT_EQ(tables.count(3), 1U);
  EXPECT_THAT(tables.find(3)->second.texts, ElementsAre("mine"));
  for (const std::string_view bad :
       {"\x03\x05"sv, "\x03\x03\x00\x03\0\0"sv, "\x03\x20\x00\x03\0\0"sv, "\x03\x04\x00\x03mine"sv,
        "\x03\x04\x00\x03mine\0\0\x04\x04\0\0\0\0"sv}) {
    write(bad);
    EXPECT_THAT(Bad(), HasSubstr("-smbios file="));
  }
  std::filesystem::remove(path);
  EXPECT_THAT(Bad(), HasSubstr(path));
}

TEST_F(SmbiosTest, WhatDoesNotFitIsRefused) {
  config_.oem_strings = {{.value = std::string(64 * kKiB, 'x'), .path = {}}};
  EXPECT_THAT(Bad(), HasSubstr("64 KiB"));
  config_.oem_strings = {{.value = "", .path = {}}};
  EXPECT_THAT(Bad(), HasSubstr("empty"));
  config_.oem_strings.assign(256, {.value = "x", .path = {}});
  EXPECT_THAT(Bad(), HasSubstr("256"));
  config_.oem_strings.clear();
  smp_ = {.cpus = 255, .max_cpus = 255, .sockets = 255, .cores = 1, .threads = 1};
  ram_[1].size = kTiB;
  EXPECT_EQ(Bad(), "") << "the largest machine has room";
}

}  // namespace
}  // namespace holdfast::machine::smbios
