// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include <holdfast/error.h>

#include "migration/channel.h"
#include "object/tls_credentials.h"

namespace holdfast::migration {

/// How a connection is encrypted.
struct TlsOptions {
  /// Of a `tls-creds-…` object; null: not at all.
  std::shared_ptr<const object::TlsContext> credentials = nullptr;
  /// Client: the name that the server's certificate must have, if not the one that was connected to
  /// (`tls-hostname`).
  std::string hostname = {};
};

/// Shakes hands over `inner`, as the server or client that the credentials are for, and encrypts
/// what passes: TLS 1.3, nothing else. Waits; inner's stall timeout and Shutdown() end it.
/// @return why the other side is not trusted; kMalformed if it does not speak TLS
Result<std::unique_ptr<Channel>> WrapTls(std::unique_ptr<Channel> inner, const TlsOptions& options);

}  // namespace holdfast::migration
