// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kvm/sev_commands.h"
#include "object/confidential_guest.h"
#include "object/confidential_host.h"
#include "object/memory_backend.h"

namespace holdfast::object {

/// `sev-snp-guest`: how a guest of AMD's SEV-SNP is launched. Making one needs no hardware, only
/// naming it in `-machine confidential-guest-support=` does. Names, types, defaults and sentences
/// are QEMU's; `convert-in-place` is of its next version.
///
/// Thread-safety: one thread, the main loop's.
class SevSnpGuest final : public ConfidentialGuest {
 public:
  static constexpr std::size_t kWorkaroundsSize = 16;
  static constexpr std::size_t kIdBlockSize = 96;
  static constexpr std::size_t kMostIdAuth = 4096;
  static constexpr std::size_t kHostDataSize = 32;

  /// A property that is base64 on the command line: the words and what they stand for.
  struct Blob {
    std::string text;
    std::vector<std::byte> bytes;  ///< of the size its property asks for; empty: not given
  };
  struct Settings {
    std::string sev_device = "/dev/sev";
    std::uint32_t cbitpos = 0;
    std::optional<std::uint32_t> reduced_phys_bits;  ///< set once the object is complete
    bool kernel_hashes = false;
    std::uint64_t policy = 0x30000;
    Blob workarounds;
    Blob id_block;
    Blob id_auth;
    Blob host_data;
    bool author_key_enabled = false;
    bool vcek_disabled = false;
    OnOffAuto convert_in_place = OnOffAuto::kAuto;
  };

  static const ObjectType kType;
  using ConfidentialGuest::ConfidentialGuest;

  const ObjectType& type() const noexcept override { return kType; }
  Status Complete() override;
  Settings& settings() noexcept { return settings_; }
  const Settings& settings() const noexcept { return settings_; }

  Result<unsigned> ChooseVmType(const kvm::System& system) override;
  Result<ConversionEngineKind> Initialize(kvm::Vm& vm) override;
  Status Launch(const Guest& guest) override;

  /// The firmware's version and TCB, all zero before Initialize.
  const kvm::abi::SnpPlatformStatus& platform() const noexcept { return platform_; }
  /// Whether Launch has finished.
  bool launched() const noexcept { return launched_; }

  /// Takes this for what the host is, instead of looking: for tests on other hosts.
  void set_host(ConfidentialHost host) { host_ = std::move(host); }

 private:
  // A launch reads it once: afterwards a change would be a lie.
  Status MayChange(const PropertyInfo& property, const PropertyValue& value) const override;

  Settings settings_;
  std::optional<ConfidentialHost> host_;  // set by ChooseVmType
  std::optional<kvm::SevDevice> device_;  // open from Initialize on
  kvm::abi::SnpPlatformStatus platform_{};
  bool launched_ = false;
  ConversionEngineKind engine_ = ConversionEngineKind::kKernel;  // Initialize's answer
};

}  // namespace holdfast::object
