// SPDX-License-Identifier: Apache-2.0
#include "devices/net/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <random>
#include <utility>

#include "devices/net/frame.h"
#include "devices/net/user_backend.h"
#include "devices/vhost_user/endpoint.h"

namespace holdfast::devices::net {
namespace {

constexpr MacAddress kFirstMac = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};

// A reverse ARP request in the card's name (RFC 903), which switches learn from.
void SendRarp(const Nic& nic) {
  constexpr std::size_t kSize = 60;
  constexpr std::array<std::uint8_t, 10> kHead = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
  std::array<std::uint8_t, kHeaderSize + kSize> packet{};
  const MacAddress mac = nic.mac();
  auto* at = std::fill_n(packet.begin() + kHeaderSize, mac.size(), std::uint8_t{0xff});
  at = std::copy(mac.begin(), mac.end(), at);
  at = std::copy(kHead.begin(), kHead.end(), at);
  at = std::copy(mac.begin(), mac.end(), at) + 4;
  std::copy(mac.begin(), mac.end(), at);
  const iovec piece = {packet.data(), packet.size()};
  // One that finds no room is lost; there are more rounds.
  static_cast<void>(nic.backend()->Send(0, {&piece, 1}));
}

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};

}  // namespace

std::string MacText(const MacAddress& mac) {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3],
                     mac[4], mac[5]);
}

MacAddress RandomMac() {
  std::random_device random;
  const std::uint32_t number = random();
  return {0x52,
          0x54,
          static_cast<std::uint8_t>(number >> 24),
          static_cast<std::uint8_t>(number >> 16),
          static_cast<std::uint8_t>(number >> 8),
          static_cast<std::uint8_t>(number)};
}

bool ReadMac(std::string_view text, MacAddress& mac) noexcept {
  if (text.size() != 17) return false;
  for (std::size_t i = 0; i < mac.size(); ++i) {
    const char* const begin = text.data() + 3 * i;
    const auto [rest, error] = std::from_chars(begin, begin + 2, mac.at(i), 16);
    if (error != std::errc{} || rest != begin + 2) return false;
    if (i + 1 < mac.size() && begin[2] != ':' && begin[2] != '-') return false;
  }
  return true;
}

Network::~Network() {
  for (const auto& [id, announcement] : announcements_) loop_.CancelTimer(announcement.timer);
  while (!nics_.empty()) {
    nics_.back()->DropBackend();
    nics_.pop_back();
  }
}

Status Network::Add(const NetdevConfig& config) {
  if (Find(config.id) != nullptr) {
    return Fail(Errc::kInvalidArgument, fmt::format("Duplicate ID '{}' for netdev", config.id),
                "Give each network back end an id of its own.");
  }
  const auto wrap = [](auto made) -> Result<std::unique_ptr<NetBackend>> {
    if (!made) return Fail(std::move(made).error());
    return *std::move(made);
  };
  HF_TRY(
      std::unique_ptr<NetBackend> backend,
      std::visit(
          Overloaded{[&](const UserConfig& user) {
                       return wrap(UserBackend::Create(loop_, config.id, user));
                     },
                     [&](const TapConfig& tap) { return wrap(TapBackend::Create(config.id, tap)); },
                     [&](const StreamConfig& stream) {
                       return wrap(StreamBackend::Create(loop_, config.id, stream, emit_));
                     },
                     [&](const DgramConfig& dgram) {
                       return wrap(DgramBackend::Create(config.id, dgram));
                     },
                     [&](const VhostUserConfig& other) { return MakeVhostUser(config.id, other); }},
          config.what));
  return Add(config.type, std::move(backend));
}

Result<std::unique_ptr<NetBackend>> Network::MakeVhostUser(const std::string& id,
                                                           const VhostUserConfig& config) {
  Chardev* const chardev = find_chardev_ ? find_chardev_(config.chardev) : nullptr;
  if (chardev == nullptr) {
    return Fail(Errc::kInvalidArgument, fmt::format("chardev \"{}\" not found", config.chardev),
                fmt::format("Make it with -chardev socket,id={},path=PATH.", config.chardev));
  }
  HF_TRY(vhost_user::Endpoint endpoint,
         vhost_user::TakeOver(*chardev, config.chardev, fmt::format("netdev '{}'", id)));
  HF_TRY(auto backend, VhostUserBackend::Create(loop_, id, config, std::move(endpoint), emit_));
  return backend;
}

Status Network::Add(std::string type, std::unique_ptr<NetBackend> backend) {
  if (Find(backend->id()) != nullptr) {
    return Fail(Errc::kInvalidArgument, fmt::format("Duplicate ID '{}' for netdev", backend->id()),
                "Give each network back end an id of its own.");
  }
  backends_.push_back({std::move(type), std::move(backend)});
  return {};
}

Status Network::Remove(std::string_view id) {
  const auto found = std::find_if(backends_.begin(), backends_.end(),
                                  [&](const Entry& entry) { return entry.backend->id() == id; });
  if (found == backends_.end()) {
    return Fail(Errc::kNotFound, fmt::format("Device '{}' not found", id),
                "'info network' lists the network back ends.");
  }
  if (Nic* const nic = NicOf(*found->backend); nic != nullptr) nic->DropBackend();
  backends_.erase(found);
  return {};
}

