// SPDX-License-Identifier: Apache-2.0
#include "apps/qmp_prompt.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <ctime>
#include <memory>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/qmp_history.h"
#include "apps/qmp_line.h"
#include "apps/terminal_output.h"
#include "devices/terminal.h"
#include "object/suggest.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kPrompt = "(qmp) ";
constexpr std::string_view kEraseRow = "\r\x1b[K";
// What the prompt understands beside the server's commands.
constexpr std::string_view kOwnCommands[] = {"execute", "help", "quit"};

bool IsContinuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xc0U) == 0x80U;
}

std::size_t CountCharacters(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); }));
}

// `count` characters of `text` from the character `first` on.
std::string_view Characters(std::string_view text, std::size_t first, std::size_t count) {
  const auto skip = [&](std::size_t at, std::size_t characters) {
    while (characters > 0 && at < text.size()) {
      ++at;
      while (at < text.size() && IsContinuation(text[at])) ++at;
      --characters;
    }
    return at;
  };
  const std::size_t start = skip(0, first);
  return text.substr(start, skip(start, count) - start);
}

std::string FormatEvent(const QmpClient::Event& event) {
  std::string time;
  if (event.seconds > 0 && event.seconds < 1e11) {
    const auto whole = static_cast<std::time_t>(event.seconds);
    std::tm local{};
    ::localtime_r(&whole, &local);
    time = fmt::format("{:%H:%M:%S}.{:03} ", local,
                       static_cast<int>(std::fmod(event.seconds, 1) * 1000));
  }
  return fmt::format("{}{}{}{}\n", time, event.name, event.data.empty() ? "" : " ", event.data);
}

}  // namespace

std::string PrettyJson(const Json& value) {
  return Printable(value.dump(2, ' ', false, Json::error_handler_t::replace));
}

std::string ShowPromptLine(std::string_view prompt, std::string_view line, std::size_t cursor,
                           std::size_t columns) {
  // The last column stays free: a cursor beyond it would wrap.
  const std::size_t room = std::max<std::size_t>(columns, prompt.size() + 10) - prompt.size() - 1;
  const std::size_t before = CountCharacters(line.substr(0, cursor));
  const std::size_t first = before > room ? before - room : 0;
  return fmt::format("{}{}{}\r\x1b[{}C", kEraseRow, prompt, Characters(line, first, room),
                     prompt.size() + before - first);
}

