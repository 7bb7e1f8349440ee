// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/aml.h"

#include <cctype>

namespace holdfast::machine::acpi::aml {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint8_t kZeroOp = 0x00;
constexpr std::uint8_t kOneOp = 0x01;
constexpr std::uint8_t kNameOp = 0x08;
constexpr std::uint8_t kBytePrefix = 0x0a;
constexpr std::uint8_t kWordPrefix = 0x0b;
constexpr std::uint8_t kDWordPrefix = 0x0c;
constexpr std::uint8_t kStringPrefix = 0x0d;
constexpr std::uint8_t kQWordPrefix = 0x0e;
constexpr std::uint8_t kScopeOp = 0x10;
constexpr std::uint8_t kBufferOp = 0x11;
constexpr std::uint8_t kPackageOp = 0x12;
constexpr std::uint8_t kMethodOp = 0x14;
constexpr std::uint8_t kDualNamePrefix = 0x2e;
constexpr std::uint8_t kMultiNamePrefix = 0x2f;
constexpr std::uint8_t kExtOpPrefix = 0x5b;
constexpr std::uint8_t kDeviceOp = 0x82;  // after kExtOpPrefix
constexpr std::uint8_t kLocal0Op = 0x60;
constexpr std::uint8_t kArg0Op = 0x68;
constexpr std::uint8_t kStoreOp = 0x70;
constexpr std::uint8_t kAndOp = 0x7b;
constexpr std::uint8_t kOrOp = 0x7d;
constexpr std::uint8_t kCreateDWordFieldOp = 0x8a;
constexpr std::uint8_t kNotOp = 0x92;  // logical
constexpr std::uint8_t kEqualOp = 0x93;
constexpr std::uint8_t kIfOp = 0xa0;
constexpr std::uint8_t kElseOp = 0xa1;
constexpr std::uint8_t kNotifyOp = 0x86;
constexpr std::uint8_t kReturnOp = 0xa4;

// Small resource tags hold their length in the low three bits, large ones have a word for it.
constexpr std::uint8_t kIrqTag = 0x22;
constexpr std::uint8_t kIoTag = 0x47;
constexpr std::uint8_t kEndTag = 0x79;
constexpr std::uint8_t kMemory32FixedTag = 0x86;
constexpr std::uint8_t kDWordSpaceTag = 0x87;
constexpr std::uint8_t kWordSpaceTag = 0x88;
constexpr std::uint8_t kQWordSpaceTag = 0x8a;
// Address space descriptors: what they are of, and flags.
constexpr std::uint8_t kMemorySpace = 0;
constexpr std::uint8_t kIoSpace = 1;
constexpr std::uint8_t kBusSpace = 2;
constexpr std::uint8_t kFixedProducer = 0x0c;  // minimum and maximum fixed, passed on to children
constexpr std::uint8_t kReadWrite = 0x01;      // of memory; and not cacheable
constexpr std::uint8_t kEntireRange = 0x03;    // of ports: ISA and other

void Append(Bytes& to, const Bytes& from) {
  to.insert(to.end(), from.begin(), from.end());
}

void AppendLittleEndian(Bytes& to, std::uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) to.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

Bytes NameString(std::string_view path) {
  Bytes out;
  while (!path.empty() && (path.front() == '\\' || path.front() == '^')) {
    out.push_back(static_cast<std::uint8_t>(path.front()));
    path.remove_prefix(1);
  }
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    const std::size_t dot = path.find('.');
    segments.push_back(path.substr(0, dot));
    path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
  }
  if (segments.empty()) {
    out.push_back(0);  // NullName
  } else if (segments.size() == 2) {
    out.push_back(kDualNamePrefix);
  } else if (segments.size() > 2) {
    out.push_back(kMultiNamePrefix);
    out.push_back(static_cast<std::uint8_t>(segments.size()));
  }
  for (const std::string_view segment : segments)
    for (std::size_t i = 0; i < 4; ++i)
      out.push_back(static_cast<std::uint8_t>(i < segment.size() ? segment[i] : '_'));
  return out;
}

/// Opcode bytes, PkgLength, contents.
Term Packaged(std::initializer_list<std::uint8_t> opcode, const Bytes& contents) {
  Term term{Bytes(opcode)};
  Append(term.bytes, PackageLength(contents.size()));
  Append(term.bytes, contents);
  return term;
}

