// SPDX-License-Identifier: Apache-2.0
#include "object/file_backend.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/units.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

#include "object/backend_properties.h"

namespace holdfast::object {
namespace {

template <auto Member>
constexpr auto kSet = SetOwn<FileBackend, Member>;
template <auto Member>
constexpr auto kGet = GetOwn<FileBackend, Member>;
using S = FileBackend::Settings;

constexpr auto kProperties = WithCommonProperties(
    "off",
    std::array<Property<Object>, 7>{{
        {{.name = "mem-path",
          .description = "the file, made if it is not there, or a folder in which a file without "
                         "a name is made; needed"},
         kSet<&S::mem_path>,
         kGet<&S::mem_path>},
        {{.name = "align",
          .type = PropertyType::kSize,
          .default_text = "0",
          .description = "what the address of the mapping is a multiple of; 0 is a page"},
         kSet<&S::align>,
         kGet<&S::align>},
        {{.name = "offset",
          .type = PropertyType::kSize,
          .default_text = "0",
          .description = "where in the file the memory starts"},
         kSet<&S::offset>,
         kGet<&S::offset>},
        {{.name = "discard-data",
          .type = PropertyType::kBool,
          .default_text = "off",
          .description = "throw the contents away in the end"},
         kSet<&S::discard_data>,
         kGet<&S::discard_data>},
        {{.name = "pmem",
          .type = PropertyType::kBool,
          .default_text = "off",
          .description = "the file is persistent memory, which Holdfast does not treat as such"},
         kSet<&S::pmem>,
         kGet<&S::pmem>},
        {{.name = "readonly",
          .type = PropertyType::kBool,
          .default_text = "off",
          .description = "open the file for reading only"},
         kSet<&S::readonly>,
         kGet<&S::readonly>},
        {{.name = "rom",
          .type = PropertyType::kEnum,
          .default_text = "auto",
          .description = "the guest may only read it; auto is on with readonly=on and share=on",
          .choices = kOnOffAutoWords,
          .qom_type = "OnOffAuto"},
         kSet<&S::rom>,
         kGet<&S::rom>},
    }});

// A file that this program has made has to go again when it cannot be used.
class OpenedFile {
 public:
  // @return the file, or the unnamed one in the folder, as QEMU finds it.
  static Result<OpenedFile> Open(const std::string& path, bool readonly) {
    const int flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC;
    const auto fail = [&](int error) {
      return Fail(
          Error::FromErrno(fmt::format("can't open backing store {} for guest RAM", path), error)
              .WithHint("mem-path names a file, or a folder in which one can be made."));
    };
    UniqueFd fd(::open(path.c_str(), flags));
    if (fd) {
      struct stat info{};
      if (::fstat(fd.get(), &info) != 0) return fail(errno);
      // A folder can be opened for reading only.
      if (!S_ISDIR(info.st_mode)) return OpenedFile(std::move(fd), {});
      return fail(EISDIR);
    }
    if (errno == EISDIR && !readonly) {
      std::string name = path + "/holdfast_back_mem.XXXXXX";
      fd = UniqueFd(::mkostemp(name.data(), O_CLOEXEC));
      if (!fd) return fail(errno);
      ::unlink(name.c_str());
      return OpenedFile(std::move(fd), {});
    }
    if (errno != ENOENT || readonly) return fail(errno);
    fd = UniqueFd(::open(path.c_str(), flags | O_CREAT | O_EXCL, 0644));
    if (!fd) return fail(errno == EEXIST ? ENOENT : errno);
    return OpenedFile(std::move(fd), path);
  }

  OpenedFile(OpenedFile&& other) noexcept
      : fd_(std::move(other.fd_)), created_(std::exchange(other.created_, {})) {}
  OpenedFile(const OpenedFile&) = delete;
  OpenedFile& operator=(const OpenedFile&) = delete;
  OpenedFile& operator=(OpenedFile&&) = delete;
  ~OpenedFile() {
    if (!created_.empty()) ::unlink(created_.c_str());
  }

  int fd() const noexcept { return fd_.get(); }
  UniqueFd TakeFd() noexcept { return std::move(fd_); }
  void Keep() noexcept { created_.clear(); }

 private:
  OpenedFile(UniqueFd fd, std::string created) : fd_(std::move(fd)), created_(std::move(created)) {}
  UniqueFd fd_;
  std::string created_;  // the path, if this program made the file
};

std::uint64_t PageSizeOf(int fd) {
  struct statfs info{};
  if (::fstatfs(fd, &info) == 0 && info.f_type == HUGETLBFS_MAGIC)
    return static_cast<std::uint64_t>(info.f_bsize);
  return kPageSize;
}

Error MustBe(std::string_view what, std::uint64_t value, std::string_view rest) {
  return Error(Errc::kInvalidArgument, fmt::format("{} 0x{:x} must be {}", what, value, rest),
               "Choose another value, or leave the parameter out.");
}

}  // namespace

constexpr ObjectType FileBackend::kType = {
    .name = "memory-backend-file",
    .description = "a file",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<FileBackend>(std::move(id));
    },
    .properties = kProperties,
    .qemu_only = kBackendQemuOnly,
};

