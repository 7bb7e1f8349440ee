// SPDX-License-Identifier: Apache-2.0
#include "object/tls_credentials.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <unistd.h>

#include <array>

namespace holdfast::object {
namespace {

constexpr std::string_view kEndpoints[] = {"client", "server"};

constexpr std::array<Property<Object>, 4> kCertificateProperties = {{
    {{.name = "dir", .description = "the folder of the certificates"},
     SetFieldOf<Object, &TlsCertificates::dir>,
     GetFieldOf<Object, &TlsCertificates::dir>},
    {{.name = "endpoint",
      .type = PropertyType::kEnum,
      .default_text = "client",
      .description = "which side of connections they are for",
      .choices = kEndpoints,
      .qom_type = "QCryptoTLSCredsEndpoint"},
     SetFieldOf<Object, &TlsCertificates::endpoint>,
     GetFieldOf<Object, &TlsCertificates::endpoint>},
    {{.name = "verify-peer",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "the other side must show a certificate that the CA has signed"},
     SetFieldOf<Object, &TlsCertificates::verify_peer>,
     GetFieldOf<Object, &TlsCertificates::verify_peer>},
    {{.name = "sanity-check",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "whether the own certificate must be one that others can accept"},
     SetFieldOf<Object, &TlsCertificates::sanity_check>,
     GetFieldOf<Object, &TlsCertificates::sanity_check>},
}};
constexpr std::string_view kCertificateQemuOnly[] = {"passwordid", "priority"};

// A key with a password would make OpenSSL ask the terminal for it.
int NoPassword(char*, int, int, void*) {
  return 0;
}

struct FreeStoreContext {
  void operator()(X509_STORE_CTX* context) const noexcept { ::X509_STORE_CTX_free(context); }
};

}  // namespace

std::string TakeTlsReason() {
  // The first of the queue is what went wrong, the others are who called whom.
  const unsigned long code = ::ERR_get_error();
  ::ERR_clear_error();
  const char* const reason = code == 0 ? nullptr : ::ERR_reason_error_string(code);
  return reason == nullptr ? "unknown reason" : reason;
}

void TlsContext::Free::operator()(ssl_ctx_st* context) const noexcept {
  ::SSL_CTX_free(context);
}

Result<TlsContext::Ptr> TlsContext::MakeEmpty(TlsEndpoint endpoint) {
  ::ERR_clear_error();
  Ptr context(::SSL_CTX_new(endpoint == TlsEndpoint::kServer ? ::TLS_server_method()
                                                             : ::TLS_client_method()));
  if (!context || ::SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) != 1)
    return Fail(Errc::kSystem, fmt::format("cannot set TLS up: {}", TakeTlsReason()));
  // Each connection stands for itself. Tickets would wait for a reader that a one-way stream lacks.
  ::SSL_CTX_set_num_tickets(context.get(), 0);
  ::SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  ::SSL_CTX_set_default_passwd_cb(context.get(), &NoPassword);
  return context;
}

Status TlsCredentials::Complete() {
  if (dir.empty()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("object '{}': the parameter 'dir' is missing", id()),
                "dir= names the folder that its files are in.");
  }
  HF_TRY(context_, Load());
  return {};
}

Status TlsCredentials::MayChange(const PropertyInfo& property, const PropertyValue&) const {
  return Fail(Errc::kInvalidArgument,
              fmt::format("Property '{}.{}' cannot be set after initialization", type().name,
                          property.name),
              "Make another object, and name that one in tls-creds.");
}

Result<std::string> TlsCredentials::PathOf(std::string_view file) const {
  std::string path = fmt::format("{}/{}", dir, file);
  if (::access(path.c_str(), R_OK) == 0) return path;
  return Fail(Error::FromErrno(fmt::format("Unable to access credentials {}", path), errno)
                  .WithHint(fmt::format("The folder of object '{}' needs this file.", id())));
}

Error TlsCredentials::Wrong(std::string_view what) const {
  return Error(Errc::kInvalidArgument,
               fmt::format("object '{}': {}: {}", id(), what, TakeTlsReason()));
}

constexpr ObjectType TlsCertificates::kType = {
    .name = "tls-creds-x509",
    .description = "certificates that connections are encrypted with",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<TlsCertificates>(std::move(id));
    },
    .properties = kCertificateProperties,
    .qemu_only = kCertificateQemuOnly,
};

