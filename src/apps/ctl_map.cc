// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/unique_fd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include <nlohmann/json.hpp>

#include "apps/ctl_arguments.h"
#include "apps/json_read.h"
#include "apps/memory_map.h"
#include "apps/qmp_client.h"
#include "apps/terminal_output.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kCommand = "holdfast-query-memory-map";
constexpr std::string_view kUsage = "holdfastctl map SOCKET [--png FILE] [--width N] [--json]";
constexpr CtlOption kOptions[] = {{"--png", "FILE"}, {"--width", "N"}, {"--json"}};
// Rows of text beside the picture: title, legend, table, prompt.
constexpr std::size_t kOtherRows = 12;
constexpr std::size_t kPictureRows = 64;

Status WriteFile(const std::string& path, std::string_view content) {
  constexpr mode_t kMode = 0666;  // less the umask, as everybody's output files
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kMode));
  if (!fd) return FailErrno(fmt::format("cannot write '{}'", path));
  while (!content.empty()) {
    const ssize_t written = ::write(fd.get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FailErrno(fmt::format("cannot write '{}'", path));
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

Result<Json> AskMap(QmpClient& client, std::size_t cells) {
  auto answer = client.Execute(kCommand, {{"cells", cells}});
  if (!answer && answer.error().code() == Errc::kNotFound) {
    return Fail(Errc::kUnsupported, fmt::format("'{}' has no command {}", client.name(), kCommand),
                "Only Holdfast offers a memory map.");
  }
  return answer;
}

Result<std::string> Map(const CtlArguments& arguments) {
  if (arguments.words.empty()) {
    return Fail(Errc::kInvalidArgument, "there is no socket", fmt::format("Write {}.", kUsage));
  }
  const bool png = arguments.Has("--png");
  // Of the picture these are pixels, of the text columns.
  HF_TRY(const double wanted, png ? NumberOption(arguments, "--width", 400, 8192, kMapPictureWidth)
                                  : NumberOption(arguments, "--width", 30, 1000,
                                                 static_cast<double>(TerminalColumns())));
  const auto width = static_cast<std::size_t>(wanted);
  const bool colours = OutputHasColours();
  const std::size_t rows =
      std::max<std::size_t>(8, TerminalRows() - std::min(TerminalRows(), kOtherRows));
  const std::size_t cells =
      png ? kMapPictureColumns * kPictureRows : MapCellsAcross(width) * rows * (colours ? 2 : 1);
  HF_TRY(QmpClient client, QmpClient::Connect(arguments.words[0]));
  HF_TRY(const Json answer, AskMap(client, cells));
  HF_TRY(MemoryMap map, ParseMemoryMap(answer));
  if (const auto name = client.Execute("query-name")) map.name = TextMember(*name, "name");
  std::string said;
  if (png) {
    const std::string file = arguments.Value("--png");
    HF_TRY_STATUS(WriteFile(file, DrawMapAsPng(map, width)));
    said = fmt::format("{}\nWritten to {}.\n", MapTitle(map), file);
  }
  if (arguments.Has("--json"))
    return answer.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (png) return said;
  return DrawMapAsText(map, {.columns = width, .colours = colours});
}

}  // namespace

CtlOutcome RunCtlMap(CtlWords words) {
  const auto run = [&]() -> Result<std::string> {
    HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, kOptions, 1, kUsage));
    return Map(arguments);
  };
  Result<std::string> text = run();
  if (!text) return CtlFailure("map", text.error());
  return {.output = std::move(*text), .error = {}, .exit_status = EXIT_SUCCESS};
}

}  // namespace holdfast::apps
