// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include <holdfast/error.h>

#include "migration/channel.h"
#include "object/tls_credentials.h"

namespace holdfast::migration {

/// How a connection is encrypted.
struct TlsOptions {
  /// Of a `tls-creds-…` object; null: not at all.
  std::shared_ptr<const object::TlsContext> credentials = nullptr;
  /// Client: the name or address that the server's certificate must have (`tls-hostname`).
  /// Connect() takes the one it connects to if this is empty.
  std::string hostname = {};
  /// For the handshake.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  /// The key changes after so many bytes written (RFC 8446, section 5.5).
  std::uint64_t rekey_bytes = std::uint64_t{64} << 30;
};

/// Shakes hands over `inner`, as the server or client that the credentials are for, and encrypts
/// what passes: TLS 1.3, nothing else. Waits; `cancel` ends it.
/// @return kPermission: why the other side is not trusted; kMalformed: it does not speak TLS; else
///         what the channel says
Result<std::unique_ptr<Channel>> WrapTls(std::unique_ptr<Channel> inner, const TlsOptions& options,
                                         const std::stop_token& cancel = {});

}  // namespace holdfast::migration
