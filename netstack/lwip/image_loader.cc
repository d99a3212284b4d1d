// The loader of stack images.
//
// lwIP keeps its state in globals. To have one lwIP per stack and share each among forked processes without touching its source,
// the whole object is loaded once per stack: the dynamic linker takes a file it has not seen (by device and inode) for a
// new library, so each stack after the first gets a copy in a memfd. After relocation the writable segment beyond RELRO (.data and
// .bss; the GOT and the vtables lie inside RELRO and stay private and read-only) is copied into a MAP_SHARED
// mapping that takes its place by one mremap: from then on every forked process sees the same globals at the same addresses.
//
// Rejected: dlmopen per stack (each namespace brings a libc of its own, and there are 16 at most); patching lwIP to
// keep its globals in a struct.
//
// Invariants: 1 nothing of the image has run before the move (it has no constructors; checked); 2 RELRO ends on a page.
// Sources: dlopen(3), mremap(2), the ELF gABI.
#include "netstack/lwip/image_loader.h"

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/high_fd.h"
#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr char kImageName[] = "libzpstack-stack.so";
constexpr uintptr_t kPage = 4096;

struct Range {
  uintptr_t from, to;
};

int images_loaded = 0;

// The image's path: the directory of whatever holds this code.
bool find_image(char* out, size_t capacity) noexcept {
  Dl_info here;
  if (dladdr(reinterpret_cast<void*>(&load_stack_image), &here) == 0 || here.dli_fname == nullptr) return false;
  char resolved[PATH_MAX];
  const char* path = here.dli_fname;
  if (strchr(path, '/') == nullptr || kernel_call(SYS_access, as_arg(path), 0) != 0) {
    const long length = kernel_call(SYS_readlink, as_arg("/proc/self/exe"), as_arg(resolved), sizeof resolved - 1);
    if (length <= 0) return false;
    resolved[length] = '\0';
    path = resolved;
  }
  const char* slash = strrchr(path, '/');
  const size_t directory = slash == nullptr ? 0 : static_cast<size_t>(slash - path) + 1;
  if (directory + sizeof kImageName > capacity) return false;
  memcpy(out, path, directory);
  memcpy(out + directory, kImageName, sizeof kImageName);
  return true;
}

int moved_high(long fd) noexcept {
  if (fd < 0) return static_cast<int>(fd);
  const int high = base::move_fd_high(static_cast<int>(fd));
  return high < 0 ? static_cast<int>(fd) : high;
}

// A memfd with the file's bytes, or a negative errno.
int copy_to_memfd(const char* path) noexcept {
  const int from = moved_high(kernel_call(SYS_openat, AT_FDCWD, as_arg(path), O_RDONLY | O_CLOEXEC, 0));
  if (from < 0) return from;
  const int to = moved_high(kernel_call(SYS_memfd_create, as_arg("zpstack-stack"), MFD_CLOEXEC));
  long copied = to;
  while (to >= 0 && (copied = kernel_call(SYS_sendfile, to, from, 0, 1 << 20)) > 0) {
  }
  (void)base::close_high_fd(from);
  if (copied >= 0) return to;
  if (to >= 0) (void)base::close_high_fd(to);
  return static_cast<int>(copied);
}

// A path to a descriptor that no earlier copy was loaded by: the dynamic linker looks for a known name before it looks at the file,
// and descriptor numbers come back. The copy's number goes in as a row of "./" and "/", which name the same place.
void name_descriptor(int fd, int copy, char (&out)[96]) noexcept {
  char* end = out;
  const auto put = [&](const char* text) {
    while (*text != '\0') *end++ = *text++;
  };
  put("/proc/self/");
  for (int bit = 0; bit < 16; bit++) put((copy >> bit & 1) != 0 ? "./" : "/");
  put("fd/");
  char digits[12];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + fd % 10);
    fd /= 10;
  } while (fd != 0);
  while (count > 0) *end++ = digits[--count];
  *end = '\0';
}

// The page-aligned part of the object's writable segment that stays writable; empty if there is none.
Range writable_range(const link_map& map) noexcept {
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(map.l_addr);
  const auto* segments = reinterpret_cast<const Elf64_Phdr*>(map.l_addr + header->e_phoff);
  Range range{0, 0};
  uintptr_t relro_end = 0;
  for (int i = 0; i < header->e_phnum; i++) {
    const Elf64_Phdr& segment = segments[i];
    const uintptr_t from = map.l_addr + segment.p_vaddr, to = from + segment.p_memsz;
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_W) != 0) range = {from & ~(kPage - 1), (to + kPage - 1) & ~(kPage - 1)};
    if (segment.p_type == PT_GNU_RELRO) relro_end = to & ~(kPage - 1);
  }
  if (relro_end > range.from) range.from = relro_end;
  return range;
}

void* map_anonymous(size_t bytes, int flags) noexcept {
  const long address = kernel_call(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  return address < 0 && address > -4096 ? nullptr : reinterpret_cast<void*>(address);
}

bool move_to_shared(const Range& range, StackImage* image) noexcept {
  const size_t bytes = range.to - range.from;
  void* const place = reinterpret_cast<void*>(range.from);
  void* const shared = map_anonymous(bytes, MAP_SHARED);
  void* const pristine = map_anonymous(bytes, MAP_SHARED);
  if (shared == nullptr || pristine == nullptr) return false;
  memcpy(shared, place, bytes);
  memcpy(pristine, place, bytes);
  (void)kernel_call(SYS_mprotect, as_arg(pristine), static_cast<long>(bytes), PROT_READ);
  const long moved = kernel_call(SYS_mremap, as_arg(shared), static_cast<long>(bytes), static_cast<long>(bytes),
                                 MREMAP_MAYMOVE | MREMAP_FIXED, as_arg(place));
  if (moved != as_arg(place)) return false;
  image->data = place;
  image->pristine = pristine;
  image->bytes = bytes;
  return true;
}

}  // namespace

base::Result<StackImage> load_stack_image() noexcept {
  char path[PATH_MAX];
  if (!find_image(path, sizeof path)) return base::make_error("cannot tell where %s lies", kImageName);
  void* handle = nullptr;
  if (images_loaded == 0) {  // under its own name, which debuggers and profilers understand
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  } else {
    const int fd = copy_to_memfd(path);
    if (fd < 0) return base::make_error("cannot copy %s: error %d", path, -fd);
    char link[96];
    name_descriptor(fd, images_loaded, link);
    handle = dlopen(link, RTLD_NOW | RTLD_LOCAL);
    (void)base::close_high_fd(fd);
  }
  if (handle == nullptr) return base::make_error("cannot load %s: %s", path, dlerror());
  images_loaded++;

  StackImage image;
  image.region_bytes = reinterpret_cast<decltype(image.region_bytes)>(dlsym(handle, "zps_stack_region_bytes"));
  image.make = reinterpret_cast<decltype(image.make)>(dlsym(handle, "zps_stack_make"));
  link_map* map = nullptr;
  if (image.region_bytes == nullptr || image.make == nullptr || dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0) {
    return base::make_error("%s is not a stack image of this version", path);
  }
  const Range range = writable_range(*map);
  if (range.from >= range.to || !move_to_shared(range, &image)) return base::make_error("cannot share the data of %s between processes", path);
  return image;
}

}  // namespace netstack
