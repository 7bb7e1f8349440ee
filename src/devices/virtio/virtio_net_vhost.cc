// SPDX-License-Identifier: Apache-2.0
// A network card whose frames the kernel carries (vhost-net): it serves receive and transmit queues
// by itself; the control queue stays here.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <array>
#include <utility>

#include "base/event_loop.h"
#include "base/log.h"
#include "devices/net/vhost_user_backend.h"
#include "devices/vhost/kernel_vhost.h"
#include "devices/vhost/vhost_abi.h"
#include "devices/virtio/virtio_net.h"

namespace holdfast::devices::virtio {
namespace {

constexpr std::array<unsigned, 2> kQueuesOfPair = {0, 1};  // receive, transmit

}  // namespace

void VirtioNet::AgreeWithKernel() noexcept {
  const vhost::KernelVhost* const kernel = backend_ == nullptr ? nullptr : backend_->vhost(0);
  if (kernel == nullptr) return;
  kernel_ = true;
  refused_ = kernel->refused_ring_features();
  // Of what the driver is offered, the one thing that the kernel itself must know.
  if ((kernel->features() & net::kNetMergeableBuffers) == 0) {
    features_ &= ~net::kNetMergeableBuffers;
  }
}

Status VirtioNet::WatchForErrors() {
  if (kernel_error_.valid()) return {};
  UniqueFd error(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!error) return FailErrno("eventfd");
  HF_TRY_STATUS(loop_.AddFd(error.get(), EPOLLIN, [this](std::uint32_t) {
    eventfd_t count = 0;
    if (::eventfd_read(kernel_error_.get(), &count) != 0 || transport_ == nullptr) return;
    Broken("the kernel found a queue broken");
  }));
  kernel_error_ = std::move(error);
  return {};
}

Status VirtioNet::StartKernel(unsigned pair) {
  vhost::KernelVhost& kernel = *backend_->vhost(pair);
  HF_TRY_STATUS(WatchForErrors());
  HF_TRY_STATUS(kernel.SetFeatures(transport_->features()));
  HF_TRY_STATUS(kernel.SetMemory(transport_->memory()));
  for (const unsigned which : kQueuesOfPair) {
    HF_TRY_STATUS(kernel.TakeQueue(which, transport_->queue(2 * pair + which), transport_->memory(),
                                   kernel_error_.get()));
  }
  pairs_[pair].attached = true;
  const int socket = backend_->AttachKernel(pair);
  for (const unsigned which : kQueuesOfPair) {
    HF_TRY_STATUS(kernel.Call(vhost::abi::kNetSetBackend,
                              vhost::abi::VringFile{.index = which, .fd = socket},
                              "VHOST_NET_SET_BACKEND"));
    // Whatever the driver did before the kernel listened.
    (void)::eventfd_write(transport_->queue(2 * pair + which).kick_fd(), 1);
  }
  return {};
}

// After StopKernel(), or Stop() of the process: they are not to write the guest's memory before
// they have it again.
void VirtioNet::TakeMemoryBack() noexcept {
  if (backend_ == nullptr) return;
  if (Process() != nullptr) Process()->ForgetMemory();
  for (unsigned pair = 0; kernel_ && pair < most_pairs_; ++pair) {
    backend_->vhost(pair)->ForgetMemory();
  }
}

// Afterwards the queues are as if they had been served here.
void VirtioNet::StopKernel(unsigned pair) noexcept {
  const vhost::KernelVhost& kernel = *backend_->vhost(pair);
  for (const unsigned which : kQueuesOfPair) {
    const Status stopped =
        kernel.Call(vhost::abi::kNetSetBackend, vhost::abi::VringFile{.index = which, .fd = -1},
                    "VHOST_NET_SET_BACKEND");
    const Result<std::uint32_t> position = kernel.Position(which);
    if (!stopped || !position) {
      log::Warn((stopped ? position.error() : stopped.error()).ToString());
      continue;
    }
    DeviceQueue& queue = transport_->queue(2 * pair + which);
    queue.set_position(*position);
    queue.TakeKicks(false);
  }
}

}  // namespace holdfast::devices::virtio
