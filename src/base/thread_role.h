// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace holdfast {

/// What a thread is for, and so what it may be allowed to do.
enum class ThreadRole : std::uint8_t {
  kMain,    ///< the main loop: everything that is built, opened and asked for
  kVcpu,    ///< runs guest code
  kWorker,  ///< serves devices: an I/O thread's loop
};

/// What confines a thread; ends the process where it cannot. Null: nothing does.
using ThreadConfiner = void (*)(ThreadRole role) noexcept;

/// Sets what ConfineThread() calls from now on, in threads that it has not confined yet.
/// Thread-safety: once, while no thread is inside ConfineThread() that should be confined.
void SetThreadConfiner(ThreadConfiner confiner) noexcept;

/// For a thread of a role to call whenever it starts on new work: the first call after
/// SetThreadConfiner() confines it for good, all others cost a load. Nothing is confined as long
/// as nobody has set a confiner. Any thread.
void ConfineThread(ThreadRole role) noexcept;

/// Whether ConfineThread() has confined the calling thread: threads that it makes are confined as
/// it is, and can be no further.
bool IsThreadConfined() noexcept;
/// For a thread whose maker IsThreadConfined(): ConfineThread() has nothing to do in it.
void InheritConfinement() noexcept;

}  // namespace holdfast
