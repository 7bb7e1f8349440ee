// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <holdfast/unique_fd.h>

#include "object/object.h"

namespace holdfast::object {

/// Where a guest's random numbers come from: `rng-builtin` (the host kernel's) and `rng-random` (a
/// file). Both are a file to read from.
class RngObject : public Object {
 public:
  using Object::Object;
  Status Complete() override { return {}; }
  /// Opens the source, non-blocking. @return the failed open, naming object and file
  Result<UniqueFd> Open() const;

  std::string filename = "/dev/urandom";
};

class RngBuiltin final : public RngObject {
 public:
  static const ObjectType kType;
  using RngObject::RngObject;
  const ObjectType& type() const noexcept override { return kType; }
};

class RngRandom final : public RngObject {
 public:
  static const ObjectType kType;
  using RngObject::RngObject;
  const ObjectType& type() const noexcept override { return kType; }
};

}  // namespace holdfast::object
