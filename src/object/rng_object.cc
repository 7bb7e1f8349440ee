// SPDX-License-Identifier: Apache-2.0
#include "object/rng_object.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <array>

namespace holdfast::object {
namespace {

template <typename Rng>
std::unique_ptr<Object> MakeRng(std::string id) {
  return std::make_unique<Rng>(std::move(id));
}

constexpr std::array<Property<Object>, 1> kRandomProperties = {{
    {{.name = "filename",
      .type = PropertyType::kString,
      .default_text = "/dev/urandom",
      .description = "the file random numbers are read from"},
     SetFieldOf<Object, &RngRandom::filename>,
     GetFieldOf<Object, &RngRandom::filename>},
}};

}  // namespace

Result<UniqueFd> RngObject::Open() const {
  UniqueFd fd(::open(filename.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    return Fail(
        Error::FromErrno(fmt::format("object '{}': cannot open '{}'", id(), filename), errno)
            .WithHint("filename= names a source of random numbers, like /dev/urandom."));
  }
  return fd;
}

constexpr ObjectType RngBuiltin::kType = {
    .name = "rng-builtin",
    .description = "random numbers of the host's kernel",
    .make = MakeRng<RngBuiltin>,
    .properties = {},
    .qemu_only = {},
};

constexpr ObjectType RngRandom::kType = {
    .name = "rng-random",
    .description = "random numbers from a file",
    .make = MakeRng<RngRandom>,
    .properties = kRandomProperties,
    .qemu_only = {},
};

}  // namespace holdfast::object
