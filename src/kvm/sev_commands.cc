// SPDX-License-Identifier: Apache-2.0
#include "kvm/sev_commands.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include <holdfast/units.h>
#include <holdfast/vm.h>

#include "kvm/ioctl.h"

namespace holdfast::kvm {
namespace {

// No certificate or id is longer; the firmware says how much room it wants.
constexpr std::uint32_t kMostFirmwareData = 64 * 1024;
// How long the kernel may answer "again" without getting on.
constexpr std::chrono::seconds kLongestStandstill{30};

std::uint64_t AddressOf(const void* data) noexcept {
  return reinterpret_cast<std::uint64_t>(data);
}

Error FirmwareFailure(std::string_view command, int os_errno, std::uint32_t status) {
  if (status == 0 || status == abi::kSevNoFirmwareCall) return Error::FromErrno(command, os_errno);
  return Error(Errc::kSystem,
               fmt::format("{}: the SEV firmware answered {:#x} ({})", command, status,
                           SevFirmwareError(status)),
               {}, os_errno);
}

// A command of the device. `status` gets the firmware's answer, also of a failure.
Status IssueToDevice(int fd, std::uint32_t command, std::string_view name, void* data,
                     std::uint32_t& status) {
  abi::SevIssueCommand request{.cmd = command, .data = AddressOf(data), .error = 0};
  const int answer = internal::CallRaw(fd, abi::kSevIssueCommand, &request);
  const int saved = errno;
  status = request.error;
  if (answer < 0) return Fail(FirmwareFailure(name, saved, status));
  return {};
}

// A length that the firmware asks room for.
Status CheckLength(std::string_view name, std::uint32_t length) {
  if (length != 0 && length <= kMostFirmwareData) return {};
  return Fail(Errc::kMalformed,
              fmt::format("{}: the SEV firmware wants room for {} bytes", name, length));
}

}  // namespace

// SEV-SNP firmware ABI, section 6 (status codes).
std::string_view SevFirmwareError(std::uint32_t status) noexcept {
  struct Entry {
    std::uint32_t status;
    std::string_view words;
  };
  static constexpr Entry kWords[] = {
      {0x00, "success"},
      {0x01, "the platform is in the wrong state"},
      {0x02, "the guest is in the wrong state"},
      {0x03, "the configuration is not valid"},
      {0x04, "a buffer is too small"},
      {0x05, "the platform has an owner already"},
      {0x06, "a certificate is not valid"},
      {0x07, "the guest's policy does not allow it"},
      {0x08, "the guest is not active"},
      {0x09, "an address is not valid"},
      {0x0a, "a signature does not fit"},
      {0x0b, "the measurement does not fit"},
      {0x0c, "the ASID belongs to somebody"},
      {0x0d, "the ASID is not valid"},
      {0x0f, "DF_FLUSH is needed first"},
      {0x10, "the guest is not valid"},
      {0x11, "the command is not known"},
      {0x15, "not supported"},
      {0x16, "a parameter is not valid"},
      {0x17, "out of resources"},
      {0x19, "the page size does not fit"},
      {0x1a, "a page is in the wrong state"},
      {0x1c, "a page belongs to another guest"},
      {0x20, "the RMP must be initialised first"},
      {0x21, "the security version is too low"},
      {0x22, "the version is not known"},
      {0x23, "the platform must be shut down first"},
      {0x27, "the key is not valid"},
  };
  for (const Entry& entry : kWords) {
    if (entry.status == status) return entry.words;
  }
  return "unknown";
}

bool SevIsEnabled(const Vm& vm) noexcept {
  return internal::CallRaw(vm.fd(), abi::kMemoryEncryptOp, nullptr) >= 0;
}

Result<SevDevice> SevDevice::Open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (fd.valid()) return SevDevice(std::move(fd));
  Error error = Error::FromErrno(fmt::format("SEV: Failed to open {}", path), errno);
  switch (error.code()) {
    case Errc::kNotFound:
      return Fail(
          std::move(error).WithHint("The kernel's ccp module makes this device on AMD EPYC "
                                    "processors with SEV enabled in the "
                                    "firmware."));
    case Errc::kPermission:
      return Fail(std::move(error).WithHint(
          "Give this user the right to read and write it, for example by the group it has."));
    default:
      return Fail(std::move(error));
  }
}

Result<abi::SnpPlatformStatus> SevDevice::SnpStatus() const {
  abi::SnpPlatformStatus status{};
  std::uint32_t firmware = 0;
  HF_TRY_STATUS(
      IssueToDevice(fd(), abi::kSnpPlatformStatus, "SNP_PLATFORM_STATUS", &status, firmware));
  return status;
}

