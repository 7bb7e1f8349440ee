// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include <holdfast/error.h>

namespace holdfast::migration {

/// `tcp:HOST:PORT`.
struct TcpAddress {
  std::string host;  ///< name or number, without brackets; empty: any (listening), this machine
  std::string port;  ///< a number or a service's name; "0": any that is free (listening)
  bool operator==(const TcpAddress&) const = default;
};

/// `unix:PATH`.
struct UnixAddress {
  std::string path;
  bool operator==(const UnixAddress&) const = default;
};

/// `fd:NUMBER`, a descriptor that the process was started with, or `fd:NAME`, one that `getfd` was
/// given.
struct FdAddress {
  std::string name;
  bool operator==(const FdAddress&) const = default;
};

/// `exec:COMMAND`: a program whose standard input and output the stream is.
struct ExecAddress {
  std::vector<std::string> arguments;  ///< the program and what it is given; at least one
  bool operator==(const ExecAddress&) const = default;
};

/// `file:PATH[,offset=BYTES]`.
struct FileAddress {
  std::string path;
  std::uint64_t offset = 0;  ///< bytes
  bool operator==(const FileAddress&) const = default;
};

/// The other end of a migration, as `migrate`, `migrate-incoming` and `-incoming` name it.
using Address = std::variant<TcpAddress, UnixAddress, FdAddress, ExecAddress, FileAddress>;

/// Reads QEMU's URI. @return kInvalidArgument as QEMU words it ("unknown migration protocol: X"),
/// with what may be written instead in the hint
Result<Address> ParseAddress(std::string_view uri);

/// Reads a MigrationAddress of QMP: `transport` socket (`type` inet, unix, fd), exec, file. Members
/// that would change what is connected and that Holdfast has not are refused.
Result<Address> AddressFromJson(const nlohmann::json& address);

/// What `channels` says: where the stream goes and, with mode cpr-transfer, where descriptors go.
struct ChannelAddresses {
  Address main;
  std::optional<Address> cpr = std::nullopt;
};
/// Reads a list of MigrationChannel. Exactly one is `main`, at most one `cpr`.
Result<ChannelAddresses> ChannelsFromJson(const nlohmann::json& channels);

/// As its URI: "tcp:[::1]:4444". An exec address is its arguments with blanks between.
std::string Describe(const Address& address);

}  // namespace holdfast::migration
