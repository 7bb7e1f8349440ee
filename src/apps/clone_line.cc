// SPDX-License-Identifier: Apache-2.0
#include "apps/clone_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "apps/clone_claims.h"
#include "apps/option_table.h"
#include "apps/options.h"
#include "object/keyval.h"

namespace holdfast::apps {
namespace {

using object::KeyValue;
using object::KeyValues;

// An option and its argument; without a name the word stood alone and is the first disk.
struct Word {
  std::string_view name;  // as in the table
  std::string argument;
  bool own = false;  // the user wrote it for the clones
};
using Words = std::vector<Word>;

std::string Escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) escaped.append(c == ',' ? 2 : 1, c);
  return escaped;
}

std::string Join(const KeyValues& values) {
  std::string text;
  for (const KeyValue& entry : values) {
    if (!text.empty()) text += ',';
    if (!entry.implied) text += entry.key;
    if (!entry.implied && !entry.bare) text += '=';
    if (!entry.bare) text += Escape(entry.value);
  }
  return text;
}

Result<Words> Split(std::span<const std::string> line, bool own) {
  Words words;
  for (std::size_t i = 0; i < line.size(); ++i) {
    std::string_view text = line[i];
    if (!text.starts_with('-')) {
      words.push_back({"", line[i], own});
      continue;
    }
    text.remove_prefix(text.starts_with("--") ? 2 : 1);
    const OptionSpec* const option = FindOption(text);
    if (option == nullptr) return Fail(UnknownOption(text));
    if (option->takes_argument() && i + 1 == line.size()) {
      return Fail(Errc::kInvalidArgument, fmt::format("-{}: requires an argument", text),
                  fmt::format("Write -{} {}.", text, option->argument));
    }
    words.push_back({option->name, option->takes_argument() ? line[++i] : std::string(), own});
  }
  return words;
}

std::vector<std::string> Line(const Words& words) {
  std::vector<std::string> line;
  for (const Word& word : words) {
    if (!word.name.empty()) line.push_back(fmt::format("-{}", word.name));
    if (word.name.empty() || FindOption(word.name)->takes_argument()) line.push_back(word.argument);
  }
  return line;
}

Result<Options> Parse(const std::vector<std::string>& line) {
  std::vector<const char*> arguments;
  for (const std::string& word : line) arguments.push_back(word.c_str());
  HF_TRY(Options options, ParseCommandLine(arguments));
  if (options.print) {
    return Fail(Errc::kInvalidArgument, "help cannot be given for clones",
                "Ask holdfast itself for it.");
  }
  return options;
}

// What options are told apart by: id, or what kind of device or object they make.
std::string Identity(const Word& word) {
  constexpr std::string_view kNamed[] = {"device", "object",   "netdev", "nic",
                                         "drive",  "blockdev", "chardev"};
  if (std::ranges::find(kNamed, word.name) == std::end(kNamed)) return {};
  const bool typed = word.name == "device" || word.name == "object";
  KeyValues values;
  if (word.argument.starts_with('{')) {
    auto read = object::ParseJsonKeyValues(word.argument);
    if (read) values = *std::move(read);
  } else if (auto read = object::ParseKeyValues(word.argument, "type")) {
    values = *std::move(read);
  }
  for (const std::string_view key : {"id", "node-name"}) {
    if (const std::string* const id = object::FindValue(values, key)) return "=" + *id;
  }
  if (!typed || values.empty()) return {};
  return values.front().value;
}

// The saved options with those of the user in their places.
Words Merge(Words words, Words more) {
  for (Word& word : more) {
    const std::string identity = Identity(word);
    const auto same = std::ranges::find_if(words, [&](const Word& old) {
      return !old.own && old.name == word.name && Identity(old) == identity;
    });
    if (same != words.end()) {
      *same = std::move(word);
    } else {
      words.push_back(std::move(word));
    }
  }
  return words;
}

std::vector<std::string> Numbered(const std::vector<std::string>& words, std::size_t number) {
  std::vector<std::string> all;
  for (const std::string& word : words) {
    std::string& text = all.emplace_back();
    for (std::size_t i = 0; i < word.size(); ++i) {
      const bool sign = word[i] == '%' && i + 1 < word.size();
      if (sign && word[i + 1] == 'n') {
        text += std::to_string(number);
        ++i;
      } else {
        text += word[i];
        if (sign && word[i + 1] == '%') ++i;
      }
    }
  }
  return all;
}

// ---- What becomes of saved options --------------------------------------------------------------

std::string OwnSocket(std::string_view folder, std::string_view name) {
  return fmt::format("unix:{}/{},server=on,wait=off", Escape(folder), name);
}

