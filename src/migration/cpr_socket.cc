// SPDX-License-Identifier: Apache-2.0
#include "migration/cpr_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/fd_passing.h"

namespace holdfast::migration {
namespace {

// Longer than a machine takes to be built on a busy host.
constexpr timeval kPatience = {.tv_sec = 60, .tv_usec = 0};
constexpr std::size_t kFdsAtOnce = 64;
static_assert(kFdsAtOnce <= kMostPassedFds);
constexpr std::size_t kMostSentence = 4096;
constexpr std::byte kFds{'F'};
constexpr std::byte kGo{'G'};

struct Answer {
  CprAnswer answer;
  std::uint32_t size;  // of the sentence
};

tl::unexpected<Error> Lost(std::string_view doing, int error) {
  if (error == EAGAIN || error == EWOULDBLOCK) {
    return Fail(Errc::kSystem, fmt::format("{}: the other monitor was silent for a minute", doing));
  }
  return Fail(Error::FromErrno(std::string(doing), error));
}

Error Closed() {
  return {Errc::kSystem, "the other monitor closed the connection",
          "What it says on its standard error tells why."};
}

Status SetPatience(int fd) {
  if (::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience) != 0 ||
      ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof kPatience) != 0) {
    return FailErrno("setsockopt");
  }
  return {};
}

Result<sockaddr_un> Name(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof name.sun_path) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the socket's path '{}' is empty or longer than {} bytes", path,
                            sizeof name.sun_path - 1));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  return name;
}

const sockaddr* Generic(const sockaddr_un& name) {
  return reinterpret_cast<const sockaddr*>(&name);  // what the socket calls take
}

}  // namespace

// ---- CprOwner -----------------------------------------------------------------------------------

Result<CprOwner> CprOwner::Create() {
  UniqueFd fd(::memfd_create("holdfast-owner", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(kPageSize)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return FailErrno("memory that says whose the guest is");
  }
  return Map(std::move(fd));
}

// Without the seal the other side could take the page away under this one's eyes.
Result<CprOwner> CprOwner::Adopt(UniqueFd fd) {
  struct stat info{};
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstat(fd.get(), &info) != 0 ||
      info.st_size != static_cast<off_t>(kPageSize)) {
    return Fail(Errc::kMalformed, "the other monitor does not say whose the guest is");
  }
  return Map(std::move(fd));
}

Result<CprOwner> CprOwner::Map(UniqueFd fd) {
  HF_TRY(Mapping page, Mapping::MapFile(fd.get(), 0, kPageSize, PROT_READ | PROT_WRITE,
                                        "the word that says whose the guest is"));
  return CprOwner(std::move(fd), std::move(page));
}

bool CprOwner::Claim(Owner owner) const noexcept {
  auto& word = *reinterpret_cast<std::uint32_t*>(page_.data());  // a page is aligned for it
  std::uint32_t found = kUndecided;
  return std::atomic_ref(word).compare_exchange_strong(found, owner) || found == owner;
}

// ---- CprSocket ----------------------------------------------------------------------------------

