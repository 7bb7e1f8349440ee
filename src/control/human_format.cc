// SPDX-License-Identifier: Apache-2.0
#include "control/human_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace holdfast::control {
namespace {

// The value of `size` bytes of the little-endian guest.
std::uint64_t Load(std::span<const std::byte> data, unsigned size) {
  std::uint64_t value = 0;
  std::memcpy(&value, data.data(), std::min<std::size_t>(size, data.size()));
  return value;
}

std::int64_t SignExtend(std::uint64_t value, unsigned size) {
  const unsigned unused = 64 - size * 8;
  return static_cast<std::int64_t>(value << unused) >> unused;
}

std::string Character(std::uint8_t c) {
  switch (c) {
    case '\'':
      return R"('\'')";
    case '\\':
      return R"('\\')";
    case '\n':
      return R"('\n')";
    case '\r':
      return R"('\r')";
    default:
      return c >= 0x20 && c < 0x7f ? fmt::format("'{}'", static_cast<char>(c))
                                   : fmt::format("'\\x{:02x}'", c);
  }
}

std::string Value(const DumpFormat& format, std::span<const std::byte> data) {
  const std::uint64_t value = Load(data, format.size);
  const unsigned bits = format.size * 8;
  switch (format.format) {
    case 'o':
      return fmt::format("0{:{}o}", value, (bits + 2) / 3);
    case 'u':
      return fmt::format("{:{}}", value, (bits * 10 + 32) / 33);
    case 'd':
      return fmt::format("{:{}}", SignExtend(value, format.size), (bits * 10 + 32) / 33);
    case 'c':
      return Character(static_cast<std::uint8_t>(value));
    default:
      return fmt::format("0x{:0{}x}", value, bits / 4);
  }
}

Error BadDumpFormat(std::string_view text, std::string_view why) {
  return Error(Errc::kInvalidArgument, fmt::format("invalid format '/{}': {}", text, why),
               "Its form is /COUNT FORMAT SIZE, for example /8xg: FORMAT is one of x d u o c, SIZE "
               "one of b h w g.");
}

}  // namespace

Result<DumpFormat> ParseDumpFormat(std::string_view text) {
  DumpFormat format;
  std::string_view rest = text;
  const std::size_t digits = std::min(rest.find_first_not_of("0123456789"), rest.size());
  if (digits > 0) {
    const char* const begin = rest.data();  // NOLINT(bugprone-suspicious-stringview-data-usage)
    const auto [end, error] = std::from_chars(begin, begin + digits, format.count);
    if (error != std::errc{} || end != begin + digits || format.count > kMostDumped) {
      return Fail(BadDumpFormat(text, fmt::format("at most {} bytes are shown", kMostDumped)));
    }
    rest.remove_prefix(digits);
  }
  for (const char c : rest) {
    constexpr std::string_view kSizes = "bhwg";
    if (const std::size_t at = kSizes.find(c); at != std::string_view::npos) {
      format.size = 1U << at;
    } else if (std::string_view("xduoc").find(c) != std::string_view::npos) {
      format.format = c;
    } else if (c == 'i') {
      return Fail(BadDumpFormat(text, "Holdfast has no disassembler"));
    } else {
      return Fail(BadDumpFormat(text, fmt::format("'{}' is not known", c)));
    }
  }
  if (format.format == 'c') format.size = 1;
  if (format.bytes() > kMostDumped) {
    return Fail(BadDumpFormat(text, fmt::format("at most {} bytes are shown", kMostDumped)));
  }
  return format;
}

std::string FormatDump(const DumpFormat& format, std::uint64_t address,
                       std::span<const std::byte> data) {
  const std::size_t line = format.size == 1 ? 8 : 16;
  std::string text;
  for (std::size_t at = 0; at < data.size(); at += format.size) {
    if (at % line == 0) text += fmt::format("{}{:016x}:", at == 0 ? "" : "\n", address + at);
    text += ' ';
    text += Value(format, data.subspan(at));
  }
  return text.empty() ? text : text + '\n';
}

