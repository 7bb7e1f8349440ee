// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/conversion.h>
#include <holdfast/error.h>
#include <holdfast/guest_memfd.h>

#include <cstddef>
#include <memory>
#include <span>

namespace holdfast {

namespace kvm {
class Vm;
}

/// Guard pages in `host_view`, which outlives the engine. Contents survive; nothing is copied,
/// nothing but page tables (4 KiB for 2 MiB) allocated, no mapping split.
std::unique_ptr<ConversionEngine> MakeGuardEngine(std::span<std::byte> host_view);

/// In-place conversion of `memfd`, which outlives the engine, by the kernel.
std::unique_ptr<ConversionEngine> MakeKernelEngine(const kvm::GuestMemfd& memfd);

/// Two layers of `vm`: shared pages in the memfd `shared_fd` that is mapped at `host_view`, private
/// ones in `private_layer`; all outlive the engine.
std::unique_ptr<ConversionEngine> MakeAttributesEngine(kvm::Vm& vm, int shared_fd,
                                                       std::span<std::byte> host_view,
                                                       const kvm::GuestMemfd& private_layer);

/// Whether an engine can work for guests of `vm`: tried on a page of guest memory, because
/// capability numbers have moved and kernels refuse what they claim.
bool EngineWorks(kvm::Vm& vm, ConversionEngineKind kind);

/// What a kind needs, for messages: "Linux 6.18".
std::string_view EngineNeeds(ConversionEngineKind kind) noexcept;

}  // namespace holdfast
