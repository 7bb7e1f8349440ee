// SPDX-License-Identifier: Apache-2.0
#include "migration/tls_channel.h"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/thread_annotations.h"

namespace holdfast::migration {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kRecord = 16384;        // most plain text in a record of TLS
constexpr std::size_t kReadAtOnce = 65536;    // bytes from the inner channel
constexpr std::size_t kWriteAtOnce = 262144;  // bytes encrypted before they are sent

struct FreeSsl {
  void operator()(SSL* ssl) const noexcept { ::SSL_free(ssl); }
};

// TLS over another channel. OpenSSL works on memory only, under a lock that nobody holds while he
// waits: so one thread can read while another writes. What reading makes it say (the answer to a
// change of key) goes out with the next write.
class TlsChannel final : public Channel {
 public:
  TlsChannel(std::unique_ptr<Channel> inner, const TlsOptions& options, SSL* ssl)
      : inner_(std::move(inner)),
        credentials_(options.credentials),
        rekey_bytes_(options.rekey_bytes),
        ssl_(ssl),
        in_(::BIO_new(::BIO_s_mem())),
        out_(::BIO_new(::BIO_s_mem())),
        received_(kReadAtOnce) {
    ::SSL_set_bio(ssl_.get(), in_, out_);  // which frees them
  }

  /// @param timeout  for all of it
  Status Handshake(milliseconds timeout) HF_EXCLUDES(mutex_);

  Result<std::size_t> ReadSome(std::span<std::byte> data) override HF_EXCLUDES(mutex_);
  Result<bool> WaitReadable(milliseconds timeout) override HF_EXCLUDES(mutex_);
  using Channel::WriteAll;
  Status WriteAll(std::span<const Bytes> parts) override HF_EXCLUDES(mutex_);
  void Shutdown() noexcept override { inner_->Shutdown(); }
  void SetStallTimeout(milliseconds timeout) override { inner_->SetStallTimeout(timeout); }
  const std::string& peer() const noexcept override { return inner_->peer(); }
  int fd() const noexcept override { return inner_->fd(); }
  bool encrypted() const noexcept override { return true; }

 private:
  // Encrypts, and sends once there is enough.
  Status Encrypt(Bytes data) HF_EXCLUDES(mutex_);
  Status Send() HF_EXCLUDES(mutex_);
  // Hands OpenSSL what the other side sends next.
  Status Receive() HF_EXCLUDES(mutex_);
  // Decrypts, or only looks. Zero: more must come.
  Result<std::size_t> Decrypt(std::span<std::byte> data, bool peek) HF_EXCLUDES(mutex_);
  Error HandshakeFailed() HF_REQUIRES(mutex_);
  Error Broken() const;

