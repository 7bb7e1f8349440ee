// SPDX-License-Identifier: Apache-2.0
#include "apps/conformance.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>

#include "apps/ctl_arguments.h"
#include "apps/options.h"
#include "base/read_file.h"
#include "conformance/engine_subject.h"
#include "conformance/faulty_model.h"
#include "conformance/kernel_subject.h"
#include "conformance/sequence.h"
#include "conformance/suite.h"

namespace holdfast::apps {
namespace {

using namespace conformance;  // NOLINT(google-build-using-namespace): this file is its front

constexpr std::uint64_t kMostOperations = 1'000'000'000'000;
constexpr std::size_t kLargestReplay = 1 << 20;

// An option, what it takes, and what help says. Parsing, help and the manual page come from this.
struct OptionRow {
  std::string_view name;
  std::string_view argument;
  std::string_view help;
};

constexpr OptionRow kOptions[] = {
    {"--against", "kernel|model|both",
     "asks only the running kernel, or only the model of it (default: both)"},
    {"--filter", "pattern", "only the cases whose name matches, as in 'slot/*'"},
    {"--list", "", "lists the cases"},
    {"--tap", "", "prints the result in the Test Anything Protocol"},
    {"--json", "", "prints the result for scripts"},
    {"--poison", "",
     "also breaks a page of this machine's memory for good, to see what becomes of it (needs "
     "root)"},
    {"--fuzz", "number",
     "does so many random operations on the kernel and on the model and compares the answers; a "
     "difference is cut down to its shortest sequence"},
    {"--seed", "number", "begins the random operations here (default: anywhere; it is printed)"},
    {"--engine", "kernel|guard|attributes",
     "with --fuzz or --replay: compares one of Holdfast's conversion engines with the contract "
     "instead. Where the kernel does not convert in place, a stand-in does for the engine "
     "'kernel'"},
    {"--replay", "seed|file",
     "does the sequence of a seed that --fuzz named, or of a file with one operation a line, and "
     "prints every answer"},
    {"--plant-bug", "", "with --fuzz or --replay: puts a bug into the model, which must be found"},
    {"--help", "", "displays this help"},
    {"--version", "", "displays the version"},
};

CtlOutcome Wrong(const Error& error) {
  return {.output = {},
          .error = fmt::format("{}: {}\n", kConformanceProgram, error.ToString()),
          .exit_status = EXIT_FAILURE};
}

CtlOutcome Done(std::string output, bool good) {
  return {
      .output = std::move(output), .error = {}, .exit_status = good ? EXIT_SUCCESS : EXIT_FAILURE};
}

// Decimal, or hexadecimal after 0x.
std::optional<std::uint64_t> ReadNumber(std::string_view text) {
  const int base = text.starts_with("0x") ? 16 : 10;
  if (base == 16) text.remove_prefix(2);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || text.empty() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Error NoSuchValue(std::string_view option, std::string_view value, std::string_view remedy) {
  return {Errc::kInvalidArgument, fmt::format("{} does not accept value '{}'", option, value),
          std::string(remedy)};
}

Result<std::unique_ptr<HostKernel>> OpenKernel(std::string_view hint) {
  auto kernel = HostKernel::Open();
  if (!kernel) return Fail(std::move(kernel).error().WithHint(std::string(hint)));
  return kernel;
}

// ---- The suite
// --------------------------------------------------------------------------------------

std::string FormatList(const std::vector<const Case*>& cases) {
  std::string text;
  for (const Case* const test : cases) {
    text += fmt::format("{:<28}{}{}\n", test->name, test->remark.empty() ? "" : " ", test->remark);
    text.erase(text.find_last_not_of(" \n") + 1);
    text += '\n';
  }
  return text;
}

Result<CtlOutcome> RunCases(const CtlArguments& arguments) {
  const std::string against = arguments.Value("--against", "both");
  if (against != "kernel" && against != "model" && against != "both")
    return Fail(NoSuchValue("--against", against, "Write kernel, model or both."));
  const std::string filter = arguments.Value("--filter", "*");
  const auto cases = CasesMatching(filter);
  if (cases.empty())
    return Fail(NoSuchValue("--filter", filter, "No case has such a name; --list shows them."));
  if (arguments.Has("--list")) return Done(FormatList(cases), true);
  if (arguments.Has("--tap") && arguments.Has("--json")) {
    return Fail(Errc::kInvalidArgument, "--tap and --json exclude each other", "Give one of them.");
  }
  std::unique_ptr<HostKernel> kernel;
  if (against != "model") {
    HF_TRY(kernel, OpenKernel("With --against model no KVM is needed."));
    if (arguments.Has("--poison")) kernel->AllowPoison();
  }
  const SuiteResult result = RunSuite(cases, kernel.get(), against != "kernel");
  const auto format = arguments.Has("--tap")    ? FormatTap
                      : arguments.Has("--json") ? FormatJson
                                                : FormatTable;
  return Done(format(result), result.passed());
}

// ---- The fuzzer
// -------------------------------------------------------------------------------------

// What is compared with what.
struct Bench {
  std::string what;         // "the kernel and the model"
  std::string not_offered;  // why it cannot be compared here
  std::unique_ptr<HostKernel> kernel;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<Subject> tested;
  std::unique_ptr<Subject> expected;
  Comparison sides;
};

Result<std::unique_ptr<Bench>> BenchOfKernel(bool faulty) {
  auto bench = std::make_unique<Bench>();
  bench->what = "the kernel and the model";
  HF_TRY(bench->kernel, OpenKernel("The fuzzer needs /dev/kvm."));
  Bench* const self = bench.get();
  const auto renew_kernel = [self]() -> model::Kernel* {
    self->kernel->Recycle();
    return self->kernel.get();
  };
  const auto renew_model = [self, faulty]() -> model::Kernel* {
    const model::Rules& rules = self->kernel->rules();
    if (faulty) {
      self->model = std::make_unique<FaultyModel>(rules);
    } else {
      self->model = std::make_unique<model::Model>(rules);
    }
    return self->model.get();
  };
  bench->tested = std::make_unique<KernelSubject>(renew_kernel);
  bench->expected = std::make_unique<KernelSubject>(renew_model);
  bench->sides = {KernelOps(), KernelStart(), bench->tested.get(), bench->expected.get()};
  return bench;
}

Result<std::unique_ptr<Bench>> BenchOfEngine(std::string_view name, bool faulty) {
  std::optional<ConversionEngineKind> kind;
  for (const auto candidate : {ConversionEngineKind::kKernel, ConversionEngineKind::kGuard,
                               ConversionEngineKind::kAttributes}) {
    if (ToString(candidate) == name) kind = candidate;
  }
  if (!kind) return Fail(NoSuchValue("--engine", name, "Write kernel, guard or attributes."));
  auto bench = std::make_unique<Bench>();
  bench->what = fmt::format("the engine '{}' and the contract", name);
  auto engine = EngineSubject::Create(*kind);
  if (!engine && engine.error().code() == Errc::kUnsupported) {
    bench->not_offered = engine.error().ToString();
    return bench;
  }
  HF_TRY(auto subject, std::move(engine));
  bench->expected = std::make_unique<ContractSubject>(subject->traits(), faulty);
  bench->tested = std::move(subject);
  bench->sides = {EngineOps(), {}, bench->tested.get(), bench->expected.get()};
  return bench;
}

Result<CtlOutcome> RunFuzz(const CtlArguments& arguments, const Bench& bench) {
  const std::string text = arguments.Value("--fuzz");
  const auto operations = ReadNumber(text);
  if (!operations || *operations == 0 || *operations > kMostOperations)
    return Fail(NoSuchValue("--fuzz", text, "Write a number of operations, as in --fuzz 100000."));
  std::uint64_t seed = std::random_device()();
  if (arguments.Has("--seed")) {
    const auto given = ReadNumber(arguments.Value("--seed"));
    if (!given)
      return Fail(NoSuchValue("--seed", arguments.Value("--seed"), "Write a number from 0 on."));
    seed = *given;
  }
  const FuzzOutcome outcome = Fuzz(bench.sides, *operations, seed);
  if (outcome.shortest.empty()) {
    return Done(fmt::format("{} operations on {} in {:.1f} s, seed {:#x}: no difference\n",
                            outcome.operations, bench.what, outcome.seconds, seed),
                true);
  }
  return Done(fmt::format("{} differ after {} operations in {:.1f} s, seed {:#x}\n"
                          "# --replay {:#x} does the whole sequence; the shortest one is:\n{}",
                          bench.what, outcome.operations, outcome.seconds, seed, outcome.seed,
                          Describe(bench.sides, outcome.shortest)),
              false);
}

Result<CtlOutcome> RunReplay(const CtlArguments& arguments, const Bench& bench) {
  const std::string what = arguments.Value("--replay");
  Sequence sequence;
  if (const auto seed = ReadNumber(what)) {
    sequence = SequenceOfSeed(bench.sides, *seed);
  } else {
    HF_TRY(const auto bytes, ReadWholeFile(what, kLargestReplay));
    HF_TRY(sequence, ParseSequence(bench.sides.table,
                                   {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  }
  const bool same = !Compare(bench.sides, sequence);
  return Done(Describe(bench.sides, sequence), same);
}

Result<CtlOutcome> Run(std::span<const char* const> words) {
  std::vector<CtlOption> options;
  for (const OptionRow& row : kOptions) options.push_back({row.name, row.argument});
  HF_TRY(const CtlArguments arguments,
         ReadCtlArguments(words, options, 0, "holdfast-conformance --help for what there is"));
  if (arguments.Has("--help")) return Done(FormatHelp(ConformanceHelp()), true);
  if (arguments.Has("--version"))
    return Done(fmt::format("{} version {}\n", kConformanceProgram, kVersion), true);
  const bool fuzz = arguments.Has("--fuzz");
  const bool replay = arguments.Has("--replay");
  if (fuzz && replay) {
    return Fail(Errc::kInvalidArgument, "--fuzz and --replay exclude each other",
                "Give one of them.");
  }
  if (!fuzz && !replay) {
    for (const char* const option : {"--seed", "--engine", "--plant-bug"}) {
      if (arguments.Has(option)) {
        return Fail(Errc::kInvalidArgument, fmt::format("{} needs --fuzz", option),
                    "As in --fuzz 100000.");
      }
    }
    return RunCases(arguments);
  }
  const bool faulty = arguments.Has("--plant-bug");
  HF_TRY(const auto bench, arguments.Has("--engine")
                               ? BenchOfEngine(arguments.Value("--engine"), faulty)
                               : BenchOfKernel(faulty));
  if (!bench->not_offered.empty()) return Done("not offered: " + bench->not_offered + '\n', true);
  return fuzz ? RunFuzz(arguments, *bench) : RunReplay(arguments, *bench);
}

}  // namespace

ProgramHelp ConformanceHelp() {
  ProgramHelp help{
      .name = std::string(kConformanceProgram),
      .summary = "says how this kernel's guest_memfd behaves, case by case",
      .usage = "[options]",
      .description =
          {"holdfast-conformance asks the running kernel everything that Holdfast relies on: "
           "guest_memfd as a file, its mappings, memslots, what the guest sees, and private memory "
           "in two layers or converted in place. The same cases are asked of a model of the "
           "kernel, "
           "which knows what each release does.",
           "A case that the kernel has nothing for, as private memory on most, is not offered; "
           "that "
           "is no failure."},
      .sections = {{.title = "Options", .entries = {}}},
      .examples = {{"holdfast-conformance", "What does this kernel do?"},
                   {"holdfast-conformance --filter 'slot/*' --tap", "Memslots, for a test runner:"},
                   {"holdfast-conformance --fuzz 1000000",
                    "A million random operations: does the kernel do what the model says?"},
                   {"holdfast-conformance --fuzz 1000000 --engine guard",
                    "The same for conversion by guard pages."}},
      .exit_status = {{"0", "all that is offered is as expected"},
                      {"1", "something differs, the command line is wrong, or there is no KVM"}},
      .see_also = "holdfast(1), holdfastctl(1)",
  };
  for (const OptionRow& row : kOptions) {
    help.sections[0].entries.push_back(
        {.syntax = row.argument.empty() ? std::string(row.name)
                                        : fmt::format("{} {}", row.name, row.argument),
         .text = std::string(row.help)});
  }
  return help;
}

CtlOutcome RunConformance(std::span<const char* const> arguments) {
  auto outcome = Run(arguments);
  return outcome ? *std::move(outcome) : Wrong(outcome.error());
}

}  // namespace holdfast::apps
