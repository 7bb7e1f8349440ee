// SPDX-License-Identifier: Apache-2.0
#include "apps/sandbox.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include <holdfast/unique_fd.h>

#include "apps/sandbox_calls.h"
#include "apps/sandbox_report.h"
#include "base/log.h"

namespace holdfast::apps {
namespace {

// A filter under construction. The first failure is kept; what follows it does nothing.
class FilterBuilder {
 public:
  // Traps what no rule allows. Calls by another architecture's numbers (32 bits, x32) end the
  // process without a word: their numbers mean other calls here.
  FilterBuilder() : context_(::seccomp_init(SCMP_ACT_TRAP)) {
    if (context_ == nullptr) {
      Note("seccomp_init", -ENOMEM);
      return;
    }
    Note("bad architecture",
         ::seccomp_attr_set(context_.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS));
    // A binary tree instead of a list: seven comparisons instead of hundreds.
    Note("optimize", ::seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2));
  }

  void Allow(std::string_view name, std::span<const scmp_arg_cmp> conditions = {}) {
    Rule(SCMP_ACT_ALLOW, name, conditions);
  }
  void Allow(std::span<const std::string_view> names) {
    for (const std::string_view name : names) Allow(name);
  }
  void Refuse(std::string_view name, int os_errno) {
    Rule(SCMP_ACT_ERRNO(static_cast<std::uint32_t>(os_errno)), name, {});
  }
  void AllowIoctls(std::span<const IoctlGroup> groups) {
    for (const IoctlGroup& group : groups) {
      const scmp_arg_cmp condition = Masked(1, group.mask, group.value);
      Allow("ioctl", {&condition, 1});
    }
  }
  // The call, where the bits of argument `argument` that `mask` names are `value`.
  void AllowMasked(std::string_view name, unsigned argument, std::uint64_t mask,
                   std::uint64_t value) {
    const scmp_arg_cmp condition = Masked(argument, mask, value);
    Allow(name, {&condition, 1});
  }

  // The program, by way of a file: libseccomp has no other way to hand it out.
  Result<std::vector<sock_filter>> Build() {
    if (failure_) return Fail(*std::move(failure_));
    const UniqueFd file(::memfd_create("sandbox-filter", MFD_CLOEXEC));
    if (!file) return FailErrno("memfd_create for the sandbox's filter");
    if (const int error = ::seccomp_export_bpf(context_.get(), file.get()); error != 0) {
      return Fail(Error::FromErrno("cannot make the sandbox's filter", -error));
    }
    const off_t size = ::lseek(file.get(), 0, SEEK_CUR);
    std::vector<sock_filter> program(static_cast<std::size_t>(size) / sizeof(sock_filter));
    const std::size_t bytes = program.size() * sizeof(sock_filter);
    if (::pread(file.get(), program.data(), bytes, 0) != static_cast<ssize_t>(bytes)) {
      return FailErrno("cannot read the sandbox's filter");
    }
    return program;
  }

 private:
  static scmp_arg_cmp Masked(unsigned argument, std::uint64_t mask, std::uint64_t value) {
    return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
  }
  void Rule(std::uint32_t action, std::string_view name, std::span<const scmp_arg_cmp> conditions) {
    if (failure_) return;
    const int number = ::seccomp_syscall_resolve_name(std::string(name).c_str());
    if (number < 0) return;  // another architecture's, or newer than libseccomp
    Note(name,
         ::seccomp_rule_add_array(context_.get(), action, number,
                                  static_cast<unsigned>(conditions.size()), conditions.data()));
  }
  void Note(std::string_view what, int error) {
    if (error == 0 || failure_) return;
    failure_ = Error::FromErrno(fmt::format("cannot make the sandbox's filter ({})", what), -error);
  }

