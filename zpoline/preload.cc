// libzpstack.so's start: what is asked for, in which order things are made, and what happens when one of them cannot be.
// SPDX-License-Identifier: BSD-3-Clause
//
// The constructor runs before main() and before the program has threads. Either everything is in place when it returns, or the
// program runs untouched (ZPS_FALLBACK=kernel), or it does not run (exit status 127). The environment is read here and nowhere
// else in the engine:
//   ZPS_HOOK          auto (default), zpoline, nopage0, sud, symbols, off
//   ZPS_HOOK_LIBRARY  the hook; default: libzpstack-core.so beside libzpstack.so
//   ZPS_FALLBACK      fail (default), kernel
//   ZPS_LOG           error, warn, info (default), debug
//   ZPS_INHERIT       yes (default), no: see exec.cc
//   ZPS_JIT           hook (default), kernel: see made_code.cc
//   ZPS_NETWORK       a name: see network_place.h
#include <dlfcn.h>

#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "base/result.h"
#include "base/syscall.h"
#include "zpoline/engine.h"
#include "zpoline/life/exec.h"
#include "zpoline/life/inherited.h"
#include "zpoline/ledger.h"
#include "zpoline/life/made_code.h"
#include "zpoline/sites/languages.h"
#include "zpoline/sites/page_zero.h"
#include "zpoline/sites/rewriter.h"
#include "zpoline/life/masks.h"
#include "zpoline/life/network_place.h"
#include "zpoline/life/real_ids.h"
#include "zpoline/life/seccomp_filter.h"
#include "zpoline/life/signals.h"
#include "zpoline/life/static_program.h"
#include "zpoline/life/symbol_calls.h"
#include "zpoline/life/symbols.h"
#include "zpoline/life/trap.h"

extern "C" {
thread_local zpoline::ThreadState zps_thread_state;
uint64_t zps_site_table[65536];
int64_t (*zps_on_syscall)(zps_call*);
int64_t (*zps_on_engine_call_pointer)(zps_call*) = zps_on_engine_call;
const void* zps_clone_way_on = zps_clone_on;
const void* zps_own_stack_ways[ZPS_NR_COUNT];
const void* zps_static_ways[ZPS_NR_COUNT];
// The linker's.
[[gnu::visibility("hidden")]] extern const char __ehdr_start[];
[[gnu::visibility("hidden")]] extern const char _end[];
uint64_t zps_xsave_bytes;
uint64_t zps_xsave_mask;
bool zps_has_xsavec;
}

