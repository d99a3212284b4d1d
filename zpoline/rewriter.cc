// Which proven sites are rewritten, how, and the table that tells a rewritten call from a call through a NULL pointer.
//
// The form is `ff d0` (call *%rax) in place of `0f 05`: both have two bytes, so no other instruction moves and a
// jump that lands on the old one lands on the new one. What it costs the program is a return address below its stack pointer:
// a function that keeps data there (the red zone) would lose it. Therefore:
//   - `mov $number,%eax` directly before, and nobody claims that number: the site stays as it is. The kernel call costs what
//     it always did, and nothing can go wrong. The same for rt_sigreturn, whose bytes debuggers look for.
//   - the function may use its red zone: the site stays as it is and is counted.
//   - else: call.
//
// Memory: text is mapped privately by the loader, so a write copies the page for this process only. The page is made
// writable for the moment of the write (readable and executable throughout) and gets the exact protection of its segment back.
//
// Table: 65536 words, indexed by bits 0..15, else 8..23, else 16..31 of the return address (what entry.S can load without
// touching flags). A word holds the negated address. A site that finds all three taken stays unrewritten.
//
// Invariants: 1 a site enters the table before its bytes change; 2 writers hold `lock`, readers need none.
#include "zpoline/rewriter.h"

#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <atomic>
#include <cstring>

#include "base/log.h"
#include "base/syscall.h"
#include "zpoline/engine.h"

namespace zpoline {
namespace {

constexpr size_t kMaxSites = 16384;
constexpr size_t kMaxObjects = 1024;
constexpr uint64_t kPageMask = 4095;
constexpr uint8_t kCallRax[2] = {0xff, 0xd0};

struct Rewritten {
  uint8_t* address;  // of the two bytes; null: forgotten
  uint8_t old[2];
};
Rewritten rewritten[kMaxSites];
size_t rewritten_count = 0;
uint64_t scanned_objects[kMaxObjects];  // by the begin of their text
size_t scanned_count = 0;
struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
};
Range loader;  // ld.so's text
uint64_t lowest = UINT64_MAX;
uint64_t highest = 0;
std::atomic<uint32_t> lock{0};

class Locked {
 public:
  Locked() noexcept {
    while (lock.exchange(1, std::memory_order_acquire) != 0) __builtin_ia32_pause();
  }
  ~Locked() { lock.store(0, std::memory_order_release); }
};

uint64_t* table_word(uint64_t return_address, int attempt) noexcept { return &zps_site_table[return_address >> (8 * attempt) & 0xffff]; }

bool enter(uint64_t return_address) noexcept {
  for (int attempt = 0; attempt < 3; attempt++) {
    uint64_t* word = table_word(return_address, attempt);
    if (*word != 0 && *word != -return_address) continue;
    __atomic_store_n(word, -return_address, __ATOMIC_RELEASE);
    return true;
  }
  return false;
}

void leave(uint64_t return_address) noexcept {
  for (int attempt = 0; attempt < 3; attempt++) {
    uint64_t* word = table_word(return_address, attempt);
    if (*word == -return_address) __atomic_store_n(word, 0, __ATOMIC_RELEASE);
  }
}

// What is to be written in one executable segment.
struct Batch {
  Site sites[2048];
  size_t count = 0;
};
Batch batch;

void collect(void*, const Site& site) noexcept {
  switch (judge(site)) {
    case Verdict::native_unclaimed: counts.native++; return;
    case Verdict::native_red_zone:
      counts.red_zone++;
      base::log(base::LogLevel::debug, "site %p (number %d) stays: its function may use the red zone", static_cast<void*>(site.address),
                site.number);
      return;
    case Verdict::native_other: counts.other++; return;
    case Verdict::call: break;
  }
  if (batch.count < sizeof batch.sites / sizeof batch.sites[0]) batch.sites[batch.count++] = site;
  else counts.other++;
}

int protection_of(const ElfW(Phdr) & segment) noexcept {
  return (segment.p_flags & PF_R ? PROT_READ : 0) | (segment.p_flags & PF_W ? PROT_WRITE : 0) | (segment.p_flags & PF_X ? PROT_EXEC : 0);
}

long protect(uint64_t begin, uint64_t end, int protection) noexcept {
  begin &= ~kPageMask;
  end = (end + kPageMask) & ~kPageMask;
  return base::kernel_call(SYS_mprotect, static_cast<long>(begin), static_cast<long>(end - begin), protection);
}

void widen_bounds(uint64_t address) noexcept {
  if (address < lowest) lowest = address;
  if (address > highest) highest = address;
}

void write_site(uint8_t* address) noexcept {
  const uint64_t return_address = reinterpret_cast<uint64_t>(address) + 2;
  if (rewritten_count == kMaxSites || !enter(return_address)) {
    counts.other++;
    return;
  }
  rewritten[rewritten_count++] = {address, {address[0], address[1]}};
  uint16_t bytes;
  memcpy(&bytes, kCallRax, sizeof bytes);
  __atomic_store_n(reinterpret_cast<uint16_t*>(address), bytes, __ATOMIC_RELEASE);
  counts.called++;
  widen_bounds(return_address);
}

// Writes the batch's sites that lie in `segment`; 0 or what mprotect said.
long write_segment(uint64_t begin, uint64_t end, int protection) noexcept {
  uint64_t first = UINT64_MAX;
  uint64_t last = 0;
  for (size_t i = 0; i < batch.count; i++) {
    const uint64_t address = reinterpret_cast<uint64_t>(batch.sites[i].address);
    if (address < begin || address >= end) continue;
    if (address < first) first = address;
    if (address + 2 > last) last = address + 2;
  }
  if (last == 0) return 0;
  const long result = protect(first, last, protection | PROT_WRITE);
  if (result < 0) return result;
  for (size_t i = 0; i < batch.count; i++) {
    const uint64_t address = reinterpret_cast<uint64_t>(batch.sites[i].address);
    if (address >= begin && address < end) write_site(batch.sites[i].address);
  }
  return protect(first, last, protection);
}

bool holds(const dl_phdr_info& object, uint64_t address) noexcept {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    const uint64_t begin = object.dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && address >= begin && address < begin + segment.p_memsz) return true;
  }
  return false;
}

