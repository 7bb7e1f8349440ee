// SPDX-License-Identifier: Apache-2.0
#include "kvm/stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>

#include <cstring>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using kvm::StatDescription;

// A statistics file, before the values: header, then descriptions with names of 16 bytes.
class StatsFile {
 public:
  StatsFile() : bytes_(24) {
    Set(4, kNameSize);
    Set(16, 24U);
  }
  void Add(const char* name, std::uint32_t flags, std::uint16_t count, std::uint32_t offset) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + 16 + kNameSize);
    Set(at, flags);
    Set(at + 4, static_cast<std::int16_t>(-9));
    Set(at + 6, count);
    Set(at + 8, offset);
    std::memcpy(bytes_.data() + at + 16, name, std::strlen(name));
    Set(8, ++count_);
  }
  template <typename T>
  void Set(std::size_t at, T value) {
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  static constexpr std::uint32_t kNameSize = 16;
  std::vector<std::byte> bytes_;
  std::uint32_t count_ = 0;
};

TEST(KvmStatsFile, SaysWhatEachNumberIs) {
  StatsFile file;
  file.Add("time", 0x020, 1, 0);     // cumulative, seconds, powers of 10
  file.Add("waits", 0x104, 3, 8);    // logarithmic histogram, powers of 2
  file.Add("strange", 0x00f, 1, 0);  // of a kind that is not known yet
  const auto parsed = kvm::ParseStatDescriptions(file.bytes());
  ASSERT_TRUE(parsed) << parsed.error().ToString();
  ASSERT_EQ(parsed->size(), 2U);
  EXPECT_EQ((*parsed)[0].name, "time");
  EXPECT_EQ((*parsed)[0].type, StatDescription::Type::kCumulative);
  EXPECT_EQ((*parsed)[0].unit, StatDescription::Unit::kSeconds);
  EXPECT_EQ((*parsed)[0].exponent, -9);
  EXPECT_EQ((*parsed)[1].type, StatDescription::Type::kLog2Histogram);
  EXPECT_TRUE((*parsed)[1].binary_base);
  EXPECT_EQ((*parsed)[1].count, 3);
  EXPECT_EQ((*parsed)[1].offset, 8U);
}

TEST(KvmStatsFile, ContradictionsAreErrors) {
  const struct {
    const char* what;
    void (*spoil)(StatsFile& file);
  } cases[] = {
      {"no header", [](StatsFile& file) { file.bytes().resize(23); }},
      {"more descriptions than bytes", [](StatsFile& file) { file.Set(8, 2U); }},
      {"endless descriptions", [](StatsFile& file) { file.Set(8, 0xffffffffU); }},
      {"endless names", [](StatsFile& file) { file.Set(4, 0xffffffffU); }},
      {"descriptions far away", [](StatsFile& file) { file.Set(16, 0xffffffffU); }},
      {"no numbers", [](StatsFile& file) { file.Set(24 + 6, std::uint16_t{0}); }},
      {"numbers far away", [](StatsFile& file) { file.Set(24 + 8, 0xffffffffU); }},
  };
  for (const auto& c : cases) {
    StatsFile file;
    file.Add("a", 0, 1, 0);
    c.spoil(file);
    const auto parsed = kvm::ParseStatDescriptions(file.bytes());
    ASSERT_FALSE(parsed) << c.what;
    EXPECT_EQ(parsed.error().code(), Errc::kMalformed) << c.what;
  }
}

class KvmStats : public KvmTest {};

TEST_F(KvmStats, OfVmAndVcpuAreThere) {
  const auto vcpu = kvm::Vcpu::Create(vm(), 0);
  ASSERT_TRUE(vcpu) << vcpu.error().ToString();
  for (const int fd : {vm().fd(), vcpu->fd()}) {
    const auto stats = kvm::Stats::Open(fd);
    ASSERT_TRUE(stats) << stats.error().ToString();
    EXPECT_FALSE(stats->descriptions().empty());
    const auto values = stats->Read();
    ASSERT_TRUE(values) << values.error().ToString();
    ASSERT_EQ(values->size(), stats->descriptions().size());
    for (std::size_t i = 0; i < values->size(); ++i) {
      EXPECT_EQ((*values)[i].size(), stats->descriptions()[i].count);
    }
  }
}

}  // namespace
}  // namespace holdfast::test
