// SPDX-License-Identifier: Apache-2.0
// The fuzzer's own machinery, on two models: no KVM is needed.
#include <gtest/gtest.h>

#include <memory>

#include "conformance/faulty_model.h"
#include "conformance/kernel_subject.h"
#include "conformance/sequence.h"

namespace holdfast::conformance {
namespace {

// Two models of one kernel, of which one may be faulty.
class TwoModels {
 public:
  TwoModels(const model::Rules& rules, bool faulty)
      : tested_([this, rules]() -> model::Kernel* {
          right_ = std::make_unique<model::Model>(rules);
          return right_.get();
        }),
        expected_([this, rules, faulty]() -> model::Kernel* {
          if (faulty) {
            other_ = std::make_unique<FaultyModel>(rules);
          } else {
            other_ = std::make_unique<model::Model>(rules);
          }
          return other_.get();
        }) {}
  Comparison sides() { return {KernelOps(), KernelStart(), &tested_, &expected_}; }

 private:
  std::unique_ptr<model::Model> right_;
  std::unique_ptr<model::Model> other_;
  KernelSubject tested_;
  KernelSubject expected_;
};

TEST(Fuzz, FindsNothingWhereNothingDiffers) {
  for (const model::Rules& rules :
       {model::Rules::OfRelease(6, 18), model::Rules::OfRelease(7, 3).WithTwoLayers(),
        model::Rules::OfRelease(7, 4).WithInPlace()}) {
    TwoModels models(rules, false);
    const FuzzOutcome outcome = Fuzz(models.sides(), 20'000, 1);
    EXPECT_TRUE(outcome.shortest.empty());
    EXPECT_GE(outcome.operations, 20'000U);
  }
}

TEST(Fuzz, FindsAPlantedBugAndCutsItDown) {
  TwoModels models(model::Rules::OfRelease(6, 18), true);
  const Comparison sides = models.sides();
  const FuzzOutcome outcome = Fuzz(sides, 10'000'000, 1);
  ASSERT_FALSE(outcome.shortest.empty());
  // A file, its mapping, a value, a hole, a look; one of them may be left out by luck.
  EXPECT_LE(outcome.shortest.size(), 6U) << Describe(sides, outcome.shortest);
  const auto difference = Compare(sides, outcome.shortest);
  ASSERT_TRUE(difference.has_value());
  EXPECT_EQ(difference->index + 1, outcome.shortest.size());
  EXPECT_NE(Describe(sides, outcome.shortest).find("but the model says"), std::string::npos);
  // The seed alone shows it again.
  EXPECT_TRUE(Compare(sides, SequenceOfSeed(sides, outcome.seed)).has_value());
}

TEST(Fuzz, FindsAWrongErrorOffset) {
  TwoModels models(model::Rules::OfRelease(7, 4).WithInPlace(), true);
  FuzzOutcome outcome;
  const Comparison sides = models.sides();
  // The other planted bug comes first as often as not; some seed finds this one.
  bool found = false;
  for (std::uint64_t seed = 1; seed < 200 && !found; ++seed) {
    outcome = Fuzz(sides, 1'000'000, seed);
    ASSERT_FALSE(outcome.shortest.empty());
    found = KernelOps()[outcome.shortest.back().kind].name == "convert";
  }
  EXPECT_TRUE(found);
}

TEST(Sequence, IsReadBackAsItIsPrinted) {
  TwoModels models(model::Rules::OfRelease(6, 18), false);
  const Comparison sides = models.sides();
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Sequence sequence = SequenceOfSeed(sides, seed);
    EXPECT_EQ(sequence, SequenceOfSeed(sides, seed));
    const auto read = ParseSequence(KernelOps(), Describe(sides, sequence));
    ASSERT_TRUE(read.has_value()) << read.error().ToString();
    EXPECT_EQ(*read, sequence);
  }
}

TEST(Sequence, RefusesWhatIsNoOperation) {
  for (const char* const text : {"read 0", "read 0 1 2", "read 0 10", "read 0 -1", "read 0 x",
                                 "read 0 999999999999", "rea 0 1", "read 0 1\nwrite\n"}) {
    EXPECT_FALSE(ParseSequence(KernelOps(), text).has_value()) << text;
  }
  const auto good = ParseSequence(KernelOps(), "# nothing\n\n  read 0 1 # why\nunpin\t3");
  ASSERT_TRUE(good.has_value()) << good.error().ToString();
  EXPECT_EQ(good->size(), 2U);
}

}  // namespace
}  // namespace holdfast::conformance
