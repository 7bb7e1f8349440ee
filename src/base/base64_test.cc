// SPDX-License-Identifier: Apache-2.0
#include "base/base64.h"

#include <gtest/gtest.h>

#include <cstring>

namespace holdfast {
namespace {

std::vector<std::byte> Bytes(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// The vectors of RFC 4648, section 10.
TEST(Base64, EncodesAndDecodesTheVectorsOfTheStandard) {
  constexpr struct {
    std::string_view plain;
    std::string_view encoded;
  } kVectors[] = {{"", ""},
                  {"f", "Zg=="},
                  {"fo", "Zm8="},
                  {"foo", "Zm9v"},
                  {"foob", "Zm9vYg=="},
                  {"fooba", "Zm9vYmE="},
                  {"foobar", "Zm9vYmFy"}};
  for (const auto& vector : kVectors) {
    EXPECT_EQ(EncodeBase64(Bytes(vector.plain)), vector.encoded);
    EXPECT_EQ(DecodeBase64(vector.encoded), Bytes(vector.plain)) << vector.encoded;
  }
}

TEST(Base64, EveryByteSurvives) {
  std::vector<std::byte> all(256);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::byte>(i);
  for (std::size_t length = 0; length <= all.size(); ++length) {
    const std::span<const std::byte> part = std::span(all).first(length);
    EXPECT_EQ(DecodeBase64(EncodeBase64(part)), std::vector(part.begin(), part.end()));
  }
}

TEST(Base64, SkipsWhiteSpace) {
  EXPECT_EQ(DecodeBase64(" Zm9v\r\n\tYmFy \n"), Bytes("foobar"));
}

TEST(Base64, RefusesWhatIsNotBase64) {
  for (const std::string_view text :
       {"Zg", "Zg=", "Z===", "====", "=", "Zg==Zg==", "Zm9v!", "Zh==", "Zm9=", "Zm-v", "Zm9v="}) {
    EXPECT_FALSE(DecodeBase64(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace holdfast
