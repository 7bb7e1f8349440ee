// SPDX-License-Identifier: Apache-2.0
#include "devices/device_thread.h"

#include <fmt/format.h>

#include <future>
#include <memory>

#include "base/event_loop.h"
#include "devices/device_model.h"

namespace holdfast::devices {

Result<DeviceThread> DeviceThread::Find(const DeviceEnvironment& environment,
                                        std::string_view model, std::string_view id) {
  if (id.empty()) return DeviceThread(environment.loop);
  const object::ObjectStore* const objects = environment.backends.objects;
  auto* const thread =
      objects == nullptr ? nullptr : dynamic_cast<object::IoThread*>(objects->Find(id));
  if (thread == nullptr) {
    return Fail(Errc::kNotFound,
                fmt::format("Property '{}.iothread' can't find value '{}'", model, id),
                fmt::format("Make it with -object iothread,id={}.", id));
  }
  HF_TRY(EventLoop* const loop, thread->Loop());
  return DeviceThread(*loop, *thread);
}

void DeviceThread::Run(const std::function<void()>& work) const {
  if (thread_ == nullptr) return work();
  const auto done = std::make_shared<std::promise<void>>();
  loop_->Post([&work, done] {
    work();
    done->set_value();
  });
  done->get_future().wait();
}

}  // namespace holdfast::devices
