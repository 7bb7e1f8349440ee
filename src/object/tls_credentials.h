// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "object/object.h"

struct ssl_ctx_st;  // OpenSSL's

namespace holdfast::object {

enum class TlsEndpoint : std::uint8_t { kClient, kServer };

/// Keys that both sides of a connection know, by the names of their users.
using TlsKeys = std::map<std::string, std::vector<unsigned char>, std::less<>>;

/// Keys and certificates as they were when the object was made; nothing is read from files later.
///
/// Thread-safety: constant.
class TlsContext {
 public:
  struct Free {
    void operator()(ssl_ctx_st* context) const noexcept;
  };
  using Ptr = std::unique_ptr<ssl_ctx_st, Free>;

  /// An empty context that speaks TLS 1.3 only.
  static Result<Ptr> MakeEmpty(TlsEndpoint endpoint);

  /// With certificates.
  TlsContext(Ptr context, TlsEndpoint endpoint, bool verify_peer)
      : context_(std::move(context)), endpoint_(endpoint), verify_peer_(verify_peer) {}
  /// With keys in their place; a client has one.
  TlsContext(Ptr context, TlsEndpoint endpoint, TlsKeys keys);
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  /// Leaves no key behind in memory.
  ~TlsContext();

  ssl_ctx_st* get() const noexcept { return context_.get(); }
  TlsEndpoint endpoint() const noexcept { return endpoint_; }
  /// Whether the other side must show a certificate that the CA has signed.
  bool verify_peer() const noexcept { return verify_peer_; }
  /// Whether keys take the place of certificates.
  bool has_keys() const noexcept { return !keys_.empty(); }
  const TlsKeys& keys() const noexcept { return keys_; }

 private:
  Ptr context_;
  TlsEndpoint endpoint_;
  bool verify_peer_ = true;
  TlsKeys keys_;
};

/// What a connection is encrypted with.
///
/// Thread-safety: the main thread.
class TlsCredentials : public Object {
 public:
  using Object::Object;

  /// Loads everything from `dir`. @return an error that names the file
  Status Complete() override;
  /// Outlives the object with whoever uses it.
  const std::shared_ptr<const TlsContext>& context() const noexcept { return context_; }

  std::string dir;
  TlsEndpoint endpoint = TlsEndpoint::kClient;

 protected:
  /// The path of a file in `dir`, which exists and can be read. @return QEMU's words if not
  Result<std::string> PathOf(std::string_view file) const;
  /// An error that names this object, and why OpenSSL is not content.
  Error Wrong(std::string_view what) const;

 private:
  virtual Result<std::shared_ptr<const TlsContext>> Load() const = 0;
  /// Keys and certificates stay what they were when the object was made.
  Status MayChange(const PropertyInfo& property, const PropertyValue& value) const override;
  std::shared_ptr<const TlsContext> context_;
};

/// `tls-creds-x509`: certificates, in `dir`: ca-cert.pem, server-cert.pem and server-key.pem, or
/// client-cert.pem and client-key.pem, which a client need not have; perhaps ca-crl.pem.
class TlsCertificates final : public TlsCredentials {
 public:
  static const ObjectType kType;
  using TlsCredentials::TlsCredentials;
  const ObjectType& type() const noexcept override { return kType; }

  bool verify_peer = true;
  bool sanity_check = true;

 private:
  Result<std::shared_ptr<const TlsContext>> Load() const override;
  Status LoadAuthority(ssl_ctx_st* context) const;
  Status LoadOwn(ssl_ctx_st* context) const;
  Status CheckOwn(ssl_ctx_st* context) const;
};

/// `tls-creds-psk`: keys that both sides know, in `dir`/keys.psk: lines "USER:KEY", the key in
/// hexadecimal.
class TlsSharedKeys final : public TlsCredentials {
 public:
  static const ObjectType kType;
  using TlsCredentials::TlsCredentials;
  const ObjectType& type() const noexcept override { return kType; }

  std::string username = "qemu";  ///< client: whose key it uses

 private:
  Result<std::shared_ptr<const TlsContext>> Load() const override;
};

/// Reads the lines of a keys.psk. @return kMalformed with the number of the line
Result<TlsKeys> ParseTlsKeys(std::string_view text);

/// The credentials with this id, for this side of a connection. @return kNotFound, or
/// kInvalidArgument for another object or the other side, in QEMU's words
Result<std::shared_ptr<const TlsContext>> FindTlsCredentials(const ObjectStore& objects,
                                                             std::string_view id,
                                                             TlsEndpoint endpoint);

/// What OpenSSL has to say about the failure of this thread's last call; forgets it.
std::string TakeTlsReason();

}  // namespace holdfast::object
