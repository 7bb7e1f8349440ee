// SPDX-License-Identifier: Apache-2.0
#include "devices/pty_chardev.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): posix_openpt and friends
#include <termios.h>

#include <array>
#include <chrono>
#include <utility>

#include "base/log.h"

namespace holdfast::devices {
namespace {

// Opening the slave is no event on the master, so one has to look.
constexpr std::chrono::milliseconds kLookInterval{200};

}  // namespace

PtyChardev::PtyChardev(EventLoop& loop, UniqueFd master, std::string slave)
    : FdChardev(loop), master_(std::move(master)), slave_(std::move(slave)) {}

PtyChardev::~PtyChardev() {
  Disconnect();
  if (timer_) loop().CancelTimer(*timer_);
}

Result<std::unique_ptr<Chardev>> PtyChardev::Create(EventLoop& loop) {
  UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!master) return FailErrno("cannot make a pty");
  std::array<char, 64> name{};
  if (::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0)
    return FailErrno("cannot make a pty");
  if (::ptsname_r(master.get(), name.data(), name.size()) != 0)
    return FailErrno("cannot find the pty's name");
  {
    // Raw, or the slave's echo would come back as input. Its settings last as long as the master.
    UniqueFd slave(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!slave) return FailErrno(fmt::format("cannot open '{}'", name.data()));
    termios settings{};
    if (::tcgetattr(slave.get(), &settings) != 0) return FailErrno("tcgetattr");
    ::cfmakeraw(&settings);
    if (::tcsetattr(slave.get(), TCSANOW, &settings) != 0) return FailErrno("tcsetattr");
    // Closing it leaves the master hung up, the sign that nobody is there.
  }
  std::unique_ptr<PtyChardev> chardev(new PtyChardev(loop, std::move(master), name.data()));
  HF_TRY_STATUS(chardev->Start());
  chardev->LookForOpener();
  return chardev;
}

void PtyChardev::OnHangup() {
  Disconnect();
  if (!timer_) {
    timer_ = loop().AddTimer(EventLoop::Clock::now() + kLookInterval, [this] { LookForOpener(); });
  }
}

void PtyChardev::LookForOpener() {
  timer_.reset();
  pollfd master{.fd = master_.get(), .events = POLLIN, .revents = 0};
  ::poll(&master, 1, 0);
  // With input left behind by somebody who has gone again, connect too: reading it ends in
  // OnHangup.
  if ((master.revents & POLLHUP) != 0 && (master.revents & POLLIN) == 0) {
    OnHangup();
    return;
  }
  if (const Status connected = Connect(master_.get(), master_.get()); !connected) {
    log::Warn(fmt::format("{}: {}", Describe(), connected.error().message()));
    OnHangup();
  }
}

}  // namespace holdfast::devices
