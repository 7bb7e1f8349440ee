// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/conversion.h>
#include <holdfast/error.h>
#include <holdfast/numa_policy.h>
#include <holdfast/ram_block.h>

#include "object/object.h"

namespace holdfast::object {

/// How far an allocation has got.
struct AllocateProgress {
  std::string_view id;
  std::uint64_t done = 0;   ///< bytes populated
  std::uint64_t total = 0;  ///< bytes asked for
};

/// What an allocation may want to know of its surroundings.
struct AllocateOptions {
  /// Threads that populate memory where prealloc-threads does not say: the number of vCPUs.
  unsigned prealloc_threads = 1;
  /// Called on the calling thread about ten times a second while memory is populated; false gives
  /// up. Empty: nobody watches.
  std::function<bool(const AllocateProgress&)> progress = {};
  bool merge = true;  ///< -machine mem-merge=, where the backend does not say
  bool dump = true;   ///< -machine dump-guest-core=, likewise
  /// How pages become private, where the machine has a confidential guest. Backends whose memory
  /// cannot make ordinary memory all the same: it may serve something else.
  std::optional<ConversionEngineKind> conversion = {};
  /// The memory that the backend of this id had in the program that this one takes the place of;
  /// an empty descriptor: it had none. Empty: this one takes nobody's place.
  std::function<UniqueFd(const std::string& id)> inherited = {};
};

/// The properties that all memory backends have.
struct MemorySettings {
  std::optional<std::uint64_t> size;
  bool share = false;
  bool prealloc = false;
  std::optional<std::uint64_t> prealloc_threads;
  bool reserve = true;
  std::optional<bool> merge;  ///< empty: as the machine has it
  std::optional<bool> dump;   ///< empty: as the machine has it
  std::vector<std::uint64_t> host_nodes;
  NumaMode policy = NumaMode::kDefault;
};

/// Whether memslots are bound to a guest_memfd; the order is that of the property's words.
enum class Bind : std::uint8_t { kAuto, kOn, kOff };
/// QEMU's OnOffAuto, in the order of its words.
enum class OnOffAuto : std::uint8_t { kAuto, kOn, kOff };

/// A description of guest RAM that RAM blocks are made from.
class MemoryBackend : public Object {
 public:
  MemoryBackend(std::string id, bool share) : Object(std::move(id)) { settings_.share = share; }

  /// Judges what only all properties together can tell.
  Status Complete() final;
  /// Makes the memory, once, with its NUMA policy and preallocated if that was asked for; block()
  /// has it from then on. Blocks as long as populating the memory takes.
  /// @return what fails, in QEMU's words; then nothing is left allocated.
  Status Allocate(kvm::Vm& vm, const AllocateOptions& options = {});

  /// Bytes; valid after Complete().
  std::uint64_t size() const noexcept { return settings_.size.value_or(0); }
  bool share() const noexcept { return settings_.share; }
  const MemorySettings& settings() const noexcept { return settings_; }
  /// For the property tables, before Complete().
  MemorySettings& settings() noexcept { return settings_; }
  NumaPolicy numa_policy() const { return {settings_.policy, settings_.host_nodes}; }
  /// The memory; nullptr before Allocate().
  RamBlock* block() const noexcept { return block_.get(); }
  /// Whether a machine uses the memory as guest RAM; such a backend cannot be deleted.
  bool mapped() const noexcept { return mapped_; }
  void set_mapped(bool mapped) noexcept { mapped_ = mapped; }
  /// "Cannot delete host memory backend 'ID' which is mapped" while it is.
  Status CanDelete() const override;

 protected:
  /// How pages become private, if they do.
  using Conversion = std::optional<ConversionEngineKind>;
  /// The type's own checks; the common ones have passed.
  virtual Status Check() const { return {}; }
  /// Makes the memory without a page of it.
  virtual Result<std::unique_ptr<RamBlock>> CreateRamBlock(kvm::Vm& vm,
                                                           Conversion conversion) const = 0;
  /// What the memory of another program must be to become this backend's.
  struct Adoption {
    std::optional<bool> guest_memfd;  ///< empty: either
    Bind bind = Bind::kOff;
    std::uint64_t size = 0;       ///< bytes
    std::uint64_t offset = 0;     ///< of the memory in its file
    std::uint64_t alignment = 0;  ///< of the mapping
    bool readonly = false;
  };
  virtual Adoption adoption() const { return {.guest_memfd = false, .size = size()}; }
  /// A guest_memfd for this backend: the one place that knows how.
  Result<std::unique_ptr<RamBlock>> CreateGuestMemfd(kvm::Vm& vm, Bind bind,
                                                     Conversion conversion) const;