Bytes NameAndTerms(std::string_view path, const std::vector<Term>& terms) {
  Bytes contents = NameString(path);
  Append(contents, Sequence(terms).bytes);
  return contents;
}

}  // namespace

Bytes PackageLength(std::size_t size) {
  // The length counts its own bytes. One byte holds 6 bits; with 1 to 3 more bytes the first holds
  // their number in its top two bits and the length's low 4 bits.
  if (size + 1 < 64) return {static_cast<std::uint8_t>(size + 1)};
  unsigned extra = 1;
  while (extra < 3 && size + 1 + extra >= std::size_t{1} << (4 + 8 * extra)) ++extra;
  const std::size_t total = size + 1 + extra;
  Bytes out{static_cast<std::uint8_t>((extra << 6) | (total & 0xf))};
  AppendLittleEndian(out, total >> 4, extra);
  return out;
}

Term Integer(std::uint64_t value) {
  if (value == 0) return {{kZeroOp}};
  if (value == 1) return {{kOneOp}};
  Term term;
  if (value <= 0xff) {
    term.bytes = {kBytePrefix};
    AppendLittleEndian(term.bytes, value, 1);
  } else if (value <= 0xffff) {
    term.bytes = {kWordPrefix};
    AppendLittleEndian(term.bytes, value, 2);
  } else if (value <= 0xffffffff) {
    term.bytes = {kDWordPrefix};
    AppendLittleEndian(term.bytes, value, 4);
  } else {
    term.bytes = {kQWordPrefix};
    AppendLittleEndian(term.bytes, value, 8);
  }
  return term;
}

Term String(std::string_view text) {
  Term term{{kStringPrefix}};
  for (const char c : text) term.bytes.push_back(static_cast<std::uint8_t>(c));
  term.bytes.push_back(0);
  return term;
}

Term EisaId(std::string_view id) {
  // Three letters of five bits and four hexadecimal digits, most significant first, in memory
  // order: an integer with its bytes swapped.
  std::uint32_t packed = 0;
  for (std::size_t i = 0; i < 7; ++i) {
    const char c = i < id.size() ? id[i] : '0';
    if (i < 3) {
      packed = (packed << 5) | (static_cast<std::uint32_t>(c - '@') & 0x1f);
    } else {
      const int digit =
          c >= '0' && c <= '9' ? c - '0' : std::toupper(static_cast<unsigned char>(c)) - 'A' + 10;
      packed = (packed << 4) | (static_cast<std::uint32_t>(digit) & 0xf);
    }
  }
  Term term{{kDWordPrefix}};  // always four bytes, also where a shorter form would do
  AppendLittleEndian(term.bytes, __builtin_bswap32(packed), 4);
  return term;
}

Term Package(const std::vector<Term>& elements) {
  Bytes contents{static_cast<std::uint8_t>(elements.size())};
  Append(contents, Sequence(elements).bytes);
  return Packaged({kPackageOp}, contents);
}

Term Buffer(const Bytes& contents) {
  Bytes sized = Integer(contents.size()).bytes;
  Append(sized, contents);
  return Packaged({kBufferOp}, sized);
}

Term Sequence(const std::vector<Term>& terms) {
  Term all;
  for (const Term& term : terms) Append(all.bytes, term.bytes);
  return all;
}

Term Name(std::string_view path, const Term& object) {
  Term term{{kNameOp}};
  Append(term.bytes, NameString(path));
  Append(term.bytes, object.bytes);
  return term;
}

Term Scope(std::string_view path, const std::vector<Term>& contents) {
  return Packaged({kScopeOp}, NameAndTerms(path, contents));
}

Term Device(std::string_view path, const std::vector<Term>& contents) {
  return Packaged({kExtOpPrefix, kDeviceOp}, NameAndTerms(path, contents));
}

Term Method(std::string_view path, unsigned arguments, bool serialized,
            const std::vector<Term>& contents) {
  Bytes body = NameString(path);
  body.push_back(static_cast<std::uint8_t>((arguments & 7) | (serialized ? 8 : 0)));
  Append(body, Sequence(contents).bytes);
  return Packaged({kMethodOp}, body);
}

Term Notify(std::string_view device, std::uint64_t event) {
  Term term{{kNotifyOp}};
  Append(term.bytes, NameString(device));
  Append(term.bytes, Integer(event).bytes);
  return term;
}

Term Return(const Term& value) {
  Term term{{kReturnOp}};
  Append(term.bytes, value.bytes);
  return term;
}