std::string InColumns(std::span<const std::string> words, std::size_t columns) {
  std::size_t width = 1;
  for (const std::string& word : words) width = std::max(width, word.size() + 2);
  const std::size_t across = std::max<std::size_t>(1, columns / width);
  const std::size_t rows = (words.size() + across - 1) / across;
  std::string text;
  for (std::size_t row = 0; row < rows; ++row) {
    std::string line;
    for (std::size_t at = row; at < words.size(); at += rows)
      line += fmt::format("{:<{}}", words[at], width);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string QmpPromptHelp(std::string_view about, const QmpTypes& types, std::size_t columns) {
  const std::vector<std::string> commands = types.Commands();
  if (about.empty()) {
    return fmt::format(
        "COMMAND NAME=VALUE ...    run a command; Tab completes, 1M is a number, a.b=1 a member\n"
        "{{\"execute\": ...}}          the same as JSON\n"
        "help COMMAND              its arguments\n"
        "execute COMMAND ...       for commands named as the prompt's own: 'execute quit' ends the "
        "VM\n"
        "quit                      leave; the VM stays\n\n{}",
        InColumns(commands, columns));
  }
  if (!std::binary_search(commands.begin(), commands.end(), about)) {
    const std::vector<std::string_view> names(commands.begin(), commands.end());
    const std::string_view nearest = object::Nearest(about, names);
    return fmt::format("There is no command '{}'. {}\n", about,
                       nearest.empty() ? std::string("'help' lists them.")
                                       : fmt::format("Did you mean {}?", nearest));
  }
  std::string text = fmt::format("{}\n", about);
  for (const QmpTypes::Member& member : types.Arguments(about, {})) {
    text += fmt::format("  {}={}{}\n", member.name, types.Describe(member.type),
                        member.optional ? "  (may be left out)" : "");
  }
  return text;
}

QmpPrompt::QmpPrompt(QmpClient& client)
    : client_(client), types_(QmpTypes::Ask(client)), editor_(kLongestQmpHistory) {
  editor_.SetCompleter(
      [this](std::string_view text) { return CompleteQmpLine(text, types_, kOwnCommands); });
}

void QmpPrompt::ShowLine() const {
  PrintNow(ShowPromptLine(kPrompt, editor_.pending(), editor_.cursor(), TerminalColumns()));
}

Status QmpPrompt::ShowEvents() {
  for (;;) {
    auto event = client_.NextEvent(QmpClient::Milliseconds(0));
    if (!event) {
      PrintNow(kEraseRow);
      if (!vm_quits_) return Fail(std::move(event).error());
      ended_ = true;
      return {};
    }
    if (!*event) return {};
    PrintNow(fmt::format("{}{}", kEraseRow, FormatEvent(**event)));
  }
}

// Feeds what has been typed to the editor, up to the end of a line.
Result<std::optional<std::string>> QmpPrompt::TakeKeys() {
  while (!keys_.empty()) {
    const auto key = static_cast<unsigned char>(keys_.front());
    keys_.erase(0, 1);
    control::LineEditor::Outcome outcome = editor_.Feed(key);
    if (outcome.end_of_input) {
      ended_ = true;
      PrintNow("\n");
      return std::nullopt;
    }
    if (outcome.cancelled) PrintNow(outcome.echo);
    if (!outcome.candidates.empty())
      PrintNow("\n" + InColumns(outcome.candidates, TerminalColumns()));
    if (outcome.line) {
      // Also what was typed ahead, or put in by Tab, stands there as it was run.
      const std::string& line = *outcome.line;
      PrintNow(ShowPromptLine(kPrompt, line, line.size(), TerminalColumns()) + "\n");
      return std::move(outcome.line);
    }
  }
  return std::nullopt;
}

Result<std::optional<std::string>> QmpPrompt::ReadLine() {
  // Only while a line is typed: during a command Ctrl-c is to end the program as usual.
  HF_TRY(const std::unique_ptr<devices::Terminal> raw,
         devices::Terminal::MakeRaw(STDIN_FILENO, /*signals=*/false));
  for (;;) {
    HF_TRY_STATUS(ShowEvents());
    if (ended_) return std::nullopt;
    HF_TRY(std::optional<std::string> line, TakeKeys());
    if (line || ended_) return line;
    ShowLine();
    pollfd waits[] = {{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
                      {.fd = client_.fd(), .events = POLLIN, .revents = 0}};
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) return FailErrno("poll");
    if (waits[0].revents == 0) continue;
    char buffer[256];
    const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) {
      ended_ = true;
      return std::nullopt;
    }
    keys_.append(buffer, static_cast<std::size_t>(got));
  }
}

Status QmpPrompt::Execute(const std::string& line) {
  auto words = SplitQmpLine(line);
  if (words && words->empty()) return {};
  if (words && words->front().text == "help") {
    PrintNow(QmpPromptHelp(words->size() > 1 ? (*words)[1].text : "", types_, TerminalColumns()));
    return {};
  }
  if (words && words->size() == 1 && words->front().text == "quit") {
    ended_ = true;
    return {};
  }
  if (words && words->front().text == "execute") words->erase(words->begin());
  const bool json = line.find_first_not_of(" \t") == line.find('{');
  auto request = json || !words ? ParseQmpLine(line, types_) : QmpRequest(*words, types_);
  if (!request) {
    PrintNow(request.error().ToString() + "\n");
    return {};
  }
  const auto name = request->find("execute");
  vm_quits_ = name != request->end() && *name == "quit";
  const auto value = client_.Call(std::move(*request), QmpClient::kForever);
  if (value) {
    // Text of the human monitor is for people as it stands.
    std::string text = PrettyJson(*value);
    if (value->is_string()) {
      text = value->get<std::string>();
      std::erase(text, '\r');
      text = Printable(text);
    }
    if (!text.ends_with('\n')) text += '\n';
    PrintNow(text);
    return {};
  }
  const Errc code = value.error().code();
  if (code != Errc::kNotFound && code != Errc::kInvalidArgument) return Fail(value.error());
  PrintNow(Printable(value.error().ToString()) + "\n");
  return {};
}

Status QmpPrompt::Run() {
  const std::string path = QmpHistoryPath();
  std::vector<std::string> typed;
  if (!path.empty()) editor_.SetHistory(ReadQmpHistory(path));
  PrintNow(fmt::format("Connected to {}{}{}. Tab completes, 'help' helps, 'quit' leaves.\n",
                       client_.name(), client_.server().empty() ? "" : ", ", client_.server()));
  Status status;
  while (!ended_ && status) {
    auto line = ReadLine();
    if (!line) {
      status = Fail(std::move(line).error());
    } else if (*line) {
      typed.push_back(**line);
      status = Execute(**line);
    }
  }
  if (!path.empty()) {
    if (const Status kept = AddToQmpHistory(path, typed); !kept && status) return kept;
  }
  return status;
}

}  // namespace holdfast::apps