// Consoles of the saved machine's become sockets in the folder; `null` stays.
std::string OwnSerial(std::string_view word, std::string_view folder, std::size_t index) {
  if (word == "none" || word == "null" || word.starts_with("chardev:")) return std::string(word);
  return OwnSocket(folder,
                   index == 0 ? std::string(kCloneConsole) : fmt::format("console{}.sock", index));
}

// Likewise what -chardev leads to. A client of somebody's is left as it is.
std::string OwnChardev(const std::string& argument, std::string_view folder) {
  const auto values = object::ParseKeyValues(argument, "backend");
  if (!values || values->empty()) return argument;
  const std::string* const id = object::FindValue(*values, "id");
  const std::string* const backend = object::FindValue(*values, "backend");
  if (id == nullptr || backend == nullptr || !object::IsWellFormedId(*id)) return argument;
  const std::string* const server = object::FindValue(*values, "server");
  if (*backend == "file") return fmt::format("file,id={},path={}/{}.out", *id, Escape(folder), *id);
  const bool serves = *backend == "socket" && server != nullptr && *server != "off" &&
                      *server != "no" && *server != "false" && *server != "n";
  if (!serves && *backend != "stdio") return argument;
  return fmt::format("socket,id={},path={}/{}.sock,server=on,wait=off", *id, Escape(folder), *id);
}

// A number that the guest knows itself by is for one guest.
std::string OwnDevice(const std::string& argument) {
  auto values = object::ParseKeyValues(argument, "driver");
  if (!values || values->empty() || values->front().value != "vmgenid") return argument;
  std::erase_if(*values, [](const KeyValue& entry) { return entry.key == "guid"; });
  return Join(*values);
}

constexpr std::string_view kDropped[] = {"incoming", "loadvm", "daemonize",  "pidfile",
                                         "D",        "qmp",    "qmp-pretty", "monitor",
                                         "S",        "name",   "nographic",  "display"};

void MakeOwn(Words& words, const std::string& folder) {
  std::erase_if(words, [](const Word& word) {
    return !word.own && std::ranges::find(kDropped, word.name) != std::end(kDropped);
  });
  std::size_t serial = 0;
  for (Word& word : words) {
    const std::size_t index = word.name == "serial" ? serial++ : 0;
    if (word.own) continue;
    if (word.name == "serial") word.argument = OwnSerial(word.argument, folder, index);
    if (word.name == "chardev") word.argument = OwnChardev(word.argument, folder);
    if (word.name == "device") word.argument = OwnDevice(word.argument);
  }
  const auto has = [&](std::string_view name) {
    return std::ranges::any_of(words, [&](const Word& word) { return word.name == name; });
  };
  const auto add = [&](std::string_view name, std::string argument) {
    words.push_back({name, std::move(argument), true});
  };
  if (serial == 0 && !has("nodefaults")) add("serial", OwnSocket(folder, kCloneConsole));
  if (!has("nographic") && !has("display")) add("display", "none");
  add("qmp", OwnSocket(folder, kCloneSocket));
  if (!has("pidfile")) add("pidfile", fmt::format("{}/{}", folder, kClonePidfile));
}

// ---- Disks --------------------------------------------------------------------------------------

// The name of an image without the protocol that may stand before it.
std::string_view PlainName(std::string_view name) {
  constexpr std::string_view kFile = "file:";
  if (name.starts_with(kFile)) name.remove_prefix(kFile.size());
  return name;
}

bool NamesImage(std::string_view key) {
  return key == "file" || key == "filename" || key.ends_with(".filename");
}

// Whether there was something to replace; so the others.
bool ReplaceInJson(nlohmann::json& json, const std::string& from, const std::string& to) {
  bool found = false;
  for (auto& [key, value] : json.items()) {
    // The parser has bounded how deep they are nested.
    if (value.is_object()) found |= ReplaceInJson(value, from, to);
    if (!value.is_string() || !NamesImage(key) || value.get<std::string>() != from) continue;
    value = to;
    found = true;
  }
  return found;
}

bool ReplaceInValues(Word& word, const std::string& from, const std::string& to) {
  auto values = object::ParseKeyValues(word.argument, word.name == "blockdev" ? "driver" : "");
  if (!values) return false;
  bool found = false;
  for (KeyValue& entry : *values) {
    if (!NamesImage(entry.key) || PlainName(entry.value) != from) continue;
    entry.value = to;
    found = true;
  }
  if (found) word.argument = Join(*values);
  return found;
}

