// SPDX-License-Identifier: Apache-2.0
#include "migration/tls_test_support.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

namespace holdfast::migration::test {
namespace {

constexpr long kDay = 24 * 60 * 60;
long g_serial = 1;

struct CloseFile {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

}  // namespace

TestFolder::TestFolder() {
  std::string name = std::filesystem::temp_directory_path() / "holdfast-test-XXXXXX";
  EXPECT_NE(::mkdtemp(name.data()), nullptr);
  path_ = name;
}
TestFolder::~TestFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}
std::string TestFolder::operator/(std::string_view name) const {
  return path_ + "/" + std::string(name);
}
void TestFolder::Write(std::string_view name, std::string_view text) const {
  std::ofstream(*this / name) << text;
}

TestAuthority::Key TestAuthority::MakeKey() {
  return Key(::EVP_EC_gen("P-256"));
}

TestAuthority::Certificate TestAuthority::Make(std::string_view name, EVP_PKEY* key, int days) {
  Certificate made(::X509_new());
  ::X509_set_version(made.get(), X509_VERSION_3);
  ::ASN1_INTEGER_set(::X509_get_serialNumber(made.get()), g_serial++);
  ::X509_gmtime_adj(X509_getm_notBefore(made.get()), -kDay);
  ::X509_gmtime_adj(X509_getm_notAfter(made.get()), (days - 1) * kDay);
  ::X509_set_pubkey(made.get(), key);
  const std::string common(name);
  ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(made.get()), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(common.c_str()), -1, -1, 0);
  return made;
}

void TestAuthority::Extend(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context{};
  ::X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = ::X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
  ASSERT_NE(extension, nullptr) << value;
  ::X509_add_ext(certificate, extension, -1);
  ::X509_EXTENSION_free(extension);
}

void TestAuthority::WriteKey(EVP_PKEY* key, const std::string& path) {
  const File file(std::fopen(path.c_str(), "w"));
  ::PEM_write_PrivateKey(file.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
}
void TestAuthority::WriteCertificate(X509* certificate, const std::string& path) {
  const File file(std::fopen(path.c_str(), "w"));
  ::PEM_write_X509(file.get(), certificate);
}

TestAuthority::TestAuthority(std::string_view name)
    : key_(MakeKey()), certificate_(Make(name, key_.get(), 365)) {
  X509* const self = certificate_.get();
  ::X509_set_issuer_name(self, ::X509_get_subject_name(self));
  Extend(self, self, NID_basic_constraints, "critical,CA:TRUE");
  Extend(self, self, NID_key_usage, "critical,keyCertSign,cRLSign");
  EXPECT_GT(::X509_sign(self, key_.get(), ::EVP_sha256()), 0);
}

void TestAuthority::Publish(const TestFolder& folder) const {
  WriteCertificate(certificate_.get(), folder / "ca-cert.pem");
}

void TestAuthority::Sign(const TestFolder& folder, std::string_view who, std::string_view names,
                         int days) const {
  const Key key = MakeKey();
  const Certificate made = Make(who, key.get(), days);
  ::X509_set_issuer_name(made.get(), ::X509_get_subject_name(certificate_.get()));
  if (!names.empty())
    Extend(made.get(), certificate_.get(), NID_subject_alt_name, std::string(names));
  Extend(made.get(), certificate_.get(), NID_ext_key_usage,
         who == "server" ? "serverAuth" : "clientAuth");
  EXPECT_GT(::X509_sign(made.get(), key_.get(), ::EVP_sha256()), 0);
  WriteCertificate(made.get(), folder / (std::string(who) + "-cert.pem"));
  WriteKey(key.get(), folder / (std::string(who) + "-key.pem"));
}

Result<std::shared_ptr<const object::TlsContext>> MakeCredentials(const std::string& words) {
  object::ObjectStore store;
  HF_TRY(object::Object* const made, store.AddFromOption(words));
  return dynamic_cast<const object::TlsCredentials&>(*made).context();
}

}  // namespace holdfast::migration::test
