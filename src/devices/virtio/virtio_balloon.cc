// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_balloon.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include <holdfast/units.h>

namespace holdfast::devices::virtio {
namespace {

// Feature bits (5.5.3).
constexpr std::uint64_t kStatsQueue = 1 << 1;
constexpr std::uint64_t kDeflateOnOom = 1 << 2;
constexpr std::uint64_t kHinting = 1 << 3;
constexpr std::uint64_t kPagePoison = 1 << 4;
constexpr std::uint64_t kReporting = 1 << 5;

constexpr std::uint64_t kBalloonPage = 4096;  // whatever the guest's page size is
constexpr std::uint16_t kQueueSize = 128;
constexpr std::uint16_t kHintQueueSize = 1024;  // as QEMU: all of a guest's free memory at once
constexpr unsigned kFirstOptionalQueue = 2;

// The loop's thread is everybody's. A request names at most so many pages (what is behind is not
// looked at: drivers send 256 to 1024), and after so many requests others have their turn.
constexpr std::size_t kMostPages = 16384;
constexpr unsigned kRequestsAtOnce = 16;

constexpr std::chrono::seconds kChangePeriod{1};
constexpr std::size_t kStatSize = 10;  // a tag of 16 bits, a value of 64
constexpr std::uint64_t kMostInterval = 0xffffffff;

constexpr std::array<std::string_view, Balloon::kStats> kStatNames = {
    "stat-swap-in",      "stat-swap-out",     "stat-major-faults",     "stat-minor-faults",
    "stat-free-memory",  "stat-total-memory", "stat-available-memory", "stat-disk-caches",
    "stat-htlb-pgalloc", "stat-htlb-pgfail",  "stat-oom-kills",        "stat-alloc-stalls",
    "stat-async-scans",  "stat-direct-scans", "stat-async-reclaims",   "stat-direct-reclaims"};

}  // namespace

VirtioBalloon::VirtioBalloon(const DeviceThread& thread, std::string_view id,
                             MachineServices& services, const Config& config, Changed changed)
    : thread_(thread),
      id_(id),
      services_(services),
      config_(config),
      changed_(std::move(changed)),
      queue_sizes_(3, kQueueSize),
      told_(services.ram_size) {
  if (config.free_page_hint) queue_sizes_.push_back(kHintQueueSize);
  if (config.free_page_reporting) queue_sizes_.push_back(kQueueSize);
  services_.balloon = this;
}

VirtioBalloon::~VirtioBalloon() {
  thread_.Run([this] {
    Clear();
    if (telling_) loop().CancelTimer(*telling_);
    alive_.reset();
  });
  if (services_.balloon == this) services_.balloon = nullptr;
}

std::uint64_t VirtioBalloon::features() const noexcept {
  return kStatsQueue | (config_.free_page_hint ? kHinting : 0) |
         (config_.deflate_on_oom ? kDeflateOnOom : 0) | (config_.page_poison ? kPagePoison : 0) |
         (config_.free_page_reporting ? kReporting : 0);
}

std::span<const std::uint16_t> VirtioBalloon::queue_sizes() const noexcept {
  return queue_sizes_;
}

void VirtioBalloon::ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0});
  Layout layout;
  {
    const MutexLock lock(mutex_);
    layout = layout_;
  }
  layout.free_page_hint = hints_.command();
  const auto bytes = std::as_bytes(std::span(&layout, 1));
  if (offset >= bytes.size()) return;
  const auto part = bytes.subspan(offset, std::min(data.size(), bytes.size() - offset));
  std::ranges::copy(part, data.begin());
}

void VirtioBalloon::WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  std::uint32_t value = 0;
  if (data.size() != sizeof value) return;
  std::memcpy(&value, data.data(), sizeof value);
  bool changed = false;
  {
    const MutexLock lock(mutex_);
    if (offset == offsetof(Layout, actual)) changed = std::exchange(layout_.actual, value) != value;
    if (offset == offsetof(Layout, poison) && config_.page_poison) layout_.poison = value;
  }
  if (!changed || change_posted_.exchange(true)) return;
  loop().Post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    change_posted_ = false;
    TellChange();
  });
}

Status VirtioBalloon::Activate(Transport& transport) {
  transport_ = &transport;
  ++activation_;
  StartPolling();
  if (transport.restored() && transport.has(kHinting)) {
    // Whoever asked for hints is not here: the guest may use its pages again.
    hints_.Forget();
    TellConfig();
  }
  return {};
}

