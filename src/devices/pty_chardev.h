// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "devices/fd_chardev.h"

namespace holdfast::devices {

/// `pty`: a new pseudo-terminal, whose slave people and programs open and close as they like.
/// Output while nobody has it open is dropped, as in QEMU.
class PtyChardev final : public FdChardev {
 public:
  static Result<std::unique_ptr<Chardev>> Create(EventLoop& loop);
  PtyChardev(const PtyChardev&) = delete;
  PtyChardev& operator=(const PtyChardev&) = delete;
  ~PtyChardev() override;

  /// "pty:/dev/pts/N".
  std::string Describe() const override { return "pty:" + slave_; }

 private:
  PtyChardev(EventLoop& loop, UniqueFd master, std::string slave);
  void OnInputEnd() override { OnHangup(); }
  void OnOutputError(int /*os_errno*/) override { OnHangup(); }
  void OnHangup();
  void LookForOpener();

  UniqueFd master_;
  const std::string slave_;
  std::optional<EventLoop::TimerId> timer_;  // while nobody has the slave open
};

}  // namespace holdfast::devices
