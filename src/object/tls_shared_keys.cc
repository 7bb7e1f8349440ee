// SPDX-License-Identifier: Apache-2.0
// tls-creds-psk: TLS with keys that both sides know instead of certificates (RFC 8446, 4.2.11).
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>

#include <array>
#include <utility>

#include "base/read_file.h"
#include "object/tls_credentials.h"

namespace holdfast::object {
namespace {

constexpr std::string_view kEndpoints[] = {"client", "server"};

constexpr std::array<Property<Object>, 3> kKeyProperties = {{
    {{.name = "dir", .description = "the folder of keys.psk"},
     SetFieldOf<Object, &TlsSharedKeys::dir>,
     GetFieldOf<Object, &TlsSharedKeys::dir>},
    {{.name = "endpoint",
      .type = PropertyType::kEnum,
      .default_text = "client",
      .description = "which side of connections they are for",
      .choices = kEndpoints,
      .qom_type = "QCryptoTLSCredsEndpoint"},
     SetFieldOf<Object, &TlsSharedKeys::endpoint>,
     GetFieldOf<Object, &TlsSharedKeys::endpoint>},
    {{.name = "username", .default_text = "qemu", .description = "client: whose key it uses"},
     SetFieldOf<Object, &TlsSharedKeys::username>,
     GetFieldOf<Object, &TlsSharedKeys::username>},
}};
constexpr std::string_view kKeyQemuOnly[] = {"passwordid", "priority", "verify-peer"};

// In bytes. Shorter ones can be guessed; longer ones OpenSSL does not take.
constexpr std::size_t kShortestKey = 16;
constexpr std::size_t kLongestKey = 64;
constexpr std::size_t kLongestName = 128;
constexpr std::uint64_t kLargestFile = std::uint64_t{1} << 20;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Empty: not hexadecimal.
std::vector<unsigned char> ReadHex(std::string_view text) {
  std::vector<unsigned char> bytes;
  if (text.size() % 2 != 0) return {};
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = HexDigit(text[i]);
    const int low = HexDigit(text[i + 1]);
    if (high < 0 || low < 0) return {};
    bytes.push_back(static_cast<unsigned char>(high * 16 + low));
  }
  return bytes;
}

// TLS 1.3 knows such keys as those of an earlier session. The hash is the one that GnuTLS takes.
SSL_SESSION* MakeSession(SSL* ssl, const std::vector<unsigned char>& key) {
  constexpr unsigned char kAes128GcmSha256[] = {0x13, 0x01};
  const SSL_CIPHER* const cipher = ::SSL_CIPHER_find(ssl, kAes128GcmSha256);
  SSL_SESSION* const session = ::SSL_SESSION_new();
  if (session != nullptr && cipher != nullptr &&
      ::SSL_SESSION_set1_master_key(session, key.data(), key.size()) == 1 &&
      ::SSL_SESSION_set_cipher(session, cipher) == 1 &&
      ::SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
    return session;
  ::SSL_SESSION_free(session);
  return nullptr;
}

const TlsKeys& KeysOf(SSL* ssl) {
  return *static_cast<const TlsKeys*>(SSL_CTX_get_app_data(::SSL_get_SSL_CTX(ssl)));
}

// Called by OpenSSL: the client's key.
int UseKey(SSL* ssl, const EVP_MD* hash, const unsigned char** name, std::size_t* length,
           SSL_SESSION** session) {
  *session = nullptr;
  *name = nullptr;
  *length = 0;
  const auto& [user, key] = *KeysOf(ssl).begin();
  SSL_SESSION* const made = MakeSession(ssl, key);
  if (made == nullptr) return 0;
  // The second time round the server has chosen another hash: then there is no key for it.
  if (hash != nullptr &&
      ::SSL_CIPHER_get_handshake_digest(::SSL_SESSION_get0_cipher(made)) != hash) {
    ::SSL_SESSION_free(made);
    return 1;
  }
  *session = made;
  *name = reinterpret_cast<const unsigned char*>(user.data());
  *length = user.size();
  return 1;
}

// Called by OpenSSL: the key of the user who is at the other side. None: the handshake fails, as
// there is no certificate either.
int FindKey(SSL* ssl, const unsigned char* name, std::size_t length, SSL_SESSION** session) {
  *session = nullptr;
  const TlsKeys& keys = KeysOf(ssl);
  const auto found = keys.find(std::string_view(reinterpret_cast<const char*>(name), length));
  if (found == keys.end()) return 1;
  *session = MakeSession(ssl, found->second);
  return *session == nullptr ? 0 : 1;
}

}  // namespace

TlsContext::TlsContext(Ptr context, TlsEndpoint endpoint, TlsKeys keys)
    : context_(std::move(context)), endpoint_(endpoint), keys_(std::move(keys)) {
  SSL_CTX_set_app_data(context_.get(), &keys_);
  if (endpoint == TlsEndpoint::kServer) {
    ::SSL_CTX_set_psk_find_session_callback(context_.get(), &FindKey);
  } else {
    ::SSL_CTX_set_psk_use_session_callback(context_.get(), &UseKey);
    // A server that shows a certificate instead is not the one.
    ::SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
  }
}

TlsContext::~TlsContext() {
  for (auto& [name, key] : keys_) ::OPENSSL_cleanse(key.data(), key.size());
}

Result<TlsKeys> ParseTlsKeys(std::string_view text) {
  TlsKeys keys;
  for (std::size_t line = 1; !text.empty(); ++line) {
    const std::size_t end = text.find('\n');
    std::string_view one = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (one.ends_with('\r')) one.remove_suffix(1);
    if (one.empty() || one.starts_with('#')) continue;
    const std::size_t colon = one.find(':');
    auto key = colon == std::string_view::npos ? std::vector<unsigned char>()
                                               : ReadHex(one.substr(colon + 1));
    // The key itself is told to nobody.
    if (colon == 0 || colon > kLongestName || key.size() < kShortestKey ||
        key.size() > kLongestKey) {
      return Fail(Errc::kMalformed, fmt::format("line {} has no user and key", line),
                  fmt::format("Write USER:KEY, the key of {} to {} bytes in hexadecimal.",
                              kShortestKey, kLongestKey));
    }
    keys.insert_or_assign(std::string(one.substr(0, colon)), std::move(key));
  }
  return keys;
}

constexpr ObjectType TlsSharedKeys::kType = {
    .name = "tls-creds-psk",
    .description = "keys that connections are encrypted with and both sides know",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<TlsSharedKeys>(std::move(id));
    },
    .properties = kKeyProperties,
    .qemu_only = kKeyQemuOnly,
};

