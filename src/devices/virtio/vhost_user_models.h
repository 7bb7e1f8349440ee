// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <holdfast/error.h>

#include "devices/device_model.h"
#include "devices/vhost_user/endpoint.h"
#include "devices/virtio/vhost_user_device.h"

namespace holdfast::devices::virtio {

/// The back end behind a `-chardev socket`. @return an error that names the property
Result<vhost_user::Endpoint> VhostUserEndpoint(const DeviceEnvironment& environment,
                                               std::string_view chardev, std::string_view model);

/// What a vhost-user-blk-pci device is made with.
struct VhostUserBlkConfig {
  std::uint64_t num_queues = 0;  ///< 0: as many as the back end serves, at most 16
  std::uint64_t queue_size = 128;
  bool config_wce = true;
};
/// A disk that the back end at `endpoint` serves; `memory` is the guest's.
Result<std::unique_ptr<VhostUserDevice>> MakeVhostUserBlk(EventLoop& loop,
                                                          const AddressSpace& memory,
                                                          vhost_user::Endpoint endpoint,
                                                          const VhostUserBlkConfig& config);

/// What a vhost-user-fs-pci device is made with.
struct VhostUserFsConfig {
  std::string tag;  ///< 1 to 36 bytes
  std::uint64_t num_request_queues = 1;
  std::uint64_t queue_size = 128;
};
/// A shared folder (virtio 1.2, 5.11).
Result<std::unique_ptr<VhostUserDevice>> MakeVhostUserFs(EventLoop& loop,
                                                         const AddressSpace& memory,
                                                         vhost_user::Endpoint endpoint,
                                                         const VhostUserFsConfig& config);

extern const DeviceModel kVhostUserBlkPci;
extern const DeviceModel kVhostUserFsPci;

}  // namespace holdfast::devices::virtio
