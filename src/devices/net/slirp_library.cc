// SPDX-License-Identifier: Apache-2.0
#include "devices/net/slirp_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <string>

namespace holdfast::devices::net {
namespace {

constexpr const char* kFile = "libslirp.so.0";

tl::unexpected<Error> CannotLoad() {
  const char* const why = ::dlerror();
  return Fail(Errc::kUnsupported,
              fmt::format("-netdev user needs libslirp, which cannot be loaded: {}",
                          why == nullptr ? kFile : why),
              "Install the package libslirp0 (version 4.7 or later).");
}

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

}  // namespace

Result<const SlirpLibrary*> SlirpLibrary::Load() {
  static SlirpLibrary functions;
  if (functions.create != nullptr) return &functions;
  void* const library = ::dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return CannotLoad();
  SlirpLibrary found;
  const bool complete = Find(library, "slirp_new", found.create) &&
                        Find(library, "slirp_cleanup", found.cleanup) &&
                        Find(library, "slirp_input", found.input) &&
                        Find(library, "slirp_pollfds_fill", found.pollfds_fill) &&
                        Find(library, "slirp_pollfds_poll", found.pollfds_poll) &&
                        Find(library, "slirp_handle_timer", found.handle_timer) &&
                        Find(library, "slirp_add_hostfwd", found.add_hostfwd) &&
                        Find(library, "slirp_remove_hostfwd", found.remove_hostfwd) &&
                        Find(library, "slirp_connection_info", found.connection_info);
  if (!complete) return CannotLoad();
  functions = found;
  return &functions;
}

}  // namespace holdfast::devices::net
