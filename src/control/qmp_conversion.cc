// SPDX-License-Identifier: Apache-2.0
// query-memory-attributes: what of guest RAM is private; and the event when a guest asks for what
// cannot be.
#include <holdfast/guest_converter.h>
#include <holdfast/units.h>

#include <algorithm>

#include "control/qmp_commands.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

// A guest can make half as many ranges as it has pages: one answer has only so many.
constexpr std::int64_t kUsualRanges = 1024;
constexpr std::int64_t kMostRanges = 65536;

std::string_view Name(MemoryAttribute attribute) {
  return attribute == MemoryAttribute::kPrivate ? "private" : "shared";
}

QmpResult QueryMemoryAttributes(VmContext& vm, const Json& arguments) {
  const std::int64_t most = arguments.value("limit", kUsualRanges);
  if (most < 1 || most > kMostRanges)
    return QmpFail("Parameter 'limit' expects a number from 1 to 65536");
  const std::uint64_t start = arguments.value("start", std::uint64_t{0});
  if (!IsPageAligned(start))
    return QmpFail("Parameter 'start' expects a multiple of 4096", "Write the start of a page.");
  const AddressSpace& memory = vm.machine().memory();
  GuestConverter* const converter = vm.machine().converter();
  // Without a confidential guest all of it is shared; an idle converter says so too.
  const GuestConverter nothing(memory);
  const GuestConverter& asked = converter != nullptr ? *converter : nothing;
  const auto ranges = asked.Ranges(GuestAddress(start), static_cast<std::size_t>(most));

  Json list = Json::array();
  for (const GuestConverter::Range& range : ranges) {
    list.push_back({{"start", range.start.value()},
                    {"size", range.size},
                    {"attribute", Name(range.attribute)}});
  }
  const auto engine = asked.engine();
  Json answer = {{"conversion", engine ? ToString(*engine) : "none"},
                 {"private", asked.private_bytes()},
                 {"ranges", std::move(list)}};
  const std::uint64_t seen =
      ranges.empty() ? start : ranges.back().start.value() + ranges.back().size;
  if (!ranges.empty() && seen < memory.end().value()) answer["next"] = seen;
  return answer;
}

}  // namespace

void DefineConversionCommands(Schema& schema) {
  schema.Enum("HoldfastMemoryAttribute", {"shared", "private"});
  schema.Enum("HoldfastConversion", {"none", "kernel", "guard", "attributes"});
  schema.Struct("HoldfastMemoryRange",
                {{"start", "size"}, {"size", "size"}, {"attribute", "HoldfastMemoryAttribute"}});
  schema.Struct("HoldfastMemoryAttributes", {{"conversion", "HoldfastConversion"},
                                             {"private", "size"},
                                             {"ranges", "[HoldfastMemoryRange]"},
                                             {"next?", "size"}});
  schema.Struct("QueryMemoryAttributesArguments", {{"start?", "size"}, {"limit?", "int"}});
  schema.AddCommand("query-memory-attributes", {.arguments = "QueryMemoryAttributesArguments",
                                                .result = "HoldfastMemoryAttributes",
                                                .run = QueryMemoryAttributes});
  schema.Struct("HoldfastConversionRefused", {{"address", "size"},
                                              {"size", "size"},
                                              {"attribute", "HoldfastMemoryAttribute"},
                                              {"reason", "str"},
                                              {"unreported", "size"}});
  schema.AddEvent("MEMORY_CONVERSION_REFUSED", "HoldfastConversionRefused");
}

}  // namespace holdfast::control
