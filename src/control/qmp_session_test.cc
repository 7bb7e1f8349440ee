// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "object/object.h"

namespace holdfast::control {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

class QmpSessionTest : public ::testing::Test {
 protected:
  QmpSessionTest() {
    vm_.version = "1.2.3";
    vm_.name = "guest";
    vm_.uuid = "uuid";
    vm_.objects = &objects_;
    vm_.quit = [this] { ++quits_; };
    vm_.human_command = [](std::string_view line) { return std::string(line) + "\nand more\n"; };
    vm_.chardevs = [] { return std::vector<ChardevInfo>{{"serial0", "null", true}}; };
    Start({.check = true});
  }

  void Start(QmpSession::Options options) {
    session_ = std::make_unique<QmpSession>(vm_, options);
    TakeAll();
  }
  void Negotiate(std::string_view arguments = "{}") {
    Say(R"({"execute": "qmp_capabilities", "arguments": )" + std::string(arguments) + "}");
  }
  // Sends text and runs what it asks for. Returns all that came back, message by message.
  std::vector<Json> Say(std::string_view text) {
    while (!text.empty() && session_->WantsInput()) {
      text.remove_prefix(session_->Receive(text));
      while (session_->CanStep()) session_->Step();
    }
    return TakeAll();
  }
  std::vector<Json> TakeAll() {
    std::vector<Json> messages;
    std::string text(session_->output());
    session_->Consume(text.size());
    text += session_->output();
    session_->Consume(session_->output().size());
    JsonFramer framer;
    std::string_view rest = text;
    while (framer.Feed(rest) == JsonFramer::Step::kMessage) {
      messages.push_back(*ParseJson(framer.TakeMessage()));
    }
    EXPECT_TRUE(rest.empty());
    return messages;
  }
  // The only answer's error: "Class: desc".
  std::string ErrorOf(std::string_view text) {
    const std::vector<Json> messages = Say(text);
    if (messages.size() != 1 || !messages[0].contains("error")) {
      return "no error: " + Json(messages).dump();
    }
    const Json& error = messages[0]["error"];
    return error["class"].get<std::string>() + ": " + error["desc"].get<std::string>();
  }

