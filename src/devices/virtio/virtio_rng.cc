// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_rng.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "devices/virtio/virtio_pci.h"
#include "object/object.h"
#include "object/rng_object.h"

namespace holdfast::devices::virtio {
namespace {

// What one request gets at most: an answer may be shorter than the buffer (5.4.6.2), and a guest
// must not keep the loop's thread busy.
constexpr std::size_t kMostBytes = 64 * 1024;

}  // namespace

VirtioRng::VirtioRng(EventLoop& loop, UniqueFd source, const Config& config)
    : loop_(loop), source_(std::move(source)), config_(config), quota_(config.max_bytes) {}

VirtioRng::~VirtioRng() {
  Reset();
}

Status VirtioRng::Activate(Transport& transport) {
  transport_ = &transport;
  return {};
}

void VirtioRng::Reset() noexcept {
  transport_ = nullptr;
  if (timer_) loop_.CancelTimer(*timer_);
  timer_.reset();
  if (std::exchange(waiting_, false)) loop_.RemoveFd(source_.get());
  quota_ = config_.max_bytes;
}

void VirtioRng::HandleQueue(unsigned) {
  if (!waiting_) Serve();
}

void VirtioRng::Serve() {
  DeviceQueue& queue = transport_->queue(0);
  std::vector<std::byte> random;
  while (quota_ > 0) {
    std::optional<Chain> chain = queue.Pop();
    if (!chain) return;
    const std::size_t wanted =
        std::min<std::uint64_t>({chain->writable.size(), kMostBytes, quota_});
    random.resize(wanted);
    const ssize_t got = wanted == 0 ? 0 : ::read(source_.get(), random.data(), wanted);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      queue.Unpop(*std::move(chain));
      return WaitForSource();
    }
    if (got < 0 || (got == 0 && wanted != 0)) {
      const int error = got < 0 ? errno : ENODATA;
      return transport_->NeedsReset(Error::FromErrno("reading random numbers", error));
    }
    const auto count = static_cast<std::size_t>(got);
    chain->writable.CopyIn(0, std::span(random).first(count));
    quota_ -= count;
    queue.Complete(*chain, static_cast<std::uint32_t>(count));
    if (config_.max_bytes != INT64_MAX) WaitForPeriod();
  }
}

void VirtioRng::WaitForSource() {
  auto watched = loop_.AddFd(source_.get(), EPOLLIN, [this](std::uint32_t) {
    loop_.RemoveFd(source_.get());
    waiting_ = false;
    Serve();
  });
  if (!watched) return transport_->NeedsReset(watched.error());
  waiting_ = true;
}

void VirtioRng::WaitForPeriod() {
  if (timer_) return;
  timer_ = loop_.AddTimer(EventLoop::Clock::now() + config_.period, [this] {
    timer_.reset();
    quota_ = config_.max_bytes;
    if (!waiting_) Serve();
  });
}

// ---- The device model
// ----------------------------------------------------------------------------

namespace {

using object::Property;
using object::PropertyType;

struct Words {
  std::string rng;
  std::uint64_t max_bytes = INT64_MAX;
  std::uint64_t period = 1 << 16;
};

constexpr Property<Words> kProperties[] = {
    {{.name = "rng",
      .type = PropertyType::kString,
      .description = "id of an rng-builtin or rng-random object; none: the host kernel's numbers"},
     object::SetField<&Words::rng>},
    {{.name = "max-bytes",
      .type = PropertyType::kUint,
      .default_text = "no limit",
      .description = "how many bytes the guest gets in a period",
      .max = INT64_MAX},
     object::SetField<&Words::max_bytes>},
    {{.name = "period",
      .type = PropertyType::kUint,
      .default_text = "65536",
      .description = "length of a period in milliseconds",
      .max = UINT32_MAX},
     object::SetField<&Words::period>},
};

Result<Words> Parse(const object::KeyValues& values, TransportOptions& options) {
  HF_TRY(const object::KeyValues own, TakeTransportOptions(values, options));
  Words words;
  HF_TRY_STATUS(object::SetProperties<Words>(kProperties, {}, words, own));
  if (words.max_bytes == 0 || words.period == 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("'{}' parameter expects a positive integer",
                            words.period == 0 ? "period" : "max-bytes"),
                "Leave both out for no limit.");
  }
  return words;
}

Result<std::unique_ptr<pci::Function>> Make(const DeviceEnvironment& environment,
                                            std::string_view id, const object::KeyValues& values) {
  TransportOptions options;
  HF_TRY(const Words words, Parse(values, options));
  object::RngBuiltin builtin("");
  const object::RngObject* source = &builtin;
  if (!words.rng.empty()) {
    const object::ObjectStore* const objects = environment.backends.objects;
    source = objects == nullptr ? nullptr
                                : dynamic_cast<const object::RngObject*>(objects->Find(words.rng));
  }
  if (source == nullptr) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("Device 'virtio-rng-pci' can't find value '{}' of property 'rng'", words.rng),
        fmt::format("Make it with -object rng-random,id={}.", words.rng));
  }
  HF_TRY(UniqueFd fd, source->Open());
  const VirtioRng::Config config{.max_bytes = words.max_bytes,
                                 .period = std::chrono::milliseconds(words.period)};
  return MakeVirtioPci(environment, id, kVirtioRngPci.name, options,
                       std::make_unique<VirtioRng>(environment.loop, std::move(fd), config));
}

}  // namespace

constexpr DeviceModel kVirtioRngPci = {
    .name = "virtio-rng-pci",
    .description = "random numbers",
    .properties =
        [] { return WithTransportProperties({std::begin(kProperties), std::end(kProperties)}); },
    .check = [](const object::KeyValues& values) -> Status {
      TransportOptions options;
      HF_TRY_STATUS(Parse(values, options));
      return {};
    },
    .create = Make,
};

}  // namespace holdfast::devices::virtio
