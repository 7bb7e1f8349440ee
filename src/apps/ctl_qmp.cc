// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/ctl_arguments.h"
#include "apps/qmp_client.h"
#include "apps/qmp_line.h"
#include "apps/qmp_prompt.h"
#include "apps/qmp_types.h"
#include "apps/terminal_output.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

// The server is asked for its types only if there are arguments whose type matters.
QmpTypes TypesFor(QmpClient& client, bool has_arguments) {
  return has_arguments ? QmpTypes::Ask(client) : QmpTypes();
}

// The words of the command line: the shell has split and unquoted them.
Result<std::string> RunOne(QmpClient& client, CtlWords words) {
  const std::string_view first = words[0];
  Result<Json> request = Json();
  if (first.starts_with('{')) {
    if (words.size() > 1) {
      return Fail(Errc::kInvalidArgument, fmt::format("'{}' follows a JSON object", words[1]),
                  "Put the whole request into one pair of single quotes.");
    }
    request = ParseQmpLine(first, {});
  } else {
    std::vector<QmpWord> split;
    for (const char* word : words) split.push_back({.text = word});
    request = QmpRequest(split, TypesFor(client, words.size() > 1));
  }
  if (!request) return Fail(std::move(request).error());
  HF_TRY(const Json value, client.Call(std::move(*request), QmpClient::kForever));
  return PrettyJson(value) + "\n";
}

// One command a line; the first that fails ends it.
Status RunLines(QmpClient& client) {
  std::optional<QmpTypes> types;
  std::size_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    const std::size_t start = line.find_first_not_of(" \t");
    if (start == std::string::npos || line[start] == '#') continue;
    if (!types) types = QmpTypes::Ask(client);
    const auto run = [&]() -> Status {
      HF_TRY(Json request, ParseQmpLine(line, *types));
      HF_TRY(const Json value, client.Call(std::move(request), QmpClient::kForever));
      PrintNow(PrettyJson(value) + "\n");
      return {};
    };
    if (Status status = run(); !status)
      return Fail(std::move(status).error().Wrap(fmt::format("line {}", number)));
  }
  return {};
}

}  // namespace

CtlOutcome RunCtlQmp(CtlWords words) {
  if (words.empty() || std::string_view(words[0]).starts_with('-')) {
    return CtlFailure("qmp", Error(Errc::kInvalidArgument,
                                   words.empty() ? "there is no socket"
                                                 : fmt::format("invalid argument '{}'", words[0]),
                                   "Write holdfastctl qmp SOCKET [COMMAND [NAME=VALUE ...]]."));
  }
  auto client = QmpClient::Connect(words[0]);
  if (!client) return CtlFailure("qmp", client.error());
  if (words.size() > 1) {
    auto text = RunOne(*client, words.subspan(1));
    if (!text) return CtlFailure("qmp", text.error());
    return {.output = std::move(*text), .error = {}, .exit_status = EXIT_SUCCESS};
  }
  const bool terminal = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
  const Status status = terminal ? QmpPrompt(*client).Run() : RunLines(*client);
  if (!status) return CtlFailure("qmp", status.error());
  return {};
}

}  // namespace holdfast::apps
