// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "object/memory_backend.h"

namespace holdfast::object {

/// `memory-backend-file`: a file, or an unnamed file in a folder (hugetlbfs, tmpfs …).
class FileBackend final : public MemoryBackend {
 public:
  static const ObjectType kType;
  struct Settings {
    std::string mem_path;
    std::uint64_t align = 0;
    std::uint64_t offset = 0;
    bool discard_data = false;
    bool pmem = false;
    bool readonly = false;
    OnOffAuto rom = OnOffAuto::kAuto;
  };
  explicit FileBackend(std::string id) : MemoryBackend(std::move(id), /*share=*/false) {}
  ~FileBackend() override;
  FileBackend(const FileBackend&) = delete;
  FileBackend& operator=(const FileBackend&) = delete;

  const ObjectType& type() const noexcept override { return kType; }
  Settings& own() noexcept { return own_; }
  const Settings& own() const noexcept { return own_; }

 private:
  Status Check() const override;
  Adoption adoption() const override;
  Result<std::unique_ptr<RamBlock>> CreateRamBlock(kvm::Vm& vm,
                                                   Conversion conversion) const override;
  /// Whether the guest too may only read it.
  bool rom() const noexcept;
  Settings own_;
};

}  // namespace holdfast::object