// The driver's buffer for statistics goes back: it is asked anew when the time comes.
void VirtioBalloon::SetRunning(bool running) noexcept {
  Transport* const transport = transport_;
  if (running || transport == nullptr || !stats_buffer_) return;
  transport->queue(kFirstOptionalQueue).Requeue(*std::exchange(stats_buffer_, std::nullopt));
}

void VirtioBalloon::VisitState(state::Fields& fields) {
  Layout layout;
  GuestStats stats;
  {
    const MutexLock lock(mutex_);
    layout = layout_;
    stats = stats_;
  }
  fields.Value("pages", layout.pages);
  fields.Value("actual", layout.actual);
  fields.Value("poison", layout.poison);
  fields.Value("stats-time", stats.last_update);
  for (auto& value : stats.values) {
    bool known = value.has_value();
    std::uint64_t number = value.value_or(0);
    fields.Value("stat-known", known);
    fields.Value("stat", number);
    value = known ? std::optional(number) : std::nullopt;
  }
  if (!fields.loading() || !fields.ok()) return;
  {
    const MutexLock lock(mutex_);
    layout_.pages = layout.pages;
    layout_.actual = layout.actual;
    layout_.poison = layout.poison;
    stats_ = stats;
  }
  TellChange();
}

void VirtioBalloon::Clear() noexcept {
  transport_ = nullptr;
  ++activation_;
  stats_buffer_.reset();
  if (polling_) loop().CancelTimer(*std::exchange(polling_, std::nullopt));
  hints_.Reset();
  const MutexLock lock(mutex_);
  stats_ = {};
  // A driver that starts anew has all of its memory.
  layout_.actual = 0;
  layout_.poison = 0;
}

void VirtioBalloon::Reset() noexcept {
  Clear();
  TellChange();
}

VirtioBalloon::Role VirtioBalloon::RoleOf(unsigned index) const noexcept {
  if (index < kFirstOptionalQueue) return index == 0 ? Role::kInflate : Role::kDeflate;
  // Queues of features that were not agreed on do not count: that is how drivers number them.
  unsigned next = kFirstOptionalQueue;
  const Transport& transport = *transport_;
  if (transport.has(kStatsQueue) && index == next++) return Role::kStats;
  if (transport.has(kHinting) && index == next++) return Role::kHint;
  if (transport.has(kReporting) && index == next++) return Role::kReport;
  return Role::kNone;
}

void VirtioBalloon::HandleQueue(unsigned index) {
  if (transport_ == nullptr) return;
  const Role role = RoleOf(index);
  if (role == Role::kNone || !ServeSome(index, role)) return;
  loop().Post([this, index, activation = activation_, alive = std::weak_ptr(alive_)] {
    if (!alive.expired() && activation == activation_) HandleQueue(index);
  });
}

bool VirtioBalloon::ServeSome(unsigned index, Role role) {
  Transport& transport = *transport_;
  DeviceQueue& queue = transport.queue(index);
  for (unsigned served = 0; served < kRequestsAtOnce; ++served) {
    std::optional<Chain> chain = queue.Pop();
    if (!chain) return false;
    if (role == Role::kStats) {
      TakeStats(*std::move(chain));
      continue;
    }
    if (role == Role::kInflate) Inflate(*chain);
    if (role == Role::kReport) Report(*chain);
    if (role == Role::kHint) {
      if (auto taken = hints_.Take(*chain, transport.memory()); !taken) {
        transport.NeedsReset(taken.error());
        return false;
      }
    }
    queue.Complete(*chain, 0);
  }
  return true;
}

void VirtioBalloon::Inflate(const Chain& chain) {
  std::vector<std::uint32_t> pages(
      std::min<std::uint64_t>(chain.readable.size() / sizeof(std::uint32_t), kMostPages));
  chain.readable.CopyOut(0, std::as_writable_bytes(std::span(pages)));
  // Neighbours go together: one hole costs the same as one page's.
  std::sort(pages.begin(), pages.end());
  for (std::size_t i = 0; i < pages.size();) {
    std::uint64_t count = 1;
    std::size_t next = i + 1;
    while (next < pages.size() && pages[next] - std::uint64_t{pages[i]} <= count) {
      count = pages[next++] - std::uint64_t{pages[i]} + 1;
    }
    const GuestAddress start(pages[i] * kBalloonPage);
    // A page that is no RAM is the guest's mistake; one of memory with huge pages stays.
    (void)transport_.load()->memory().Discard(start, count * kBalloonPage);
    i = next;
  }
}

void VirtioBalloon::Report(const Chain& chain) {
  // The guest expects to find its pattern there, not zeroes (5.5.6.7).
  if (poison() != 0) return;
  (void)transport_.load()->memory().Discard(chain.writable);
}

