// SPDX-License-Identifier: Apache-2.0
// What clients pass, and the commands getfd and closefd.
#include "control/passed_fds.h"

#include <fmt/format.h>

#include <utility>

#include "control/human_commands.h"
#include "control/qmp_commands.h"

namespace holdfast::control {
namespace {

QmpResult Getfd(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY_STATUS(vm.passed_fds->Name(arguments["fdname"].get<std::string>()));
  return Json::object();
}

QmpResult Closefd(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY_STATUS(vm.passed_fds->Close(arguments["fdname"].get<std::string>()));
  return Json::object();
}

}  // namespace

Status PassedFds::Name(std::string name) {
  if (arrived_ == nullptr || arrived_->empty()) {
    return Fail(Errc::kInvalidArgument, "No file descriptor supplied via SCM_RIGHTS",
                "Send it along with the command, over a Unix socket of QMP.");
  }
  UniqueFd fd = std::move(arrived_->front());
  arrived_->pop_front();
  // Those are the numbers of descriptors that the process was started with.
  if (name.empty() || (name.front() >= '0' && name.front() <= '9')) {
    return Fail(Errc::kInvalidArgument,
                "Parameter 'fdname' expects a name not starting with a digit");
  }
  if (named_.size() >= kMost && !named_.contains(name)) {
    return Fail(Errc::kExhausted, fmt::format("{} file descriptors have names already", kMost),
                "Close some with closefd.");
  }
  named_.insert_or_assign(std::move(name), std::move(fd));
  return {};
}

Status PassedFds::Close(std::string_view name) {
  const auto found = named_.find(name);
  if (found == named_.end())
    return Fail(Errc::kNotFound, fmt::format("File descriptor named '{}' not found", name));
  named_.erase(found);
  return {};
}

Result<UniqueFd> PassedFds::Take(std::string_view name) {
  const auto found = named_.find(name);
  if (found == named_.end()) {
    return Fail(Errc::kNotFound, fmt::format("File descriptor named '{}' has not been found", name),
                "Pass one with getfd.");
  }
  UniqueFd fd = std::move(found->second);
  named_.erase(found);
  return fd;
}

Result<std::string> HumanCommands::Getfd(std::string_view arguments) {
  HF_TRY_STATUS(context_.passed_fds->Name(std::string(arguments)));
  return std::string();
}

Result<std::string> HumanCommands::Closefd(std::string_view arguments) {
  HF_TRY_STATUS(context_.passed_fds->Close(arguments));
  return std::string();
}

void DefineFdCommands(Schema& schema) {
  schema.Struct("FdName", {{"fdname", "str"}});
  schema.AddCommand("getfd", {.arguments = "FdName", .run = Getfd});
  schema.AddCommand("closefd", {.arguments = "FdName", .run = Closefd});
}

}  // namespace holdfast::control