  object::ObjectStore objects_;
  VmContext vm_;
  int quits_ = 0;
  std::unique_ptr<QmpSession> session_;
};

TEST_F(QmpSessionTest, GreetsWithVersionAndCapabilities) {
  const QmpSession session(vm_, {});
  const auto greeting = ParseJson(session.output());
  ASSERT_TRUE(greeting) << session.output();
  EXPECT_EQ((*greeting)["QMP"]["version"]["package"], "Holdfast 1.2.3");
  EXPECT_EQ((*greeting)["QMP"]["capabilities"], Json::array({"oob"}));
}

TEST_F(QmpSessionTest, WantsNegotiationFirst) {
  constexpr const char* kFirst =
      "CommandNotFound: Expecting capabilities negotiation with 'qmp_capabilities'";
  EXPECT_EQ(ErrorOf(R"({"execute": "query-name"})"), kFirst);
  EXPECT_EQ(ErrorOf(R"({"execute": "nosuch"})"), kFirst);
  session_->Emit(MakeEvent("STOP", {}));
  EXPECT_THAT(TakeAll(), IsEmpty()) << "no events before negotiation";
  Negotiate();
  EXPECT_EQ(ErrorOf(R"({"execute": "qmp_capabilities"})"),
            "CommandNotFound: Capabilities negotiation is already complete, command ignored");
}

TEST_F(QmpSessionTest, RefusesWhatIsNoRequestInQemusWords) {
  Negotiate();
  const struct {
    const char* text;
    const char* error;
  } cases[] = {
      {"[]", "GenericError: QMP input must be a JSON object"},
      {"1 ", "GenericError: QMP input must be a JSON object"},
      {"\"a\"", "GenericError: QMP input must be a JSON object"},
      {"{}", "GenericError: QMP input lacks member 'execute'"},
      {R"({"execute": 1})", "GenericError: QMP input member 'execute' must be a string"},
      {R"({"execute": "query-name", "x": 1})", "GenericError: QMP input member 'x' is unexpected"},
      {R"({"execute": "query-name", "arguments": []})",
       "GenericError: QMP input member 'arguments' must be an object"},
      {R"({"exec-oob": "query-name"})", "GenericError: QMP input member 'exec-oob' is unexpected"},
      {R"({"execute": "nosuch"})", "CommandNotFound: The command nosuch has not been found"},
      {R"({"execute": "query-name", "arguments": {"a": 1}})",
       "GenericError: Parameter 'a' is unexpected"},
      {R"({"execute": "query-name", "execute": "stop"})",
       "GenericError: JSON parse error, duplicate key"},
  };
  for (const auto& c : cases) EXPECT_EQ(ErrorOf(c.text), c.error) << c.text;
  EXPECT_THAT(ErrorOf("foo "), StartsWith("GenericError: JSON parse error, "));
  EXPECT_THAT(ErrorOf(R"({"execute": "query-name"])"),
              StartsWith("GenericError: JSON parse error, "));
  EXPECT_THAT(ErrorOf("{\"execute\": \"query-\n"), StartsWith("GenericError: JSON parse error, "));
  EXPECT_THAT(Say(R"({"execute": "query-name"})"), SizeIs(1)) << "it goes on after all of these";
}

TEST_F(QmpSessionTest, EchoesTheIdWhateverItIs) {
  Negotiate();
  for (const char* id : {"1", "\"x\"", "null", R"({"a": [1, {}]})"}) {
    const std::vector<Json> good =
        Say(R"({"execute": "query-name", "id": )" + std::string(id) + "}");
    ASSERT_THAT(good, SizeIs(1));
    EXPECT_EQ(good[0], (Json{{"return", {{"name", "guest"}}}, {"id", *ParseJson(id)}}));
    const std::vector<Json> bad = Say(R"({"execute": "nosuch", "id": )" + std::string(id) + "}");
    ASSERT_THAT(bad, SizeIs(1));
    EXPECT_EQ(bad[0]["id"], *ParseJson(id));
  }
  EXPECT_FALSE(Say(R"({"execute": "query-name"})")[0].contains("id"));
}

TEST_F(QmpSessionTest, AnswersInOrderHoweverTheBytesCome) {
  Negotiate();
  const std::string text = R"({"execute":"query-name","id":1}{"execute":"query-uuid","id":2})"
                           "\n\n"
                           R"({"execute":"query-name","id":3})";
  std::vector<Json> messages;
  for (const char c : text) {
    for (Json& message : Say(std::string_view(&c, 1))) messages.push_back(std::move(message));
  }
  ASSERT_THAT(messages, SizeIs(3));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(messages[static_cast<std::size_t>(i)]["id"], i + 1);
}

TEST_F(QmpSessionTest, OutOfBandCommandsOvertake) {
  Negotiate(R"({"enable": ["oob"]})");
  std::string_view text =
      R"({"execute": "query-chardev", "id": 1}{"exec-oob": "query-name", "id": 2})";
  text.remove_prefix(session_->Receive(text));
  EXPECT_TRUE(text.empty());
  std::vector<Json> first = TakeAll();
  ASSERT_THAT(first, SizeIs(1));
  EXPECT_EQ(first[0]["id"], 2);
  session_->Step();
  EXPECT_EQ(TakeAll()[0]["id"], 1);
  EXPECT_EQ(ErrorOf(R"({"exec-oob": "stop"})"),
            "GenericError: The command stop does not support OOB");
  EXPECT_EQ(ErrorOf(R"({"exec-oob": "query-name", "execute": "query-name"})"),
            "GenericError: QMP input member 'execute' clashes with 'exec-oob'");
}

TEST_F(QmpSessionTest, CutsAClientWhoseMessageIsTooLong) {
  Negotiate();
  const std::string text(JsonFramer::kMostBytes + 10, '[');
  EXPECT_EQ(ErrorOf(text), "GenericError: JSON token size limit exceeded");
  EXPECT_TRUE(session_->over());
  EXPECT_EQ(session_->Receive("{}"), 0U) << "nothing more is taken";
}

TEST_F(QmpSessionTest, CutsAClientThatSendsInvalidUtf8) {
  Negotiate();
  EXPECT_EQ(ErrorOf("{\"execute\": \"query-\xff\"}"),
            "GenericError: JSON parse error, invalid UTF-8");
  EXPECT_TRUE(session_->over());
}

TEST_F(QmpSessionTest, TellsAClientThatEndsInsideAMessage) {
  Negotiate();
  Say("{\"execute\": ");
  EXPECT_FALSE(session_->over());
  session_->EndInput();
  ASSERT_TRUE(session_->CanStep());
  session_->Step();
  EXPECT_TRUE(session_->over());
  EXPECT_THAT(TakeAll()[0]["error"]["desc"].get<std::string>(), HasSubstr("ends inside a message"));
}

TEST_F(QmpSessionTest, DoesWhatWasAskedBeforeTheInputEnded) {
  Negotiate();
  session_->Receive(R"({"execute": "quit"})");
  session_->EndInput();
  EXPECT_FALSE(session_->over());
  session_->Step();
  EXPECT_TRUE(session_->over());
  EXPECT_EQ(quits_, 1);
}

TEST_F(QmpSessionTest, AClientThatDoesNotReadStopsBeingServed) {
  Negotiate();
  const std::string request = R"({"execute": "query-qmp-schema"})";
  std::size_t sent = 0;
  std::size_t ran = 0;
  for (int i = 0; i < 1000 && session_->WantsInput(); ++i) {
    sent += session_->Receive(request);
    while (session_->CanStep()) {
      session_->Step();
      ++ran;
    }
  }
  EXPECT_FALSE(session_->WantsInput());
  EXPECT_EQ(sent, (ran + QmpSession::kMostWaiting) * request.size());
  const std::size_t one_reply = session_->output().size() / ran;
  EXPECT_LE(session_->output().size(), QmpSession::kOutputMark + one_reply);
  TakeAll();
  EXPECT_TRUE(session_->CanStep()) << "it goes on when the client reads";
}

TEST_F(QmpSessionTest, LargeRequestsWaitOneAtATime) {
  Negotiate();
  const std::string large =
      R"({"execute": "query-name", "id": ")" + std::string(QmpSession::kWaitingMark, 'x') + "\"}";
  EXPECT_EQ(session_->Receive(large + large), large.size());
  EXPECT_FALSE(session_->WantsInput());
  session_->Step();
  EXPECT_TRUE(session_->WantsInput());
}

