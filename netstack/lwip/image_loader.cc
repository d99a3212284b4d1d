// The loader of stack images.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP keeps its state in globals. To have one lwIP per stack and share each among forked processes without touching its source,
// the whole object is mapped once per stack. After relocation the writable segment beyond RELRO (.data and
// .bss; the GOT and the vtables lie inside RELRO and stay private and read-only) is copied into a MAP_SHARED
// mapping that takes its place by one mremap: from then on every forked process sees the same globals at the same addresses.
//
// Without ld.so, because a stack is made in the middle of a call of the program's: dlopen() allocates with the program's malloc(), and
// waits for a lock that the program may hold, around a constructor that waits for this very connection. The image asks for little: no
// library, no symbol, no constructor, no thread-local variable, and relocations of one kind. One that asks for more is
// refused.
//
// Rejected: dlmopen per stack (each namespace brings a libc of its own, and there are 16 at most); patching lwIP to
// keep its globals in a struct; dlopen at start (every program would pay, and a second stack needs a second copy).
//
// Invariants: 1 nothing of the image has run before the move; 2 RELRO ends on a page.
// Known limit: a debugger has to be told where the image lies (add-symbol-file libzpstack-stack.so -o ADDRESS, the first one in
// /proc/PID/maps).
// Sources: the ELF gABI and its x86-64 supplement, mremap(2).
#include "netstack/lwip/image_loader.h"

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/elf_object.h"
#include "base/high_fd.h"
#include "base/shared_memory.h"
#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr char kImageName[] = "libzpstack-stack.so";
// The image's path: the directory of whatever holds this code. Found when that is loaded, since ld.so is asked.
class ImagePath {
 public:
  ImagePath() noexcept {
    Dl_info here;
    if (dladdr(reinterpret_cast<void*>(&load_stack_image), &here) == 0 || here.dli_fname == nullptr) return;
    char resolved[PATH_MAX];
    const char* path = here.dli_fname;
    if (strchr(path, '/') == nullptr || kernel_call(SYS_access, as_arg(path), 0) != 0) {
      const long length = kernel_call(SYS_readlink, as_arg("/proc/self/exe"), as_arg(resolved), sizeof resolved - 1);
      if (length <= 0) return;
      resolved[length] = '\0';
      path = resolved;
    }
    const char* slash = strrchr(path, '/');
    const size_t directory = slash == nullptr ? 0 : static_cast<size_t>(slash - path) + 1;
    if (directory + sizeof kImageName > sizeof text_) return;
    memcpy(text_, path, directory);
    memcpy(text_ + directory, kImageName, sizeof kImageName);
  }
  [[nodiscard]] const char* text() const noexcept { return text_; }
  void set(const char* path) noexcept {
    if (strlen(path) < sizeof text_) strcpy(text_, path);
  }

 private:
  char text_[PATH_MAX] = "";
};

ImagePath image_path;

// Out of the program's sight if there is a number for it, else among its own for as long as it takes; or a negative errno.
int open_file(const char* path) noexcept {
  const int fd = static_cast<int>(kernel_call(SYS_openat, AT_FDCWD, as_arg(path), O_RDONLY | O_CLOEXEC, 0));
  const int high = base::move_fd_high(fd);
  return high >= 0 ? high : fd;
}

int opened_image = -1;  // from before it could not be found any more

// An object's file while it is being mapped.
class ObjectFile {
 public:
  explicit ObjectFile(const char* path) noexcept : fd_(opened_image >= 0 ? opened_image : open_file(path)) { opened_image = -1; }
  ~ObjectFile() {
    if (fd_ >= 0) (void)base::close_high_fd(fd_);
  }
  ObjectFile(const ObjectFile&) = delete;
  ObjectFile& operator=(const ObjectFile&) = delete;

  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  int fd_;
};