Result<std::shared_ptr<const TlsContext>> TlsSharedKeys::Load() const {
  HF_TRY(const std::string path, PathOf("keys.psk"));
  HF_TRY(std::vector<std::byte> text, ReadWholeFile(path, kLargestFile));
  auto keys = ParseTlsKeys({reinterpret_cast<const char*>(text.data()), text.size()});
  ::OPENSSL_cleanse(text.data(), text.size());
  if (!keys) return Fail(std::move(keys).error().Wrap(fmt::format("'{}'", path)));
  if (endpoint == TlsEndpoint::kClient) {
    std::erase_if(*keys, [this](const auto& entry) { return entry.first != username; });
    if (keys->empty()) {
      return Fail(Errc::kNotFound, fmt::format("Username {} not found in '{}'", username, path),
                  "username= names whose key the client uses.");
    }
  }
  if (keys->empty()) {
    return Fail(Errc::kInvalidArgument, fmt::format("there is no key in '{}'", path),
                "Write lines USER:KEY, the key in hexadecimal.");
  }
  HF_TRY(TlsContext::Ptr context, TlsContext::MakeEmpty(endpoint));
  // A key goes with one hash; another one's ciphers would leave it out.
  if (::SSL_CTX_set_ciphersuites(context.get(),
                                 "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") != 1)
    return Fail(Wrong("cannot choose ciphers"));
  return std::make_shared<const TlsContext>(std::move(context), endpoint, *std::move(keys));
}

}  // namespace holdfast::object
