// SPDX-License-Identifier: Apache-2.0
// Any bytes as what a QMP client sends, in pieces whose size the first byte chooses. There is no
// machine behind the session: commands that need one stop there. Whatever comes, each line of
// output is a JSON object, and what is held stays bounded.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "control/qmp_session.h"
#include "object/object.h"

namespace {

using holdfast::control::QmpSession;

struct NoMachine {};

holdfast::control::VmContext MakeContext(holdfast::object::ObjectStore& objects) {
  holdfast::control::VmContext vm;
  vm.version = "1";
  vm.uuid = "u";
  vm.machine_type = "q35";
  vm.objects = &objects;
  vm.machine = []() -> holdfast::machine::Machine& { throw NoMachine{}; };
  vm.vm = []() -> holdfast::kvm::Vm& { throw NoMachine{}; };
  vm.chardevs = [] { return std::vector<holdfast::control::ChardevInfo>{}; };
  vm.quit = [] {};
  vm.human_command = [](std::string_view line) { return std::string(line); };
  return vm;
}

// Lines are whole: the session has one message a line in its plain form.
void TakeOutput(QmpSession& session) {
  std::string_view output = session.output();
  const std::size_t size = output.size();
  while (!output.empty()) {
    const std::size_t end = output.find("\r\n");
    if (end == std::string_view::npos) std::abort();
    const auto message = holdfast::control::ParseJson(output.substr(0, end));
    if (!message || !message->is_object()) std::abort();
    if (const auto error = message->find("error"); error != message->end()) {
      const std::string desc = (*error)["desc"].get<std::string>();
      if (desc.find("breaks its schema") != std::string::npos) std::abort();
    }
    output.remove_prefix(end + 2);
  }
  session.Consume(size);
}

void Run(QmpSession& session) {
  while (session.CanStep()) {
    try {
      session.Step();
    } catch (const NoMachine&) {
      // Without an answer, and nothing else is different.
    }
    TakeOutput(session);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t piece = data[0] == 0 ? size : data[0];
  std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  holdfast::object::ObjectStore objects;
  holdfast::control::VmContext vm = MakeContext(objects);
  QmpSession session(vm, {.pretty = false, .check = true});
  TakeOutput(session);
  session.Receive(R"({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})");
  Run(session);
  while (!input.empty() && session.WantsInput()) {
    std::string_view part = input.substr(0, piece);
    input.remove_prefix(part.size());
    while (!part.empty() && session.WantsInput()) {
      try {
        part.remove_prefix(session.Receive(part));
      } catch (const NoMachine&) {
        return 0;  // an out-of-band command, in the middle of receiving
      }
      Run(session);
    }
  }
  session.EndInput();
  Run(session);
  if (!session.over()) std::abort();
  return 0;
}
