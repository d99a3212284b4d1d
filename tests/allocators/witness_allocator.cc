// A malloc() for programs under test that watches who calls it and what becomes of its blocks and of its callers.
// SPDX-License-Identifier: BSD-3-Clause
//
// Preloaded behind libzpstack.so it takes the place of libc's allocator, for ld.so too. It ends the program with a line when
//
// - code of ours is among its callers: the core, the second libc, the stack's image, the engine. What happens before main() is allowed,
//   since loading a library is what ld.so allocates for. A handler of the program's may run while a call of ours sleeps: only what it
//   calls itself counts.
// - a thread has ended that it was not told of. Like jemalloc and its kin it keeps a list of what each thread has in its thread-local
//   memory, which a destructor of libc's takes it out of. Each call looks through all of them.
// - a block is written to after it was freed, or freed twice. Freed blocks are filled, and used again late.
//
// In mode `symbols` libc's functions are called by the engine in the program's place, so there only its own calls count.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#include <unwind.h>

namespace {

constexpr uint64_t kInUse = 0x7a70'696e'2d75'7365, kFree = 0x7a70'6672'6565'6421, kHere = 0x7a70'7468'7265'6164,
                   kGone = 0x7a70'676f'6e65'2e2e;
constexpr uint8_t kFreshFill = 0xcb, kFreedFill = 0xdf;
constexpr size_t kSmallestRoom = 64, kChunkBytes = 1 << 20;
constexpr int kClasses = 13;           // up to 256 KB; larger blocks are mapped by themselves
constexpr uint32_t kKeptFreed = 128;   // blocks of each class that are not used again
constexpr int kMostRanges = 64, kMostFrames = 64;

struct Block {
  uint64_t state;
  size_t bytes;
  uint8_t* start;  // of the room; alignment may lie in between
  size_t room;
};

struct Freed {
  Freed* next;
};

struct Class {
  Freed *oldest, *newest;
  uint32_t count;
};

struct Range {
  uintptr_t from, to;
  bool engine;
  char name[64];
};

// What a thread has of its allocator's, in its thread-local memory.
struct Thread {
  uint64_t here;
  Thread *next, *previous;
  bool inside;
};

Class classes[kClasses];
uint8_t *chunk, *chunk_end;
bool locked;
Range ranges[kMostRanges];
int range_count;
bool in_main, with_symbols;
pthread_key_t key;
Thread threads{kHere, &threads, &threads, false};
thread_local Thread this_thread __attribute__((tls_model("initial-exec")));

void say(const char* text) { (void)!write(2, text, strlen(text)); }

void say_number(uint64_t number) {
  char digits[19] = "0x0000000000000000";
  for (int i = 17; i > 1; i--, number >>= 4) digits[i] = "0123456789abcdef"[number & 15];
  (void)!write(2, digits, 18);
}

[[noreturn]] void fail(const char* what) {
  say("witness: ");
  say(what);
  say("\n");
  abort();
}

[[noreturn]] void fail_of(const Range& range, uintptr_t at) {
  say("witness: the program's allocator was called from ");
  say(range.name);
  say(", offset in its code ");
  say_number(at - range.from);
  say("\n");
  abort();
}

void lock() {
  while (__atomic_test_and_set(&locked, __ATOMIC_ACQUIRE)) sched_yield();
}
void unlock() { __atomic_clear(&locked, __ATOMIC_RELEASE); }

// ---- who calls

struct Walk {
  int frames;
  const Range* ours;
  uintptr_t at;
};

_Unwind_Reason_Code look_at_frame(_Unwind_Context* context, void* given) {
  auto* walk = static_cast<Walk*>(given);
  int of_signal = 0;
  const uintptr_t at = _Unwind_GetIPInfo(context, &of_signal);
  if (of_signal != 0 || ++walk->frames > kMostFrames) return _URC_END_OF_STACK;
  for (int i = 0; i < range_count; i++) {
    if (at < ranges[i].from || at >= ranges[i].to) continue;
    // Frames: look_at_caller, malloc, its caller.
    if (ranges[i].engine && with_symbols && walk->frames > 3) continue;
    walk->ours = &ranges[i];
    walk->at = at;
    return _URC_END_OF_STACK;
  }
  return _URC_NO_REASON;
}

[[gnu::noinline]] void look_at_caller() {
  Walk walk{};
  (void)_Unwind_Backtrace(look_at_frame, &walk);
  if (walk.ours != nullptr) fail_of(*walk.ours, walk.at);
}

void look_at_threads() {
  for (const Thread* thread = threads.next; thread != &threads; thread = thread->next) {
    if (thread->here != kHere) fail("a thread has ended without a word to the program's allocator");
  }
}

void leave(void* given) {
  auto* thread = static_cast<Thread*>(given);
  lock();
  thread->previous->next = thread->next;
  thread->next->previous = thread->previous;
  thread->here = kGone;  // libc frees more of it after this
  unlock();
}

// Every entry passes here first.
[[gnu::always_inline]] inline void witness() {
  if (!in_main || this_thread.inside) return;
  this_thread.inside = true;
  look_at_caller();
  lock();
  look_at_threads();
  const bool new_here = this_thread.here == 0;
  if (new_here) {
    this_thread.here = kHere;
    this_thread.next = threads.next;
    this_thread.previous = &threads;
    threads.next->previous = &this_thread;
    threads.next = &this_thread;
  }
  unlock();
  if (new_here) (void)pthread_setspecific(key, &this_thread);
  this_thread.inside = false;
}

// ---- blocks

void* map(size_t bytes) {
  void* place = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return place == MAP_FAILED ? nullptr : place;
}

// The class of a room of at least `bytes`, and that room; kClasses if it is mapped by itself.
int class_of(size_t bytes, size_t* room) {
  int number = 0;
  *room = kSmallestRoom;
  while (number < kClasses && *room < bytes) {
    *room *= 2;
    number++;
  }
  if (number == kClasses) *room = (bytes + 4095) & ~size_t{4095};
  return number;
}

void check_fill(const Freed* freed, size_t room) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(freed);
  for (size_t i = sizeof(Freed); i < room; i++) {
    if (bytes[i] != kFreedFill) fail("a block was written to after it was freed");
  }
}

