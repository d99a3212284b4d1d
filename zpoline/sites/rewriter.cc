// Which proven sites are rewritten, how, and the table that tells a rewritten call from a call through a NULL pointer.
// SPDX-License-Identifier: BSD-3-Clause
//
// There are three forms:
//   call   `ff d0` (call *%rax) in place of `0f 05`: both have two bytes, so no other instruction moves and a jump that lands on the
//          old one lands on the new one. What it costs the program is a return address below its stack pointer: a function that
//          keeps data there (the red zone) would lose it. It needs page 0.
//   jump   `e9 rel32` in place of the `mov $number,%eax` before the system call, to a stub of its own (stubs.cc). The two bytes
//          behind it become a call as well, where a call may stand there, else they stay `syscall`. Nothing below rsp is
//          touched and page 0 is not needed. Only where the scanner proved that nothing lands inside. Before `cmp $-4096,%rax` there is
//          room for one from `xor %eax,%eax` on as well; as it leaves no system call behind, only at start and while there are no threads.
//   trap   `f4 05` in place of `0f 05`. hlt faults in user mode, and the handler of the fault sends the program into the engine
//          (signals.cc). It costs a signal, needs nothing, and is one byte: any processor may be executing the site.
// And so a site
//   - whose number is known and that nobody claims stays as it is. The kernel call costs what it always did, and nothing can go
//     wrong. The same for rt_sigreturn, whose bytes debuggers look for;
//   - that can be a jump becomes one;
//   - else becomes a call, unless its function may use its red zone, page 0 is not ours, or a thread could see one of two bytes: then a
//     trap.
//
// Memory: text is mapped privately by the loader, so a write copies the page for this process only. The page is made
// writable for the moment of the write (readable and executable throughout) and gets the exact protection of its segment back.
//
// While other threads run, an instruction is replaced by one store that no fetch sees half done: inside an aligned 8 bytes, or 16 with
// cmpxchg16b (mov), inside a cache line (the two bytes). What does not fit keeps what it has. Mov and system call are two such
// stores, in any order as others see them, since each mixture works: a thread before the mov executes it or the jump; one that is
// between them, also one that returns there from a signal handler, has its number in rax and finds `syscall` or `call *%rax`.
// That is also why a jump into the middle that the scanner could not know (it would land on the system call) still works.
//
// Table: 65536 words, indexed by bits 0..15 of the return address, else by these plus 648 or 1000 times bits 16..31 (what
// entry.S can compute without touching flags): copies of one library lie apart by multiples of a page, so their sites would meet in any
// index that leaves bits out. A word holds the negated address. A site that finds all three taken moves another one
// out of the way; if none can move it stays unrewritten.
//
// Invariants: 1 a site enters the table before its bytes change; 2 writers hold `lock`, readers need none.
#include "zpoline/sites/rewriter.h"

#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>
#include <cstring>
#include <initializer_list>

#include "base/log.h"
#include "base/syscall.h"
#include "zpoline/engine.h"
#include "zpoline/sites/go_functions.h"
#include "zpoline/sites/maps.h"
#include "zpoline/sites/stubs.h"

