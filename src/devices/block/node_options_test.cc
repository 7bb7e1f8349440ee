// SPDX-License-Identifier: Apache-2.0
#include "devices/block/node_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace holdfast::devices::block {
namespace {

using ::testing::HasSubstr;

Result<NodeOptions> Parse(std::string_view text) {
  object::KeyValues values;
  if (text.starts_with('{')) {
    HF_TRY(values, FlattenJson(nlohmann::json::parse(text)));
  } else {
    HF_TRY(values, object::ParseKeyValues(text, "driver"));
  }
  return ParseNodeOptions(values);
}

TEST(NodeOptions, ReadsWordsAndJsonAlike) {
  for (const char* const text :
       {"driver=raw,node-name=d,read-only=on,file.driver=file,file.filename=/i,file.aio=native,"
        "file.cache.direct=on,discard=unmap",
        R"({"driver": "raw", "node-name": "d", "read-only": true, "discard": "unmap", "file":
            {"driver": "file", "filename": "/i", "aio": "native", "cache": {"direct": true}}})"}) {
    SCOPED_TRACE(text);
    const auto node = Parse(text);
    ASSERT_TRUE(node) << node.error().ToString();
    EXPECT_EQ(node->driver, NodeDriver::kRaw);
    EXPECT_EQ(node->node_name, "d");
    EXPECT_EQ(node->read_only, true);
    EXPECT_TRUE(node->discard);
    ASSERT_NE(node->own_child, nullptr);
    EXPECT_EQ(node->own_child->driver, NodeDriver::kFile);
    EXPECT_EQ(node->own_child->filename, "/i");
    EXPECT_EQ(node->own_child->aio, AioWord::kNative);
    EXPECT_TRUE(node->own_child->direct);
    EXPECT_EQ(node->own_child->read_only, true) << "as its parent";
  }
}

TEST(NodeOptions, SaysWhatIsWrong) {
  const struct {
    const char* text;
    const char* error;
  } kCases[] = {
      {"node-name=x", "Parameter 'driver' is missing"},
      {"driver=file", "Parameter 'filename' is missing"},
      {"driver=raw", "Parameter 'file' is missing"},
      {"driver=flie,filename=x", "Unknown driver 'flie'"},
      {"driver=nbd,file=x", "QEMU has the block driver 'nbd'"},
      {"driver=qcow2", "Parameter 'file' is missing"},
      {"driver=qcow2,file=x,backing=y,backing.driver=file", "'backing.*' used inconsistently"},
      {"driver=qcow2,file=x,backing.driver=file", "Parameter 'filename' is missing"},
      {"driver=file,filename=x,backing=y", "backing"},
      {"driver=qcow2,file=x,filename=y", "filename"},
      {"driver=file,filename=x,aio=fast", "Parameter 'aio' does not accept value 'fast'"},
      {"driver=file,filename=x,aio=native", "aio=native was specified, but it requires"},
      {"driver=file,filename=x,node-name=1", "Invalid node-name: '1'"},
      {"driver=file,filename=x,force-share=on", "force-share=on can only be used with read-only"},
      {"driver=raw,file=x,file.driver=file,file.filename=y", "'file.*' used inconsistently"},
      {"driver=raw,file=x,size=7", "not multiple of 512"},
      {"driver=file,filename=x,bogus=1", "bogus"},
      {R"({"driver": "file", "filename": ["x"]})", "Invalid parameter type for 'filename'"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.text);
    const auto node = Parse(c.text);
    ASSERT_FALSE(node);
    EXPECT_THAT(node.error().message(), HasSubstr(c.error));
  }
}

TEST(NodeOptions, ReadsImagesWithWhatIsBelowThem) {
  for (const char* const text :
       {"qcow2,node-name=d,read-only=on,file.driver=file,file.filename=/top,backing.driver=qcow2,"
        "backing.file.driver=raw,backing.file.file=base,backing.backing=",
        R"({"driver": "qcow2", "node-name": "d", "read-only": true,
            "file": {"driver": "file", "filename": "/top"},
            "backing": {"driver": "qcow2", "file": {"driver": "raw", "file": "base"},
                        "backing": null}})"}) {
    SCOPED_TRACE(text);
    const auto node = Parse(text);
    ASSERT_TRUE(node) << node.error().ToString();
    EXPECT_EQ(node->driver, NodeDriver::kImage);
    EXPECT_EQ(node->format, "qcow2");
    EXPECT_EQ(FileOf(*node).filename, "/top");
    EXPECT_EQ(FileOf(*node).read_only, true) << "as its parent";
    ASSERT_NE(node->own_backing, nullptr);
    EXPECT_FALSE(node->no_backing);
    EXPECT_TRUE(node->own_backing->no_backing);
    EXPECT_EQ(node->own_backing->own_child->child, "base");
  }
  const auto named = Parse("vmdk,file=f,backing=b");
  ASSERT_TRUE(named);
  EXPECT_EQ(named->format, "vmdk");
  EXPECT_EQ(named->child, "f");
  EXPECT_EQ(named->backing, "b");
}

TEST(NodeOptions, EndsWhereNestingGetsTooDeep) {
  std::string key;
  std::string text;
  for (int i = 0; i < 40; ++i) {
    text += (i == 0 ? "" : ",") + key + "driver=raw";
    key += "file.";
  }
  EXPECT_FALSE(Parse(text));
}

}  // namespace
}  // namespace holdfast::devices::block