Result<std::shared_ptr<const TlsContext>> TlsCertificates::Load() const {
  HF_TRY(TlsContext::Ptr context, TlsContext::MakeEmpty(endpoint));
  HF_TRY_STATUS(LoadAuthority(context.get()));
  HF_TRY_STATUS(LoadOwn(context.get()));
  int mode = SSL_VERIFY_NONE;
  if (verify_peer) mode = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  ::SSL_CTX_set_verify(context.get(), mode, nullptr);
  return std::make_shared<const TlsContext>(std::move(context), endpoint, verify_peer);
}

Status TlsCertificates::LoadAuthority(ssl_ctx_st* context) const {
  HF_TRY(const std::string authority, PathOf("ca-cert.pem"));
  if (::SSL_CTX_load_verify_file(context, authority.c_str()) != 1)
    return Fail(Wrong(fmt::format("cannot use '{}'", authority)));
  const auto revoked = PathOf("ca-crl.pem");
  if (!revoked && revoked.error().os_errno() == ENOENT) return {};
  if (!revoked) return Fail(revoked.error());
  X509_STORE* const store = ::SSL_CTX_get_cert_store(context);
  if (::X509_STORE_load_file(store, revoked->c_str()) != 1)
    return Fail(Wrong(fmt::format("cannot use '{}'", *revoked)));
  ::X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
  return {};
}

Status TlsCertificates::LoadOwn(ssl_ctx_st* context) const {
  const std::string_view who = kEndpoints[static_cast<std::size_t>(endpoint)];
  const auto certificate = PathOf(fmt::format("{}-cert.pem", who));
  // A client shows one only to a server that wants to see it.
  if (!certificate && endpoint == TlsEndpoint::kClient && certificate.error().os_errno() == ENOENT)
    return {};
  if (!certificate) return Fail(certificate.error());
  HF_TRY(const std::string key, PathOf(fmt::format("{}-key.pem", who)));
  if (::SSL_CTX_use_certificate_chain_file(context, certificate->c_str()) != 1)
    return Fail(Wrong(fmt::format("cannot use '{}'", *certificate)));
  if (::SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return Fail(Wrong(fmt::format("cannot use '{}'", key))
                    .WithHint("It holds the certificate's key in PEM form, without a password."));
  }
  if (::SSL_CTX_check_private_key(context) != 1)
    return Fail(Wrong(fmt::format("'{}' and '{}' do not belong together", *certificate, key)));
  return sanity_check ? CheckOwn(context) : Status{};
}

// As the other side will: now it can be told in peace.
Status TlsCertificates::CheckOwn(ssl_ctx_st* context) const {
  const std::unique_ptr<X509_STORE_CTX, FreeStoreContext> check(::X509_STORE_CTX_new());
  STACK_OF(X509)* chain = nullptr;
  ::SSL_CTX_get0_chain_certs(context, &chain);
  if (!check || ::X509_STORE_CTX_init(check.get(), ::SSL_CTX_get_cert_store(context),
                                      ::SSL_CTX_get0_certificate(context), chain) != 1)
    return Fail(Wrong("cannot check the certificate"));
  ::X509_STORE_CTX_set_default(check.get(),
                               endpoint == TlsEndpoint::kServer ? "ssl_server" : "ssl_client");
  if (::X509_verify_cert(check.get()) == 1) return {};
  const int error = ::X509_STORE_CTX_get_error(check.get());
  ::ERR_clear_error();
  return Fail(Errc::kInvalidArgument,
              fmt::format("object '{}': nobody would accept '{}/{}-cert.pem': {}", id(), dir,
                          kEndpoints[static_cast<std::size_t>(endpoint)],
                          ::X509_verify_cert_error_string(error)),
              "Have it signed anew; sanity-check=off takes it as it is.");
}

Result<std::shared_ptr<const TlsContext>> FindTlsCredentials(const ObjectStore& objects,
                                                             std::string_view id,
                                                             TlsEndpoint endpoint) {
  Object* const object = objects.Find(id);
  if (object == nullptr) {
    return Fail(Errc::kNotFound, fmt::format("No TLS credentials with id '{}'", id),
                "Make them with -object tls-creds-x509,id=… or object-add.");
  }
  const auto* const credentials = dynamic_cast<const TlsCredentials*>(object);
  if (credentials == nullptr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Object with id '{}' is not TLS credentials", id),
                "Name a tls-creds-x509 or tls-creds-psk object.");
  }
  if (credentials->endpoint != endpoint) {
    const std::string_view side = kEndpoints[static_cast<std::size_t>(endpoint)];
    return Fail(Errc::kInvalidArgument,
                fmt::format("Expected TLS credentials for a {} endpoint", side),
                fmt::format("Name an object with endpoint={}.", side));
  }
  return credentials->context();
}

}  // namespace holdfast::object