  /// Once the memory is made, only merge and dump may still change.
  Status MayChange(const PropertyInfo& property, const PropertyValue& value) const override;
  Status Changed(const PropertyInfo& property) override;

 private:
  Result<std::unique_ptr<RamBlock>> Adopt(UniqueFd fd) const;
  Status SetPolicy(const RamBlock& block) const;
  Status Preallocate(const RamBlock& block, const AllocateOptions& options) const;
  Status CheckPlacement(const RamBlock& block) const;

  MemorySettings settings_;
  std::unique_ptr<RamBlock> block_;
  bool mapped_ = false;
};

/// `memory-backend-ram`: memory of this process; with share=on a memfd.
class RamBackend final : public MemoryBackend {
 public:
  static const ObjectType kType;
  explicit RamBackend(std::string id) : MemoryBackend(std::move(id), /*share=*/false) {}
  const ObjectType& type() const noexcept override { return kType; }

 private:
  Adoption adoption() const override;
  Result<std::unique_ptr<RamBlock>> CreateRamBlock(kvm::Vm& vm,
                                                   Conversion conversion) const override;
};

/// `memory-backend-shm`: POSIX shared memory.
class ShmBackend final : public MemoryBackend {
 public:
  static const ObjectType kType;
  explicit ShmBackend(std::string id) : MemoryBackend(std::move(id), /*share=*/true) {}
  const ObjectType& type() const noexcept override { return kType; }

 private:
  Status Check() const override;
  Result<std::unique_ptr<RamBlock>> CreateRamBlock(kvm::Vm& vm,
                                                   Conversion conversion) const override;
};

/// `memory-backend-memfd`: a memfd or, with guest-memfd=on or auto, a guest_memfd.
class MemfdBackend final : public MemoryBackend {
 public:
  static const ObjectType kType;
  struct Settings {
    bool hugetlb = false;
    std::uint64_t hugetlbsize = 0;
    bool seal = true;
    OnOffAuto guest_memfd = OnOffAuto::kAuto;
    Bind bind = Bind::kAuto;
  };
  explicit MemfdBackend(std::string id) : MemoryBackend(std::move(id), /*share=*/true) {}
  const ObjectType& type() const noexcept override { return kType; }
  Settings& own() noexcept { return own_; }
  const Settings& own() const noexcept { return own_; }

 private:
  Adoption adoption() const override;
  Status Check() const override;
  Result<std::unique_ptr<RamBlock>> CreateRamBlock(kvm::Vm& vm,
                                                   Conversion conversion) const override;
  Result<std::unique_ptr<RamBlock>> CreateMemfd() const;
  Settings own_;
};

/// `memory-backend-guest-memfd`: guest RAM in a guest_memfd.
class GuestMemfdBackend final : public MemoryBackend {
 public:
  static const ObjectType kType;
  struct Settings {
    Bind bind = Bind::kAuto;
  };
  explicit GuestMemfdBackend(std::string id) : MemoryBackend(std::move(id), /*share=*/true) {}
  /// What `-m SIZE` makes. Complete() is still to be called.
  GuestMemfdBackend(std::string id, std::uint64_t size) : GuestMemfdBackend(std::move(id)) {
    settings().size = size;
  }
  const ObjectType& type() const noexcept override { return kType; }
  Bind bind() const noexcept { return own_.bind; }
  Settings& own() noexcept { return own_; }
  const Settings& own() const noexcept { return own_; }

 private:
  Adoption adoption() const override {
    return {.guest_memfd = true, .bind = own_.bind, .size = size()};
  }
  Status Check() const override;
  Result<std::unique_ptr<RamBlock>> CreateRamBlock(kvm::Vm& vm,
                                                   Conversion conversion) const override;
  Settings own_;
};

}  // namespace holdfast::object