namespace zpoline {
namespace {

constexpr size_t kMaxSites = 16384;
constexpr size_t kMaxObjects = 1024;
constexpr uint64_t kPageMask = 4095;
constexpr uint16_t kCallRax = 0xd0ff;
constexpr uint8_t kJump = 0xe9;
constexpr uint64_t kLineBytes = 64;

struct Rewritten {
  uint8_t* begin;  // of the system call, or of the load before it
  uint8_t old[7];
  uint8_t bytes;            // how many of them are others now
  uint64_t return_address;  // of the system call
  uint64_t stub;            // of a jump; 0: a call only
};
static_assert(sizeof Rewritten::old >= kLoadBytes + 2);
Rewritten rewritten[kMaxSites];
size_t rewritten_count = 0;
uint64_t scanned_objects[kMaxObjects];  // by the begin of their text
size_t scanned_count = 0;
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

// As CHECK_SITE and its like in frame.h compute it.
uint64_t* table_word(uint64_t return_address, int attempt) noexcept {
  static constexpr uint64_t kFactors[3] = {0, 648, 1000};
  static constexpr uint64_t kOffsets[3] = {0, 1237, 2741};  // else a factor times 512 would be pages, and meet another copy's first word
  return &zps_site_table[(return_address + (return_address >> 16) * kFactors[attempt] + kOffsets[attempt]) & 0xffff];
}

// Puts the site in `word` into a word that is tried later as well: a thread that is looking for it finds it in the one or in the other.
bool make_room(const uint64_t* word) noexcept {
  const uint64_t occupant = -*word;
  bool later = false;
  for (int attempt = 0; attempt < 3; attempt++) {
    uint64_t* other = table_word(occupant, attempt);
    if (other == word) later = true;
    if (!later || *other != 0) continue;
    __atomic_store_n(other, -occupant, __ATOMIC_RELEASE);
    return true;
  }
  return false;
}

bool enter(uint64_t return_address) noexcept {
  for (const bool all_taken : {false, true}) {
    for (int attempt = 0; attempt < 3; attempt++) {
      uint64_t* word = table_word(return_address, attempt);
      if (*word != 0 && *word != -return_address && !(all_taken && make_room(word))) continue;
      __atomic_store_n(word, -return_address, __ATOMIC_RELEASE);
      return true;
    }
  }
  return false;
}

void leave(uint64_t return_address) noexcept {
  for (int attempt = 0; attempt < 3; attempt++) {
    uint64_t* word = table_word(return_address, attempt);
    if (*word == -return_address) __atomic_store_n(word, 0, __ATOMIC_RELEASE);
  }
}

// What is to be written in one object.
struct Batch {
  Site sites[2048] = {};
  uint64_t stubs[2048] = {};  // where the site's jump goes; 0: it gets none
  size_t count = 0;
  size_t left = 0;       // sites that are wanted and stay as they are
  bool of_static = false;  // it is a static program
  bool threads = false;  // others, or a handler's interrupted code, may be executing this text
};
constinit Batch batch;
bool at_start = true;  // no code of the program but constructors has run
bool notes_only = false;

void leave_alone(Verdict verdict) noexcept {
  if (verdict == Verdict::native_unclaimed) counts.native++;
  if (verdict != Verdict::native_other) return;
  counts.other++;
  batch.left++;
}

void collect(void*, const Site& site) noexcept {
  const Verdict verdict = judge(site);
  if (verdict == Verdict::native_unclaimed || verdict == Verdict::native_other) return leave_alone(verdict);
  if (batch.count == sizeof batch.sites / sizeof batch.sites[0]) return leave_alone(Verdict::native_other);
  batch.stubs[batch.count] = 0;
  batch.sites[batch.count++] = site;
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

// Stores the 8 bytes at `at`, which lie in one aligned 16, at once.
void store_in_sixteen(uint64_t at, uint64_t bytes) noexcept {
  auto* block = reinterpret_cast<uint64_t*>(at & ~uint64_t{15});
  uint64_t low = block[0];
  uint64_t high = block[1];
  bool stored = false;
  while (!stored) {
    uint64_t wanted[2] = {low, high};
    memcpy(reinterpret_cast<uint8_t*>(wanted) + (at & 15), &bytes, kLoadBytes);
    asm volatile("lock cmpxchg16b (%5)"
                 : "=@ccz"(stored), "+a"(low), "+d"(high)
                 : "b"(wanted[0]), "c"(wanted[1]), "r"(block)
                 : "memory");
  }
}

[[nodiscard]] bool fits_one_store(const uint8_t* load) noexcept { return reinterpret_cast<uint64_t>(load) % 16 + kLoadBytes <= 16; }

void write_jump(uint8_t* load, uint64_t stub) noexcept {
  uint64_t bytes = 0;
  auto* out = reinterpret_cast<uint8_t*>(&bytes);
  out[0] = kJump;
  const auto distance = static_cast<int32_t>(stub - (reinterpret_cast<uint64_t>(load) + kLoadBytes));
  memcpy(out + 1, &distance, sizeof distance);
  if (batch.threads) store_in_sixteen(reinterpret_cast<uint64_t>(load), bytes);
  else memcpy(load, &bytes, kLoadBytes);
}

// True if the two bytes at `address` became a call.
bool write_call(uint8_t* address, const Site& site) noexcept {
  const uint64_t return_address = reinterpret_cast<uint64_t>(address) + 2;
  const bool one_store = reinterpret_cast<uint64_t>(address) % kLineBytes != kLineBytes - 1;
  if (!page_zero_is_ours || site.below_rsp || site.small_stack || !site.callable || (batch.threads && !one_store)) return false;
  if (!enter(return_address)) return false;
  __atomic_store_n(reinterpret_cast<uint16_t*>(address), kCallRax, __ATOMIC_RELEASE);
  return true;
}

bool write_trap(uint8_t* address) noexcept {
  if (!enter(reinterpret_cast<uint64_t>(address) + 2)) return false;
  __atomic_store_n(address, kTrap, __ATOMIC_RELEASE);
  return true;
}

void write_site(size_t i) noexcept {
  const Site& site = batch.sites[i];
  const uint64_t stub = batch.stubs[i];
  Rewritten before{site.address, {}, 2, reinterpret_cast<uint64_t>(site.address) + 2, stub};
  if (stub != 0) {
    before.begin = const_cast<uint8_t*>(jump_begin(site));
    before.bytes = takes_compare(site) ? kLoadBytes : kLoadBytes + 2;
  }
  memcpy(before.old, before.begin, before.bytes);
  const bool call = (stub == 0 || site.jump == Jump::load) && write_call(site.address, site);
  const bool trap = !call && stub == 0 && write_trap(site.address);
  if (stub != 0) write_jump(const_cast<uint8_t*>(jump_begin(site)), stub);
  if (stub != 0) counts.jumped++;
  else if (call) counts.called++;
  else if (trap) counts.trapped++;
  else return leave_alone(Verdict::native_other);
  rewritten[rewritten_count++] = before;
  widen_bounds(before.return_address);
}

// Writes the batch's sites that lie in `segment`; 0 or what mprotect said.
long write_segment(uint64_t begin, uint64_t end, int protection) noexcept {
  uint64_t first = UINT64_MAX;
  uint64_t last = 0;
  for (size_t i = 0; i < batch.count; i++) {
    const uint64_t address = reinterpret_cast<uint64_t>(batch.sites[i].address);
    if (address < begin || address >= end) continue;
    const uint64_t from = batch.stubs[i] != 0 ? reinterpret_cast<uint64_t>(jump_begin(batch.sites[i])) : address;
    const uint64_t to = batch.stubs[i] != 0 && from + kLoadBytes > address + 2 ? from + kLoadBytes : address + 2;
    if (from < first) first = from;
    if (to > last) last = to;
  }
  if (last == 0) return 0;
  const long result = protect(first, last, protection | PROT_WRITE);
  if (result < 0) return result;
  for (size_t i = 0; i < batch.count; i++) {
    const uint64_t address = reinterpret_cast<uint64_t>(batch.sites[i].address);
    if (address >= begin && address < end) write_site(i);
  }
  return protect(first, last, protection);
}

[[nodiscard]] bool wants_jump(const Site& site) noexcept {
  if (judge(site) != Verdict::jump) return false;
  return !batch.threads || (site.jump == Jump::load && fits_one_store(site.load));
}

// Writes the stubs of the batch. Where there is no room for them, or no right to execute them, the sites go without.
void write_stubs() noexcept {
  size_t wanted = 0;
  uint64_t low = UINT64_MAX;
  uint64_t high = 0;
  for (size_t i = 0; i < batch.count; i++) {
    if (!wants_jump(batch.sites[i])) continue;
    wanted++;
    const uint64_t load = reinterpret_cast<uint64_t>(jump_begin(batch.sites[i]));
    if (load < low) low = load;
    constexpr size_t kWidest = 10;
    if (load + kWidest > high) high = load + kWidest;
  }
  StubArea* area = wanted > 0 ? reserve_stubs(low, high, wanted) : nullptr;
  if (area == nullptr) return;
  for (size_t i = 0; i < batch.count; i++) {
    const Site& site = batch.sites[i];
    if (!wants_jump(site)) continue;
    const void* const own_stack = batch.of_static ? zps_own_stack_static : zps_own_stack;
    batch.stubs[i] = add_stub(area, site, site.small_stack ? own_stack : near_entry(site.number), batch.of_static);
  }
  if (seal_stubs(area) >= 0) return;
  for (size_t i = 0; i < batch.count; i++) batch.stubs[i] = 0;
}

bool is_scanned(uint64_t text) noexcept {
  for (size_t i = 0; i < scanned_count; i++) {
    if (scanned_objects[i] == text) return true;
  }
  return false;
}

// Threads of this process, also such that a constructor before ours has made; true if the kernel does not say.
bool has_threads() noexcept {
  struct stat tasks;
  const long result = base::kernel_call(SYS_stat, base::as_arg("/proc/self/task"), base::as_arg(&tasks));
  constexpr unsigned long kWithOneThread = 3;  // ".", "..", and a directory for each
  return result < 0 || tasks.st_nlink != kWithOneThread;
}

// `left` becomes the number of its calls that nothing was done about.
long rewrite_object(const dl_phdr_info& object, size_t* left, bool of_static = false) noexcept {
  *left = 0;
  batch.of_static = of_static;
  batch.count = batch.left = 0;
  batch.threads = !at_start || has_threads();
  if (const uint64_t text = text_of(object).begin; text != 0 && scanned_count < kMaxObjects) {
    scanned_objects[scanned_count++] = text;
    widen_bounds(text);
  }
  if (notes_only) {
    note_small_stacks(GoFunctions(object).text());
    return 0;
  }
  const ScanCounts scanned = scan_object(object, collect, nullptr);
  counts.objects++;
  counts.pairs += scanned.pairs;
  counts.sites += scanned.sites;
  note_small_stacks(scanned.go_text);
  if (scanned.pairs > 0) {
    base::log(base::LogLevel::debug, "%s: %zu byte pairs, %zu system calls, %zu functions and %zu instructions decoded", object.dlpi_name,
              scanned.pairs, scanned.sites, scanned.functions, scanned.instructions);
  }
  *left = scanned.unknown;
  if (rewritten_count + batch.count > kMaxSites) {
    *left += batch.count;
    return 0;
  }
  write_stubs();
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X)) continue;
    const uint64_t begin = object.dlpi_addr + segment.p_vaddr;
    const long result = write_segment(begin, begin + segment.p_filesz, protection_of(segment));
    if (result < 0) return result;
  }
  *left += batch.left;
  return 0;
}

