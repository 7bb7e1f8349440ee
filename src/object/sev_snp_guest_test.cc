// SPDX-License-Identifier: Apache-2.0
// What sev-snp-guest and tdx-guest take as properties; they need no hardware for that.
#include "object/sev_snp_guest.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "object/tdx_guest.h"

namespace holdfast::object {
namespace {

using ::testing::StartsWith;

std::string Zeroes(std::size_t size) {
  return EncodeBase64(std::vector<std::byte>(size));
}

struct Refusal {
  std::string argument;
  const char* message;
};

void ExpectRefusals(const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    ObjectStore store;
    const auto made = store.AddFromOption(refusal.argument);
    ASSERT_FALSE(made) << refusal.argument;
    EXPECT_THAT(made.error().message(), StartsWith(refusal.message)) << refusal.argument;
    EXPECT_TRUE(store.objects().empty());
  }
}

TEST(SevSnpGuestTest, HasQemusDefaults) {
  ObjectStore store;
  const auto made = store.AddFromOption("sev-snp-guest,id=sev0,reduced-phys-bits=1");
  ASSERT_TRUE(made) << made.error().ToString();
  const auto& settings = dynamic_cast<SevSnpGuest&>(**made).settings();
  EXPECT_EQ(settings.sev_device, "/dev/sev");
  EXPECT_EQ(settings.cbitpos, 0U);
  EXPECT_EQ(settings.policy, 0x30000U);
  EXPECT_FALSE(settings.kernel_hashes || settings.author_key_enabled || settings.vcek_disabled);
  EXPECT_TRUE(settings.id_block.bytes.empty());
  EXPECT_EQ(settings.convert_in_place, OnOffAuto::kAuto);
}

TEST(SevSnpGuestTest, RefusesInQemusWords) {
  const std::string snp = "sev-snp-guest,id=s,reduced-phys-bits=1,";
  ExpectRefusals({
      {"sev-snp-guest,id=s", "Parameter 'reduced-phys-bits' is missing"},
      {"sev-snp-guest,id=s,reduced-phys-bits=0",
       "reduced_phys_bits check failed, it should be in "
       "the range of 1 to 63, requested '0'"},
      {"sev-snp-guest,id=s,reduced-phys-bits=64", "reduced_phys_bits check failed"},
      {snp + "cbitpos=4294967296", "Value '4294967296' is out of range for parameter 'cbitpos'"},
      {snp + "policy=x", "Parameter 'policy' expects a uint64 value"},
      {snp + "policy=0x10000", "policy=0x10000 of the object 's' is no policy: bit 17 must be one"},
      {snp + "guest-visible-workarounds=AA==", "parameter length of 1 exceeds max of 16"},
      {snp + "guest-visible-workarounds=!", "Base64 data '!' is not valid"},
      {snp + "id-block=" + Zeroes(95), "parameter length of 95 not equal to 96"},
      {snp + "id-auth=" + Zeroes(4097), "parameter length:ID_AUTH 4097 exceeds max of 4096"},
      {snp + "host-data=" + Zeroes(33), "parameter length of 33 not equal to 32"},
      {snp + "id-block=" + Zeroes(96), "id-block= of the object 's' needs id-auth="},
      {snp + "convert-in-place=maybe",
       "Parameter 'convert-in-place' does not accept value 'maybe'"},
      {snp + "kernel-hashes=2", "Parameter 'kernel-hashes' expects 'on' or 'off'"},
      {snp + "handle=1", "Invalid parameter 'handle'"},
  });
}

TEST(SevSnpGuestTest, PropertiesAreReadBackAndFixed) {
  ObjectStore store;
  const auto made = store.AddFromOption(
      R"({"qom-type":"sev-snp-guest","id":"s","reduced-phys-bits":1,"cbitpos":51,)"
      R"("guest-visible-workarounds":"AAAAAAAAAAAAAAAAAAAAAA==","vcek-disabled":true})");
  ASSERT_TRUE(made) << made.error().ToString();
  EXPECT_EQ((*made)->Get("cbitpos"), PropertyValue(std::uint64_t{51}));
  EXPECT_EQ((*made)->Get("vcek-disabled"), PropertyValue(true));
  EXPECT_EQ((*made)->Get("guest-visible-workarounds"),
            PropertyValue(std::string("AAAAAAAAAAAAAAAAAAAAAA==")));
  EXPECT_FALSE((*made)->Set("policy", PropertyValue(std::uint64_t{0x20000})));
  EXPECT_EQ((*made)->Get("policy"), PropertyValue(std::uint64_t{0x30000}));
}

TEST(TdxGuestTest, SeptVeDisableIsABitOfTheAttributes) {
  const struct {
    const char* words;
    std::uint64_t attributes;
  } cases[] = {{"", 1ULL << 28},
               {",sept-ve-disable=off", 0},
               {",attributes=0x40000000", 1ULL << 30},
               {",attributes=0x40000000,sept-ve-disable=on", 1ULL << 30 | 1ULL << 28},
               {",sept-ve-disable=on,attributes=0", 0}};
  for (const auto& c : cases) {
    ObjectStore store;
    const auto made = store.AddFromOption(std::string("tdx-guest,id=t") + c.words);
    ASSERT_TRUE(made) << c.words;
    EXPECT_EQ(dynamic_cast<TdxGuest&>(**made).settings().attributes, c.attributes) << c.words;
    EXPECT_EQ((*made)->Get("sept-ve-disable"), PropertyValue((c.attributes >> 28 & 1) != 0));
  }
}

TEST(TdxGuestTest, RefusesInQemusWords) {
  const std::string socket = "tdx-guest,id=t,quote-generation-socket.";
  ExpectRefusals({
      {"tdx-guest,id=t,mrowner=AA==", "TDX 'mrowner' sha384 digest was 1 bytes, expected 48 bytes"},
      {"tdx-guest,id=t,mrconfigid=A", "Base64 data 'A' is not valid"},
      {"tdx-guest,id=t,attributes=1", "Some unsupported TD attribute bits being requested: 0x1"},
      {socket + "type=tcp", "Parameter 'quote-generation-socket.type' does not accept value 'tcp'"},
      {socket + "type=unix", "Parameter 'quote-generation-socket.path' is missing"},
      {socket + "type=vsock,quote-generation-socket.cid=2",
       "Parameter 'quote-generation-socket.port' is missing"},
      {socket + "path=/run/qgs", "Parameter 'quote-generation-socket.type' is missing"},
      {socket + "type=fd,quote-generation-socket.str=5,quote-generation-socket.cid=2",
       "Parameter 'quote-generation-socket.cid' is unexpected"},
      {R"({"qom-type":"tdx-guest","id":"t","quote-generation-socket":{"type":"unix"}})",
       "Parameter 'quote-generation-socket.path' is missing"},
      {R"({"qom-type":"tdx-guest","id":"t","quote-generation-socket":{"kind":"unix"}})",
       "Parameter 'quote-generation-socket.kind' is unexpected"},
  });
}

TEST(TdxGuestTest, TheQuoteSocketIsAnAddressInJsonToo) {
  ObjectStore store;
  const auto made =
      store.AddFromOption(R"({"qom-type":"tdx-guest","id":"t",)"
                          R"("quote-generation-socket":{"type":"vsock","cid":"2","port":"4050"}})");
  ASSERT_TRUE(made) << made.error().ToString();
  const auto& socket = dynamic_cast<TdxGuest&>(**made).settings().quote_generation_socket;
  EXPECT_EQ(socket.cid, "2");
  EXPECT_EQ(socket.port, "4050");
  EXPECT_EQ((*made)->Get("quote-generation-socket.type"), PropertyValue(std::uint64_t{2}));
}

}  // namespace
}  // namespace holdfast::object
