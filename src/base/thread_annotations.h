// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>
#include <shared_mutex>

// Clang's thread-safety attributes (-Wthread-safety); empty elsewhere.
#if defined(__clang__)
#define HF_THREAD_ATTR(x) __attribute__((x))
#else
#define HF_THREAD_ATTR(x)
#endif

#define HF_GUARDED_BY(x) HF_THREAD_ATTR(guarded_by(x))
#define HF_REQUIRES(...) HF_THREAD_ATTR(requires_capability(__VA_ARGS__))
#define HF_EXCLUDES(...) HF_THREAD_ATTR(locks_excluded(__VA_ARGS__))
#define HF_REQUIRES_SHARED(...) HF_THREAD_ATTR(requires_shared_capability(__VA_ARGS__))
#define HF_ACQUIRE_SHARED(...) HF_THREAD_ATTR(acquire_shared_capability(__VA_ARGS__))
#define HF_RELEASE_GENERIC(...) HF_THREAD_ATTR(release_generic_capability(__VA_ARGS__))
#define HF_ACQUIRE(...) HF_THREAD_ATTR(acquire_capability(__VA_ARGS__))
#define HF_RELEASE(...) HF_THREAD_ATTR(release_capability(__VA_ARGS__))

namespace holdfast {

/// std::mutex that clang's analysis understands.
class HF_THREAD_ATTR(capability("mutex")) Mutex {
 public:
  void lock() HF_ACQUIRE() { mutex_.lock(); }
  void unlock() HF_RELEASE() { mutex_.unlock(); }
  /// For std::condition_variable_any and the like.
  std::mutex& native() noexcept { return mutex_; }

 private:
  std::mutex mutex_;
};

/// Holds a Mutex for a scope.
class HF_THREAD_ATTR(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) HF_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() HF_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// std::shared_mutex that clang's analysis understands: many readers or one writer.
class HF_THREAD_ATTR(capability("mutex")) SharedMutex {
 public:
  void lock() HF_ACQUIRE() { mutex_.lock(); }
  void unlock() HF_RELEASE() { mutex_.unlock(); }
  void lock_shared() HF_ACQUIRE_SHARED() { mutex_.lock_shared(); }
  void unlock_shared() HF_RELEASE_GENERIC() { mutex_.unlock_shared(); }

 private:
  std::shared_mutex mutex_;
};

/// Holds a SharedMutex as a writer for a scope.
class HF_THREAD_ATTR(scoped_lockable) WriterLock {
 public:
  explicit WriterLock(SharedMutex& mutex) HF_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~WriterLock() HF_RELEASE() { mutex_.unlock(); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  SharedMutex& mutex_;
};

/// Holds a SharedMutex as a reader for a scope.
class HF_THREAD_ATTR(scoped_lockable) ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mutex) HF_ACQUIRE_SHARED(mutex) : mutex_(mutex) {
    mutex_.lock_shared();
  }
  ~ReaderLock() HF_RELEASE_GENERIC() { mutex_.unlock_shared(); }
  ReaderLock(const ReaderLock&) = delete;
  ReaderLock& operator=(const ReaderLock&) = delete;

 private:
  SharedMutex& mutex_;
};

}  // namespace holdfast