Range text_of(const dl_phdr_info& object) noexcept {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    const uint64_t begin = object.dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X)) return {begin, begin + segment.p_filesz};
  }
  return {};
}

bool is_scanned(uint64_t text) noexcept {
  for (size_t i = 0; i < scanned_count; i++) {
    if (scanned_objects[i] == text) return true;
  }
  return false;
}

long rewrite_object(const dl_phdr_info& object) noexcept {
  batch.count = 0;
  if (const uint64_t text = text_of(object).begin; text != 0 && scanned_count < kMaxObjects) {
    scanned_objects[scanned_count++] = text;
    widen_bounds(text);
  }
  const ScanCounts scanned = scan_object(object, collect, nullptr);
  counts.objects++;
  counts.pairs += scanned.pairs;
  counts.sites += scanned.sites;
  if (scanned.pairs > 0) {
    base::log(base::LogLevel::debug, "%s: %zu byte pairs, %zu system calls, %zu functions and %zu instructions decoded", object.dlpi_name,
              scanned.pairs, scanned.sites, scanned.functions, scanned.instructions);
  }
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X)) continue;
    const uint64_t begin = object.dlpi_addr + segment.p_vaddr;
    const long result = write_segment(begin, begin + segment.p_filesz, protection_of(segment));
    if (result < 0) return result;
  }
  return 0;
}

bool is_excluded(const dl_phdr_info& object) noexcept {
  return holds(object, reinterpret_cast<uint64_t>(&rewritten)) || holds(object, getauxval(AT_SYSINFO_EHDR));
}

