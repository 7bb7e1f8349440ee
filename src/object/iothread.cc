// SPDX-License-Identifier: Apache-2.0
#include "object/iothread.h"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <limits>
#include <utility>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/thread_role.h"

namespace holdfast::object {
namespace {

template <auto Member>
Status Set(Object& object, const PropertyValue& value) {
  return SetField<Member>(static_cast<IoThread&>(object).settings(), value);
}
template <auto Member>
PropertyValue Get(const Object& object) {
  return GetField<Member>(static_cast<const IoThread&>(object).settings());
}
template <auto Member>
constexpr Property<Object> Number(std::string_view name, std::string_view default_text,
                                  std::string_view description) {
  Property<Object> property{};
  property.name = name;
  property.type = PropertyType::kUint;
  property.default_text = default_text;
  property.description = description;
  property.max = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  property.set = Set<Member>;
  property.get = Get<Member>;
  return property;
}

using Settings = IoThread::Settings;
constexpr Property<Object> kProperties[] = {
    Number<&Settings::poll_max_ns>("poll-max-ns", "32768", "accepted; this loop does not poll"),
    Number<&Settings::poll_grow>("poll-grow", "0", "accepted, as poll-max-ns"),
    Number<&Settings::poll_shrink>("poll-shrink", "0", "accepted, as poll-max-ns"),
    Number<&Settings::aio_max_batch>("aio-max-batch", "0", "accepted: batches are as they come"),
    Number<&Settings::thread_pool_min>("thread-pool-min", "0", "accepted: there is no pool"),
    Number<&Settings::thread_pool_max>("thread-pool-max", "64", "accepted: there is no pool"),
};

}  // namespace

constexpr ObjectType IoThread::kType = {
    .name = "iothread",
    .description = "a thread that devices work on",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<IoThread>(std::move(id));
    },
    .properties = kProperties,
    .qemu_only = {},
};

IoThread::IoThread(std::string id) : Object(std::move(id)) {}

IoThread::~IoThread() {
  if (!thread_.joinable()) return;
  loop_->Quit();
  thread_.join();
}

Status IoThread::CanDelete() const {
  if (users_ == 0) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("object '{}' is in use, can not be deleted", id()),
              "Remove the devices that work on it first.");
}

Result<EventLoop*> IoThread::Loop() {
  if (loop_ != nullptr) return loop_.get();
  HF_TRY(std::unique_ptr<EventLoop> loop, EventLoop::Create());
  loop->AddBeforeWait([] { ConfineThread(ThreadRole::kWorker); });
  loop_ = std::move(loop);
  thread_ = std::thread([this] {
    tid_ = ::gettid();
    tid_.notify_all();
    ConfineThread(ThreadRole::kWorker);
    if (Status status = loop_->Run(); !status) log::Error(status.error());
  });
  // QEMU's name; the kernel keeps 15 characters.
  ::pthread_setname_np(thread_.native_handle(), fmt::format("IO {}", id()).substr(0, 15).c_str());
  tid_.wait(0);
  return loop_.get();
}

}  // namespace holdfast::object
