// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "object/object.h"

struct ssl_ctx_st;  // OpenSSL's

namespace holdfast::object {

enum class TlsEndpoint : std::uint8_t { kClient, kServer };

/// Keys and certificates as they were when the object was made; nothing is read from files later.
///
/// Thread-safety: constant.
class TlsContext {
 public:
  using Key = std::vector<std::uint8_t>;
  struct FreeContext {
    void operator()(ssl_ctx_st* context) const noexcept;
  };
  using ContextPtr = std::unique_ptr<ssl_ctx_st, FreeContext>;

  TlsContext(ContextPtr context, TlsEndpoint endpoint, bool verify_peer)
      : context_(std::move(context)), endpoint_(endpoint), verify_peer_(verify_peer) {}
  /// With keys by the names of their users; a client has one.
  TlsContext(ContextPtr context, TlsEndpoint endpoint, std::map<std::string, Key> keys)
      : context_(std::move(context)), endpoint_(endpoint), keys_(std::move(keys)) {}
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  ~TlsContext();

  ssl_ctx_st* get() const noexcept { return context_.get(); }
  TlsEndpoint endpoint() const noexcept { return endpoint_; }
  /// Whether the other side must show a certificate that the CA has signed.
  bool verify_peer() const noexcept { return verify_peer_; }
  /// Whether keys that both sides know take the place of certificates.
  bool has_keys() const noexcept { return !keys_.empty(); }
  const std::map<std::string, Key>& keys() const noexcept { return keys_; }

 private:
  ContextPtr context_;
  TlsEndpoint endpoint_;
  bool verify_peer_ = true;
  std::map<std::string, Key> keys_;
};

/// `tls-creds-x509` and `tls-creds-psk`: what a connection is encrypted with.
///
/// Thread-safety: the main thread.
class TlsCredentials : public Object {
 public:
  using Object::Object;

  /// Loads everything from `dir`.
  Status Complete() override;
  /// Outlives the object with whoever uses it.
  const std::shared_ptr<const TlsContext>& context() const noexcept { return context_; }

  std::string dir;
  TlsEndpoint end = TlsEndpoint::kClient;

 private:
  virtual Result<std::shared_ptr<const TlsContext>> Load() const = 0;
  std::shared_ptr<const TlsContext> context_;
};

/// The credentials that `tls-creds` names, for this side. @return kNotFound; kInvalidArgument for
/// another object or the other endpoint, in QEMU's words
Result<std::shared_ptr<const TlsContext>> FindTlsCredentials(const ObjectStore& objects,
                                                             std::string_view id,
                                                             TlsEndpoint endpoint);

}  // namespace holdfast::object