bool ReplaceImage(Word& word, const std::string& from, const std::string& to) {
  if (word.name.empty() || (word.name.size() == 3 && word.name.starts_with("hd"))) {
    if (PlainName(word.argument) != from) return false;
    word.argument = to;
    return true;
  }
  if (word.name != "drive" && word.name != "blockdev") return false;
  if (!word.argument.starts_with('{')) return ReplaceInValues(word, from, to);
  auto json = object::ParseJsonObject(word.argument);
  if (!json || !ReplaceInJson(*json, from, to)) return false;
  word.argument = json->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return true;
}

// A name in the clone's folder for each image that it would write to.
void CopyDisks(Words& words, const std::vector<Claim>& claims, const std::string& folder,
               CloneLine& line) {
  std::size_t number = 0;
  for (const Claim& claim : claims) {
    if (claim.kind != Claim::Kind::kDisk) continue;
    const std::string to = fmt::format("{}/disk{}{}", folder, number,
                                       std::filesystem::path(claim.path).extension().string());
    bool found = false;
    // What the user wrote for the clones is theirs as it is.
    for (Word& word : words) found |= !word.own && ReplaceImage(word, claim.path, to);
    if (!found) continue;
    line.copies.push_back({claim.path, to});
    ++number;
  }
}

// ---- What clones must not share -----------------------------------------------------------------

std::string_view Remedy(const Claim& claim) {
  switch (claim.kind) {
    case Claim::Kind::kDisk:
      return "Write --copy-disks for a copy each, or that option again behind -- with readonly=on "
             "or snapshot=on.";
    case Claim::Kind::kMemory:
      return "Write that option again behind --, with share=off or with %n in the path.";
    case Claim::Kind::kListener:
    case Claim::Kind::kFile:
    case Claim::Kind::kInterface:
    case Claim::Kind::kNumber:
      break;
  }
  return "Write that option again behind --, with %n where the number of the clone is to stand.";
}

// By what is claimed: who claims it.
using Owners = std::map<std::string, std::string, std::less<>>;

Status Take(Owners& owners, const std::vector<Claim>& claims, const std::string& who) {
  for (const Claim& claim : claims) {
    const auto [owner, taken] = owners.emplace(claim.what, who);
    if (taken || owner->second == who) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("{}: {} would be both {}'s and {}'s", claim.option, claim.what,
                            owner->second, who),
                std::string(Remedy(claim)));
  }
  return {};
}

std::string Incoming(const ClonePlan& plan) {
  return fmt::format("file:{}{}{}", Escape(plan.snapshot), plan.prefault ? ",prefault=on" : "",
                     plan.new_mac ? ",new-mac=on" : "");
}

}  // namespace

Result<std::vector<CloneLine>> MakeCloneLines(const ClonePlan& plan) {
  HF_TRY(Words saved, Split(plan.saved, false));
  // A machine that was itself restored goes on from the newer snapshot.
  std::erase_if(saved,
                [](const Word& word) { return word.name == "incoming" || word.name == "loadvm"; });
  HF_TRY(const Options original, Parse(Line(saved)));
  Owners owners;
  HF_TRY_STATUS(Take(owners, ClaimsOf(original), "the saved machine"));

  std::vector<CloneLine> lines;
  for (std::size_t i = 0; i < plan.folders.size(); ++i) {
    const std::string& folder = plan.folders[i];
    HF_TRY(Words more, Split(Numbered(plan.more, i), true));
    for (const Word& word : more) {
      if (word.name != "incoming" && word.name != "loadvm" && word.name != "daemonize") continue;
      return Fail(Errc::kInvalidArgument, fmt::format("-{} cannot be given for clones", word.name),
                  "Leave it out: they start from the snapshot, in the background.");
    }
    Words words = Merge(saved, std::move(more));
    MakeOwn(words, folder);
    const bool named =
        std::ranges::any_of(words, [](const Word& word) { return word.name == "name"; });
    if (!named) {
      std::string name = fmt::format(
          "guest={}-{}", original.guest_name.empty() ? "clone" : Escape(original.guest_name), i);
      if (!original.process_name.empty())
        name += fmt::format(",process={}", Escape(original.process_name));
      words.push_back({"name", std::move(name), true});
    }
    words.push_back({"incoming", Incoming(plan), true});
    CloneLine line;
    HF_TRY(Options options, Parse(Line(words)));
    if (plan.copy_disks) {
      CopyDisks(words, ClaimsOf(options), folder, line);
      HF_TRY(options, Parse(Line(words)));
    }
    HF_TRY_STATUS(Take(owners, ClaimsOf(options), fmt::format("clone {}", i)));
    line.words = Line(words);
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace holdfast::apps
