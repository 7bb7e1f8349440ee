// SPDX-License-Identifier: Apache-2.0
// Round trips of the control protocol: Holdfast and QEMU in turn, each with a machine that has not
// started yet.
//   qmp_bench ROUNDS KERNEL [NAME]     NAME: only if the benchmark's name starts so
// Prints one JSON object: name, value, unit, baseline, baseline_value, ratio (medians).
#include <fmt/format.h>
#include <holdfast/unique_fd.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "process.h"
#include "report.h"

namespace holdfast::bench {
namespace {

using std::chrono::steady_clock;
constexpr int kCommands = 2000;  // in one measurement
constexpr int kLimit = 60'000;   // milliseconds to wait for anything

// A QMP client that is connected to: the monitor under measurement does the connecting, so nobody
// has to guess when it is ready.
class Connection {
 public:
  static Result<Connection> Accept(const UniqueFd& listener) {
    pollfd wait{.fd = listener.get(), .events = POLLIN, .revents = 0};
    if (::poll(&wait, 1, kLimit) <= 0) return FailErrno("no monitor has connected");
    UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) return FailErrno("accept4");
    Connection connection(std::move(fd));
    HF_TRY_STATUS(connection.WaitForLine());  // the greeting
    HF_TRY_STATUS(connection.Run(R"({"execute": "qmp_capabilities"})"));
    return connection;
  }

  // Sends a command and waits for the line that answers it.
  Status Run(std::string_view command) {
    if (::send(fd_.get(), command.data(), command.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(command.size())) {
      return FailErrno("send");
    }
    return WaitForLine();
  }

 private:
  explicit Connection(UniqueFd fd) : fd_(std::move(fd)) {}

  Status WaitForLine() {
    std::array<char, 4096> buffer;
    do {
      const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
      if (got <= 0) return FailErrno("recv");
      last_ = buffer[static_cast<std::size_t>(got) - 1];
    } while (last_ != '\n');
    return {};
  }

  UniqueFd fd_;
  char last_ = 0;
};

Result<UniqueFd> Listen(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Fail(Errc::kInvalidArgument, fmt::format("'{}' is too long for a socket", path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), 1) != 0) {
    return FailErrno(fmt::format("cannot listen on '{}'", path));
  }
  return fd;
}

// Microseconds a round trip.
Result<double> RoundTrip(const std::vector<std::string>& program, const std::string& folder) {
  const std::string path = folder + "/qmp";
  HF_TRY(const UniqueFd listener, Listen(path));
  std::vector<std::string> command = program;
  for (const char* word : {"-M", "q35", "-m", "128", "-S", "-nodefaults", "-display", "none"}) {
    command.emplace_back(word);
  }
  command.insert(command.end(), {"-qmp", "unix:" + path});
  HF_TRY(const Process process, Process::Start(command, Process::Watch::kOutput));
  auto connection = Connection::Accept(listener);
  ::unlink(path.c_str());
  if (!connection) return Fail(std::move(connection).error());
  constexpr std::string_view kCommand = R"({"execute": "query-status"})";
  for (int i = 0; i < kCommands / 10; ++i) HF_TRY_STATUS(connection->Run(kCommand));
  const auto start = steady_clock::now();
  for (int i = 0; i < kCommands; ++i) HF_TRY_STATUS(connection->Run(kCommand));
  const std::chrono::duration<double, std::micro> took = steady_clock::now() - start;
  return took.count() / kCommands;
}

Status Run(Report& report, const std::string& kernel) {
  std::string folder = (std::filesystem::temp_directory_path() / "holdfast-bench-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return FailErrno("mkdtemp");
  report.Compare(
      "qmp_roundtrip", "us", "qemu",
      [&] { return RoundTrip({"holdfast", "-kernel", kernel}, folder); },
      [&] { return RoundTrip({"qemu-system-x86_64", "-accel", "kvm", "-accel", "tcg"}, folder); });
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return {};
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  const int rounds = argc < 3 ? 0 : std::atoi(argv[1]);
  if (rounds <= 0 || argc > 4) {
    std::fputs("usage: qmp_bench ROUNDS KERNEL [NAME]\n", stderr);
    return 1;
  }
  holdfast::bench::Report report("qmp_bench", rounds, argc == 4 ? argv[3] : "");
  const holdfast::Status status = holdfast::bench::Run(report, argv[2]);
  if (status) return report.exit_status();
  fmt::print(stderr, "qmp_bench: {}\n", status.error().ToString());
  return 1;
}
