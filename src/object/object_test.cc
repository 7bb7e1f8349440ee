// SPDX-License-Identifier: Apache-2.0
#include "object/object.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "object/json_value.h"
#include "object/memory_backend.h"

namespace holdfast::object {
namespace {

constexpr const char* kRam = "memory-backend-guest-memfd,id=ram0,size=2G";

TEST(ObjectStoreTest, AGuestMemfdBackendHasItsPropertiesAndDefaults) {
  ObjectStore store;
  const auto made = store.AddFromOption(kRam);
  ASSERT_TRUE(made) << made.error().ToString();
  EXPECT_EQ(store.Find("ram0"), *made);
  EXPECT_EQ(store.Find("ram1"), nullptr);
  const auto* backend = dynamic_cast<const GuestMemfdBackend*>(*made);
  ASSERT_NE(backend, nullptr);
  EXPECT_EQ(backend->size(), 2ULL << 30);
  EXPECT_TRUE(backend->share());
  EXPECT_EQ(backend->bind(), Bind::kAuto);
  EXPECT_EQ(backend->type().name, "memory-backend-guest-memfd");
}

TEST(ObjectStoreTest, BindIsReadAlsoFromJson) {
  ObjectStore store;
  const auto made = store.AddFromOption(
      R"({"qom-type":"memory-backend-guest-memfd","id":"a","size":4096,"bind":"on"})");
  ASSERT_TRUE(made) << made.error().ToString();
  EXPECT_EQ(dynamic_cast<GuestMemfdBackend*>(*made)->bind(), Bind::kOn);
}

TEST(ObjectStoreTest, WrongObjectsAreRefusedInQemusWordsWithARemedy) {
  const struct {
    const char* argument;
    const char* message;
  } cases[] = {
      {"memory-backend-guest-memfd,size=1M", "Parameter 'id' is missing"},
      {"memory-backend-guest-memfd,id=1x,size=1M", "Parameter 'id' expects an identifier"},
      {"memory-backend-guest-memfd,id=m", "Parameter 'size' is missing"},
      {"memory-backend-guest-memfd,id=m,size=1M,bind=x",
       "Parameter 'bind' does not accept value 'x'"},
      {"memory-backend-guest-memfd,id=m,size=1M,foo=1", "Invalid parameter 'foo'"},
      {"memory-backend-epc,id=m,size=1M",
       "QEMU has the object type 'memory-backend-epc', Holdfast does not have it yet"},
      {"memory-backend-ram,id=m,size=1M,x-use-canonical-path-for-ramblock-id=on",
       "QEMU has the parameter 'x-use-canonical-path-for-ramblock-id', Holdfast does not have it "
       "yet"},
      {"memory-backend-foo,id=m",
       "Parameter 'qom-type' does not accept value 'memory-backend-foo'"},
      {"id=m", "Parameter 'qom-type' is missing"},
      {"", "Parameter 'qom-type' is missing"},
      {"{", "JSON parse error, the argument is not a JSON object"},
      {kRam, "attempt to add duplicate property 'ram0' to object (type 'container')"},
  };
  ObjectStore store;
  ASSERT_TRUE(store.AddFromOption(kRam));
  for (const auto& c : cases) {
    const auto made = store.AddFromOption(c.argument);
    ASSERT_FALSE(made) << c.argument;
    EXPECT_EQ(made.error().message(), c.message) << c.argument;
    EXPECT_FALSE(made.error().hint().empty()) << c.argument;
  }
  EXPECT_EQ(store.objects().size(), 1U);
}

TEST(ObjectStoreTest, JsonIsReadAsStrictlyAsQmp) {
  const struct {
    const char* json;
    const char* message;
  } cases[] = {
      {R"({"id":"m","size":4096})", "Parameter 'qom-type' is missing"},
      {R"({"qom-type":5,"id":"m"})", "Invalid parameter type for 'qom-type', expected: string"},
      {R"({"qom-type":"memory-backend-foo","id":"m"})",
       "Parameter 'qom-type' does not accept value 'memory-backend-foo'"},
      {R"({"qom-type":"memory-backend-guest-memfd","size":4096})", "Parameter 'id' is missing"},
      {R"({"qom-type":"memory-backend-guest-memfd","id":"m"})", "Parameter 'size' is missing"},
      {R"({"qom-type":"memory-backend-guest-memfd","id":"m","size":"4096"})",
       "Parameter 'size' expects uint64"},
      {R"({"qom-type":"memory-backend-guest-memfd","id":"m","size":-1})",
       "Parameter 'size' expects uint64"},
      {R"({"qom-type":"memory-backend-guest-memfd","id":"m","size":1.5})",
       "Parameter 'size' expects uint64"},
      {R"({"qom-type":"memory-backend-guest-memfd","id":"m","size":4096,"share":"on"})",
       "Invalid parameter type for 'share', expected: boolean"},
      {R"({"qom-type":"memory-backend-guest-memfd","id":"m","size":4096,"bogus":1})",
       "Parameter 'bogus' is unexpected"},
      {R"([])", "Invalid parameter type for 'arguments', expected: object"},
  };
  ObjectStore store;
  for (const auto& c : cases) {
    const auto made = store.AddJson(nlohmann::json::parse(c.json));
    ASSERT_FALSE(made) << c.json;
    EXPECT_EQ(made.error().message(), c.message) << c.json;
  }
  EXPECT_TRUE(store.objects().empty());
}

TEST(ObjectStoreTest, PropertiesAreReadAndChangedByName) {
  ObjectStore store;
  Object* const object = *store.AddFromOption(kRam);
  EXPECT_EQ(object->Get("size"), PropertyValue(std::uint64_t{2} << 30));
  EXPECT_EQ(object->Get("share"), PropertyValue(true));
  ASSERT_NE(object->FindProperty("bind"), nullptr);
  EXPECT_EQ(PropertyToJson(*object->FindProperty("bind"), *object->Get("bind")), "auto");
  EXPECT_TRUE(object->Set("bind", PropertyValue(std::uint64_t{1})));
  EXPECT_EQ(FormatProperty(*object->FindProperty("bind"), *object->Get("bind")), "on");
  EXPECT_EQ(object->FindProperty("nope"), nullptr);
  for (const auto& status : {object->Get("nope").error(), object->Set("nope", true).error()}) {
    EXPECT_EQ(status.message(), "Property 'memory-backend-guest-memfd.nope' not found");
    EXPECT_EQ(status.code(), Errc::kNotFound);
  }
}

TEST(ObjectStoreTest, OnlyWhatNobodyUsesIsRemoved) {
  ObjectStore store;
  auto* const backend = dynamic_cast<MemoryBackend*>(*store.AddFromOption(kRam));
  ASSERT_NE(backend, nullptr);
  EXPECT_EQ(store.Remove("zz").error().message(), "object 'zz' not found");
  backend->set_mapped(true);
  EXPECT_EQ(store.Remove("ram0").error().message(),
            "Cannot delete host memory backend 'ram0' which is mapped");
  backend->set_mapped(false);
  EXPECT_TRUE(store.Remove("ram0"));
  EXPECT_TRUE(store.objects().empty());
}

TEST(ObjectHelpTest, ListsTypesAndPropertiesAndNamesATypo) {
  EXPECT_NE(ObjectHelp("")->find("memory-backend-guest-memfd"), std::string::npos);
  EXPECT_NE(ObjectHelp("memory-backend-guest-memfd")->find("bind=<auto|on|off>"),
            std::string::npos);
  const auto typo = ObjectHelp("memory-backend-guestmemfd");
  ASSERT_FALSE(typo);
  EXPECT_EQ(typo.error().hint(), "Did you mean 'memory-backend-guest-memfd'?");
}

}  // namespace
}  // namespace holdfast::object
