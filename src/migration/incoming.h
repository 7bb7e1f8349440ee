// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/page_bitmap.h>
#include <holdfast/unique_fd.h>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "migration/connection.h"
#include "migration/frames.h"
#include "migration/lazy_restore.h"
#include "migration/main_thread.h"
#include "migration/migration_info.h"
#include "migration/page_receiver.h"
#include "migration/peer_pages.h"
#include "migration/save_job.h"
#include "migration/wire.h"

namespace holdfast::migration {

/// A machine that comes from another monitor. Everything the peer says is checked against this
/// machine before it is used. The guest runs here from the moment in which the source says so, and
/// not before. Once it runs, lost connections do not end it: it goes on with the memory it has, and
/// waits for the source to come back.
///
/// Thread-safety: the main thread; Work() and what it calls are its own thread's.
class Incoming {
 public:
  struct Request {
    std::string uuid;  ///< -uuid, perhaps empty
    std::shared_ptr<const object::TlsContext> tls = nullptr;
    AddressServices services = {};
  };
  struct Events {
    std::function<void(MigrationStatus status)> status;  ///< a change
    /// Lets the guest run, unless the user said -S.
    std::function<Status()> arrived;
    /// It is over; may destroy the object.
    std::function<void(const Status& status)> done;
  };

  /// Listens. @return what is wrong with the address
  static Result<std::unique_ptr<Incoming>> Start(const Subject& subject, const Address& from,
                                                 Request request, Events events);
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;
  /// Breaks it off without a call of an event.
  ~Incoming();

  /// Lets go of the connections, of which nothing is lost.
  /// @return kInvalidArgument, in QEMU's words, for one that is not in post-copy
  Status Pause() HF_EXCLUDES(mutex_);
  /// Waits for the source at another address than before. @return kInvalidArgument, in QEMU's
  /// words, for one that is not paused; what is wrong with the address
  Status Recover(const Address& from) HF_EXCLUDES(mutex_);

  const Address& address() const noexcept { return address_; }
  MigrationInfo info() const HF_EXCLUDES(mutex_);

 private:
  struct Connection {
    explicit Connection(std::unique_ptr<Channel> to)
        : channel(std::move(to)), reader(*channel), writer(*channel) {}
    const std::unique_ptr<Channel> channel;
    Hello hello = {};
    FrameReader reader;  // of the thread that reads
    FrameWriter writer;
  };

  Incoming(const Subject& subject, Request request, Events events,
           std::unique_ptr<Listener> listener, UniqueFd wake);
  // On its thread.
  Status Work();
  Status Migrate();
  Result<Connection*> Next(std::chrono::milliseconds patience);
  Result<Connection*> Greet(std::unique_ptr<Channel> channel);
  bool Fits(const Hello& hello) const;
  void TakeListener() HF_EXCLUDES(mutex_);
  Status Begin();
  Status OpenChannels();
  Result<std::vector<state::SavedSection>> Receive();
  Status TakeMissing();
  Status TakeOver();
  Status AwaitMemory() HF_EXCLUDES(mutex_);
  void LetGo() HF_EXCLUDES(mutex_);
  Status TakeUpAgain();
  Status WhyNoConnection() const HF_EXCLUDES(mutex_);
  Status Control(FrameType type, std::chrono::milliseconds patience) HF_EXCLUDES(mutex_);
  Status StartThread(void (Incoming::*work)(Connection&), Connection& connection);
  void EndThreads();
  // On threads of their own.
  void TakePasses(Connection& connection);
  void TakeAnswers(Connection& connection);
  Status TakePage(Connection& connection, PageReceiver& receiver, const FrameHeader& header);
  Status TakeAnswer(Connection& connection, PageReceiver& receiver);
  void Failed(const Error& error) HF_EXCLUDES(mutex_);
  void Lost(const FrameWriter& writer, const Error& error) HF_EXCLUDES(mutex_);
  // On the main thread.
  Status Check() const;
  Status Load(std::span<const state::SavedSection> sections);
  Status StartPopulation();
  Status TakeDisks();
  Status RunGuest();
  void Finished(const Status& status);
  // On any.
  void SetStatus(MigrationStatus status);
  void ShutChannels() noexcept HF_EXCLUDES(mutex_);
  std::shared_ptr<Connection> main_connection() HF_EXCLUDES(mutex_);

  const Subject subject_;
  const Request request_;
  const Events events_;
  MainThread main_;
  std::stop_source stop_;
  const UniqueFd wake_;                     // eventfd: the wait for a connection has to look up
  std::unique_ptr<Listener> listener_;      // the thread's
  Address address_;                         // the main thread's
  std::vector<std::uint64_t> block_sizes_;  // constant

  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  // The thread's to change; everybody may shut them down. The main one first. Whoever asks for
  // memory shares it.
  std::vector<std::shared_ptr<Connection>> connections_ HF_GUARDED_BY(mutex_);
  std::unique_ptr<Listener> next_listener_ HF_GUARDED_BY(mutex_);  // to take the other one's place
  std::vector<FrameType> controls_ HF_GUARDED_BY(mutex_);          // from the main connection
  std::optional<Error> error_ HF_GUARDED_BY(mutex_);  // the first one of a connection's thread
  std::optional<Error> why_paused_ HF_GUARDED_BY(mutex_);
  bool complete_ HF_GUARDED_BY(mutex_) = false;  // all memory is there
  bool ended_ HF_GUARDED_BY(mutex_) = false;     // connections that end are as they should be

  // The thread's; the main thread's while it runs something for it.
  MigrationId id_{};
  Connection* connection_ = nullptr;  // the main one
  Connection* urgent_ = nullptr;      // if there is one
  MigrationConfig config_;
  DirtyPages missing_;
  bool postcopy_ = false;
  std::atomic<bool> memory_sent_ = false;  // all passes are over
  bool disks_taken_ = false;
  bool runs_ = false;
  std::unique_ptr<PassBarrier> barrier_;
  std::vector<std::thread> threads_;
  PeerPages* peer_ = nullptr;  // the population's

  std::unique_ptr<LazyRestore> population_;  // the main thread's
  std::atomic<MigrationStatus> status_ = MigrationStatus::kSetup;
  std::thread thread_;
};

}  // namespace holdfast::migration