namespace {
Term Operation(std::uint8_t opcode, std::initializer_list<Term> operands) {
  Term term{{opcode}};
  for (const Term& operand : operands) Append(term.bytes, operand.bytes);
  return term;
}
}  // namespace

Term Ref(std::string_view path) {
  return {NameString(path)};
}
Term Arg(unsigned index) {
  return {{static_cast<std::uint8_t>(kArg0Op + index)}};
}
Term Local(unsigned index) {
  return {{static_cast<std::uint8_t>(kLocal0Op + index)}};
}
Term Store(const Term& value, const Term& target) {
  return Operation(kStoreOp, {value, target});
}
Term And(const Term& a, const Term& b, const Term& target) {
  return Operation(kAndOp, {a, b, target});
}
Term Or(const Term& a, const Term& b, const Term& target) {
  return Operation(kOrOp, {a, b, target});
}
Term Equal(const Term& a, const Term& b) {
  return Operation(kEqualOp, {a, b});
}
Term Not(const Term& condition) {
  return Operation(kNotOp, {condition});
}
Term If(const Term& condition, const std::vector<Term>& contents) {
  return Packaged({kIfOp}, Sequence({condition, Sequence(contents)}).bytes);
}
Term Else(const std::vector<Term>& contents) {
  return Packaged({kElseOp}, Sequence(contents).bytes);
}
Term CreateDWordField(const Term& buffer, std::uint64_t offset, std::string_view name) {
  return Operation(kCreateDWordFieldOp, {buffer, Integer(offset), Ref(name)});
}

Term ResourceTemplate(const std::vector<Resource>& resources) {
  Bytes all;
  for (const Resource& resource : resources) Append(all, resource.bytes);
  all.push_back(kEndTag);
  all.push_back(0);  // checksum; 0 means "not kept"
  return Buffer(all);
}

Resource IoPorts(std::uint16_t base, std::uint8_t length) {
  Resource io{{kIoTag, 1}};
  AppendLittleEndian(io.bytes, base, 2);  // lowest base
  AppendLittleEndian(io.bytes, base, 2);  // highest base
  io.bytes.push_back(1);                  // alignment
  io.bytes.push_back(length);
  return io;
}

Resource IsaIrq(unsigned irq) {
  Resource resource{{kIrqTag}};
  AppendLittleEndian(resource.bytes, std::uint64_t{1} << (irq & 0xf), 2);
  return resource;
}

namespace {
// Granularity 0, minimum, maximum, translation 0, length, each `width` bytes.
Resource AddressSpace(std::uint8_t tag, unsigned width, std::uint8_t space, std::uint8_t flags,
                      std::uint64_t base, std::uint64_t length) {
  Resource range{{tag}};
  AppendLittleEndian(range.bytes, 3 + 5 * width, 2);  // bytes that follow
  range.bytes.insert(range.bytes.end(), {space, kFixedProducer, flags});
  for (const std::uint64_t value :
       {std::uint64_t{0}, base, base + length - 1, std::uint64_t{0}, length})
    AppendLittleEndian(range.bytes, value, width);
  return range;
}
}  // namespace

Resource BusNumbers(std::uint8_t last) {
  return AddressSpace(kWordSpaceTag, 2, kBusSpace, 0, 0, last + std::uint64_t{1});
}
Resource IoWindow(std::uint16_t base, std::uint16_t length) {
  return AddressSpace(kWordSpaceTag, 2, kIoSpace, kEntireRange, base, length);
}
Resource MemoryWindow32(std::uint32_t base, std::uint32_t length) {
  return AddressSpace(kDWordSpaceTag, 4, kMemorySpace, kReadWrite, base, length);
}
Resource MemoryWindow64(std::uint64_t base, std::uint64_t length) {
  return AddressSpace(kQWordSpaceTag, 8, kMemorySpace, kReadWrite, base, length);
}

Resource Memory32(std::uint32_t base, std::uint32_t length, bool writable) {
  Resource memory{{kMemory32FixedTag}};
  AppendLittleEndian(memory.bytes, 9, 2);  // bytes that follow
  memory.bytes.push_back(writable ? 1 : 0);
  AppendLittleEndian(memory.bytes, base, 4);
  AppendLittleEndian(memory.bytes, length, 4);
  return memory;
}

}  // namespace holdfast::machine::acpi::aml
