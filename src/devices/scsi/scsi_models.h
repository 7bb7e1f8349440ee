// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/device_model.h"

namespace holdfast::devices::scsi {

extern const DeviceModel kScsiHd;
extern const DeviceModel kScsiCd;

}  // namespace holdfast::devices::scsi
