// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/msix.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "devices/pci/config_regs.h"

namespace holdfast::devices::pci {
namespace {

// An eventfd may be a blocking one: looked at first.
void Drain(int event_fd) noexcept {
  pollfd ready{.fd = event_fd, .events = POLLIN, .revents = 0};
  std::uint64_t count = 0;
  if (::poll(&ready, 1, 0) == 1) (void)!::read(event_fd, &count, sizeof count);
}

}  // namespace

Msix::Msix(PciServices& services, unsigned vectors, const Place& place)
    : services_(services),
      place_(place),
      entries_(vectors),
      connected_(vectors),
      routes_(vectors) {}

bool Msix::Holds(unsigned bar, std::uint64_t offset, std::size_t size) const noexcept {
  if (bar != place_.bar) return false;
  const auto meets = [&](std::uint64_t start, std::uint64_t length) {
    return offset < start + length && start < offset + size;
  };
  const std::uint64_t vectors = routes_.size();
  return meets(place_.table, vectors * kMsixEntrySize) ||
         meets(place_.pending, (vectors + 63) / 64 * 8);
}

void Msix::Read(std::uint64_t offset, std::span<std::byte> data) noexcept {
  if ((data.size() != 4 && data.size() != 8) || offset % data.size() != 0) {
    std::ranges::fill(data, std::byte{0xff});
    return;
  }
  const MutexLock lock(mutex_);
  for (std::size_t done = 0; done < data.size(); done += 4) {
    const std::uint32_t word = ReadWord(offset + done);
    std::memcpy(data.data() + done, &word, sizeof word);
  }
}

void Msix::Write(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  if ((data.size() != 4 && data.size() != 8) || offset % data.size() != 0) return;
  const MutexLock lock(mutex_);
  for (std::size_t done = 0; done < data.size(); done += 4) {
    std::uint32_t word = 0;
    std::memcpy(&word, data.data() + done, sizeof word);
    WriteWord(offset + done, word);
  }
}

std::uint32_t Msix::ReadWord(std::uint64_t offset) noexcept {
  if (offset >= place_.table && offset - place_.table < entries_.size() * kMsixEntrySize) {
    const Entry& entry = entries_[(offset - place_.table) / kMsixEntrySize];
    switch ((offset - place_.table) % kMsixEntrySize) {
      case 0:
        return entry.address_low;
      case 4:
        return entry.address_high;
      case 8:
        return entry.data;
      default:
        return entry.control;
    }
  }
  if (offset < place_.pending) return 0xffffffff;
  std::uint32_t word = 0;
  const std::uint64_t first = (offset - place_.pending) * 8;
  for (unsigned bit = 0; bit < 32 && first + bit < routes_.size(); ++bit) {
    const auto& route = routes_[first + bit];
    if (route != nullptr && !connected_[first + bit] && route->pending()) word |= 1U << bit;
  }
  return word;
}

void Msix::WriteWord(std::uint64_t offset, std::uint32_t value) noexcept {
  if (offset < place_.table || offset - place_.table >= entries_.size() * kMsixEntrySize) return;
  const auto vector = static_cast<unsigned>((offset - place_.table) / kMsixEntrySize);
  Entry& entry = entries_[vector];
  switch ((offset - place_.table) % kMsixEntrySize) {
    case 0:
      entry.address_low = value & ~3U;
      break;
    case 4:
      entry.address_high = value;
      break;
    case 8:
      entry.data = value;
      break;
    default:
      entry.control = value & 1;
      break;
  }
  Update(vector);
}

bool Msix::Open(unsigned vector) const noexcept {
  return enabled_ && !masked_ && (entries_[vector].control & 1) == 0;
}

// Makes the way of `vector` what table and control say.
void Msix::Update(unsigned vector) noexcept {
  if (!Open(vector)) {
    if (connected_[vector]) (void)routes_[vector]->Connect(false);
    connected_[vector] = false;
    return;
  }
  const Entry& entry = entries_[vector];
  auto route = Route(vector);
  Status status;
  if (route) {
    status = (*route)->SetMessage(
        {.address = (std::uint64_t{entry.address_high} << 32) | entry.address_low,
         .data = entry.data});
    if (status && !connected_[vector]) {
      status = (*route)->Connect(true);
      connected_[vector] = status.has_value();
    }
  }
  if ((route && status) || told_) return;
  told_ = true;
  log::Error((route ? std::move(status).error() : std::move(route).error())
                 .Wrap(fmt::format("interrupt vector {} of a PCI device does not work", vector)));
}

Result<MsiRoute*> Msix::Route(unsigned vector) {
  if (routes_[vector] == nullptr) {
    HF_TRY(routes_[vector], services_.MakeMsiRoute());
  }
  return routes_[vector].get();
}

void Msix::Control(bool enabled, bool masked) noexcept {
  const MutexLock lock(mutex_);
  if (enabled == enabled_ && masked == masked_) return;
  enabled_ = enabled;
  masked_ = masked;
  for (unsigned i = 0; i < entries_.size(); ++i) Update(i);
}

bool Msix::enabled() const noexcept {
  const MutexLock lock(mutex_);
  return enabled_;
}

bool Msix::Trigger(unsigned vector) noexcept {
  const MutexLock lock(mutex_);
  if (!enabled_ || vector >= entries_.size()) return false;
  if (auto route = Route(vector)) (*route)->Trigger();
  return true;
}

Result<int> Msix::EventFd(unsigned vector) {
  const MutexLock lock(mutex_);
  if (vector >= entries_.size()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("there is no interrupt vector {}, only {}", vector, entries_.size()));
  }
  HF_TRY(const MsiRoute* route, Route(vector));
  return route->event_fd();
}

void Msix::Reset() noexcept {
  const MutexLock lock(mutex_);
  enabled_ = false;
  masked_ = false;
  for (unsigned i = 0; i < entries_.size(); ++i) {
    entries_[i] = Entry{};
    Update(i);
    if (routes_[i] != nullptr) Drain(routes_[i]->event_fd());
  }
}

void Msix::VisitState(state::Fields& fields) {
  const MutexLock lock(mutex_);
  std::vector<Saved> saved;
  for (unsigned i = 0; i < entries_.size() && !fields.loading(); ++i) {
    const bool pending = routes_[i] != nullptr && !connected_[i] && routes_[i]->pending();
    saved.push_back({entries_[i], pending});
  }
  fields.List("msix", saved, entries_.size(), [](state::Fields& each, Saved& one) {
    each.Struct("entry", one.entry);
    each.Value("pending", one.pending);
  });
  fields.Check(saved.size() == entries_.size(), "it has another number of MSI-X vectors");
  for (const Saved& one : saved) {
    fields.Check((one.entry.address_low & 3) == 0 && (one.entry.control & ~1U) == 0,
                 "bits are set in the MSI-X table that a guest cannot set");
  }
  if (!fields.loading() || !fields.ok()) return;
  for (unsigned i = 0; i < entries_.size(); ++i) {
    entries_[i] = saved[i].entry;
    if (!saved[i].pending) continue;
    if (auto route = Route(i)) (*route)->Trigger();
  }
}

}  // namespace holdfast::devices::pci