TEST_F(QmpSessionTest, OutOfBandCommandsOfAClientThatDoesNotReadAreNotTakenEither) {
  Negotiate(R"({"enable": ["oob"]})");
  std::string many;
  for (int i = 0; i < 20000; ++i) many += R"({"exec-oob": "query-version"})";
  EXPECT_LT(session_->Receive(many), many.size());
  EXPECT_LT(session_->output().size(), QmpSession::kMostEventBytes + 200);
  TakeAll();
  EXPECT_TRUE(session_->WantsInput()) << "it goes on when the client reads";
}

TEST_F(QmpSessionTest, AClientThatDoesNotReadLosesEventsAndIsTold) {
  Negotiate();
  constexpr std::size_t kEvents = 20000;
  for (std::size_t i = 0; i < kEvents; ++i) session_->Emit(MakeEvent("STOP", {}));
  EXPECT_LE(session_->output().size(), QmpSession::kMostEventBytes + 200);
  const std::vector<Json> messages = TakeAll();
  ASSERT_FALSE(messages.empty());
  EXPECT_EQ(messages.back()["event"], "HOLDFAST_EVENTS_LOST");
  const auto lost = messages.back()["data"]["count"].get<std::size_t>();
  EXPECT_EQ(messages.size() - 1 + lost, kEvents);
  session_->Emit(MakeEvent("STOP", {}));
  EXPECT_THAT(TakeAll(), SizeIs(1)) << "and it is told once";
}

TEST_F(QmpSessionTest, EventsCarryTheTime) {
  Negotiate();
  session_->Emit(MakeEvent("RESET", {{"guest", true}, {"reason", "guest-reset"}}));
  const std::vector<Json> messages = TakeAll();
  ASSERT_THAT(messages, SizeIs(1));
  EXPECT_EQ(messages[0]["event"], "RESET");
  EXPECT_EQ(messages[0]["data"], (Json{{"guest", true}, {"reason", "guest-reset"}}));
  EXPECT_GT(messages[0]["timestamp"]["seconds"], 1500000000);
  EXPECT_LT(messages[0]["timestamp"]["microseconds"], 1000000);
}

TEST_F(QmpSessionTest, ChecksWhatItSends) {
  Negotiate();
  session_->Emit(MakeEvent("RESET", {{"reason", "guest-reset"}}));
  const std::vector<Json> messages = TakeAll();
  ASSERT_THAT(messages, SizeIs(1));
  EXPECT_EQ(messages[0]["error"]["desc"], "Parameter 'data.guest' is missing");
}

TEST_F(QmpSessionTest, HumanMonitorCommandsAnswerWithTheirText) {
  Negotiate();
  const std::vector<Json> messages =
      Say(R"({"execute": "human-monitor-command", "arguments": {"command-line": "info x"}})");
  ASSERT_THAT(messages, SizeIs(1));
  EXPECT_EQ(messages[0]["return"], "info x\r\nand more\r\n");
}

TEST_F(QmpSessionTest, PrettyIsForPeople) {
  Start({.pretty = true, .check = true});
  Say(R"({"execute": "qmp_capabilities"})");
  session_->Receive(R"({"execute": "query-name"})");
  session_->Step();
  EXPECT_EQ(session_->output(),
            "{\r\n    \"return\": {\r\n        \"name\": \"guest\"\r\n    }\r\n}\r\n");
}

}  // namespace
}  // namespace holdfast::control
