// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "object/confidential_guest.h"
#include "object/confidential_host.h"
#include "object/memory_backend.h"

namespace holdfast::object {

/// `tdx-guest`: how a guest of Intel's TDX is launched. Making one needs no hardware, only naming
/// it in `-machine confidential-guest-support=` does. Names, types, defaults and sentences are
/// QEMU's; `convert-in-place` is of its next version.
///
/// Thread-safety: one thread, the main loop's.
class TdxGuest final : public ConfidentialGuest {
 public:
  static constexpr std::size_t kDigestWords = 6;
  static constexpr std::size_t kDigestSize = 48;

  /// A SHA-384 digest that is base64 on the command line.
  struct Digest {
    std::string text;
    std::array<std::uint64_t, kDigestWords> words{};
  };
  /// QEMU's SocketAddress, as the properties give it.
  struct SocketAddress {
    std::optional<std::uint64_t> type;  ///< index into the words of its property
    std::string host, port, path, cid, str;
  };
  struct Settings {
    std::uint64_t attributes = 1ULL << 28;  ///< SEPT_VE_DISABLE
    Digest mrconfigid;
    Digest mrowner;
    Digest mrownerconfig;
    SocketAddress quote_generation_socket;
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

  /// Takes this for what the host is, instead of looking: for tests on other hosts.
  void set_host(ConfidentialHost host) { host_ = std::move(host); }

 private:
  // A launch reads it once: afterwards a change would be a lie.
  Status MayChange(const PropertyInfo& property, const PropertyValue& value) const override;

  Settings settings_;
  std::optional<ConfidentialHost> host_;  // set by ChooseVmType
  std::vector<kvm_cpuid_entry2> cpuid_;   // what KVM can give a guest; set there, too
  ConversionEngineKind engine_ = ConversionEngineKind::kKernel;  // Initialize's answer
};

}  // namespace holdfast::object