// Objects with calls that no site covers, until all have been scanned: what is done then takes the lock.
struct Uncovered {
  dl_phdr_info object;
  size_t calls;
};
Uncovered uncovered[32];
size_t uncovered_count = 0;

void note_uncovered(const dl_phdr_info& object, size_t calls) noexcept {
  if (calls != 0 && uncovered_count < sizeof uncovered / sizeof uncovered[0]) uncovered[uncovered_count++] = {object, calls};
}

void cover(const dl_phdr_info& object, size_t calls, AfterFailure after_failure) noexcept {
  const Range text = text_of(object);
  const bool traps = after_failure(text.begin, text.end);
  base::log(traps ? base::LogLevel::debug : base::LogLevel::warn, "%s has %zu system calls in no function that is known: they %s",
            object.dlpi_name[0] != '\0' ? object.dlpi_name : "the program", calls, traps ? "trap" : "go to the kernel");
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
  if (is_loader(*object)) note_loader(*object);
  size_t left = 0;
  all->error = rewrite_object(*object, &left, loaded_static_program && object->dlpi_name[0] == '\0');
  note_uncovered(*object, left);
  return all->error < 0;
}

void undo() noexcept {
  for (size_t i = 0; i < rewritten_count; i++) {
    const Rewritten& site = rewritten[i];
    const uint64_t begin = reinterpret_cast<uint64_t>(site.begin);
    if (protect(begin, begin + site.bytes, PROT_READ | PROT_WRITE | PROT_EXEC) < 0) continue;
    memcpy(site.begin, site.old, site.bytes);
    (void)protect(begin, begin + site.bytes, PROT_READ | PROT_EXEC);
    if (site.stub != 0) drop_stub(site.stub);
    leave(site.return_address);
  }
  rewritten_count = 0;
}

}  // namespace

