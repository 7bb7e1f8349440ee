// SPDX-License-Identifier: Apache-2.0
#include "apps/help.h"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::apps {
namespace {

constexpr std::size_t kColumns = 80;
constexpr std::size_t kIndent = 16;

// Breaks `text` into lines of at most `width` characters, at blanks; keeps the breaks it has.
std::string Wrap(std::string_view text, std::size_t indent, std::size_t width) {
  std::string out;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    do {
      std::size_t end = line.size();
      if (end > width) {
        const std::size_t blank = line.rfind(' ', width);
        end = blank == std::string_view::npos ? std::min(line.find(' '), line.size()) : blank;
      }
      out.append(indent, ' ').append(line.substr(0, end)).append("\n");
      line.remove_prefix(std::min(line.size(), end + 1));
    } while (!line.empty());
  }
  return out;
}

std::string FormatEntry(const HelpEntry& entry) {
  std::string text = entry.syntax;
  std::string body = Wrap(entry.text, kIndent, kColumns - kIndent);
  // A short name shares its line with the first line of the text, as in QEMU's help.
  if (text.size() < kIndent && !body.empty()) return text + body.substr(text.size());
  return text + "\n" + body;
}

std::string Roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '\n') {
      out += "\n.br\n";
    } else {
      // A dot or an apostrophe that starts a line would be a macro.
      if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) out += "\\&";
      out += c;
    }
  }
  return out;
}

std::string RoffUpper(std::string_view text) {
  std::string out = Roff(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return out;
}

void AppendEntries(std::string& page, const std::vector<HelpEntry>& entries) {
  for (const HelpEntry& entry : entries) {
    page += fmt::format(".TP\n.B {}\n{}\n", Roff(entry.syntax), Roff(entry.text));
  }
}

}  // namespace

std::string FormatHelp(const ProgramHelp& help) {
  std::string text = fmt::format("usage: {} {}\n\n", help.name, help.usage);
  text += Wrap(fmt::format("{}: {}.", help.name, help.summary), 0, kColumns);
  for (const HelpSection& section : help.sections) {
    text += fmt::format("\n{}:\n", section.title);
    for (const HelpEntry& entry : section.entries) text += FormatEntry(entry);
  }
  if (!help.examples.empty()) text += "\nExamples:\n";
  for (const HelpEntry& example : help.examples) {
    text += Wrap(example.text, 0, kColumns) + fmt::format("    {}\n", example.syntax);
  }
  if (!help.exit_status.empty()) text += "\nExit status:\n";
  for (const HelpEntry& status : help.exit_status) text += FormatEntry(status);
  return text;
}

std::string FormatManPage(const ProgramHelp& help, std::string_view version) {
  std::string page = fmt::format(".TH {} 1 \"\" \"Holdfast {}\" \"User Commands\"\n",
                                 RoffUpper(help.name), Roff(version));
  page += fmt::format(".SH NAME\n{} \\- {}\n", Roff(help.name), Roff(help.summary));
  page += fmt::format(".SH SYNOPSIS\n.B {}\n{}\n", Roff(help.name), Roff(help.usage));
  page += ".SH DESCRIPTION\n";
  for (const std::string& paragraph : help.description) page += Roff(paragraph) + "\n.PP\n";
  page += ".SH OPTIONS\n";
  for (const HelpSection& section : help.sections) {
    page += fmt::format(".SS {}\n", Roff(section.title));
    AppendEntries(page, section.entries);
  }
  page += ".SH EXAMPLES\n";
  for (const HelpEntry& example : help.examples) {
    page += fmt::format("{}\n.PP\n.nf\n.RS\n{}\n.RE\n.fi\n.PP\n", Roff(example.text),
                        Roff(example.syntax));
  }
  page += ".SH \"EXIT STATUS\"\n";
  AppendEntries(page, help.exit_status);
  page += fmt::format(".SH \"SEE ALSO\"\n{}\n", Roff(help.see_also));
  return page;
}

}  // namespace holdfast::apps
