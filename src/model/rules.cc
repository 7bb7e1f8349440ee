// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "model/kernel.h"

namespace holdfast::model {

Rules Rules::OfRelease(unsigned major, unsigned minor) {
  const std::pair release(major, minor);
  Rules rules;
  rules.overlap_is_exist = release >= std::pair(7U, 2U);
  rules.binding_is_unsigned = rules.overlap_is_exist;
  rules.file_policy = release >= std::pair(6U, 19U);
  rules.pre_fault = release >= std::pair(6U, 11U);
  return rules;
}

Rules Rules::WithTwoLayers() const {
  Rules rules = *this;
  rules.vm_attributes = true;
  rules.in_place = false;
  rules.gmem_attributes = 0;
  rules.vm_types |= 1U << kvm::abi::kVmTypeSwProtected;
  return rules;
}

Rules Rules::WithInPlace() const {
  Rules rules = *this;
  rules.vm_attributes = false;
  rules.in_place = true;
  rules.gmem_attributes = kvm::abi::kMemoryAttributePrivate;
  rules.vm_types |= 1U << kvm::abi::kVmTypeSwProtected;
  return rules;
}

}  // namespace holdfast::model