Verdict judge(const Site& site) noexcept {
  constexpr int32_t kSigreturn = 15;
  if (site.number != kUnknownNumber && (site.number == kSigreturn || !is_wanted(site.number))) return Verdict::native_unclaimed;
  // What takes the compare comes back through its stub, which does not know the program's thread pointer.
  const bool may_jump = !batch.of_static || !takes_compare(site) || site.small_stack;
  if (may_jump && (site.jump == Jump::unnumbered || (site.number != kUnknownNumber && site.jump != Jump::none))) return Verdict::jump;
  if (!site.callable || site.below_rsp || site.small_stack || !page_zero_is_ours) return Verdict::trap;
  return Verdict::call;
}

base::Result<bool> rewrite_loaded_objects(AfterFailure after_failure) noexcept {
  AllResult all;
  {
    Locked locked;
    (void)dl_iterate_phdr(rewrite_one_of_all, &all);
    at_start = false;
    if (all.error < 0) undo();
  }
  if (all.error < 0) return base::make_error("program text cannot be made writable (error %ld): a security policy forbids it", -all.error);
  for (size_t i = 0; i < uncovered_count; i++) cover(uncovered[i].object, uncovered[i].calls, after_failure);
  return true;
}

long rewrite_static_program(const dl_phdr_info& program, AfterFailure after_failure) noexcept {
  size_t left = 0;
  at_start = true;  // nothing else runs
  const long result = rewrite_object(program, &left, true);
  at_start = false;
  if (left != 0) cover(program, left, after_failure);
  return result;
}

