// SPDX-License-Identifier: Apache-2.0
// Snapshots that released versions have written must be read for ever. tests/golden has one of
// each: guests/pattern.elf with 1 MiB of 20, `-device virtio-rng-pci`, compressed.
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/state.h"
#include "devices/serial.h"
#include "devices/test_support.h"
#include "migration/snapshot_load.h"
#include "migration/snapshot_reader.h"

namespace holdfast::migration {
namespace {

std::string Golden(std::string_view version) {
  return std::string(HOLDFAST_GOLDEN_FOLDER) + "/snapshot-" + std::string(version);
}

TEST(GoldenSnapshot, TheFirstReleaseIsReadWhole) {
  const auto chain = SnapshotChain::Open(Golden("0.1.0"));
  ASSERT_TRUE(chain) << chain.error().ToString();
  const SnapshotDirectory& directory = chain->newest().directory();
  EXPECT_EQ(directory.creator, "holdfast 0.1.0");
  EXPECT_TRUE(directory.running);
  ASSERT_EQ(directory.blocks.size(), 1U);
  EXPECT_EQ(directory.blocks[0].size, 20 * kMiB);
  Progress progress;
  EXPECT_TRUE(VerifyMemory(*chain, progress));

  // Each page of the guest begins with the number of its last round, one more in those that the
  // round under way has reached.
  std::array<std::byte, kSnapshotChunk> chunk;
  std::uint32_t first = 0;
  for (std::uint64_t at = 16 * kMiB; at < 17 * kMiB; at += kSnapshotChunk) {
    ASSERT_TRUE(chain->ReadChunk(0, at, chunk));
    for (std::size_t page = 0; page < kSnapshotChunk; page += kPageSize) {
      std::uint32_t round = 0;
      std::copy_n(chunk.data() + page, sizeof round, reinterpret_cast<std::byte*>(&round));
      if (first == 0) first = round;
      EXPECT_TRUE(round == first || round + 1 == first) << at + page;
    }
  }
  EXPECT_GT(first, 100U);
}

TEST(GoldenSnapshot, TheFirstReleasesSectionsAreLoaded) {
  const auto chain = SnapshotChain::Open(Golden("0.1.0"));
  ASSERT_TRUE(chain);
  const auto sections = chain->newest().ReadSections();
  ASSERT_TRUE(sections) << sections.error().ToString();
  const auto serial = std::ranges::find(*sections, "serial/0", &state::SavedSection::name);
  ASSERT_NE(serial, sections->end());
  devices::testing::FakeLine line;
  devices::Serial port(nullptr, line);
  const state::Section here{.name = "serial/0",
                            .visit = [&](state::Fields& fields) { port.VisitState(fields); }};
  const Status loaded = state::Load({&here, 1}, {&*serial, 1});
  EXPECT_TRUE(loaded) << loaded.error().ToString();
}

}  // namespace
}  // namespace holdfast::migration