Result<std::uint64_t> EvaluateAddress(std::string_view text, const machine::VcpuRegisters& set) {
  const kvm_regs& r = set.regs;
  const std::array<std::pair<std::string_view, std::uint64_t>, 24> registers = {{
      {"rax", r.rax}, {"rbx", r.rbx},         {"rcx", r.rcx},         {"rdx", r.rdx},
      {"rsi", r.rsi}, {"rdi", r.rdi},         {"rbp", r.rbp},         {"rsp", r.rsp},
      {"r8", r.r8},   {"r9", r.r9},           {"r10", r.r10},         {"r11", r.r11},
      {"r12", r.r12}, {"r13", r.r13},         {"r14", r.r14},         {"r15", r.r15},
      {"rip", r.rip}, {"pc", r.rip},          {"eip", r.rip},         {"sp", r.rsp},
      {"esp", r.rsp}, {"cr2", set.sregs.cr2}, {"cr3", set.sregs.cr3}, {"eflags", r.rflags},
  }};
  const auto bad = [](std::string_view part) {
    return Fail(Errc::kInvalidArgument, fmt::format("invalid address '{}'", part),
                "Write a number (0x1000) or a register ($rip), joined by + and -.");
  };
  std::uint64_t sum = 0;
  bool negative = false;
  std::string_view rest = text;
  for (;;) {
    const std::size_t end = std::min(rest.find_first_of("+-"), rest.size());
    std::string_view part = rest.substr(0, end);
    std::uint64_t value = 0;
    if (part.starts_with('$')) {
      const auto found = std::ranges::find(registers, part.substr(1),
                                           &std::pair<std::string_view, std::uint64_t>::first);
      if (found == registers.end()) return bad(part);
      value = found->second;
    } else {
      int base = 10;
      std::string_view digits = part;
      if (digits.starts_with("0x") || digits.starts_with("0X")) {
        base = 16;
        digits.remove_prefix(2);
      } else if (digits.size() > 1 && digits.starts_with('0')) {
        base = 8;
      }
      const char* const begin = digits.data();  // NOLINT(bugprone-suspicious-stringview-data-usage)
      const auto [last, error] = std::from_chars(begin, begin + digits.size(), value, base);
      if (digits.empty() || error != std::errc{} || last != begin + digits.size()) return bad(part);
    }
    sum = negative ? sum - value : sum + value;
    if (end == rest.size()) return sum;
    negative = rest[end] == '-';
    rest.remove_prefix(end + 1);
  }
}

std::string FormatRamBlocks(std::span<const RamBlockRow> rows) {
  std::string text = fmt::format("{:>24} {:>8}  {:>18} {:>18} {:>18} {:>18} {:>3}\n", "Block Name",
                                 "PSize", "Offset", "Used", "Total", "HVA", "RO");
  for (const RamBlockRow& row : rows) {
    text += fmt::format("{:>24} {:>8}  0x{:016x} 0x{:016x} 0x{:016x} 0x{:016x} {:>3}\n", row.name,
                        "4 KiB", row.offset, row.size, row.size, row.host_address,
                        row.read_only ? "ro" : "rw");
  }
  return text;
}

std::string FormatMemoryTree(std::string_view space, std::string_view root, std::uint64_t last,
                             std::span<const MemoryTreeRow> rows, bool flat) {
  std::string text;
  std::string_view indent = "    ";
  if (flat) {
    text = fmt::format(" AS \"{}\", root: {}\n Root memory region: {}\n", space, root, root);
    indent = "  ";
  } else {
    text = fmt::format("address-space: {}\n  {:016x}-{:016x} (prio 0, i/o): {}\n", space, 0, last,
                       root);
  }
  for (const MemoryTreeRow& row : rows) {
    text += fmt::format("{}{:016x}-{:016x} (prio 0, {}): {}", indent, row.begin, row.end, row.kind,
                        row.name);
    // A range that is a later part of its block says where that part starts, as QEMU's @offset.
    if (row.alias_offset != 0) text += fmt::format(" @{:016x}", row.alias_offset);
    text += '\n';
  }
  return text + '\n';
}

}  // namespace holdfast::control
