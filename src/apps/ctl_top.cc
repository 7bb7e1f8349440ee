// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "apps/ctl_arguments.h"
#include "apps/qmp_client.h"
#include "apps/terminal_output.h"
#include "apps/vm_state.h"
#include "apps/vm_top.h"
#include "devices/terminal.h"

namespace holdfast::apps {
namespace {

using std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr std::string_view kUsage = "holdfastctl top SOCKET [--once] [--interval SECONDS] [--json]";
constexpr CtlOption kOptions[] = {{"--once"}, {"--interval", "SECONDS"}, {"--json"}};
constexpr double kUsualInterval = 2;

enum class Key { kNone, kOther, kQuit };

// Waits until `until` or a key; `keyboard` is -1 where nobody types.
Result<Key> WaitUntil(steady_clock::time_point until, int keyboard) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - steady_clock::now()).count();
    if (left <= 0) return Key::kNone;
    pollfd wait{.fd = keyboard, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(left));
    if (ready < 0 && errno != EINTR) return FailErrno("poll");
    // A changed window size interrupts too; the next view has the new one.
    if (ready <= 0) continue;
    char key = 0;
    const ssize_t got = ::read(keyboard, &key, 1);
    constexpr char kCtrlC = 3;
    constexpr char kCtrlD = 4;
    if (got <= 0 || key == 'q' || key == 'Q' || key == kCtrlC || key == kCtrlD) return Key::kQuit;
    return Key::kOther;
  }
}

// Asks for the next reading. Counting memory takes the server's main thread: it is asked for
// so seldom that it costs at most a tenth of the time.
class Reader {
 public:
  explicit Reader(QmpClient& client) : client_(client) {}

  Result<VmState> Next(const VmState& last) {
    VmState state = last;
    HF_TRY_STATUS(QueryVmActivity(client_, state));
    if (const auto now = steady_clock::now(); now >= memory_again_) {
      HF_TRY_STATUS(QueryVmMemory(client_, state));
      const auto done = steady_clock::now();
      memory_again_ = done + 9 * (done - now);
    }
    return state;
  }

 private:
  QmpClient& client_;
  steady_clock::time_point memory_again_;
};

steady_clock::duration AsDuration(double seconds) {
  return std::chrono::duration_cast<steady_clock::duration>(Seconds(seconds));
}

Result<TopView> Once(QmpClient& client, const VmState& first, double interval) {
  HF_TRY_STATUS(WaitUntil(first.taken + AsDuration(interval), -1));
  HF_TRY(VmState second, Reader(client).Next(first));
  return CompareReadings(first, std::move(second));
}

Status Live(QmpClient& client, VmState last, double interval) {
  HF_TRY(const std::unique_ptr<devices::Terminal> raw,
         devices::Terminal::MakeRaw(STDIN_FILENO, /*signals=*/false));
  Reader reader(client);
  std::string view = DrawTop(CompareReadings(last, last), TerminalColumns(), TerminalRows() - 2);
  for (;;) {
    // Home, the view with each line's old rest erased, then what was below it.
    std::string screen = "\x1b[H";
    for (const char c : view) screen += c == '\n' ? "\x1b[K\n" : std::string(1, c);
    PrintNow(screen + "\x1b[J\nq quits");
    HF_TRY(const Key key, WaitUntil(last.taken + AsDuration(interval), STDIN_FILENO));
    if (key == Key::kQuit) return {};
    // Another key asks for a reading now; but not for one over no time.
    if (steady_clock::now() - last.taken < std::chrono::milliseconds(100)) continue;
    HF_TRY(VmState state, reader.Next(last));
    const TopView compared = CompareReadings(last, std::move(state));
    view = DrawTop(compared, TerminalColumns(), TerminalRows() - 2);
    last = compared.state;
  }
}

Result<std::string> Top(CtlWords words) {
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, kOptions, 1, kUsage));
  if (arguments.words.empty())
    return Fail(Errc::kInvalidArgument, "there is no socket", fmt::format("Write {}.", kUsage));
  HF_TRY(const double interval, NumberOption(arguments, "--interval", 0.1, 3600, kUsualInterval));
  const bool json = arguments.Has("--json");
  const bool once = json || arguments.Has("--once");
  if (!once && (::isatty(STDIN_FILENO) != 1 || ::isatty(STDOUT_FILENO) != 1)) {
    return Fail(Errc::kInvalidArgument, "the live view needs a terminal",
                "Write --once for one sample.");
  }
  HF_TRY(QmpClient client, QmpClient::Connect(arguments.words[0]));
  HF_TRY(VmState first, QueryVm(client));
  if (!once) {
    PrintNow("\x1b[2J");
    const Status status = Live(client, std::move(first), interval);
    PrintNow("\n");
    if (!status) return Fail(status.error());
    return std::string();
  }
  HF_TRY(const TopView view, Once(client, first, interval));
  using Json = nlohmann::ordered_json;
  if (json) return TopJson(view).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  constexpr std::size_t kNoLimit = 1U << 20;
  return DrawTop(view, kNoLimit, kNoLimit);
}

}  // namespace

CtlOutcome RunCtlTop(CtlWords words) {
  Result<std::string> text = Top(words);
  if (!text) return CtlFailure("top", text.error());
  return {.output = std::move(*text), .error = {}, .exit_status = EXIT_SUCCESS};
}

}  // namespace holdfast::apps
