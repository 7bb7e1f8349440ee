// SPDX-License-Identifier: Apache-2.0
// This kernel is what the model says: every case, and a short run of the differential fuzzer.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "conformance/engine_subject.h"
#include "conformance/faulty_model.h"
#include "conformance/kernel_subject.h"
#include "conformance/suite.h"
#include "support/guest_vm.h"

namespace holdfast::test {
namespace {

using namespace conformance;  // NOLINT(google-build-using-namespace): all of this is about it

// For a lab that emulates its processor; the native lane does more.
std::uint64_t Operations(std::uint64_t shortly, std::uint64_t at_length) {
  return std::getenv("HOLDFAST_TEST_LONG") != nullptr ? at_length : shortly;
}

class AgainstKernel {
 public:
  explicit AgainstKernel(HostKernel& kernel, bool faulty)
      : tested_([&kernel]() -> model::Kernel* {
          kernel.Recycle();
          return &kernel;
        }),
        expected_([this, &kernel, faulty]() -> model::Kernel* {
          if (faulty) {
            model_ = std::make_unique<FaultyModel>(kernel.rules());
          } else {
            model_ = std::make_unique<model::Model>(kernel.rules());
          }
          return model_.get();
        }) {}
  Comparison sides() { return {KernelOps(), KernelStart(), &tested_, &expected_}; }

 private:
  std::unique_ptr<model::Model> model_;
  KernelSubject tested_;
  KernelSubject expected_;
};

TEST(Conformance, TheRunningKernelPassesWhatItOffers) {
  auto kernel = HostKernel::Open();
  ASSERT_TRUE(kernel.has_value()) << kernel.error().ToString();
  const SuiteResult result = RunSuite(AllCases(), kernel->get(), true);
  EXPECT_TRUE(result.passed()) << FormatTable(result);
  EXPECT_GE(result.Count(CaseResult::Kind::kPassed, true), 30U) << FormatTable(result);
}

TEST(Conformance, RandomOperationsGoOnKernelAndModelAlike) {
  auto kernel = HostKernel::Open();
  ASSERT_TRUE(kernel.has_value()) << kernel.error().ToString();
  AgainstKernel both(**kernel, false);
  const Comparison sides = both.sides();
  const FuzzOutcome outcome = Fuzz(sides, Operations(50'000, 500'000), 20'261'121);
  EXPECT_TRUE(outcome.shortest.empty()) << "seed " << outcome.seed << "\n"
                                        << Describe(sides, outcome.shortest);
}

TEST(Conformance, ABugInTheModelIsFound) {
  auto kernel = HostKernel::Open();
  ASSERT_TRUE(kernel.has_value()) << kernel.error().ToString();
  AgainstKernel both(**kernel, true);
  const Comparison sides = both.sides();
  const FuzzOutcome outcome = Fuzz(sides, 5'000'000, 20'261'121);
  ASSERT_FALSE(outcome.shortest.empty());
  EXPECT_LT(outcome.seconds, ScaledSeconds(60));
  EXPECT_LE(outcome.shortest.size(), 8U) << Describe(sides, outcome.shortest);
}

// Where the kernel lacks what an engine needs, there is nothing to compare.
void CompareEngine(ConversionEngineKind kind) {
  auto engine = EngineSubject::Create(kind);
  if (!engine && engine.error().code() == Errc::kUnsupported) {
    std::printf("%s\n", engine.error().ToString().c_str());
    return;
  }
  ASSERT_TRUE(engine.has_value()) << engine.error().ToString();
  ContractSubject contract((*engine)->traits(), false);
  const Comparison sides{EngineOps(), {}, engine->get(), &contract};
  const FuzzOutcome outcome = Fuzz(sides, Operations(20'000, 200'000), 20'261'121);
  EXPECT_TRUE(outcome.shortest.empty()) << "seed " << outcome.seed << "\n"
                                        << Describe(sides, outcome.shortest);
}

TEST(Conformance, TheKernelEngineKeepsTheContract) {
  CompareEngine(ConversionEngineKind::kKernel);
}

TEST(Conformance, TheGuardEngineKeepsTheContract) {
  CompareEngine(ConversionEngineKind::kGuard);
}

TEST(Conformance, TheAttributesEngineKeepsTheContract) {
  CompareEngine(ConversionEngineKind::kAttributes);
}

}  // namespace
}  // namespace holdfast::test