  const std::unique_ptr<Channel> inner_;
  const std::shared_ptr<const object::TlsContext> credentials_;
  const std::uint64_t rekey_bytes_;
  Mutex mutex_;
  const std::unique_ptr<SSL, FreeSsl> ssl_;  // guarded, as are its two ends
  BIO* const in_;
  BIO* const out_;
  std::vector<std::byte> received_;  // the reading thread's
  // The writing thread's:
  std::vector<std::byte> gathered_;  // small parts, up to a record
  std::vector<std::byte> sending_;
  std::size_t encrypted_ = 0;         // bytes that wait in out_, about
  std::uint64_t bytes_with_key_ = 0;  // written since the key changed
};

Error TlsChannel::Broken() const {
  return Error(Errc::kSystem,
               fmt::format("{}: TLS broke: {}", inner_->peer(), object::TakeTlsReason()), {},
               EPROTO);
}

Error TlsChannel::HandshakeFailed() {
  const std::string& who = inner_->peer();
  const long verified = ::SSL_get_verify_result(ssl_.get());
  if (verified != X509_V_OK && !credentials_->has_keys()) {
    ::ERR_clear_error();
    return Error(Errc::kPermission,
                 fmt::format("{}: the other side's certificate is not trusted: {}", who,
                             ::X509_verify_cert_error_string(verified)),
                 "Both sides need certificates of one CA; tls-hostname says which name the "
                 "server's has.");
  }
  constexpr std::array<int, 4> kNoTls = {SSL_R_WRONG_VERSION_NUMBER, SSL_R_PACKET_LENGTH_TOO_LONG,
                                         SSL_R_HTTP_REQUEST, SSL_R_UNEXPECTED_MESSAGE};
  const int reason = ERR_GET_REASON(::ERR_peek_error());
  if (std::ranges::find(kNoTls, reason) != kNoTls.end()) {
    ::ERR_clear_error();
    return Error(Errc::kMalformed, fmt::format("{}: the other side does not speak TLS 1.3", who),
                 "Set tls-creds on both sides, or on none.");
  }
  const std::string why = object::TakeTlsReason();
  return Error(Errc::kPermission, fmt::format("{}: the TLS handshake failed: {}", who, why),
               credentials_->has_keys()
                   ? "Both sides need the same line USER:KEY in keys.psk."
                   : "Both sides need tls-creds of the same kind, with certificates of one CA.");
}

Status TlsChannel::Handshake(milliseconds timeout) {
  // The stall timeout alone would let the other side come with a byte now and then.
  const Clock::time_point end = Clock::now() + timeout;
  inner_->SetStallTimeout(timeout);
  for (;;) {
    int error = SSL_ERROR_NONE;
    Status failed;
    {
      const MutexLock lock(mutex_);
      ::ERR_clear_error();
      const int done = ::SSL_do_handshake(ssl_.get());
      if (done != 1) error = ::SSL_get_error(ssl_.get(), done);
      if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ) failed = Fail(HandshakeFailed());
    }
    // Also what tells the other side why it failed.
    const Status sent = Send();
    HF_TRY_STATUS(std::move(failed));
    HF_TRY_STATUS(sent);
    if (error == SSL_ERROR_NONE) break;
    Status received = Receive();
    if (!received) return Fail(std::move(received).error().Wrap("during the TLS handshake"));
    if (Clock::now() < end) continue;
    return Fail(Error(Errc::kSystem,
                      fmt::format("{}: the TLS handshake takes too long", inner_->peer()), {},
                      ETIMEDOUT));
  }
  inner_->SetStallTimeout(milliseconds::zero());
  const MutexLock lock(mutex_);
  // A client whose key the server did not take would talk to anybody.
  if (credentials_->has_keys() && ::SSL_session_reused(ssl_.get()) != 1)
    return Fail(HandshakeFailed());
  return {};
}

Status TlsChannel::Receive() {
  HF_TRY(const std::size_t got, inner_->ReadSome(received_));
  const MutexLock lock(mutex_);
  if (::BIO_write(in_, received_.data(), static_cast<int>(got)) == static_cast<int>(got)) return {};
  return Fail(Broken());
}

Result<std::size_t> TlsChannel::Decrypt(std::span<std::byte> data, bool peek) {
  const MutexLock lock(mutex_);
  ::ERR_clear_error();
  std::size_t got = 0;
  const int done = peek ? ::SSL_peek_ex(ssl_.get(), data.data(), data.size(), &got)
                        : ::SSL_read_ex(ssl_.get(), data.data(), data.size(), &got);
  if (done == 1) return got;
  const int error = ::SSL_get_error(ssl_.get(), done);
  if (error == SSL_ERROR_WANT_READ) return std::size_t{0};
  if (error == SSL_ERROR_ZERO_RETURN) {
    return Fail(Error(Errc::kSystem,
                      fmt::format("{}: the other side closed the connection", inner_->peer()), {},
                      EPIPE));
  }
  return Fail(Broken());
}

Result<std::size_t> TlsChannel::ReadSome(std::span<std::byte> data) {
  for (;;) {
    HF_TRY(const std::size_t got, Decrypt(data, false));
    if (got > 0) return got;
    HF_TRY_STATUS(Receive());
  }
}

Result<bool> TlsChannel::WaitReadable(milliseconds timeout) {
  const Clock::time_point end = Clock::now() + timeout;
  for (;;) {
    std::byte one{};
    const Result<std::size_t> ready = Decrypt({&one, 1}, true);
    if (!ready || *ready > 0) return true;
    HF_TRY(const bool more,
           inner_->WaitReadable(std::chrono::ceil<milliseconds>(end - Clock::now())));
    if (!more) return false;
    if (!Receive()) return true;  // the next read says it again
  }
}

