// SPDX-License-Identifier: Apache-2.0
#include "apps/clone_claims.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "devices/device_model.h"
#include "object/file_backend.h"

namespace holdfast::apps {
namespace {

using devices::block::NodeOptions;
using Kind = Claim::Kind;

class Collector {
 public:
  void Add(Kind kind, std::string what, std::string_view option) {
    claims.push_back({kind, std::move(what), std::string(option)});
  }
  void File(const std::string& path, std::string_view option) {
    if (!path.empty()) Add(Kind::kFile, fmt::format("the file '{}'", path), option);
  }

  void Disk(const NodeOptions& node, bool read_only, std::string_view option) {
    // What lies below a writable image is only read.
    const NodeOptions& file = devices::block::FileOf(node);
    if (!read_only && !file.read_only.value_or(false) && !file.filename.empty())
      claims.push_back({Kind::kDisk, fmt::format("the disk image '{}'", file.filename),
                        std::string(option), file.filename});
  }

  void Socket(const devices::SocketAddress& address, std::string_view option) {
    if (address.path.empty() && address.port == "0") return;  // any that is free
    Add(Kind::kListener, fmt::format("the socket {}", address.Describe()), option);
  }

  // A word of -serial or -monitor.
  void Console(std::string_view word, std::string_view option) {
    constexpr std::string_view kMux = "mon:";
    constexpr std::string_view kFile = "file:";
    if (word.starts_with(kMux)) word.remove_prefix(kMux.size());
    if (word.starts_with(kFile)) return File(std::string(word.substr(kFile.size())), option);
    const auto socket = devices::ParseSocketWord(word);
    if (socket && *socket) Socket((*socket)->address, option);
  }

  void Netdev(const NetdevRequest& request) {
    const auto& what = request.config.what;
    if (const auto* const user = std::get_if<devices::net::UserConfig>(&what)) {
      for (const auto& forward : user->forwards) {
        char address[INET_ADDRSTRLEN] = "";
        ::inet_ntop(AF_INET, &forward.host_address, address, sizeof address);
        if (forward.host_port == 0) continue;
        Add(Kind::kListener,
            fmt::format("the {} port {} of the host's address {}", forward.udp ? "UDP" : "TCP",
                        forward.host_port, address),
            request.option);
      }
    } else if (const auto* const tap = std::get_if<devices::net::TapConfig>(&what)) {
      if (!tap->name.empty())
        Add(Kind::kInterface, fmt::format("the network interface '{}'", tap->name), request.option);
      if (!tap->fds.empty())
        Add(Kind::kInterface, "a network interface that is handed over", request.option);
    } else if (const auto* const stream = std::get_if<devices::net::StreamConfig>(&what)) {
      Add(Kind::kListener, fmt::format("the socket {}", stream->address.Describe()),
          request.option);
    } else if (const auto* const dgram = std::get_if<devices::net::DgramConfig>(&what)) {
      if (dgram->local)
        Add(Kind::kListener, fmt::format("the socket {}", dgram->local->Describe()),
            request.option);
    }
  }

  std::vector<Claim> claims;
};

}  // namespace

std::vector<Claim> ClaimsOf(const Options& options) {
  Collector all;
  for (const DriveRequest& drive : options.drives) {
    if (drive.node)
      all.Disk(*drive.node, drive.snapshot.value_or(false) || drive.node->read_only.value_or(false),
               drive.option);
  }
  for (const BlockdevRequest& blockdev : options.blockdevs)
    all.Disk(blockdev.node, blockdev.node.read_only.value_or(false), blockdev.option);

  for (const ChardevRequest& chardev : options.chardevs) {
    if (chardev.socket) all.Socket(chardev.socket->address, chardev.option);
    all.Console(chardev.word, chardev.option);
  }
  for (const std::string& word : options.serial) all.Console(word, fmt::format("-serial {}", word));
  if (options.monitor) all.Console(*options.monitor, fmt::format("-monitor {}", *options.monitor));

  for (const NetdevRequest& netdev : options.net.netdevs) all.Netdev(netdev);

  for (const auto& object : options.objects.objects()) {
    const auto* const memory = dynamic_cast<const object::FileBackend*>(object.get());
    if (memory == nullptr || !memory->share() || memory->own().readonly) continue;
    const std::string& path = memory->own().mem_path;
    std::error_code error;
    // A file without a name in a folder is each machine's own.
    if (std::filesystem::is_directory(path, error)) continue;
    all.Add(Kind::kMemory, fmt::format("the memory in '{}'", path),
            fmt::format("-object memory-backend-file,id={}", memory->id()));
  }
  for (const devices::DeviceRequest& device : options.machine.devices) {
    const std::string* const cid = object::FindValue(device.values, "guest-cid");
    if (cid != nullptr)
      all.Add(Kind::kNumber, fmt::format("the guest-cid {}", *cid),
              fmt::format("-device {},guest-cid={}", device.model->name, *cid));
  }

  all.File(options.pidfile, fmt::format("-pidfile {}", options.pidfile));
  all.File(options.log_file, fmt::format("-D {}", options.log_file));
  for (const TraceRequest& trace : options.traces)
    all.File(trace.file, fmt::format("-trace file={}", trace.file));
  return std::move(all.claims);
}

}  // namespace holdfast::apps