Result<SevDevice::PlatformKey> SevDevice::ExportPdh() const {
  constexpr std::string_view kName = "SEV_PDH_CERT_EXPORT";
  abi::SevPdhCertExport request{};
  std::uint32_t firmware = 0;
  // Without room the firmware says how much there must be.
  const Status asked = IssueToDevice(fd(), abi::kSevPdhCertExport, kName, &request, firmware);
  if (!asked && firmware != abi::kSevInvalidLength) return Fail(asked.error());
  HF_TRY_STATUS(CheckLength(kName, request.pdh_length));
  HF_TRY_STATUS(CheckLength(kName, request.chain_length));
  PlatformKey key{.pdh = std::vector<std::byte>(request.pdh_length),
                  .chain = std::vector<std::byte>(request.chain_length)};
  request.pdh_address = AddressOf(key.pdh.data());
  request.chain_address = AddressOf(key.chain.data());
  HF_TRY_STATUS(IssueToDevice(fd(), abi::kSevPdhCertExport, kName, &request, firmware));
  key.pdh.resize(std::min<std::size_t>(request.pdh_length, key.pdh.size()));
  key.chain.resize(std::min<std::size_t>(request.chain_length, key.chain.size()));
  return key;
}

Result<std::vector<std::byte>> SevDevice::CpuId() const {
  constexpr std::string_view kName = "SEV_GET_ID2";
  abi::SevGetId2 request{};
  std::uint32_t firmware = 0;
  const Status asked = IssueToDevice(fd(), abi::kSevGetId2, kName, &request, firmware);
  if (!asked && firmware != abi::kSevInvalidLength) return Fail(asked.error());
  HF_TRY_STATUS(CheckLength(kName, request.length));
  std::vector<std::byte> id(request.length);
  request.address = AddressOf(id.data());
  HF_TRY_STATUS(IssueToDevice(fd(), abi::kSevGetId2, kName, &request, firmware));
  id.resize(std::min<std::size_t>(request.length, id.size()));
  return id;
}

SnpCommands::SnpCommands(const Vm& vm, const SevDevice& device) noexcept
    : vm_fd_(vm.fd()), device_fd_(device.fd()) {}

Status SnpCommands::Issue(std::uint32_t id, std::string_view name, void* data,
                          std::uint32_t& firmware_status) const {
  abi::SevCommand command{.id = id,
                          .pad0 = 0,
                          .data = AddressOf(data),
                          .error = 0,
                          .sev_fd = static_cast<std::uint32_t>(device_fd_)};
  const int answer = internal::CallRaw(vm_fd_, abi::kMemoryEncryptOp, &command);
  const int saved = errno;
  firmware_status = command.error;
  if (answer < 0) return Fail(FirmwareFailure(name, saved, firmware_status));
  return {};
}

Status SnpCommands::Init(std::uint64_t vmsa_features) const {
  abi::SevInit init{};
  init.vmsa_features = vmsa_features;
  std::uint32_t firmware = 0;
  return Issue(abi::kSevInit2, "KVM_SEV_INIT2", &init, firmware);
}

Status SnpCommands::LaunchStart(const abi::SnpLaunchStart& start) const {
  abi::SnpLaunchStart copy = start;
  std::uint32_t firmware = 0;
  return Issue(abi::kSnpLaunchStart, "SNP_LAUNCH_START", &copy, firmware);
}

Status SnpCommands::LaunchUpdate(abi::SnpLaunchUpdate& update,
                                 std::uint32_t& firmware_status) const {
  using Clock = std::chrono::steady_clock;
  Clock::time_point moved = Clock::now();
  while (update.len != 0) {
    const abi::SnpLaunchUpdate before = update;
    const Status done = Issue(abi::kSnpLaunchUpdate, "SNP_LAUNCH_UPDATE", &update, firmware_status);
    if (!done && done.error().os_errno() != EAGAIN) return Fail(done.error());
    const std::uint64_t bytes = before.len - update.len;
    // What the kernel says it did must be what it was asked to do.
    const bool sound = update.len <= before.len && bytes % kPageSize == 0 &&
                       update.gfn_start == before.gfn_start + bytes / kPageSize;
    if (!sound) {
      return Fail(
          Errc::kSystem,
          fmt::format("SNP_LAUNCH_UPDATE of {:#x} bytes at {:#x}: KVM went on to {:#x} with "
                      "{:#x} bytes left",
                      before.len, before.gfn_start * kPageSize, update.gfn_start * kPageSize,
                      update.len));
    }
    if (bytes != 0) {
      moved = Clock::now();
    } else if (Clock::now() - moved > kLongestStandstill) {
      return Fail(Errc::kSystem,
                  fmt::format("SNP_LAUNCH_UPDATE does not get on at {:#x}; {:#x} bytes are left",
                              update.gfn_start * kPageSize, update.len));
    } else {
      ::sched_yield();
    }
  }
  return {};
}

Status SnpCommands::LaunchFinish(const abi::SnpLaunchFinish& finish) const {
  abi::SnpLaunchFinish copy = finish;
  std::uint32_t firmware = 0;
  return Issue(abi::kSnpLaunchFinish, "SNP_LAUNCH_FINISH", &copy, firmware);
}

}  // namespace holdfast::kvm
