// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <string>

#include "machine/acpi/tables.h"

namespace holdfast::machine::acpi {

/// A built block, walked as a guest does.
class Block {
 public:
  explicit Block(const AcpiConfig& config) {
    auto built = BuildAcpi(config);
    if (!built) {
      ADD_FAILURE() << built.error().ToString();
      return;
    }
    tables_ = *std::move(built);
    Add("XSDT", Get<std::uint64_t>(tables_.rsdp.value() + 24));
    const std::string& xsdt = tables["XSDT"];
    for (std::size_t i = 36; i + 8 <= xsdt.size(); i += 8) {
      std::uint64_t address = 0;
      std::memcpy(&address, xsdt.data() + i, 8);
      Add(Text(address, 4), address);
    }
    Add("DSDT", Field<std::uint64_t>("FACP", 140));
    Add("FACS", Field<std::uint64_t>("FACP", 132));
  }
  template <typename T>
  T Get(std::uint64_t address) const {
    T value{};
    const std::uint64_t offset = address - tables_.address.value();
    EXPECT_LE(offset + sizeof value, tables_.bytes.size());
    if (offset + sizeof value <= tables_.bytes.size())
      std::memcpy(&value, tables_.bytes.data() + offset, sizeof value);
    return value;
  }
  template <typename T>
  T Field(const std::string& table, std::size_t offset) const {
    T value{};
    std::memcpy(&value, tables.at(table).data() + offset, sizeof value);
    return value;
  }
  std::string Text(std::uint64_t address, std::size_t size) const {
    std::string text;
    for (std::size_t i = 0; i < size; ++i) text.push_back(Get<char>(address + i));
    return text;
  }
  const AcpiTables& raw() const { return tables_; }
  std::map<std::string, std::string> tables;

 private:
  void Add(const std::string& signature, std::uint64_t address) {
    EXPECT_EQ(Text(address, 4), signature);
    tables[signature] = Text(address, Get<std::uint32_t>(address + 4));
  }
  AcpiTables tables_;
};

/// Runs iasl on every table and expects no complaint. @return its sources and messages; empty if
/// there is no iasl
std::string Disassemble(const Block& block);

}  // namespace holdfast::machine::acpi