Status TlsChannel::Encrypt(Bytes data) {
  while (!data.empty()) {
    const Bytes now = data.first(std::min(data.size(), kWriteAtOnce));
    data = data.subspan(now.size());
    {
      const MutexLock lock(mutex_);
      ::ERR_clear_error();
      if (bytes_with_key_ >= rekey_bytes_) {
        if (::SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1) return Fail(Broken());
        bytes_with_key_ = 0;
      }
      std::size_t written = 0;
      if (::SSL_write_ex(ssl_.get(), now.data(), now.size(), &written) != 1 ||
          written != now.size())
        return Fail(Broken());
    }
    bytes_with_key_ += now.size();
    encrypted_ += now.size();
    if (encrypted_ >= kWriteAtOnce) HF_TRY_STATUS(Send());
  }
  return {};
}

Status TlsChannel::Send() {
  {
    const MutexLock lock(mutex_);
    sending_.resize(::BIO_ctrl_pending(out_));
    if (!sending_.empty()) ::BIO_read(out_, sending_.data(), static_cast<int>(sending_.size()));
  }
  encrypted_ = 0;
  return sending_.empty() ? Status{} : inner_->WriteAll(Bytes(sending_));
}

Status TlsChannel::WriteAll(std::span<const Bytes> parts) {
  // Pages one by one would be four times as many records.
  const auto encrypt_gathered = [this] {
    Status done = Encrypt(gathered_);
    gathered_.clear();
    return done;
  };
  for (Bytes part : parts) {
    while (!part.empty()) {
      if (gathered_.empty() && part.size() >= kRecord) {
        const Bytes whole = part.first(part.size() - part.size() % kRecord);
        part = part.subspan(whole.size());
        HF_TRY_STATUS(Encrypt(whole));
        continue;
      }
      const Bytes some = part.first(std::min(part.size(), kRecord - gathered_.size()));
      part = part.subspan(some.size());
      gathered_.insert(gathered_.end(), some.begin(), some.end());
      if (gathered_.size() == kRecord) HF_TRY_STATUS(encrypt_gathered());
    }
  }
  HF_TRY_STATUS(encrypt_gathered());
  return Send();
}

// Whose certificate a client expects.
Status ExpectHost(SSL* ssl, const TlsOptions& options) {
  if (options.hostname.empty()) {
    return Fail(Errc::kInvalidArgument, "No hostname available for TLS",
                "Set tls-hostname to the name in the server's certificate.");
  }
  const char* const name = options.hostname.c_str();
  // An address, or a name, which the server may want to know.
  if (::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(ssl), name) == 1) return {};
  // What SSL_set_tlsext_host_name stands for.
  if (::SSL_set1_host(ssl, name) == 1 &&
      ::SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                 const_cast<char*>(name)) == 1)
    return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("'{}' is no name that a certificate can have", options.hostname),
              "Set tls-hostname to the name in the server's certificate.");
}

}  // namespace

Result<std::unique_ptr<Channel>> WrapTls(std::unique_ptr<Channel> inner, const TlsOptions& options,
                                         const std::stop_token& cancel) {
  const object::TlsContext& credentials = *options.credentials;
  std::unique_ptr<SSL, FreeSsl> ssl(::SSL_new(credentials.get()));
  if (!ssl)
    return Fail(Errc::kSystem, fmt::format("cannot set TLS up: {}", object::TakeTlsReason()));
  if (credentials.endpoint() == object::TlsEndpoint::kServer) {
    ::SSL_set_accept_state(ssl.get());
  } else {
    ::SSL_set_connect_state(ssl.get());
    if (!credentials.has_keys() && credentials.verify_peer())
      HF_TRY_STATUS(ExpectHost(ssl.get(), options));
  }
  auto channel = std::make_unique<TlsChannel>(std::move(inner), options, ssl.release());
  {
    const std::stop_callback stop(cancel, [&channel] { channel->Shutdown(); });
    HF_TRY_STATUS(channel->Handshake(options.timeout));
  }
  return std::unique_ptr<Channel>(std::move(channel));
}

}  // namespace holdfast::migration
