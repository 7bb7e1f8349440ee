// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <holdfast/unique_fd.h>

/// Back ends of others for tests: programs that the distribution packages.
namespace holdfast::devices::vhost_user {

inline constexpr const char* kStorageDaemon = "/usr/bin/qemu-storage-daemon";
inline constexpr const char* kVirtiofsd = "/usr/lib/qemu/virtiofsd";

/// A program that listens on a Unix socket. Ends with the object, and with the test.
class TestBackend {
 public:
  TestBackend(std::vector<std::string> command, std::string socket)
      : command_(std::move(command)), socket_(std::move(socket)) {}
  TestBackend(const TestBackend&) = delete;
  TestBackend& operator=(const TestBackend&) = delete;
  ~TestBackend() { Kill(); }

  /// Starts it and waits until it listens. @return whether it does
  bool Start() {
    ::unlink(socket_.c_str());
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      std::vector<char*> arguments;
      for (std::string& word : command_) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!Listens()) {
      if (::waitpid(pid_, nullptr, WNOHANG) != 0 || std::chrono::steady_clock::now() > end) {
        return false;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }

  /// kill -9, and gone when it returns.
  void Kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  // Whether somebody listens on the socket, by the kernel's list: the file is there a moment before
  // that, and trying to connect would take the one connection that some programs accept.
  bool Listens() const {
    std::ifstream list("/proc/net/unix");
    for (std::string line; std::getline(list, line);) {
      // Num RefCount Protocol Flags Type St Inode Path; 0x10000 is __SO_ACCEPTCON.
      std::istringstream words(line);
      std::string number, references, protocol, flags, type, state, inode, path;
      words >> number >> references >> protocol >> flags >> type >> state >> inode >> path;
      if (flags == "00010000" && path == socket_) return true;
    }
    return false;
  }

  std::vector<std::string> command_;
  std::string socket_;
  pid_t pid_ = -1;
};

/// The storage daemon with one image as a writable vhost-user-blk export.
inline std::vector<std::string> StorageDaemonCommand(const std::string& image,
                                                     const std::string& socket,
                                                     const std::string& format = "raw") {
  return {kStorageDaemon,
          "--blockdev",
          "driver=file,node-name=file0,filename=" + image,
          "--blockdev",
          "driver=" + format + ",node-name=disk0,file=file0",
          "--export",
          "vhost-user-blk,id=export0,node-name=disk0,writable=on,num-queues=2,addr.type=unix,"
          "addr.path=" +
              socket};
}

}  // namespace holdfast::devices::vhost_user
