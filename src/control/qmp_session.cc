// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_session.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <utility>

#include "control/passed_fds.h"

namespace holdfast::control {
namespace {

tl::unexpected<QmpError> Refuse(std::string text) {
  return tl::unexpected(QmpError(QmpErrorClass::kGenericError, std::move(text)));
}

tl::unexpected<QmpError> Refuse(QmpErrorClass error_class, std::string text) {
  return tl::unexpected(QmpError(error_class, std::move(text)));
}

Json ErrorReply(const QmpError& error) {
  Json inner = {{"class", QmpErrorClassName(error.error_class)}, {"desc", error.desc}};
  // Not in QEMU's protocol, which lets a reply have more members than a client knows.
  if (!error.hint.empty()) inner["hint"] = error.hint;
  return {{"error", std::move(inner)}};
}

// The command a request names, once its form is right. The texts are QEMU's.
struct Form {
  std::string command;
  bool out_of_band = false;
};

tl::expected<Form, QmpError> CheckForm(const Json& request, bool oob_enabled) {
  if (!request.is_object()) return Refuse("QMP input must be a JSON object");
  const Json* execute = nullptr;
  Form form;
  for (const auto& [name, value] : request.items()) {
    if (name == "execute" || (name == "exec-oob" && oob_enabled)) {
      if (!value.is_string()) {
        return Refuse(fmt::format("QMP input member '{}' must be a string", name));
      }
      if (execute != nullptr) return Refuse("QMP input member 'execute' clashes with 'exec-oob'");
      execute = &value;
      form.out_of_band = name == "exec-oob";
    } else if (name == "arguments") {
      if (!value.is_object()) return Refuse("QMP input member 'arguments' must be an object");
    } else if (name != "id") {
      return Refuse(fmt::format("QMP input member '{}' is unexpected", name));
    }
  }
  if (execute == nullptr) return Refuse("QMP input lacks member 'execute'");
  form.command = execute->get<std::string>();
  return form;
}

}  // namespace

Json MakeEvent(std::string_view name, Json data) {
  using std::chrono::microseconds;
  const auto now =
      std::chrono::duration_cast<microseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  Json event = {{"event", name},
                {"timestamp", {{"seconds", now / 1000000}, {"microseconds", now % 1000000}}}};
  if (!data.empty()) event["data"] = std::move(data);
  return event;
}

// Clients look at `qemu` to learn which commands and members to expect, so it names the release of
// QEMU whose protocol this is; `package` is where QEMU's own builds say who made them.
Json QmpVersion(const VmContext& vm) {
  return {{"qemu", {{"major", 11}, {"minor", 1}, {"micro", 0}}},
          {"package", fmt::format("Holdfast {}", vm.version)}};
}

QmpSession::QmpSession(VmContext& vm, Options options) : vm_(vm), options_(options) {
  Send({{"QMP", {{"version", QmpVersion(vm)}, {"capabilities", {"oob"}}}}});
}

std::size_t QmpSession::Receive(std::string_view data) {
  const std::size_t size = data.size();
  while (!data.empty() && WantsInput()) {
    switch (framer_.Feed(data)) {
      case JsonFramer::Step::kNeedMore:
        break;
      case JsonFramer::Step::kMessage:
        Accept(framer_.TakeMessage());
        break;
      case JsonFramer::Step::kTooLong:
        framer_.TakeMessage();
        Cut("JSON token size limit exceeded");
        break;
    }
  }
  return size - data.size();
}

void QmpSession::ReceiveFds(std::vector<UniqueFd> fds) {
  for (UniqueFd& fd : fds) {
    if (fds_.size() < kMostFds && vm_.passed_fds != nullptr) fds_.push_back(std::move(fd));
  }
}

void QmpSession::EndInput() {
  if (input_over_) return;
  if (framer_.in_message()) {
    framer_.TakeMessage();
    Cut("JSON parse error, the input ends inside a message");
  }
  input_over_ = true;
}

// The last answer this client gets.
void QmpSession::Cut(std::string error) {
  waiting_.push_back({nullptr, std::move(error), 0});
  input_over_ = true;
}

void QmpSession::Accept(const std::string& text) {
  if (!IsUtf8(text)) {
    Cut("JSON parse error, invalid UTF-8");
    return;
  }
  Result<Json> request = ParseJson(text);
  if (!request) {
    waiting_.push_back({nullptr, request.error().message(), 0});
    return;
  }
  if (oob_ && request->is_object() && request->contains("exec-oob")) {
    Send(Answer(*request));
    return;
  }
  waiting_bytes_ += text.size();
  waiting_.push_back({*std::move(request), {}, text.size()});
}

void QmpSession::Step() {
  const Waiting next = std::move(waiting_.front());
  waiting_.pop_front();
  waiting_bytes_ -= next.bytes;
  Send(next.error.empty() ? Answer(next.request)
                          : ErrorReply(QmpError(QmpErrorClass::kGenericError, next.error)));
  // What nobody has asked for.
  if (waiting_.empty() && !framer_.in_message()) fds_.clear();
}

Json QmpSession::Answer(const Json& request) {
  QmpResult result = Execute(request);
  Json reply = result ? Json{{"return", *std::move(result)}} : ErrorReply(result.error());
  if (request.is_object() && request.contains("id")) reply["id"] = request["id"];
  return reply;
}

QmpResult QmpSession::Execute(const Json& request) {
  const auto form = CheckForm(request, oob_);
  if (!form) return tl::unexpected(form.error());
  const auto given = request.find("arguments");
  const Json arguments = given == request.end() ? Json::object() : *given;
  if (!negotiated_ && form->command != "qmp_capabilities") {
    return Refuse(QmpErrorClass::kCommandNotFound,
                  "Expecting capabilities negotiation with 'qmp_capabilities'");
  }
  const Schema::Command* const command = QmpSchema().FindCommand(form->command);
  if (command == nullptr) {
    return Refuse(QmpErrorClass::kCommandNotFound,
                  fmt::format("The command {} has not been found", form->command));
  }
  if (form->out_of_band && !command->allow_oob) {
    return Refuse(fmt::format("The command {} does not support OOB", form->command));
  }
  if (negotiated_ && command->run == nullptr) {
    return Refuse(QmpErrorClass::kCommandNotFound,
                  "Capabilities negotiation is already complete, command ignored");
  }
  if (const Status checked = QmpSchema().CheckArguments(*command, arguments); !checked) {
    return tl::unexpected<QmpError>(checked.error());
  }
  return command->run == nullptr ? Negotiate(arguments) : Run(*command, arguments);
}

QmpResult QmpSession::Negotiate(const Json& arguments) {
  // The schema admits no other capability than oob.
  if (const auto enable = arguments.find("enable"); enable != arguments.end()) {
    oob_ = !enable->empty();
  }
  negotiated_ = true;
  return Json::object();
}

QmpResult QmpSession::Run(const Schema::Command& command, const Json& arguments) {
  std::optional<PassedFds::Turn> turn;
  if (vm_.passed_fds != nullptr) turn.emplace(*vm_.passed_fds, fds_);
  QmpResult result = command.run(vm_, arguments);
  if (result && options_.check) {
    if (const Status checked = QmpSchema().CheckResult(command, *result); !checked) {
      return Refuse(fmt::format("the reply of {} breaks its schema: {}", command.name,
                                checked.error().message()));
    }
  }
  return result;
}

void QmpSession::Emit(const Json& event) {
  if (!negotiated_ || over()) return;
  if (output().size() >= kMostEventBytes) {
    ++lost_events_;
    return;
  }
  if (options_.check) {
    const Json data = event.value("data", Json::object());
    if (const Status checked = QmpSchema().CheckEvent(event["event"].get<std::string>(), data);
        !checked) {
      Send(ErrorReply(checked.error()));
      return;
    }
  }
  Send(event);
}

void QmpSession::Mute() {
  muted_ = true;
  output_ = {};
  sent_ = 0;
}

void QmpSession::Send(const Json& message) {
  if (muted_) return;
  output_ += JsonText(message, options_.pretty);
  output_ += "\r\n";
}

void QmpSession::Consume(std::size_t count) {
  sent_ += count;
  // Moving the rest costs time, keeping what is sent costs memory: do it when it has paid off.
  if (sent_ == output_.size() || sent_ >= kOutputMark) {
    output_.erase(0, sent_);
    sent_ = 0;
    // One large reply must not keep its memory for good.
    if (output_.empty() && output_.capacity() > kMostEventBytes) output_.shrink_to_fit();
  }
  if (lost_events_ > 0 && output().size() < kOutputMark) {
    const std::uint64_t count_lost = std::exchange(lost_events_, 0);
    Emit(MakeEvent("HOLDFAST_EVENTS_LOST", {{"count", count_lost}}));
  }
}

}  // namespace holdfast::control
