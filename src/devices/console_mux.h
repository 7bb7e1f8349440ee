// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_annotations.h"
#include "devices/chardev.h"

namespace holdfast::devices {

/// Shares one chardev (`mon:stdio`) between a serial port and the monitor prompt, as QEMU's
/// multiplexer does. Output of both is always written; input goes to the one in focus, first the
/// serial port. Ctrl-a starts a command: h help, x end, c change focus, b break, t timestamps,
/// Ctrl-a a Ctrl-a. Each front end is a Chardev of its own.
///
/// Type-ahead is buffered here, so that Ctrl-a x works while the guest reads nothing.
///
/// Thread-safety: as Chardev. The hooks run on the main loop's thread.
class ConsoleMux {
 public:
  enum class Focus : std::uint8_t { kSerial, kMonitor };
  struct Hooks {
    std::function<void()> quit;                // Ctrl-a x
    std::function<void()> send_break;          // Ctrl-a b with the serial port in focus
    std::function<void(Focus)> focus_changed;  // Ctrl-a c: the monitor prints its prompt
  };
  using Clock = std::chrono::steady_clock;
  static constexpr char kEscape = 0x01;  // Ctrl-a
  static constexpr std::size_t kTypeAhead = 4096;

  /// `backend` outlives the mux, the mux its front ends' users.
  ConsoleMux(Chardev& backend, Hooks hooks);
  ConsoleMux(const ConsoleMux&) = delete;
  ConsoleMux& operator=(const ConsoleMux&) = delete;
  ~ConsoleMux();

  Chardev& serial() { return serial_; }
  Chardev& monitor() { return monitor_; }
  Focus focus() const { return focus_; }

 private:
  class FrontEnd final : public Chardev {
   public:
    explicit FrontEnd(ConsoleMux& mux) : mux_(mux) {}
    std::size_t Write(std::span<const std::byte> data) noexcept override;
    void SetReceiver(Receiver receiver) override;
    void SetWritable(WritableCallback writable) override { writable_ = std::move(writable); }
    void ReceiverReady() noexcept override { mux_.backend_.ReceiverReady(); }
    void Flush() noexcept override { mux_.backend_.Flush(); }
    std::string Describe() const override { return "mux"; }

    /// Passes type-ahead on as far as the user takes it.
    void Deliver();
    bool Full() const { return typed_.size() >= kTypeAhead; }
    void Type(std::byte byte) { typed_.push_back(byte); }
    void Writable() const;

   private:
    ConsoleMux& mux_;
    Receiver receiver_;
    WritableCallback writable_;
    std::vector<std::byte> typed_;
  };

  std::size_t OnInput(std::span<const std::byte> data);
  void DeliverAll();
  void OnCommand(char command);
  void Print(std::string_view text);
  std::size_t WriteOut(std::span<const std::byte> data) noexcept;
  bool WritePrefix() HF_REQUIRES(mutex_);
  FrontEnd& focused() { return focus_ == Focus::kSerial ? serial_ : monitor_; }

  Chardev& backend_;
  const Hooks hooks_;
  FrontEnd serial_{*this};
  FrontEnd monitor_{*this};
  // The loop thread's.
  Focus focus_ = Focus::kSerial;
  bool escaped_ = false;  // the last byte was Ctrl-a

  // Orders the output of the front ends (vCPU threads and the loop's); held while calling the
  // backend's Write.
  Mutex mutex_;
  bool timestamps_ HF_GUARDED_BY(mutex_) = false;
  Clock::time_point started_ HF_GUARDED_BY(mutex_);  // when timestamps were turned on
  bool line_start_ HF_GUARDED_BY(mutex_) = true;
  std::string prefix_ HF_GUARDED_BY(mutex_);  // of a timestamp: what the backend has not taken yet
};

}  // namespace holdfast::devices
