// SPDX-License-Identifier: Apache-2.0
// How soon a restored Linux guest is of use, run in the lab.
//   restore_bench ROUNDS KERNEL INITRD [NAME]     NAME: only benchmarks whose name starts so
// restore_to_tcp: from the start of the monitor until the guest has answered a TCP connection
// through user networking, with memory that is read on demand against memory that is read first.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <holdfast/unique_fd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/base64.h"
#include "monitors.h"
#include "process.h"
#include "report.h"

namespace holdfast::bench {
namespace {

using std::chrono::duration;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kLimit{300};
// Between two connections to a guest that does not answer yet: little against a restore.
constexpr milliseconds kPace{2};
constexpr std::string_view kAnswer = "here";
// Most of the memory is in use, by a file that nobody looks at.
constexpr std::string_view kScript =
    "hf-dhcp eth0\n"
    "dd if=/dev/urandom of=/tmp/f bs=1M count=300 2>/dev/null\n"
    "while true; do echo here | nc -l -p 8080 >/dev/null; done &\n"
    "echo hf: listening; wait\n";

struct Guest {
  std::string kernel;
  std::string initrd;
};

sockaddr_in Local(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A port that was free a moment ago.
Result<std::uint16_t> FreePort() {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = Local(0);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (!fd || ::bind(fd.get(), generic, size) != 0 || ::getsockname(fd.get(), generic, &size) != 0)
    return FailErrno("a TCP port");
  return ntohs(address.sin_port);
}

// The monitor accepts connections before its guest does, and closes what nobody takes.
bool Answers(std::uint16_t port) {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = Local(port);
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return false;
  const timeval limit{.tv_sec = 30, .tv_usec = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::shutdown(fd.get(), SHUT_WR);
  std::array<char, 16> buffer{};
  const ssize_t got = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
  return got > 0 &&
         std::string_view(buffer.data(), static_cast<std::size_t>(got)).starts_with(kAnswer);
}

Status WaitForAnswer(std::uint16_t port) {
  const auto deadline = steady_clock::now() + kLimit;
  while (!Answers(port)) {
    if (steady_clock::now() > deadline) return Fail(Errc::kSystem, "the guest does not answer");
    std::this_thread::sleep_for(kPace);
  }
  return {};
}

std::vector<std::string> Line(const Guest& guest, const std::string& socket, std::uint16_t port,
                              const std::string& incoming) {
  std::vector<std::string> line = {"holdfast",
                                   "-m",
                                   "512M",
                                   "-kernel",
                                   guest.kernel,
                                   "-initrd",
                                   guest.initrd,
                                   "-append",
                                   "console=ttyS0 quiet hf.do=none hf.end=wait hf.sh=" +
                                       EncodeBase64(std::as_bytes(std::span(kScript))),
                                   "-nodefaults",
                                   "-display",
                                   "none",
                                   "-serial",
                                   "stdio",
                                   "-netdev",
                                   fmt::format("user,id=n0,hostfwd=tcp:127.0.0.1:{}-:8080", port),
                                   "-device",
                                   "virtio-net-pci,netdev=n0",
                                   "-qmp",
                                   fmt::format("unix:{},server=on,wait=off", socket)};
  if (!incoming.empty()) {
    line.emplace_back("-incoming");
    line.push_back(incoming);
  }
  return line;
}

Status Prepare(const Folder& folder, const Guest& guest) {
  HF_TRY(const std::uint16_t port, FreePort());
  const std::string socket = folder / "qmp";
  HF_TRY(Process monitor, Process::Start(Line(guest, socket, port, {}), Process::Watch::kOutput));
  HF_TRY_STATUS(monitor.WaitForText("hf: listening", kLimit));
  HF_TRY_STATUS(WaitForAnswer(port));
  HF_TRY(Process ctl,
         Process::Start({"holdfastctl", "snapshot", "create", socket, folder / "vm.snapshot"},
                        Process::Watch::kOutput));
  return ctl.WaitForText(" in ", kLimit);
}

Result<double> RestoreUntilAnswer(const Folder& folder, const Guest& guest, const char* how) {
  HF_TRY(const std::uint16_t port, FreePort());
  HF_TRY(const Process monitor,
         Process::Start(Line(guest, folder / "restored", port,
                             fmt::format("file:{}{}", folder / "vm.snapshot", how)),
                        Process::Watch::kOutput));
  HF_TRY_STATUS(WaitForAnswer(port));
  return duration<double, std::milli>(steady_clock::now() - monitor.started()).count();
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  using namespace holdfast::bench;
  const int rounds = argc == 4 || argc == 5 ? std::atoi(argv[1]) : 0;
  if (rounds < 1) {
    std::fputs("usage: restore_bench ROUNDS KERNEL INITRD [NAME]\n", stderr);
    return 1;
  }
  Report report("restore_bench", rounds, argc == 5 ? argv[4] : "");
  if (!report.Wants("restore_to_tcp")) return 0;
  const Folder folder(".");  // whose file system is read
  const Guest guest{argv[2], argv[3]};
  const holdfast::Status ready = Prepare(folder, guest);
  const auto restore = [&](const char* how) -> holdfast::Result<double> {
    if (!ready) return Fail(ready.error());
    return RestoreUntilAnswer(folder, guest, how);
  };
  report.Compare(
      "restore_to_tcp/512M", "ms", "prefault=on", [&] { return restore(""); },
      [&] { return restore(",prefault=on"); });
  return report.exit_status();
}
