// SPDX-License-Identifier: Apache-2.0
// Certificates made for a test.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <string_view>

#include "object/object.h"
#include "object/tls_credentials.h"

namespace holdfast::migration::test {

/// A folder that goes with the object.
class TestFolder {
 public:
  TestFolder();
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  ~TestFolder();
  const std::string& path() const noexcept { return path_; }
  std::string operator/(std::string_view name) const;
  void Write(std::string_view name, std::string_view text) const;

 private:
  std::string path_;
};

/// A certificate authority that signs whatever a test needs.
class TestAuthority {
 public:
  explicit TestAuthority(std::string_view name);
  /// Puts ca-cert.pem there.
  void Publish(const TestFolder& folder) const;
  /// Puts WHO-cert.pem and WHO-key.pem there, for "DNS:a,IP:1.2.3.4" (`names`), which are good for
  /// so many days from yesterday on.
  void Sign(const TestFolder& folder, std::string_view who, std::string_view names,
            int days = 30) const;

 private:
  struct Free {
    void operator()(EVP_PKEY* key) const noexcept { ::EVP_PKEY_free(key); }
    void operator()(X509* certificate) const noexcept { ::X509_free(certificate); }
  };
  using Key = std::unique_ptr<EVP_PKEY, Free>;
  using Certificate = std::unique_ptr<X509, Free>;
  static Key MakeKey();
  static Certificate Make(std::string_view name, EVP_PKEY* key, int days);
  static void Extend(X509* certificate, X509* issuer, int kind, const std::string& value);
  static void WriteKey(EVP_PKEY* key, const std::string& path);
  static void WriteCertificate(X509* certificate, const std::string& path);

  Key key_;
  Certificate certificate_;
};

/// Makes an object of the words after `-object`. @return its credentials, or why not
Result<std::shared_ptr<const object::TlsContext>> MakeCredentials(const std::string& words);

}  // namespace holdfast::migration::test
