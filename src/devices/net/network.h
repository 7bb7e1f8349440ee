// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "base/event_loop.h"
#include "devices/net/net_backend.h"
#include "devices/net/netdev_config.h"
#include "devices/net/nic.h"
#include "devices/net/stream_backend.h"

namespace holdfast::devices {
class Chardev;
}

namespace holdfast::devices::net {

class UserBackend;

/// Finds a chardev by its id; null for an id nobody made.
using FindChardev = std::function<Chardev*(std::string_view id)>;

/// How often and how long cards announce themselves; the values without more are QEMU's.
struct AnnounceTimes {
  std::chrono::milliseconds initial{50};  ///< before the second round
  std::chrono::milliseconds longest{550};
  std::int64_t rounds = 5;
  std::chrono::milliseconds step{100};  ///< each wait is longer by this
  std::vector<std::string> cards = {};  ///< by name; empty: all
  /// Announcements with different names go on side by side.
  std::string id = {};
};

/// All network back ends of a machine, and the cards that use them. Outlives the cards.
///
/// Thread-safety: the main loop's thread.
class Network {
 public:
  struct Entry {
    std::string type;  ///< "user"
    std::unique_ptr<NetBackend> backend;
  };

  /// @param emit  sends events of the control protocol
  Network(EventLoop& loop, EmitEvent emit) : loop_(loop), emit_(std::move(emit)) {}
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  ~Network();

  /// How back ends of other processes find their sockets. Before Add().
  void set_chardevs(FindChardev find) { find_chardev_ = std::move(find); }
  /// Makes a back end. @return an error for an id there is already, or the back end's own
  Status Add(const NetdevConfig& config);
  /// Takes over one that somebody else made.
  Status Add(std::string type, std::unique_ptr<NetBackend> backend);
  /// Takes it from its card and ends it. @return kNotFound
  Status Remove(std::string_view id);
  /// Null for an id nobody made.
  NetBackend* Find(std::string_view id) const noexcept;
  /// The back end `-netdev user` of this id, or without an id the first there is.
  Result<UserBackend*> FindUser(std::string_view id) const;
  const std::vector<Entry>& backends() const noexcept { return backends_; }

  /// A card comes and goes. A back end has one card.
  Status AddNic(Nic& nic);
  void RemoveNic(Nic& nic) noexcept;
  /// The card of this name, or the one behind the back end of this id; null without.
  Nic* FindNic(std::string_view name) const noexcept;
  const std::vector<Nic*>& nics() const noexcept { return nics_; }
  /// The card of a back end, or null.
  Nic* NicOf(const NetBackend& backend) const noexcept;
  /// The first of QEMU's addresses, 52:54:00:12:34:56 and on, that no card has.
  MacAddress NextMac() const noexcept;
  /// A name for a card without id: "virtio-net-pci.0".
  std::string NextName(std::string_view model);
  /// Lets cards make themselves known to the switches around: by their driver's help, and by a
  /// frame in their name. Ends an announcement of the same `id` that is under way; with no rounds
  /// that is all it does.
  /// @return kInvalidArgument for times out of QEMU's ranges
  Status Announce(AnnounceTimes times);
  /// Tells clients of the control protocol, if there are any.
  void Emit(std::string_view name, const nlohmann::json& data) const {
    if (emit_) emit_(name, data);
  }

  /// What `info network` prints.
  std::string Describe() const;

 private:
  struct Announcement {
    AnnounceTimes times;
    EventLoop::TimerId timer = 0;
  };
  void AnnounceOnce(const AnnounceTimes& times) const;
  void NextAnnouncement(const std::string& id, std::int64_t round);
  std::string Line(const Nic& nic) const;
  std::string Line(const Entry& entry) const;

  EventLoop& loop_;
  Result<std::unique_ptr<NetBackend>> MakeVhostUser(const std::string& id,
                                                    const VhostUserConfig& config);

  const EmitEvent emit_;
  FindChardev find_chardev_;
  std::vector<Entry> backends_;
  std::vector<Nic*> nics_;
  std::map<std::string, Announcement> announcements_;  // under way, by id
  std::vector<std::string> models_;                    // of the names given so far
};

}  // namespace holdfast::devices::net