uint8_t* take_room(size_t bytes, size_t* room) {
  const int number = class_of(bytes, room);
  if (number == kClasses) return static_cast<uint8_t*>(map(*room));
  Class& of = classes[number];
  if (of.count > kKeptFreed) {
    Freed* freed = of.oldest;
    check_fill(freed, *room);
    of.oldest = freed->next;
    of.count--;
    return reinterpret_cast<uint8_t*>(freed);
  }
  if (static_cast<size_t>(chunk_end - chunk) < *room) {
    auto* fresh = static_cast<uint8_t*>(map(kChunkBytes));
    if (fresh == nullptr) return nullptr;
    chunk = fresh;
    chunk_end = fresh + kChunkBytes;
  }
  uint8_t* taken = chunk;
  chunk += *room;
  return taken;
}

void give_room(uint8_t* start, size_t room) {
  size_t same;
  const int number = class_of(room, &same);
  if (number == kClasses) {
    (void)munmap(start, room);
    return;
  }
  memset(start, kFreedFill, room);
  auto* freed = reinterpret_cast<Freed*>(start);
  freed->next = nullptr;
  Class& to = classes[number];
  if (to.count++ == 0) to.oldest = freed;
  else to.newest->next = freed;
  to.newest = freed;
}

Block* block_of(void* memory) { return reinterpret_cast<Block*>(memory) - 1; }

void* allocate(size_t alignment, size_t bytes) {
  if (bytes > size_t{1} << 46) {
    errno = ENOMEM;
    return nullptr;
  }
  const int saved = errno;
  if (alignment < 16) alignment = 16;
  size_t room;
  lock();
  uint8_t* start = take_room(bytes + sizeof(Block) + alignment - 16, &room);
  unlock();
  if (start == nullptr) {
    errno = ENOMEM;
    return nullptr;
  }
  const uintptr_t memory = (reinterpret_cast<uintptr_t>(start) + sizeof(Block) + alignment - 1) & ~(alignment - 1);
  *block_of(reinterpret_cast<void*>(memory)) = {kInUse, bytes, start, room};
  memset(reinterpret_cast<void*>(memory), kFreshFill, bytes < 65536 ? bytes : 0);
  errno = saved;
  return reinterpret_cast<void*>(memory);
}

