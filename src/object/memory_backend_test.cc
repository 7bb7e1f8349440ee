// SPDX-License-Identifier: Apache-2.0
// What the memory backends' options say before any memory is made; what making it says is in
// tests/kvm/memory_backend_test.cc.
#include "object/memory_backend.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "object/file_backend.h"
#include "object/json_value.h"

namespace holdfast::object {
namespace {

nlohmann::json Read(const Object& object, std::string_view name) {
  const PropertyInfo* const property = object.FindProperty(name);
  const auto value = object.Get(name);
  return property == nullptr || !value ? nlohmann::json() : PropertyToJson(*property, *value);
}

TEST(MemoryBackendTest, EachTypeHasQemusPropertiesAndDefaults) {
  const struct {
    const char* type;
    const char* extra;
    bool share;
    nlohmann::json own;
  } cases[] = {
      {"ram", "", false, nlohmann::json::object()},
      {"shm", "", true, nlohmann::json::object()},
      {"guest-memfd", "", true, {{"bind", "auto"}}},
      {"memfd",
       "",
       true,
       {{"hugetlb", false},
        {"hugetlbsize", 0},
        {"seal", true},
        {"guest-memfd", "auto"},
        {"bind", "auto"}}},
      {"file",
       ",mem-path=/x",
       false,
       {{"mem-path", "/x"},
        {"align", 0},
        {"offset", 0},
        {"discard-data", false},
        {"pmem", false},
        {"readonly", false},
        {"rom", "auto"}}},
  };
  for (const auto& c : cases) {
    const std::string type = std::string("memory-backend-") + c.type;
    ObjectStore store;
    const auto made = store.AddFromOption(type + ",id=m,size=64M" + c.extra);
    ASSERT_TRUE(made) << made.error().ToString();
    nlohmann::json expected = {{"size", 64 << 20},   {"share", c.share},
                               {"prealloc", false},  {"prealloc-threads", 1},
                               {"reserve", true},    {"merge", true},
                               {"dump", true},       {"host-nodes", nlohmann::json::array()},
                               {"policy", "default"}};
    expected.update(c.own);
    for (const auto& [name, value] : expected.items()) {
      EXPECT_EQ(Read(**made, name), value) << type << "." << name;
    }
    // Nothing beyond these but what can only be refused.
    EXPECT_EQ((*made)->type().properties.size(), expected.size() + 1) << type;
  }
}

TEST(MemoryBackendTest, HostNodesComeAsRangesPartsAndArrays) {
  const char* const cases[] = {
      "memory-backend-ram,id=m,size=1M,policy=bind,host-nodes=0-2,host-nodes=5",
      "memory-backend-ram,id=m,size=1M,policy=bind,host-nodes=5,host-nodes=0-2,host-nodes=1",
      "memory-backend-ram,id=m,size=1M,policy=bind,host-nodes.0=0-2,host-nodes.1=5",
      R"({"qom-type":"memory-backend-ram","id":"m","size":1048576,"policy":"bind",
          "host-nodes":[0,1,2,5]})",
  };
  for (const char* argument : cases) {
    ObjectStore store;
    const auto made = store.AddFromOption(argument);
    ASSERT_TRUE(made) << argument << ": " << made.error().ToString();
    EXPECT_EQ(Read(**made, "host-nodes"), nlohmann::json({0, 1, 2, 5})) << argument;
    EXPECT_EQ(Read(**made, "policy"), "bind") << argument;
  }
}

