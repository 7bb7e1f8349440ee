// SPDX-License-Identifier: Apache-2.0
#include "base/thread_role.h"

#include <atomic>

namespace holdfast {
namespace {

std::atomic<ThreadConfiner> g_confiner = nullptr;
thread_local bool t_confined = false;

}  // namespace

void SetThreadConfiner(ThreadConfiner confiner) noexcept {
  g_confiner.store(confiner, std::memory_order_release);
}

void ConfineThread(ThreadRole role) noexcept {
  if (t_confined) return;
  const ThreadConfiner confiner = g_confiner.load(std::memory_order_acquire);
  if (confiner == nullptr) return;
  t_confined = true;
  confiner(role);
}

bool IsThreadConfined() noexcept {
  return t_confined;
}

void InheritConfinement() noexcept {
  t_confined = true;
}

}  // namespace holdfast
