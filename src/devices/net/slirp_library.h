// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <slirp/libslirp.h>

#include <holdfast/error.h>

namespace holdfast::devices::net {

/// libslirp's functions, as far as they are used. The library is loaded when the first user network
/// is made: with what it needs itself, it would cost every start of the program half as much again.
struct SlirpLibrary {
  decltype(&::slirp_new) create = nullptr;
  decltype(&::slirp_cleanup) cleanup = nullptr;
  decltype(&::slirp_input) input = nullptr;
  decltype(&::slirp_pollfds_fill) pollfds_fill = nullptr;
  decltype(&::slirp_pollfds_poll) pollfds_poll = nullptr;
  decltype(&::slirp_handle_timer) handle_timer = nullptr;
  decltype(&::slirp_add_hostfwd) add_hostfwd = nullptr;
  decltype(&::slirp_remove_hostfwd) remove_hostfwd = nullptr;
  decltype(&::slirp_connection_info) connection_info = nullptr;

  /// Loads it, once; it stays. @return kUnsupported where it is not installed
  static Result<const SlirpLibrary*> Load();
};

}  // namespace holdfast::devices::net