TEST(MemoryBackendTest, WrongValuesAreRefusedInQemusWords) {
  const struct {
    const char* argument;  // after memory-backend-
    const char* message;
  } cases[] = {
      {"ram,size=1M", "Parameter 'id' is missing"},
      {"ram,id=1x,size=1M", "Parameter 'id' expects an identifier"},
      {"ram,id=m", "Parameter 'size' is missing"},
      {"ram,id=m,size=0", "property 'size' of memory-backend-ram doesn't take value '0'"},
      {"guest-memfd,id=m,size=0", "can't create backend with size 0"},
      {"ram,id=m,size=-1", "Parameter 'size' expects a size value"},
      {"ram,id=m,size=abc", "Parameter 'size' expects a size value"},
      {"ram,id=m,size=1M,foo=1", "Invalid parameter 'foo'"},
      {"ram,id=m,size=1M,share=maybe", "Parameter 'share' expects 'on' or 'off'"},
      {"foo,id=m,size=1M", "Parameter 'qom-type' does not accept value 'memory-backend-foo'"},
      {"ram,id=m,size=1M,policy=bad", "Parameter 'policy' does not accept value 'bad'"},
      {"ram,id=m,size=1M,policy=bind", "host-nodes must be set for policy bind"},
      {"ram,id=m,size=1M,policy=preferred", "host-nodes must be set for policy preferred"},
      {"ram,id=m,size=1M,host-nodes=0",
       "host-nodes must be empty for policy default, or you should explicitly specify a policy "
       "other than default"},
      {"ram,id=m,size=1M,policy=bind,host-nodes=128", "Invalid host-nodes value: 128"},
      {"ram,id=m,size=1M,policy=bind,host-nodes=70000", "Parameter 'null' expects uint16_t"},
      {"ram,id=m,size=1M,policy=bind,host-nodes=x",
       "Parameter 'host-nodes' expects a uint64 value or range"},
      {"ram,id=m,size=1M,policy=bind,host-nodes=0-2-3",
       "Parameter 'host-nodes' expects a uint64 value or range"},
      {"ram,id=m,size=1M,policy=bind,host-nodes.1=0", "Parameter 'host-nodes.0' missing"},
      {"ram,id=m,size=1M,policy=bind,host-nodes=0,host-nodes.0=1",
       "Parameters 'host-nodes.*' used inconsistently"},
      {"ram,id=m,size=1M,policy=bind,host-nodes", "Expected '=' after parameter 'host-nodes'"},
      {"ram,id=m,size=1M,prealloc=on,reserve=off",
       "'prealloc=on' and 'reserve=off' are incompatible"},
      {"ram,id=m,size=1M,prealloc-threads=0",
       "property 'prealloc-threads' of memory-backend-ram doesn't take value '0'"},
      {"ram,id=m,size=1M,prealloc-threads=x",
       "Parameter 'prealloc-threads' expects a uint64 value"},
      {"ram,id=m,size=1M,prealloc-threads=4294967296",
       "Value '4294967296' is out of range for parameter 'prealloc-threads'"},
      {"ram,id=m,size=1M,prealloc-context=tc0", "Device 'tc0' not found"},
      {"file,id=m,size=1M", "Parameter 'mem-path' is missing"},
      {"file,id=m,size=5000,mem-path=/x",
       "backend 'memory-backend-file' memory size must be multiple of 4 KiB"},
      {"file,id=m,size=1M,mem-path=/x,rom=on",
       "property 'rom' = 'on' is not supported with 'readonly' = 'off'"},
      {"file,id=m,size=1M,mem-path=/x,rom=off,readonly=on,share=on",
       "property 'rom' = 'off' is incompatible with 'readonly' = 'on' and 'share' = 'on'"},
      {"file,id=m,size=1M,mem-path=/x,pmem=on", "pmem=on is not supported"},
      {"memfd,id=m,size=5000",
       "m backing store size 0x1388 is too small for 'size' option 0x2000 plus 'offset' option "
       "0x0"},
      {"memfd,id=m,size=1M,hugetlb=on,hugetlbsize=3M", "Hugepage size must be a power of 2"},
      {"memfd,id=m,size=1M,hugetlb=on,hugetlbsize=0",
       "Property 'memory-backend-memfd.hugetlbsize' doesn't take value '0'"},
      {"memfd,id=m,size=1M,guest-memfd=on,share=off", "guest-memfd=on must be used with share=on"},
      {"memfd,id=m,size=2M,guest-memfd=on,hugetlb=on", "guest-memfd=on doesn't support hugetlb=on"},
      {"memfd,id=m,size=1M,guest-memfd=yes", "Parameter 'guest-memfd' does not accept value 'yes'"},
      {"memfd,id=m,size=1M,guest-memfd=off,bind=on",
       "bind=on must be used with guest_memfd memory"},
      {"memfd,id=m,size=1M,share=off,bind=on", "bind=on must be used with guest_memfd memory"},
      {"ram,id=m,size=1M,bind=on", "Invalid parameter 'bind'"},
      {"shm,id=m,size=1M,share=off", "can't create shm backend with `share=off`"},
      {"guest-memfd,id=m,size=5000",
       "backend 'memory-backend-guest-memfd' memory size must be multiple of 4 KiB"},
      {"guest-memfd,id=m,size=1M,share=off", "can't create backend with share=off"},
      {"guest-memfd,id=m,size=1M,policy=interleave",
       "host-nodes must be set for policy interleave"},
  };
  ObjectStore store;
  for (const auto& c : cases) {
    const auto made = store.AddFromOption(std::string("memory-backend-") + c.argument);
    ASSERT_FALSE(made) << c.argument;
    EXPECT_EQ(made.error().message(), c.message) << c.argument;
    EXPECT_FALSE(made.error().hint().empty()) << c.argument << " has no remedy";
  }
  EXPECT_TRUE(store.objects().empty());
}

TEST(MemoryBackendTest, SizesThatQemuAcceptsAreAccepted) {
  for (const char* argument :
       {"memory-backend-ram,id=a,size=1", "memory-backend-ram,id=b,size=4097",
        "memory-backend-memfd,id=c,size=4k,share=off",
        "memory-backend-memfd,id=d,size=3M,hugetlb=on"}) {
    ObjectStore store;
    EXPECT_TRUE(store.AddFromOption(argument)) << argument;
  }
}

}  // namespace
}  // namespace holdfast::object
