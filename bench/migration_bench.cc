// SPDX-License-Identifier: Apache-2.0
// The migration benchmarks.
//   migration_bench ROUNDS GUESTS [NAME]     GUESTS: the folder of pattern.elf and hello.elf; NAME:
//                                            only those that start so
// migrate_throughput: memory that is all there, over loopback TCP into memory that is empty,
// against the same bytes sent and received bare. postcopy_fault: a vCPU's wait for a chunk of its
// memory, against a round trip for 4 KiB. migrate_total, migrate_downtime: a guest between two
// monitors, as query-migrate tells it.
#include <fmt/format.h>
#include <guest_images.h>
#include <holdfast/address_space.h>
#include <holdfast/lazy_population.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "migration/page_receiver.h"
#include "migration/page_sender.h"
#include "migration/page_server.h"
#include "migration/peer_pages.h"
#include "migration/return_path.h"
#include "migration/socket_channel.h"
#include "monitors.h"
#include "process.h"
#include "report.h"
#include "support/guest_vm.h"

namespace holdfast::bench {
namespace {

using migration::FrameHeader;
using migration::FrameReader;
using migration::FrameType;
using migration::FrameWriter;
using migration::PagesHead;
using migration::SocketChannel;
using std::chrono::duration;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr std::uint64_t kSize = 256 * kMiB;
constexpr seconds kLimit{300};
constexpr double kMega = 1e6;

double Seconds(steady_clock::time_point since) {
  return duration<double>(steady_clock::now() - since).count();
}

// Two ends of a TCP connection on this machine.
Result<std::pair<UniqueFd, UniqueFd>> Loopback() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof address;
  UniqueFd near(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener || !near || ::bind(listener.get(), name, size) != 0 ||
      ::listen(listener.get(), 1) != 0 || ::getsockname(listener.get(), name, &size) != 0 ||
      ::connect(near.get(), name, size) != 0) {
    return FailErrno("a TCP connection");
  }
  UniqueFd far(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!far) return FailErrno("accept");
  for (const int fd : {near.get(), far.get()}) {
    const int on = 1;
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return std::pair(std::move(near), std::move(far));
}

bool ReadWhole(int fd, std::span<std::byte> to) {
  while (!to.empty()) {
    const ssize_t got = ::recv(fd, to.data(), to.size(), 0);
    if (got <= 0) return false;
    to = to.subspan(static_cast<std::size_t>(got));
  }
  return true;
}
bool WriteWhole(int fd, std::span<const std::byte> from) {
  while (!from.empty()) {
    const ssize_t sent = ::send(fd, from.data(), from.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    from = from.subspan(static_cast<std::size_t>(sent));
  }
  return true;
}

// Guest RAM without a VM.
struct PlainRam {
  std::unique_ptr<RamBlock> block;
  std::unique_ptr<AddressSpace> space = std::make_unique<AddressSpace>(nullptr);

  static Result<PlainRam> Create(std::uint64_t size) {
    PlainRam memory;
    HF_TRY(memory.block, RamBlock::CreateMemfd("pc.ram", size));
    HF_TRY_STATUS(memory.space->AddRam(GuestAddress{0}, size, *memory.block, 0));
    return memory;
  }
  std::span<std::byte> bytes() const { return block->host_view(); }
};

Result<PlainRam> FullRam(std::uint64_t size) {
  HF_TRY(PlainRam memory, PlainRam::Create(size));
  std::mt19937_64 random{1};
  for (std::uint64_t at = 0; at < size; at += 8) {
    const std::uint64_t value = random();
    std::memcpy(memory.bytes().data() + at, &value, sizeof value);
  }
  return memory;
}

// Seconds for `from` to be in other memory, through a bare connection.
Result<double> CopyBare(std::span<const std::byte> from) {
  HF_TRY(auto ends, Loopback());
  HF_TRY(const PlainRam to, PlainRam::Create(from.size()));
  const auto start = steady_clock::now();
  std::thread sender([&] { (void)WriteWhole(ends.first.get(), from); });
  const bool all = ReadWhole(ends.second.get(), to.bytes());
  const double took = Seconds(start);
  ends.second.reset();
  sender.join();
  return all ? Result<double>(took) : Fail(Errc::kSystem, "the bare copy broke off");
}

// Takes what comes up to the end of a pass.
Status TakePass(SocketChannel& channel, std::span<std::byte> to) {
  const std::uint64_t sizes[] = {to.size()};
  migration::PageReceiver receiver(sizes);
  FrameReader reader(channel);
  while (true) {
    HF_TRY(const FrameHeader header, reader.Next(kLimit));
    if (header.type == FrameType::kPassEnd) return {};
    const auto received = receiver.Receive(
        reader, header,
        [&](const PagesHead&, std::uint64_t offset) { return to.subspan(offset, kPageSize); },
        [](const PagesHead&, std::uint64_t) { return Status(); });
    if (!received) return Fail(received.error());
  }
}

// Seconds for a pass over all of `from`.
Result<double> SendPass(const PlainRam& from, unsigned channels) {
  HF_TRY(const PlainRam to, PlainRam::Create(from.bytes().size()));
  std::vector<std::unique_ptr<SocketChannel>> near, far;
  std::vector<std::unique_ptr<FrameWriter>> writers;
  std::vector<FrameWriter*> each;
  for (unsigned i = 0; i < channels; ++i) {
    HF_TRY(auto ends, Loopback());
    HF_TRY(auto one, SocketChannel::Create(std::move(ends.first), "the other side"));
    HF_TRY(auto other, SocketChannel::Create(std::move(ends.second), "the other side"));
    writers.push_back(std::make_unique<FrameWriter>(*one));
    each.push_back(writers.back().get());
    near.push_back(std::move(one));
    far.push_back(std::move(other));
  }
  migration::RateLimit limit;
  const std::atomic<bool> never = false;
  migration::PageSender sender(*from.space, each, {}, limit, never);
  std::vector<Status> taken(channels);
  const auto start = steady_clock::now();
  Status sent;
  {
    std::vector<std::jthread> receivers;
    for (unsigned i = 0; i < channels; ++i)
      receivers.emplace_back([&, i] {
        taken[i] = TakePass(*far[i], to.bytes());
        if (!taken[i]) far[i]->Shutdown();
      });
    sent = sender.SendAll();
    if (!sent) {
      for (const auto& channel : far) channel->Shutdown();
    }
  }
  const double took = Seconds(start);
  HF_TRY_STATUS(sent);
  for (const Status& one : taken) HF_TRY_STATUS(one);
  if (std::memcmp(from.bytes().data(), to.bytes().data(), to.bytes().size()) != 0)
    return Fail(Errc::kSystem, "what came is not what was sent");
  return took;
}

void CompareThroughput(Report& report) {
  const auto memory = FullRam(kSize);
  const auto speed = [](Result<double> took) -> Result<double> {
    if (!took) return took;
    return static_cast<double>(kSize) / kMega / *took;
  };
  for (const unsigned channels : {1U, 4U}) {
    report.Compare(
        fmt::format("migrate_throughput/{}", channels), "MB/s", "bare TCP",
        [&]() -> Result<double> {
          if (!memory) return Fail(memory.error());
          return speed(SendPass(*memory, channels));
        },
        [&]() -> Result<double> {
          if (!memory) return Fail(memory.error());
          return speed(CopyBare(memory->bytes()));
        });
  }
}

// ---- Post-copy ----------------------------------------------------------------------------------

constexpr std::uint64_t kGuestRam = 64 * kMiB;
constexpr std::uint64_t kFaulted = 32 * kMiB;  // of it
constexpr std::uint64_t kChunk = 64 * kKiB;    // as incoming post-copy has it

// Microseconds that a vCPU needs for a chunk of memory that another monitor has, on average of a
// walk over many; what it does with the memory itself is in it.
Result<double> WaitForChunks() {
  HF_TRY(const auto guest, test::GuestVm::Create({.ram_size = kGuestRam}));
  guest->WritePattern(test::GuestVm::kFreeRam, kFaulted / kPageSize, 1);
  HF_TRY(const PlainRam source, PlainRam::Create(kGuestRam));
  std::ranges::copy(guest->ram().host_view(), source.bytes().begin());
  HF_TRY(auto ends, Loopback());
  HF_TRY(const auto there, SocketChannel::Create(std::move(ends.first), "the destination"));
  HF_TRY(const auto here, SocketChannel::Create(std::move(ends.second), "the source"));
  FrameWriter to_destination(*there);
  const std::uint64_t sizes[] = {kGuestRam};

  HF_TRY(const auto server,
         migration::PageServer::Start(*source.space, to_destination, nullptr, [](const Error&) {}));
  HF_TRY(auto requests, migration::ReturnPath::Start(
                            *there, sizes, {.request = [&](const migration::PageRequest& request) {
                              (void)server->Add(request);
                            }}));
  DirtyPages missing(guest->space());
  missing.blocks()[0].pages.Set(test::GuestVm::kFreeRam / kPageSize, kFaulted / kPageSize);
  // A connection that breaks is the end of it.
  migration::PeerPages peer(std::move(missing), [&](const FrameWriter&, const Error&) {
    here->Shutdown();
    there->Shutdown();
  });
  HF_TRY_STATUS(peer.Attach(std::make_shared<FrameWriter>(*here)));
  std::thread reader([&] {
    migration::PageReceiver receiver(sizes);
    FrameReader frames(*here);
    while (true) {
      const auto header = frames.Next(kLimit);
      if (!header) return peer.Fail(header.error());
      const auto head = receiver.Receive(
          frames, *header,
          [&](const PagesHead& about, std::uint64_t offset) {
            return peer.Place(&frames, about, offset);
          },
          [](const PagesHead&, std::uint64_t) { return Status(); });
      if (!head) return peer.Fail(head.error());
      if (const Status all = peer.Arrived(&frames, *head, receiver.words()); !all)
        return peer.Fail(all.error());
    }
  });
  Result<double> took = Fail(Errc::kSystem, "the population did not start");
  {
    auto population = LazyPopulation::Start(
        guest->space(), peer,
        {.chunk = kChunk, .background = false, .missing = &peer.missing(), .userfaultfd = {}});
    if (population) {
      const auto start = steady_clock::now();
      const test::GuestOutcome outcome =
          guest->Run(guests::kMemcheck, {test::GuestVm::kFreeRam, kFaulted / kPageSize, 1});
      took = Seconds(start) * 1e6 / static_cast<double>(kFaulted / kChunk);
      if (!outcome.error.empty() || outcome.end_code != 0)
        took = Fail(Errc::kSystem, "the guest's memory is wrong: " + outcome.error);
    } else {
      took = Fail(population.error());
    }
    here->Shutdown();
    there->Shutdown();
    reader.join();
  }
  requests.reset();
  return took;
}

// Microseconds for a word there and 4 KiB back.
Result<double> RoundTrip() {
  constexpr int kTrips = 2000;
  HF_TRY(auto ends, Loopback());
  std::array<std::byte, kPageSize> page{};
  std::array<std::byte, 8> word{};
  std::thread other([far = ends.second.get()] {
    std::array<std::byte, kPageSize> answer{};
    std::array<std::byte, 8> question{};
    while (ReadWhole(far, question) && WriteWhole(far, answer)) {
    }
  });
  const auto start = steady_clock::now();
  bool good = true;
  for (int i = 0; i < kTrips && good; ++i)
    good = WriteWhole(ends.first.get(), word) && ReadWhole(ends.first.get(), page);
  const double took = Seconds(start) * 1e6 / kTrips;
  (void)::shutdown(ends.first.get(), SHUT_RDWR);
  other.join();
  return good ? Result<double>(took) : Fail(Errc::kSystem, "the connection broke");
}

// ---- Two monitors -------------------------------------------------------------------------------

struct Guest {
  std::string kernel;  // a file name
  std::string words;   // its command line
  unsigned mib;        // of RAM
  std::string says;    // when it can go
  bool stands;         // is stopped before
};

// Moves a guest, and returns a number of what query-migrate says then.
Result<double> Move(const std::string& guests, const Guest& guest, std::string_view number) {
  const Folder folder;
  const auto monitor = [&](std::string_view name, std::vector<std::string> rest) {
    std::vector<std::string> line{"holdfast",
                                  "-nographic",
                                  "-nodefaults",
                                  "-serial",
                                  "stdio",
                                  "-kernel",
                                  guests + "/" + guest.kernel,
                                  "-append",
                                  guest.words,
                                  "-m",
                                  fmt::format("{}M", guest.mib),
                                  "-qmp",
                                  fmt::format("unix:{},server=on,wait=off", folder / name)};
    line.insert(line.end(), rest.begin(), rest.end());
    return Process::Start(line, Process::Watch::kOutput);
  };
  HF_TRY(Process source, monitor("a", {}));
  HF_TRY_STATUS(source.WaitForText(guest.says, kLimit));
  if (guest.stands) HF_TRY_STATUS(Qmp(folder / "a", "stop"));
  HF_TRY(Process target, monitor("b", {"-incoming", "tcp:127.0.0.1:0"}));
  // Its socket may not be there yet.
  constexpr std::string_view kPort = "\"port\": \"";
  std::string port;
  for (int tries = 0; port.empty() && tries < 1000; ++tries) {
    HF_TRY(const std::string text, Qmp(folder / "b", "query-migrate 2>&1"));
    const std::size_t at = text.find(kPort);
    if (at != std::string::npos) port = std::to_string(std::atoi(text.c_str() + at + kPort.size()));
  }
  HF_TRY(Process ctl, Process::Start({"holdfastctl", "migrate", folder / "a",
                                      "tcp:127.0.0.1:" + port, "--bandwidth", "0"},
                                     Process::Watch::kOutput));
  HF_TRY_STATUS(ctl.WaitForText("moved in", kLimit));
  HF_TRY(const std::string info, Qmp(folder / "a", "query-migrate"));
  const std::string name = fmt::format("\"{}\": ", number);
  const std::size_t at = info.find(name);
  if (at == std::string::npos) return Fail(Errc::kSystem, "no migration: " + info);
  return std::atof(info.c_str() + at + name.size());
}

void CompareMoves(Report& report, const std::string& guests) {
  constexpr std::uint64_t kUsed = 224 * kMiB, kWritten = 8 * kMiB;
  static constexpr double kDowntimeLimit = 300;
  const auto memory = FullRam(kUsed);
  const auto copy = [&](std::uint64_t size) -> Result<double> {
    if (!memory) return Fail(memory.error());
    HF_TRY(const double took, CopyBare(memory->bytes().first(size)));
    return took * 1000;
  };
  report.Compare(
      "migrate_total/224M", "ms", "bare TCP",
      [&] { return Move(guests, {"pattern.elf", "224", 256, "round 1 ok", true}, "total-time"); },
      [&] { return copy(kUsed); });
  report.Compare(
      "migrate_downtime/8M_written", "ms", "bare TCP",
      [&] { return Move(guests, {"pattern.elf", "8", 64, "round 1 ok", false}, "downtime"); },
      [&] { return copy(kWritten); });
  report.Compare(
      "migrate_downtime/idle", "ms", "downtime-limit",
      [&] { return Move(guests, {"hello.elf", "e", 64, "hello", false}, "downtime"); },
      [] { return Result<double>(kDowntimeLimit); });
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  using namespace holdfast::bench;
  const int rounds = argc == 3 || argc == 4 ? std::atoi(argv[1]) : 0;
  if (rounds < 1) {
    std::fputs("usage: migration_bench ROUNDS GUESTS [NAME]\n", stderr);
    return 1;
  }
  Report report("migration_bench", rounds, argc == 4 ? argv[3] : "");
  if (report.Wants("migrate_throughput")) CompareThroughput(report);
  report.Compare("postcopy_fault", "us", "4 KiB round trip", WaitForChunks, RoundTrip);
  if (report.Wants("migrate_total") || report.Wants("migrate_downtime"))
    CompareMoves(report, argv[2]);
  return report.exit_status();
}
