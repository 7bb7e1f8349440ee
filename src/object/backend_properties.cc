// SPDX-License-Identifier: Apache-2.0
#include "object/backend_properties.h"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::object {

Error NotThisValue(std::string_view property, std::string_view type, std::string_view value,
                   std::string hint) {
  return Error(Errc::kInvalidArgument,
               fmt::format("property '{}' of {} doesn't take value '{}'", property, type, value),
               std::move(hint));
}

namespace internal {

Status SetSize(Object& object, const PropertyValue& value) {
  const std::uint64_t size = std::get<std::uint64_t>(value);
  // The type that is Holdfast's first says it in Check(), in the words agreed on for guest_memfd.
  if (size == 0 && &object.type() != &GuestMemfdBackend::kType) {
    return Fail(NotThisValue("size", object.type().name, "0",
                             "Give it a size of at least 4 KiB, for example size=2G."));
  }
  static_cast<MemoryBackend&>(object).settings().size = size;
  return {};
}

PropertyValue GetSize(const Object& object) {
  return static_cast<const MemoryBackend&>(object).size();
}

Status SetPreallocThreads(Object& object, const PropertyValue& value) {
  const std::uint64_t threads = std::get<std::uint64_t>(value);
  if (threads == 0) {
    return Fail(NotThisValue("prealloc-threads", object.type().name, "0",
                             "At least one thread has to do it."));
  }
  static_cast<MemoryBackend&>(object).settings().prealloc_threads = threads;
  return {};
}

PropertyValue GetPreallocThreads(const Object& object) {
  return static_cast<const MemoryBackend&>(object).settings().prealloc_threads.value_or(1);
}

Status SetPreallocContext(Object& /*object*/, const PropertyValue& value) {
  return Fail(Errc::kNotFound, fmt::format("Device '{}' not found", std::get<std::string>(value)),
              "Holdfast has no thread-context objects; leave prealloc-context out and say with "
              "prealloc-threads how many threads there are to be.");
}

Status SetHostNodes(Object& object, const PropertyValue& value) {
  std::vector<std::uint64_t> nodes = std::get<std::vector<std::uint64_t>>(value);
  for (const std::uint64_t node : nodes) {
    if (node >= kMaxNumaNodes) {
      return Fail(Errc::kInvalidArgument, fmt::format("Invalid host-nodes value: {}", node),
                  fmt::format("Host nodes are numbered from 0 to {}.", kMaxNumaNodes - 1));
    }
  }
  // A set, read back in order.
  std::ranges::sort(nodes);
  nodes.erase(std::ranges::unique(nodes).begin(), nodes.end());
  static_cast<MemoryBackend&>(object).settings().host_nodes = std::move(nodes);
  return {};
}

}  // namespace internal
}  // namespace holdfast::object