NetBackend* Network::Find(std::string_view id) const noexcept {
  for (const Entry& entry : backends_) {
    if (entry.backend->id() == id) return entry.backend.get();
  }
  return nullptr;
}

Result<UserBackend*> Network::FindUser(std::string_view id) const {
  for (const Entry& entry : backends_) {
    if (!id.empty() && entry.backend->id() != id) continue;
    if (auto* const user = dynamic_cast<UserBackend*>(entry.backend.get())) return user;
    if (!id.empty()) {
      return Fail(Errc::kInvalidArgument, "invalid parameter: not a user mode network backend",
                  "'info usernet' lists them.");
    }
  }
  if (id.empty()) {
    return Fail(Errc::kNotFound, "user mode network backend not in use", "It is -netdev user.");
  }
  return Fail(Errc::kNotFound, fmt::format("unrecognized netdev id '{}'", id),
              "'info network' lists them.");
}

Status Network::AddNic(Nic& nic) {
  if (nic.backend() != nullptr && NicOf(*nic.backend()) != nullptr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Property '{}.netdev' can't take value '{}', it's in use", nic.model(),
                            nic.backend()->id()),
                "Each network card needs a -netdev of its own.");
  }
  nics_.push_back(&nic);
  return {};
}

void Network::RemoveNic(Nic& nic) noexcept {
  std::erase(nics_, &nic);
}

Nic* Network::FindNic(std::string_view name) const noexcept {
  for (Nic* const nic : nics_) {
    if (nic->nic_name() == name) return nic;
  }
  const NetBackend* const backend = Find(name);
  return backend != nullptr ? NicOf(*backend) : nullptr;
}

Nic* Network::NicOf(const NetBackend& backend) const noexcept {
  for (Nic* const nic : nics_) {
    if (nic->backend() == &backend) return nic;
  }
  return nullptr;
}

MacAddress Network::NextMac() const noexcept {
  MacAddress mac = kFirstMac;
  const auto taken = [&] {
    return std::any_of(nics_.begin(), nics_.end(),
                       [&](const Nic* nic) { return nic->mac() == mac; });
  };
  // There are fewer cards than addresses.
  while (taken()) ++mac[5];
  return mac;
}

std::string Network::NextName(std::string_view model) {
  const auto number = std::count(models_.begin(), models_.end(), model);
  models_.emplace_back(model);
  return fmt::format("{}.{}", model, number);
}

Status Network::Announce(AnnounceTimes times) {
  constexpr std::chrono::milliseconds kLongest{100000};
  constexpr std::chrono::milliseconds kLargestStep{10000};
  constexpr std::int64_t kMostRounds = 1000;
  const auto within = [](auto value, auto least, auto most) {
    return value >= decltype(most){least} && value <= most;
  };
  if (!within(times.initial, 0, kLongest) || !within(times.longest, 0, kLongest) ||
      !within(times.step, 1, kLargestStep) || !within(times.rounds, 0, kMostRounds)) {
    return Fail(Errc::kInvalidArgument, "announce-self: a value is out of range",
                "initial and max are 0 to 100000, rounds is 0 to 1000, step 1 to 10000.");
  }
  if (const auto old = announcements_.find(times.id); old != announcements_.end()) {
    loop_.CancelTimer(old->second.timer);
    announcements_.erase(old);
  }
  if (times.rounds == 0) return {};
  AnnounceOnce(times);
  const std::string id = times.id;
  announcements_[id].times = std::move(times);
  NextAnnouncement(id, 1);
  return {};
}

void Network::AnnounceOnce(const AnnounceTimes& times) const {
  for (Nic* const nic : nics_) {
    const auto& only = times.cards;
    if (!only.empty() && std::find(only.begin(), only.end(), nic->nic_name()) == only.end()) {
      continue;
    }
    static_cast<void>(nic->Announce());
    if (nic->backend() != nullptr && nic->link()) SendRarp(*nic);
  }
}

// Lets round `round` (from 0) come in its time, or ends the announcement if there is none.
void Network::NextAnnouncement(const std::string& id, std::int64_t round) {
  Announcement& announcement = announcements_.at(id);
  const AnnounceTimes& times = announcement.times;
  if (round >= times.rounds) {
    announcements_.erase(id);
    return;
  }
  const auto wait = std::min(times.initial + times.step * (round - 1), times.longest);
  announcement.timer = loop_.AddTimer(EventLoop::Clock::now() + wait, [this, id, round] {
    AnnounceOnce(announcements_.at(id).times);
    NextAnnouncement(id, round + 1);
  });
}

std::string Network::Line(const Nic& nic) const {
  return fmt::format("{}: index=0,type=nic,model={},macaddr={}{}\n", nic.nic_name(), nic.model(),
                     MacText(nic.mac()), nic.link() ? "" : ",link=down");
}

std::string Network::Line(const Entry& entry) const {
  return fmt::format("{}: index=0,type={},{}\n", entry.backend->id(), entry.type,
                     entry.backend->Describe());
}

std::string Network::Describe() const {
  std::string text;
  for (const Nic* const nic : nics_) {
    text += Line(*nic);
    for (const Entry& entry : backends_) {
      if (nic->backend() == entry.backend.get()) text += " \\ " + Line(entry);
    }
  }
  for (const Entry& entry : backends_) {
    if (NicOf(*entry.backend) == nullptr) text += Line(entry);
  }
  return text;
}

}  // namespace holdfast::devices::net