namespace zpoline {

zps_hook hook;
const char* const* start_environment;
Counts counts;

namespace {

enum class Mode { best, zpoline, nopage0, sud, symbols, off };
struct ModeName {
  const char* name;
  Mode mode;
};
constexpr ModeName kModes[] = {{"auto", Mode::best}, {"zpoline", Mode::zpoline}, {"nopage0", Mode::nopage0},
                               {"sud", Mode::sud},   {"symbols", Mode::symbols}, {"off", Mode::off}};

char library_path[4096];  // of libzpstack.so
char hook_path[4096];
const void* dispatch[ZPS_DISPATCH_SLOTS];  // what page 0's own table is filled from

const char* variable(const char* name) noexcept {
  const size_t length = strlen(name);
  for (const char* const* entry = start_environment; *entry != nullptr; entry++) {
    if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') return *entry + length + 1;
  }
  return nullptr;
}

base::Result<Mode> chosen_mode() noexcept {
  const char* wanted = variable("ZPS_HOOK");
  if (wanted == nullptr || *wanted == '\0') return Mode::best;
  for (const ModeName& mode : kModes) {
    if (strcmp(mode.name, wanted) == 0) return mode.mode;
  }
  return base::make_error("ZPS_HOOK=%s is not known: auto, zpoline, nopage0, sud, symbols or off", wanted);
}

zps_thread* thread_words() { return &this_thread().words; }
void* thread_storage() { return this_thread().of_hook; }
int64_t engine_sleep(int64_t nr, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f) {
  zps_thread& words = this_thread().words;
  words.sleeps++;
  const int64_t result = sleep_unmasked(nr, a, b, c, d, e, f);
  words.sleeps--;
  return result;
}
void exchange_hook(const zps_hook* with) {
  hook = *with;
  zps_on_syscall = hook.on_syscall;
}

zps_engine engine = {ZPS_HOOK_ABI, sizeof(zps_engine), "zpoline",    nullptr,      thread_words, engine_sleep,
                     print_ledger, deadly_calls,       __ehdr_start, _end,         thread_storage, kHookStorage, -1, leaves_hook,
                     exchange_hook};

base::Result<bool> find_own_path() noexcept {
  Dl_info info;
  if (dladdr(&engine, &info) == 0 || strlen(info.dli_fname) >= sizeof library_path)
    return base::make_error("libzpstack.so does not find its own path");
  memcpy(library_path, info.dli_fname, strlen(info.dli_fname) + 1);
  return true;
}

base::Result<const char*> hook_library() noexcept {
  const char* named = variable("ZPS_HOOK_LIBRARY");
  if (named != nullptr && *named != '\0') return named;
  static constexpr char kCore[] = "libzpstack-core.so";
  size_t directory = strlen(library_path);
  while (directory > 0 && library_path[directory - 1] != '/') directory--;
  if (directory + sizeof kCore > sizeof hook_path) return base::make_error("the path of libzpstack.so is too long");
  memcpy(hook_path, library_path, directory);
  memcpy(hook_path + directory, kCore, sizeof kCore);
  return static_cast<const char*>(hook_path);
}

base::Result<bool> open_hook() noexcept {
  auto path = hook_library();
  if (!path) return path.error();
  auto place = place_of_network(variable("ZPS_NETWORK"));
  if (!place) return place.error();
  void* library = load_hook(*path, *place);
  if (library == nullptr) return base::make_error("the hook library cannot be loaded: %s", dlerror());
  const auto open = reinterpret_cast<zps_hook_open_fn>(dlsym(library, "zps_hook_open"));
  if (open == nullptr) return base::make_error("%s is not a hook library: it has no zps_hook_open", *path);
  hook.size = sizeof hook;
  engine.environment = start_environment;
  if (open(&engine, &hook) < 0) return base::make_error("%s", "");  // it has said why
  if (hook.abi != ZPS_HOOK_ABI)
    return base::make_error("%s speaks version %u of the hook interface, this engine %u", *path, hook.abi, ZPS_HOOK_ABI);
  bool claims = false;
  for (int nr = 0; nr < ZPS_NR_COUNT; nr++) {
    if (hook.claim[nr] > ZPS_CLAIM_FULL) return base::make_error("%s claims call %d in an unknown way", *path, nr);
    claims |= hook.claim[nr] != ZPS_CLAIM_NONE;
  }
  if (claims && hook.on_syscall == nullptr) return base::make_error("%s claims calls but has no on_syscall", *path);
  return true;
}

// Which mode it will be. `why` becomes what stands against a better one.
base::Result<Mode> settle_mode(Mode wanted, base::Error& why) noexcept {
  if (wanted == Mode::symbols && static_program) return base::make_error("ZPS_HOOK=symbols: a static program has no functions to exchange");
  if (wanted == Mode::nopage0 || wanted == Mode::sud || wanted == Mode::symbols) return wanted;
  const char* language = relies_on_null_faults();
  if (static_program_is_go()) language = "Go";
  if (wanted == Mode::best && language != nullptr) {
    why = base::make_error("%s leaves its null checks to faults at NULL", language);
    return Mode::nopage0;
  }
  auto possible = page_zero_is_free();
  if (possible) return Mode::zpoline;
  why = possible.error();
  if (wanted == Mode::zpoline) return possible.error();
  return Mode::nopage0;
}

const char* name_of(Mode wanted) noexcept {
  for (const ModeName& mode : kModes) {
    if (mode.mode == wanted) return mode.name;
  }
  return "";
}

bool ends_with_symbols = false;

base::Result<bool> dispatch_all_code() noexcept {
  note_loaded_objects();
  return dispatch_everything();
}

// Puts `mode` into effect; if that cannot be and the choice is ours, the next: what a policy forbids shows only now.
base::Result<bool> take_effect(Mode mode, Mode wanted, base::Error& why) noexcept {
  if (mode == Mode::zpoline) {
    auto mapped = map_page_zero(dispatch);
    if (!mapped && wanted != Mode::best) return mapped;
    if (!mapped) why = mapped.error();
    page_zero_is_ours = static_cast<bool>(mapped);
    if (!mapped) mode = Mode::nopage0;
  }
  take_over_signals();
  prepare_dispatch();
  this_thread().of_program = 1;
  this_thread().words.thread_id = static_cast<uint32_t>(base::kernel_call(SYS_gettid));
  const char* made_code = variable("ZPS_JIT");
  if (made_code != nullptr && strcmp(made_code, "kernel") == 0) leave_made_code_to_kernel();
  engine.mode = name_of(mode);
  if (mode == Mode::sud) return dispatch_all_code();
  if (mode == Mode::symbols) {
    leave_made_code_to_kernel();  // nothing was scanned: all of libc would trap
    if (!prepare_symbol_calls()) return base::make_error("libc has no thread-specific key left");
    exchange_symbols();
    ends_with_symbols = true;
    return true;
  }
  auto rewritten = rewrite_loaded_objects(after_failed_rewrite);
  if (rewritten || wanted != Mode::best) return rewritten;
  why = rewritten.error();
  engine.mode = name_of(Mode::sud);  // it makes no memory executable
  return dispatch_all_code();
}

base::Result<bool> start_engine(Mode wanted, base::Error& why) noexcept {
  auto path = find_own_path();
  if (!path) return path;
  auto mode = settle_mode(wanted, why);
  if (!mode) return mode.error();
  engine.mode = name_of(*mode);
  auto opened = open_hook();
  if (!opened) return opened;
  if (!remember_environment(start_environment, library_path)) return base::make_error("no memory for the environment of later programs");
  prepare_dispatch(dispatch);
  return take_effect(*mode, wanted, why);
}

[[noreturn]] void give_up() noexcept {
  for (;;) (void)base::kernel_call(SYS_exit_group, 127);
}

// The static program in whose place this process was made, as if nobody had.
void run_natively(const char* program, char** arguments, char** environment) noexcept {
  (void)base::kernel_call(SYS_execve, base::as_arg(program), base::as_arg(arguments), base::as_arg(environment));
  give_up();
}

[[gnu::destructor]] void end() noexcept {
  if (ends_with_symbols) end_with_symbols();
}

[[gnu::constructor]] void start(int, char** arguments, char** environment) noexcept {
  const uint64_t begin = base::monotonic_ns();
  const char* program = take_static_program(environment);
  const bool reaches_static = program != nullptr;
  if (reaches_static && *program == '\0') program = nullptr;
  take_real_ids(environment);
  engine.inherited = take_inheritance(environment);
  start_environment = environment;
  base::LogLevel level;
  const char* log_name = variable("ZPS_LOG");
  if (log_name != nullptr && base::parse_log_level(log_name, &level)) base::set_log_level(level);
  const char* fallback_name = variable("ZPS_FALLBACK");
  const bool fallback = fallback_name != nullptr && strcmp(fallback_name, "kernel") == 0;

  auto mode = chosen_mode();
  if (mode && *mode == Mode::off) {
    refuse_inheritance("ZPS_HOOK=off");
    if (program != nullptr) run_natively(program, arguments, environment);
    return;
  }
  // As in a static program, though ld.so has loaded it.
  const bool leaves = leaves_thread_pointer();
  loaded_static_program = leaves;
  base::Error why_not_better;
  if (auto ready = program != nullptr || leaves ? prepare_static_program(program) : base::Result<bool>(true); !ready) mode = ready.error();
  auto started = mode ? start_engine(*mode, why_not_better) : base::Result<bool>(mode.error());
  counts.startup_ns = base::monotonic_ns() - begin;
  if (started && reaches_static) run_static_programs(library_path);
  if (started) {
    if (*why_not_better.text != '\0') base::log(base::LogLevel::debug, "no better mode: %s", why_not_better.text);
    base::log(base::LogLevel::debug,
              "mode %s: %zu objects, %zu sites: %zu near jumps, %zu calls, %zu traps, %zu known to be unclaimed, %zu odd, in %llu us",
              engine.mode, counts.objects, counts.sites, counts.jumped, counts.called, counts.trapped, counts.native, counts.other,
              static_cast<unsigned long long>(counts.startup_ns / 1000));
    if (program == nullptr) return;
    started = become_static_program(program, arguments);
  }
  const char* why = started.error().text;
  refuse_inheritance("the engine did not start");
  if (fallback) {
    base::log(base::LogLevel::warn, "%s%srunning on the kernel (ZPS_FALLBACK=kernel)", why, *why != '\0' ? "; " : "");
    if (program == nullptr) return;
    run_natively(program, arguments, environment);
  }
  if (*why != '\0') base::log(base::LogLevel::error, "%s", why);
  give_up();
}

}  // namespace

const char* mode_name() noexcept { return engine.mode; }

}  // namespace zpoline