Result<CprSocket> CprSocket::Connect(const std::string& path) {
  HF_TRY(const sockaddr_un name, Name(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return FailErrno("socket");
  HF_TRY_STATUS(SetPatience(fd.get()));
  if (::connect(fd.get(), Generic(name), sizeof name) != 0) {
    return Fail(Error::FromErrno(fmt::format("cannot connect to '{}'", path), errno)
                    .WithHint("Start the new monitor first; it waits there for the guest."));
  }
  return CprSocket(std::move(fd));
}

Result<CprSocket> CprSocket::Accept(const std::string& path) {
  HF_TRY(const sockaddr_un name, Name(path));
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener) return FailErrno("socket");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return FailErrno(fmt::format("cannot take the place of '{}'", path));
  }
  if (::bind(listener.get(), Generic(name), sizeof name) != 0 || ::listen(listener.get(), 1) != 0) {
    return FailErrno(fmt::format("cannot listen on '{}'", path));
  }
  int fd = -1;
  do {
    fd = ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  UniqueFd accepted(fd);
  if (!accepted) return FailErrno(fmt::format("waiting on '{}'", path));
  ::unlink(path.c_str());
  HF_TRY_STATUS(SetPatience(accepted.get()));
  return CprSocket(std::move(accepted));
}

Status CprSocket::Send(std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return Lost("talking to the other monitor", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  return {};
}

Status CprSocket::Receive(std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Lost("listening to the other monitor", errno);
    if (got == 0) return Fail(Closed());
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
  return {};
}

Status CprSocket::SendState(CprState state) {
  return Send(EncodeCprState(std::move(state)));
}

// Memory follows what has come, not what is announced.
Result<CprState> CprSocket::ReceiveState() {
  std::array<std::byte, CprHead::kSize> bytes{};
  HF_TRY_STATUS(Receive(bytes));
  HF_TRY(const CprHead head, DecodeCprHead(bytes));
  constexpr std::uint64_t kStep = 1ULL << 20;
  std::vector<std::byte> contents;
  while (contents.size() < head.size) {
    const std::size_t at = contents.size();
    contents.resize(at + std::min(kStep, head.size - at));
    HF_TRY_STATUS(Receive(std::span(contents).subspan(at)));
  }
  return DecodeCprState(head, contents);
}

Status CprSocket::SendFds(std::span<const KeptFd> fds) {
  while (!fds.empty()) {
    const std::span<const KeptFd> now = fds.first(std::min(fds.size(), kFdsAtOnce));
    std::array<int, kFdsAtOnce> numbers{};
    std::ranges::transform(now, numbers.begin(), &KeptFd::fd);
    const ssize_t sent = SendWithFds(socket_.get(), std::span(&kFds, 1),
                                     std::span(numbers).first(now.size()), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent != 1) return Lost("handing descriptors to the other monitor", errno);
    fds = fds.subspan(now.size());
  }
  return {};
}

Result<std::vector<UniqueFd>> CprSocket::ReceiveFds(std::size_t count) {
  std::vector<UniqueFd> all;
  while (all.size() < count) {
    const std::size_t expected = std::min(count - all.size(), kFdsAtOnce);
    std::byte mark{};
    WithFds got = ReceiveWithFds(socket_.get(), std::span(&mark, 1), expected, 0);
    if (got.size < 0 && errno == EINTR) continue;
    if (got.size < 0) return Lost("taking descriptors from the other monitor", errno);
    if (got.size == 0) return Fail(Closed());
    if (mark != kFds || got.fds.size() != expected || got.more_fds) {
      return Fail(Errc::kMalformed, "the other monitor hands over other descriptors than it named");
    }
    std::ranges::move(got.fds, std::back_inserter(all));
  }
  return all;
}

Status CprSocket::SendAnswer(CprAnswer answer, std::string_view sentence) {
  sentence = sentence.substr(0, kMostSentence);
  const Answer head{.answer = answer, .size = static_cast<std::uint32_t>(sentence.size())};
  HF_TRY_STATUS(Send(std::as_bytes(std::span(&head, 1))));
  return Send(std::as_bytes(std::span(sentence)));
}

Status CprSocket::ReceiveAnswer(CprAnswer expected) {
  Answer head{};
  HF_TRY_STATUS(Receive(std::as_writable_bytes(std::span(&head, 1))));
  if (head.size > kMostSentence || (head.answer != expected && head.answer != CprAnswer::kError)) {
    return Fail(Errc::kMalformed, "the other monitor answers what nobody asked");
  }
  std::string sentence(head.size, '\0');
  HF_TRY_STATUS(Receive(std::as_writable_bytes(std::span(sentence))));
  if (head.answer == expected) return {};
  // It goes to logs and terminals.
  std::ranges::replace_if(
      sentence, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }, ' ');
  return Fail(Errc::kSystem, fmt::format("the other monitor says: {}", sentence));
}

Status CprSocket::SendGo() {
  return Send(std::span(&kGo, 1));
}

Status CprSocket::ReceiveGo() {
  std::byte mark{};
  HF_TRY_STATUS(Receive(std::span(&mark, 1)));
  if (mark == kGo) return {};
  return Fail(Errc::kMalformed, "the other monitor says what nobody asked");
}

void CprSocket::WaitForClose() const noexcept {
  static_cast<void>(::shutdown(socket_.get(), SHUT_WR));
  std::byte ignored{};
  ssize_t got = 0;
  do {
    got = ::recv(socket_.get(), &ignored, 1, 0);
  } while (got > 0 || (got < 0 && errno == EINTR));
}

void CprSocket::Shutdown() const noexcept {
  static_cast<void>(::shutdown(socket_.get(), SHUT_RDWR));
}

}  // namespace holdfast::migration