// Adds the base to each word that is relative to it. False if the object asks for more than that.
bool relocate(const base::ElfObject& object) noexcept {
  const Elf64_Phdr* dynamic = object.find(PT_DYNAMIC);
  if (dynamic == nullptr || object.find(PT_TLS) != nullptr) return false;
  uint64_t table = 0, bytes = 0;
  for (const auto* entry = reinterpret_cast<const Elf64_Dyn*>(object.base + dynamic->p_vaddr); entry->d_tag != DT_NULL; entry++) {
    switch (entry->d_tag) {
      case DT_RELA: table = entry->d_un.d_ptr; break;
      case DT_RELASZ: bytes = entry->d_un.d_val; break;
      case DT_NEEDED: case DT_JMPREL: case DT_INIT: case DT_INIT_ARRAY: case DT_TEXTREL: return false;
      default: break;
    }
  }
  const auto* rows = reinterpret_cast<const Elf64_Rela*>(object.base + table);
  for (uint64_t i = 0; i < bytes / sizeof *rows; i++) {
    if (ELF64_R_TYPE(rows[i].r_info) != R_X86_64_RELATIVE) return false;
    *reinterpret_cast<uint64_t*>(object.base + rows[i].r_offset) = object.base + static_cast<uint64_t>(rows[i].r_addend);
  }
  return true;
}

bool move_to_shared(const base::Span& range, StackImage* image) noexcept {
  const size_t bytes = range.to - range.from;
  void* const data = reinterpret_cast<void*>(range.from);
  void* const shared = base::map_shared(bytes);
  void* const pristine = base::map_shared(bytes);
  if (shared == nullptr || pristine == nullptr) return false;
  memcpy(shared, data, bytes);
  memcpy(pristine, data, bytes);
  base::seal_shared(pristine, bytes);
  if (!base::move_shared(shared, bytes, data)) return false;
  image->data = data;
  image->pristine = pristine;
  image->bytes = bytes;
  return true;
}

ImagePlace last_place{};

// From its file to memory, all but what is shared.
base::Result<base::Span> load(base::ElfObject& object, uintptr_t wanted) noexcept {
  const char* const path = image_path.text();
  if (*path == '\0') return base::make_error("cannot tell where %s lies", kImageName);
  const ObjectFile file(path);
  if (file.fd() < 0) return base::make_error("cannot open %s: error %d", path, -file.fd());
  if (!base::read_elf(file.fd(), object)) return base::make_error("%s is not a stack image", path);
  if (const long result = base::map_elf(file.fd(), object, wanted); result != 0)
    return base::make_error("cannot map %s: error %ld", path, -result);
  if (!relocate(object)) return base::make_error("%s asks for more than a stack image may", path);
  return base::protect_relocated(object);
}

}  // namespace

const char* stack_image_path() noexcept { return image_path.text(); }
void use_stack_image_path(const char* path) noexcept { image_path.set(path); }

void open_stack_image() noexcept {
  if (opened_image < 0) opened_image = open_file(image_path.text());
}

base::Result<StackImage> load_stack_image() noexcept {
  base::ElfObject object;
  base::Result<base::Span> range = load(object, 0);
  if (!range) return range.error();
  StackImage image;
  if (range->from >= range->to || !move_to_shared(*range, &image))
    return base::make_error("cannot share the data of %s between processes", kImageName);
  image.door = reinterpret_cast<decltype(&zps_stack_door)>(object.base + object.header.e_entry)();
  if (image.door.setup_bytes != sizeof(StackSetup)) return base::make_error("%s is not a stack image of this version", kImageName);
  last_place = {object.base, base::build_id_of(reinterpret_cast<const void*>(object.base))};
  return image;
}

ImagePlace image_place() noexcept { return last_place; }

base::Result<bool> load_image_again(const ImagePlace& place) noexcept {
  base::ElfObject object;
  const base::Result<base::Span> range = load(object, place.base);
  if (!range) return range.error();
  last_place = {object.base, base::build_id_of(reinterpret_cast<const void*>(object.base))};
  if (last_place.build == place.build && place.build.is_known()) return true;
  return base::make_error("%s is of another build", kImageName);
}

}  // namespace netstack