// ---- Statistics ---------------------------------------------------------------------------------

void VirtioBalloon::TakeStats(Chain chain) {
  // The driver has one buffer and sends it when it got it back; another one would be its mistake.
  if (stats_buffer_) transport_.load()->queue(kFirstOptionalQueue).Complete(*stats_buffer_, 0);
  GuestStats stats = this->stats();
  for (std::size_t i = 0; i < kStats; ++i) {
    std::array<std::byte, kStatSize> entry{};
    if (chain.readable.CopyOut(i * kStatSize, entry) != entry.size()) break;
    std::uint16_t tag = 0;
    std::uint64_t value = 0;
    std::memcpy(&tag, entry.data(), sizeof tag);
    std::memcpy(&value, entry.data() + sizeof tag, sizeof value);
    if (tag < kStats) stats.values[tag] = value;
  }
  stats.last_update =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(
                                     std::chrono::system_clock::now().time_since_epoch())
                                     .count());
  stats_buffer_ = std::move(chain);
  const MutexLock lock(mutex_);
  stats_ = stats;
}

void VirtioBalloon::AskForStats() {
  if (Transport* const transport = transport_; stats_buffer_ && transport != nullptr) {
    transport->queue(kFirstOptionalQueue).Complete(*stats_buffer_, 0);
    stats_buffer_.reset();
  }
}

void VirtioBalloon::StartPolling() {
  if (polling_) loop().CancelTimer(*std::exchange(polling_, std::nullopt));
  if (polling_seconds_ == 0 || transport_ == nullptr || !transport_.load()->has(kStatsQueue))
    return;
  polling_ = loop().AddTimer(
      EventLoop::Clock::now() + std::chrono::seconds(polling_seconds_.load()), [this] {
        polling_.reset();
        AskForStats();
        StartPolling();
      });
}

VirtioBalloon::GuestStats VirtioBalloon::stats() const {
  const MutexLock lock(mutex_);
  return stats_;
}

void VirtioBalloon::SetPollingInterval(std::uint64_t seconds) {
  polling_seconds_ = std::min(seconds, kMostInterval);
  thread_.Run([this] {
    // The first answer need not wait for a whole interval.
    if (polling_seconds_ != 0) AskForStats();
    StartPolling();
  });
}

// ---- Free page hinting
// ----------------------------------------------------------------------------

Status VirtioBalloon::StartFreePageHinting(FreePages free) {
  const Transport* const transport = transport_;
  if (transport == nullptr || !transport->has(kHinting)) {
    return Fail(Errc::kUnsupported,
                config_.free_page_hint ? "the guest's balloon driver gives no hints on free pages"
                                       : "the balloon gives no hints on free pages",
                "It must be made with free-page-hint=on, and the guest have its driver loaded.");
  }
  hints_.Start(std::move(free));
  TellConfig();
  return {};
}

void VirtioBalloon::StopFreePageHinting() {
  hints_.Stop();
  TellConfig();
}

void VirtioBalloon::FinishFreePageHinting() {
  hints_.Finish();
  TellConfig();
}

// ---- The size -----------------------------------------------------------------------------------

void VirtioBalloon::SetTarget(std::uint64_t bytes) {
  const std::uint64_t ram = services_.ram_size;
  const std::uint64_t pages = (ram - std::min(ram, bytes)) / kBalloonPage;
  {
    const MutexLock lock(mutex_);
    layout_.pages = static_cast<std::uint32_t>(std::min<std::uint64_t>(pages, UINT32_MAX));
  }
  TellConfig();
}

void VirtioBalloon::TellConfig() const noexcept {
  if (Transport* const transport = transport_) transport->ConfigChanged();
}

std::uint64_t VirtioBalloon::actual() const noexcept {
  const MutexLock lock(mutex_);
  return services_.ram_size - std::min(services_.ram_size, layout_.actual * kBalloonPage);
}

std::uint32_t VirtioBalloon::poison() const noexcept {
  const MutexLock lock(mutex_);
  return layout_.poison;
}

void VirtioBalloon::TellChange() {
  // A guest that inflates writes its size some hundred times a second.
  if (telling_ || actual() == told_) return;
  told_ = actual();
  if (changed_) changed_(told_);
  telling_ = loop().AddTimer(EventLoop::Clock::now() + kChangePeriod, [this] {
    telling_.reset();
    TellChange();
  });
}

}  // namespace holdfast::devices::virtio

namespace holdfast::devices {

std::string_view Balloon::StatName(std::size_t index) noexcept {
  return index < virtio::kStatNames.size() ? virtio::kStatNames[index] : std::string_view();
}

}  // namespace holdfast::devices
