// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>

namespace holdfast::apps {

/// From now on a system call that a sandbox filter traps ends the process: a sentence on standard
/// error names call and thread, the terminal gets its settings back, the exit status is 1.
Status InstallSandboxReport();

}  // namespace holdfast::apps