  struct Release {
    void operator()(void* context) const { ::seccomp_release(context); }
  };
  std::unique_ptr<void, Release> context_;
  std::optional<Error> failure_;
};

constexpr std::uint64_t kWord = 0xffffffff;  // an int argument: the upper half may be anything

void AddCommon(FilterBuilder& filter) {
  filter.Allow(CommonCalls());
  filter.AllowIoctls(CommonIoctls());
  // Signals only for threads of this process: kicks, and abort().
  filter.AllowMasked("tgkill", 0, kWord, static_cast<std::uint64_t>(::getpid()));
}

void AddVcpu(FilterBuilder& filter) {
  AddCommon(filter);
  // Memory that holds code is never made here.
  filter.AllowMasked("mmap", 2, PROT_EXEC, 0);
  filter.AllowMasked("mprotect", 2, PROT_EXEC, 0);
  // What is open may be looked at (stdio does), nothing by its name.
  filter.AllowMasked("newfstatat", 3, AT_EMPTY_PATH, AT_EMPTY_PATH);
  filter.AllowMasked("prctl", 0, kWord, PR_GET_NAME);
}

void AllowThreads(FilterBuilder& filter) {
  filter.AllowMasked("clone", 0, CLONE_THREAD, CLONE_THREAD);
  filter.Refuse("clone3", ENOSYS);  // hides its flags in memory; the C library then takes clone
}

void AddWorker(FilterBuilder& filter) {
  AddCommon(filter);
  filter.Allow(WorkerCalls());
  filter.AllowIoctls(WorkerIoctls());
  filter.AllowMasked("mmap", 2, PROT_EXEC, 0);
  filter.AllowMasked("mprotect", 2, PROT_EXEC, 0);
  filter.AllowMasked("prctl", 0, kWord, PR_GET_NAME);
  // Threads that wait for files in its place (aio=threads), confined as it is.
  AllowThreads(filter);
}

void AddMain(FilterBuilder& filter, const SandboxOptions& options) {
  AddCommon(filter);
  filter.Allow(WorkerCalls());
  filter.Allow(MainCalls());
  filter.AllowIoctls(WorkerIoctls());
  filter.AllowIoctls(MainIoctls());
  // Name services are libraries, loaded when a name is first looked up.
  filter.Allow("mmap");
  filter.Allow("mprotect");
  for (const int operation :
       {PR_GET_NAME, PR_SET_NAME, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_SET_VMA}) {
    filter.AllowMasked("prctl", 0, kWord, static_cast<std::uint64_t>(operation));
  }
  // vCPU and I/O threads drop their capabilities later than this thread.
  if (!options.elevate_privileges) filter.Allow("capset");
  if (options.obsolete) filter.Allow(ObsoleteCalls());
  if (options.elevate_privileges) filter.Allow(PrivilegeCalls());
  if (options.spawn) {
    filter.Allow(SpawnCalls());
  } else {
    AllowThreads(filter);
  }
  if (options.resource_control) {
    filter.Allow(ResourceCalls());
  } else {
    const scmp_arg_cmp only_asks = {.arg = 2, .op = SCMP_CMP_EQ, .datum_a = 0, .datum_b = 0};
    filter.Allow("prlimit64", {&only_asks, 1});
  }
}

// The calling thread's capabilities are gone, also those that a set-uid program would bring back.
Status DropCapabilities() {
  for (unsigned long capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0;
       ++capability) {
    ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);  // EPERM: somebody without CAP_SETPCAP
  }
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0)
    return FailErrno("cannot drop capabilities");
  return {};
}

// For ConfineThread(), which threads call that have nowhere to report to.
struct ThreadFilters {
  std::vector<sock_filter> vcpu;
  std::vector<sock_filter> worker;
  bool drop_capabilities = true;
};
ThreadFilters g_filters;  // constant once the confiner is set

void ConfineByFilter(ThreadRole role) noexcept {
  if (role == ThreadRole::kMain) return;  // EnterSandbox() has done it
  Status confined;
  if (g_filters.drop_capabilities) confined = DropCapabilities();
  if (confined) {
    confined = InstallFilter(role == ThreadRole::kVcpu ? g_filters.vcpu : g_filters.worker, false);
  }
  if (confined) return;
  log::Error(confined.error());
  ::_exit(EXIT_FAILURE);
}

}  // namespace

Result<std::vector<sock_filter>> MakeSandboxFilter(ThreadRole role, const SandboxOptions& options) {
  FilterBuilder filter;
  switch (role) {
    case ThreadRole::kVcpu:
      AddVcpu(filter);
      break;
    case ThreadRole::kWorker:
      AddWorker(filter);
      break;
    case ThreadRole::kMain:
      AddMain(filter, options);
      break;
  }
  return filter.Build();
}

Result<std::vector<sock_filter>> MakePlainFilter(std::span<const std::string_view> calls) {
  FilterBuilder filter;
  filter.Allow(calls);
  return filter.Build();
}

Status InstallFilter(std::span<const sock_filter> filter, bool all_threads) {
  const sock_fprog program{.len = static_cast<unsigned short>(filter.size()),
                           .filter = const_cast<sock_filter*>(filter.data())};
  const unsigned flags = all_threads ? SECCOMP_FILTER_FLAG_TSYNC : 0;
  const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
  if (result == 0) return {};
  if (result > 0) {
    return Fail(Errc::kSystem,
                fmt::format("-sandbox: thread {} cannot be confined with the others", result));
  }
  return Fail(Error::FromErrno("-sandbox: seccomp", errno)
                  .WithHint("This kernel refuses system call filters; -sandbox off goes without."));
}

Status EnterSandbox(const SandboxOptions& options) {
  if (!options.enabled) return {};
  HF_TRY(const std::vector<sock_filter> main, MakeSandboxFilter(ThreadRole::kMain, options));
  HF_TRY(g_filters.vcpu, MakeSandboxFilter(ThreadRole::kVcpu, options));
  HF_TRY(g_filters.worker, MakeSandboxFilter(ThreadRole::kWorker, options));
  g_filters.drop_capabilities = !options.elevate_privileges;
  HF_TRY_STATUS(InstallSandboxReport());
  // Of a process without it, the kernel takes filters only from root.
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return FailErrno("no_new_privs");
  if (g_filters.drop_capabilities) HF_TRY_STATUS(DropCapabilities());
  HF_TRY_STATUS(InstallFilter(main, true));
  SetThreadConfiner(&ConfineByFilter);
  return {};
}

}  // namespace holdfast::apps
