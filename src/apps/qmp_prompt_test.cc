// SPDX-License-Identifier: Apache-2.0
#include "apps/qmp_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/qmp_history.h"

namespace holdfast::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(QmpPromptTest, TheRowShowsThePartAroundTheCursor) {
  const struct {
    const char* line;
    std::size_t cursor;
    const char* shown;
  } cases[] = {
      {"", 0, "\r\x1b[K> \r\x1b[2C"},
      {"stop", 4, "\r\x1b[K> stop\r\x1b[6C"},
      {"stop", 0, "\r\x1b[K> stop\r\x1b[2C"},
      {"0123456789abcdefghijklmn", 24, "\r\x1b[K> 789abcdefghijklmn\r\x1b[19C"},
      {"0123456789abcdefghijklmn", 2, "\r\x1b[K> 0123456789abcdefg\r\x1b[4C"},
      {"\xc3\xa4z", 2, "\r\x1b[K> \xc3\xa4z\r\x1b[3C"},
  };
  for (const auto& c : cases) EXPECT_EQ(ShowPromptLine("> ", c.line, c.cursor, 20), c.shown);
}

TEST(QmpPromptTest, WordsAreListedColumnByColumn) {
  const std::vector<std::string> words = {"a", "bb", "c", "d", "e"};
  EXPECT_EQ(InColumns(words, 12), "a   c   e\nbb  d\n");
  EXPECT_EQ(InColumns(words, 1), "a\nbb\nc\nd\ne\n");
  EXPECT_EQ(InColumns({}, 80), "");
}

TEST(QmpPromptTest, HelpTellsArgumentsAndNearestNames) {
  const QmpTypes types = QmpTypes::FromSchema(nlohmann::ordered_json::parse(R"([
    {"name": "str", "meta-type": "builtin", "json-type": "string"},
    {"name": "A", "meta-type": "object",
     "members": [{"name": "id", "type": "str"}, {"name": "x", "type": "str", "default": null}]},
    {"name": "object-del", "meta-type": "command", "arg-type": "A"}])"));
  EXPECT_EQ(QmpPromptHelp("object-del", types, 80),
            "object-del\n  id=string\n  x=string  (may be left out)\n");
  EXPECT_EQ(QmpPromptHelp("object-dle", types, 80),
            "There is no command 'object-dle'. Did you mean object-del?\n");
  EXPECT_THAT(QmpPromptHelp("", types, 80), HasSubstr("object-del\n"));
}

TEST(QmpPromptTest, ValuesCannotSteerTheTerminal) {
  EXPECT_EQ(PrettyJson({{"a", "\x7f\xc2\x9b"}}), "{\n  \"a\": \"??\"\n}");
}

class QmpHistoryTest : public ::testing::Test {
 protected:
  QmpHistoryTest() {
    std::string name = (std::filesystem::temp_directory_path() / "history-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  ~QmpHistoryTest() override { std::filesystem::remove_all(folder_); }
  std::string Path() const { return (folder_ / "state" / "holdfast" / "qmp_history").string(); }

 private:
  std::filesystem::path folder_;
};

TEST_F(QmpHistoryTest, IsKeptForThisUserOnly) {
  EXPECT_THAT(ReadQmpHistory(Path()), IsEmpty());
  const std::string first[] = {"one", "one", " secret", "", "two"};
  ASSERT_TRUE(AddToQmpHistory(Path(), first));
  const std::string second[] = {"three"};
  ASSERT_TRUE(AddToQmpHistory(Path(), second));
  EXPECT_THAT(ReadQmpHistory(Path()), ElementsAre("one", "two", "three"));
  struct stat info{};
  ASSERT_EQ(::stat(Path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
}

TEST_F(QmpHistoryTest, IsBounded) {
  const std::vector<std::string> lines = [] {
    std::vector<std::string> made;
    for (int i = 0; i < 1500; ++i) made.push_back("line " + std::to_string(i));
    return made;
  }();
  ASSERT_TRUE(AddToQmpHistory(Path(), lines));
  const std::vector<std::string> kept = ReadQmpHistory(Path());
  ASSERT_EQ(kept.size(), kLongestQmpHistory);
  EXPECT_EQ(kept.back(), "line 1499");
}

TEST_F(QmpHistoryTest, AFolderThatCannotBeMadeIsSaid) {
  const std::string lines[] = {"one"};
  const Status status = AddToQmpHistory("/proc/nosuch/qmp_history", lines);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(), HasSubstr("cannot write '/proc/nosuch/qmp_history"));
}

}  // namespace
}  // namespace holdfast::apps