struct AllResult {
  long error = 0;
};

int rewrite_one_of_all(dl_phdr_info* object, size_t, void* context) noexcept {
  if (is_excluded(*object)) return 0;
  auto* all = static_cast<AllResult*>(context);
  if (object->dlpi_addr == _r_debug.r_ldbase) loader = text_of(*object);
  all->error = rewrite_object(*object);
  return all->error < 0;
}

void undo() noexcept {
  for (size_t i = 0; i < rewritten_count; i++) {
    const uint64_t address = reinterpret_cast<uint64_t>(rewritten[i].address);
    if (protect(address, address + 2, PROT_READ | PROT_WRITE | PROT_EXEC) < 0) continue;
    memcpy(rewritten[i].address, rewritten[i].old, 2);
    (void)protect(address, address + 2, PROT_READ | PROT_EXEC);
    leave(address + 2);
  }
  rewritten_count = 0;
}

}  // namespace

Verdict judge(const Site& site) noexcept {
  constexpr int32_t kSigreturn = 15;
  if (site.number != kUnknownNumber && (site.number == kSigreturn || !is_wanted(site.number))) return Verdict::native_unclaimed;
  if (!site.callable) return Verdict::native_other;
  if (site.below_rsp) return Verdict::native_red_zone;
  return Verdict::call;
}

base::Result<bool> rewrite_loaded_objects() noexcept {
  Locked locked;
  AllResult all;
  (void)dl_iterate_phdr(rewrite_one_of_all, &all);
  if (all.error < 0) {
    undo();
    return base::make_error("program text cannot be made writable (error %ld): a security policy forbids it", -all.error);
  }
  return true;
}

// Called from within ld.so's own mprotect, so this thread holds the lock of dlopen and dlclose and no object goes. The lock of
// dl_iterate_phdr() is not held while an object is scanned: a fork by another thread would leave it locked in the child.
bool rewrite_new_objects() noexcept {
  struct Found {
    dl_phdr_info objects[32];
    size_t count = 0;
  } found;
  (void)dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void* context) {
        auto* list = static_cast<Found*>(context);
        const uint64_t text = text_of(*object).begin;
        Locked locked;
        if (text != 0 && !is_scanned(text) && !is_excluded(*object)) list->objects[list->count++] = *object;
        return list->count == sizeof list->objects / sizeof list->objects[0] ? 1 : 0;
      },
      &found);
  Locked locked;
  for (size_t i = 0; i < found.count; i++) {
    counts.late_objects++;
    if (rewrite_object(found.objects[i]) < 0)
      base::log(base::LogLevel::warn, "%s cannot be rewritten: its system calls go to the kernel", found.objects[i].dlpi_name);
  }
  return found.count > 0;
}

bool is_in_loader(uint64_t address) noexcept { return address >= loader.begin && address < loader.end; }

void reset_rewriter_lock() noexcept { lock.store(0, std::memory_order_release); }

void forget_sites(uint64_t begin, uint64_t end) noexcept {
  if (end <= lowest || begin > highest) return;
  Locked locked;
  for (size_t i = 0; i < scanned_count; i++) {
    if (scanned_objects[i] >= begin && scanned_objects[i] < end) scanned_objects[i--] = scanned_objects[--scanned_count];
  }
  for (size_t i = 0; i < rewritten_count; i++) {
    const uint64_t address = reinterpret_cast<uint64_t>(rewritten[i].address);
    if (address < begin || address >= end) continue;
    leave(address + 2);
    rewritten[i] = rewritten[--rewritten_count];
    i--;
  }
}

bool is_return_address(uint64_t address) noexcept {
  if (address == 0) return false;
  for (int attempt = 0; attempt < 3; attempt++) {
    if (*table_word(address, attempt) == -address) return true;
  }
  return false;
}

}  // namespace zpoline