void note_loaded_objects() noexcept {
  Locked locked;
  notes_only = true;
  AllResult all;
  (void)dl_iterate_phdr(rewrite_one_of_all, &all);
  at_start = false;
}

// Called from within ld.so's own mprotect, so this thread holds the lock of dlopen and dlclose and no object goes. The lock of
// dl_iterate_phdr() is not held while an object is scanned: a fork by another thread would leave it locked in the child.
bool rewrite_new_objects(AfterFailure after_failure) noexcept {
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
  for (size_t i = 0; i < found.count; i++) {
    counts.late_objects++;
    long result = 0;
    size_t left = 0;
    {
      Locked locked;
      result = rewrite_object(found.objects[i], &left);
    }
    if (left != 0) cover(found.objects[i], left, after_failure);
    if (result >= 0) continue;
    const Range text = text_of(found.objects[i]);
    const bool traps = after_failure(text.begin, text.end);
    base::log(traps ? base::LogLevel::debug : base::LogLevel::warn, "%s cannot be rewritten (%ld): its system calls %s",
              found.objects[i].dlpi_name, result, traps ? "trap" : "go to the kernel");
  }
  return found.count > 0;
}

uint64_t first_text_above(uint64_t address, uint64_t limit) noexcept {
  Locked locked;
  for (size_t i = 0; i < scanned_count; i++) {
    if (scanned_objects[i] >= address && scanned_objects[i] < limit) limit = scanned_objects[i];
  }
  return limit;
}

void reset_rewriter_lock() noexcept {
  if (lock.load(std::memory_order_relaxed) != 0) lock.store(0, std::memory_order_release);
}

void forget_sites(uint64_t begin, uint64_t end) noexcept {
  if (end <= lowest || begin > highest) return;
  Locked locked;
  for (size_t i = 0; i < scanned_count; i++) {
    if (scanned_objects[i] >= begin && scanned_objects[i] < end) scanned_objects[i--] = scanned_objects[--scanned_count];
  }
  for (size_t i = 0; i < rewritten_count; i++) {
    const uint64_t address = reinterpret_cast<uint64_t>(rewritten[i].begin);
    if (address < begin || address >= end) continue;
    leave(rewritten[i].return_address);
    if (rewritten[i].stub != 0) drop_stub(rewritten[i].stub);
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
