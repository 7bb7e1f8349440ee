// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

/// A builder for ACPI Machine Language: each function returns one encoded term, terms nest by
/// value. Names and numbers come from this program, never from a guest, so nothing here fails; a
/// name segment longer than four characters is cut to four.
/// Spec: ACPI 6.5, chapter 20 "AML Specification"; 6.4 "Resource Data Types".
namespace holdfast::machine::acpi::aml {

/// Encoded AML: a term, an object or several in a row.
struct Term {
  std::vector<std::uint8_t> bytes;
};

/// An encoded resource descriptor; only ResourceTemplate() takes it.
struct Resource {
  std::vector<std::uint8_t> bytes;
};

/// PkgLength of a package whose contents (without the length itself) have `size` bytes. The
/// encoding holds lengths below 2^28.
std::vector<std::uint8_t> PackageLength(std::size_t size);

/// The shortest encoding of `value`: ZeroOp, OneOp or a byte, word, double or quad word.
Term Integer(std::uint64_t value);
Term String(std::string_view text);
/// "PNP0501" as the integer ACPI stores it in.
Term EisaId(std::string_view id);
Term Package(const std::vector<Term>& elements);
Term Buffer(const std::vector<std::uint8_t>& contents);

/// Terms in a row.
Term Sequence(const std::vector<Term>& terms);
/// `path` is ASL's form: "_HID", "\\_SB", "\\_SB.PCI0", "^FOO".
Term Name(std::string_view path, const Term& object);
Term Scope(std::string_view path, const std::vector<Term>& contents);
Term Device(std::string_view path, const std::vector<Term>& contents);
/// @param arguments  how many it takes, 0 to 7
Term Method(std::string_view path, unsigned arguments, bool serialized,
            const std::vector<Term>& contents);
Term Return(const Term& value);

/// Tells the driver of `device` that `event` has happened to it.
Term Notify(std::string_view device, std::uint64_t event);

/// A name where a value is expected.
Term Ref(std::string_view path);
/// Arg0 to Arg6, Local0 to Local7 of the method around.
Term Arg(unsigned index);
Term Local(unsigned index);
Term Store(const Term& value, const Term& target);
/// `a` and (or) `b`, stored in `target`.
Term And(const Term& a, const Term& b, const Term& target);
Term Or(const Term& a, const Term& b, const Term& target);
Term Equal(const Term& a, const Term& b);
Term Not(const Term& condition);
Term If(const Term& condition, const std::vector<Term>& contents);
Term Else(const std::vector<Term>& contents);
/// Makes `name` the four bytes of a buffer from byte `offset` on.
Term CreateDWordField(const Term& buffer, std::uint64_t offset, std::string_view name);

/// The buffer that _CRS holds, with its end tag.
Term ResourceTemplate(const std::vector<Resource>& resources);
/// Fixed ports [base, base + length), all 16 address bits decoded.
Resource IoPorts(std::uint16_t base, std::uint8_t length);
/// An ISA interrupt: edge triggered, active high, not shared.
Resource IsaIrq(unsigned irq);
/// The bus numbers 0 to `last` of a host bridge.
Resource BusNumbers(std::uint8_t last);
/// A window of a host bridge: ports, and memory that is not cacheable.
Resource IoWindow(std::uint16_t base, std::uint16_t length);
Resource MemoryWindow32(std::uint32_t base, std::uint32_t length);
Resource MemoryWindow64(std::uint64_t base, std::uint64_t length);
/// A fixed range of 32-bit memory space.
Resource Memory32(std::uint32_t base, std::uint32_t length, bool writable);

}  // namespace holdfast::machine::acpi::aml