FileBackend::~FileBackend() {
  if (block() == nullptr || !own_.discard_data || !share() || own_.readonly) return;
  // A file system that cannot do it keeps the data; that is no harm.
  (void)::madvise(block()->host_view().data(), block()->size(), MADV_REMOVE);
}

bool FileBackend::rom() const noexcept {
  return own_.rom == OnOffAuto::kOn || (own_.rom == OnOffAuto::kAuto && own_.readonly && share());
}

Status FileBackend::Check() const {
  if (own_.mem_path.empty()) {
    return Fail(Errc::kInvalidArgument, "Parameter 'mem-path' is missing",
                "Name the file, for example mem-path=/dev/hugepages.");
  }
  if (own_.pmem) {
    return Fail(Errc::kUnsupported, "pmem=on is not supported",
                "Holdfast does not flush memory to persistent media as pmem=on asks for: leave it "
                "out.");
  }
  if (own_.rom == OnOffAuto::kOn && !own_.readonly) {
    return Fail(Errc::kInvalidArgument,
                "property 'rom' = 'on' is not supported with 'readonly' = 'off'",
                "Add readonly=on.");
  }
  if (own_.rom == OnOffAuto::kOff && own_.readonly && share()) {
    return Fail(Errc::kInvalidArgument,
                "property 'rom' = 'off' is incompatible with 'readonly' = 'on' and 'share' = 'on'",
                "Use share=off: then writes stay in memory.");
  }
  if (!IsPageAligned(size())) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("backend '{}' memory size must be multiple of 4 KiB", kType.name),
        fmt::format("{} is not; the one below is {}.", size(), AlignDown(size(), kPageSize)));
  }
  return {};
}

MemoryBackend::Adoption FileBackend::adoption() const {
  return {.guest_memfd = false,
          .size = size(),
          .offset = own_.offset,
          .alignment = own_.align,
          .readonly = rom()};
}

Result<std::unique_ptr<RamBlock>> FileBackend::CreateRamBlock(kvm::Vm& /*vm*/,
                                                              Conversion /*conversion*/) const {
  HF_TRY(OpenedFile file, OpenedFile::Open(own_.mem_path, own_.readonly));
  const std::uint64_t page = PageSizeOf(file.fd());
  const std::string pages = fmt::format("multiples of page size 0x{:x}", page);
  if (own_.align % page != 0) return Fail(MustBe("alignment", own_.align, pages));
  if (own_.align != 0 && !std::has_single_bit(own_.align))
    return Fail(MustBe("alignment", own_.align, "a power of two"));
  if (own_.offset % page != 0) return Fail(MustBe("offset", own_.offset, pages));
  if (size() < page) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("memory size 0x{:x} must be equal to or larger than page size 0x{:x}",
                            size(), page),
                "Make size a multiple of the page size.");
  }
  if (size() % page != 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("backend '{}' memory size must be multiple of {}", kType.name,
                            FormatSize(page)),
                "The file system has pages of that size.");
  }
  struct stat info{};
  if (::fstat(file.fd(), &info) != 0) return FailErrno("looking at the backing store");
  const auto have = static_cast<std::uint64_t>(info.st_size);
  const auto end = CheckedAdd(own_.offset, size());
  const bool fits = end && *end <= static_cast<std::uint64_t>(INT64_MAX);
  if ((have > 0 || own_.readonly || !fits) && (!fits || have < *end)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{} backing store size 0x{:x} is too small for 'size' option 0x{:x} "
                            "plus 'offset' option 0x{:x}",
                            id(), have, size(), own_.offset),
                "Make the file larger, or name one that does not exist yet.");
  }
  std::string hint;
  if (have == 0 && ::ftruncate(file.fd(), static_cast<off_t>(*end)) != 0)
    hint = Error::FromErrno("ftruncate", errno).message() + ".";
  auto block = RamBlock::CreateFromFd(id(), file.TakeFd(), own_.offset, size(), page,
                                      {.shared = share(),
                                       .readonly = rom(),
                                       .reserve = settings().reserve,
                                       .alignment = std::max(own_.align, page)});
  if (!block || !hint.empty()) {
    const int error = block ? ENODEV : block.error().os_errno();
    return Fail(Error::FromErrno("unable to map backing store for guest RAM", error)
                    .WithHint(std::move(hint)));
  }
  file.Keep();
  return block;
}

}  // namespace holdfast::object
