// SPDX-License-Identifier: Apache-2.0
// A network card whose frames another process carries (vhost-user): it serves receive and transmit
// queues by itself; the control queue stays here. The link is up as long as the process is there.
#include "devices/net/vhost_user_backend.h"
#include "devices/virtio/virtio_net.h"

namespace holdfast::devices::virtio {

void VirtioNet::AgreeWithProcess() noexcept {
  net::VhostUserBackend* const process = Process();
  if (process == nullptr) return;
  constexpr std::uint64_t kNeedProcess =
      net::kNetMergeableBuffers | net::kNetMtu | net::kNetMultiQueue | net::kNetGuestAnnounce;
  features_ &= ~kNeedProcess | process->features();
  // There is no message for a driver's change of its mind.
  features_ &= ~std::uint64_t{net::kNetControlGuestOffloads};
  refused_ = process->refused_ring_features();
  process->SetOnChange([this] { OnProcessChange(); });
}

// All pairs that the driver has set up are handed over at once, and those in use enabled: a back
// end that is told of one pair after the other would start anew with each.
void VirtioNet::AttachToProcess(unsigned count) {
  active_pairs_ = count;
  net::VhostUserBackend& process = *Process();
  if (!running_ || !link()) return;
  if (!process.started()) {
    const unsigned pairs = transport_->has(net::kNetMultiQueue) ? most_pairs_ : 1;
    process.Start(*transport_, pairs, transport_->has(net::kNetMtu) ? config_.mtu : 0);
  }
  // It may go at any step, and then the pairs are detached.
  for (unsigned pair = 0; pair < most_pairs_ && process.started(); ++pair) {
    const bool used = pair < count;
    if (pairs_[pair].attached == used) continue;
    pairs_[pair].attached = used;
    process.Enable(pair, used);
  }
}

// It has gone, or has come back.
void VirtioNet::OnProcessChange() {
  TellStatus();
  if (transport_ == nullptr) return;
  if (transport_->has(net::kNetStatus)) transport_->ConfigChanged();
  if (link_) SetServedLink(backend_->available());
}

void VirtioNet::SetServedLink(bool up) {
  const unsigned pairs = active_pairs_;
  if (!up) {
    StandStill();
    return DropWaiting();
  }
  if (const Status started = AttachPairs(pairs); !started) {
    transport_->NeedsReset(started.error());
  }
}

}  // namespace holdfast::devices::virtio