void release(void* memory) {
  if (memory == nullptr) return;
  const int saved = errno;
  Block* block = block_of(memory);
  if (block->state != kInUse) fail(block->state == kFree ? "a block was freed twice" : "what was freed is no block");
  lock();
  uint8_t* const start = block->start;
  const size_t room = block->room;
  block->state = kFree;
  give_room(start, room);
  unlock();
  errno = saved;
}

// ---- start

// Ours: what is called libzpstack, and each libc but the one that this library is bound to.
void note_line(const char* line) {
  const char* slash = strrchr(line, '/');
  unsigned long from = 0, to = 0;
  char rights[5] = "";
  if (slash == nullptr || sscanf(line, "%lx-%lx %4s", &from, &to, rights) != 3 || rights[2] != 'x') return;
  const bool ours = strncmp(slash, "/libzpstack", 11) == 0 && strstr(slash, "-test-") == nullptr;
  const auto own_libc = reinterpret_cast<uintptr_t>(&qsort);
  const bool second = strncmp(slash, "/libc.so", 8) == 0 && (own_libc < from || own_libc >= to);
  if ((!ours && !second) || range_count == kMostRanges) return;
  Range& range = ranges[range_count++];
  range = {from, to, strncmp(slash, "/libzpstack.so", 14) == 0, ""};
  snprintf(range.name, sizeof range.name, "%.*s", static_cast<int>(strcspn(slash + 1, "\n")), slash + 1);
}

void note_ranges() {
  FILE* maps = fopen("/proc/self/maps", "r");
  if (maps == nullptr) fail("no /proc/self/maps");
  char line[4352];
  while (fgets(line, sizeof line, maps) != nullptr) note_line(line);
  fclose(maps);
}

using Main = int (*)(int, char**, char**);
Main program_main;

int watched_main(int count, char** arguments, char** environment) {
  const char* mode = getenv("ZPS_HOOK");
  with_symbols = mode != nullptr && strcmp(mode, "symbols") == 0;
  note_ranges();
  if (pthread_key_create(&key, leave) != 0 || pthread_atfork(lock, unlock, unlock) != 0) fail("no key, or no handler of fork()");
  in_main = true;
  return program_main(count, arguments, environment);
}

}  // namespace

#define EXPORTED extern "C" [[gnu::visibility("default"), gnu::noinline]]

EXPORTED int __libc_start_main(Main main, int count, char** arguments, void (*init)(), void (*fini)(), void (*end)(), void* stack_end) {
  using Start = int (*)(Main, int, char**, void (*)(), void (*)(), void (*)(), void*);
  program_main = main;
  const auto start = reinterpret_cast<Start>(dlsym(RTLD_NEXT, "__libc_start_main"));
  return start(watched_main, count, arguments, init, fini, end, stack_end);
}

EXPORTED void* malloc(size_t bytes) {
  witness();
  return allocate(16, bytes);
}

EXPORTED void free(void* memory) {
  witness();
  release(memory);
}

EXPORTED void* calloc(size_t count, size_t bytes) {
  witness();
  size_t all;
  if (__builtin_mul_overflow(count, bytes, &all)) all = SIZE_MAX;
  void* memory = allocate(16, all);
  if (memory != nullptr) memset(memory, 0, all);
  return memory;
}

EXPORTED void* realloc(void* memory, size_t bytes) {
  witness();
  if (memory == nullptr) return allocate(16, bytes);
  void* larger = allocate(16, bytes);
  if (larger == nullptr) return nullptr;
  const size_t before = block_of(memory)->bytes;
  memcpy(larger, memory, before < bytes ? before : bytes);
  release(memory);
  return larger;
}

EXPORTED void* memalign(size_t alignment, size_t bytes) {
  witness();
  return allocate(alignment, bytes);
}

EXPORTED void* aligned_alloc(size_t alignment, size_t bytes) {
  witness();
  return allocate(alignment, bytes);
}

EXPORTED int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  witness();
  *memory = allocate(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}

EXPORTED size_t malloc_usable_size(void* memory) { return memory == nullptr ? 0 : block_of(memory)->bytes; }
