// A program that confines itself in the ways that servers do, step by step, and serves: confined STEP ...
// SPDX-License-Identifier: BSD-3-Clause
//
// Each word of the command line is a step (kSteps), some with a number behind '='. A step that fails says why and ends the program with
// status 1.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef TLS_BYTES
#define TLS_BYTES 8
#endif

enum { kNobody = 65534, kPort = 7012 };

static __thread volatile char thread_local_bytes[TLS_BYTES];
static int listener = -1;

static void require(bool right, const char* what) {
  if (right) return;
  fprintf(stderr, "confined: %s: %s\n", what, strerror(errno));
  exit(1);
}

// ---------------------------------------------------------------- identities

static void set_user(long number) {
  (void)number;
  require(setgid(kNobody) == 0 && setuid(kNobody) == 0, "setuid");
}
static void set_real_and_effective(long number) {
  (void)number;
  require(setregid(kNobody, kNobody) == 0 && setreuid(kNobody, kNobody) == 0, "setreuid");
}
static void set_all_three(long number) {
  (void)number;
  require(setresgid(kNobody, kNobody, kNobody) == 0 && setresuid(kNobody, kNobody, kNobody) == 0, "setresuid");
}
static void set_effective(long number) {
  (void)number;
  require(seteuid(kNobody) == 0, "seteuid");
}
static void drop_capabilities(long number) {
  (void)number;
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  const struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
  require(syscall(SYS_capset, &header, none) == 0, "capset");
}
// Into a folder without anything.
static void change_root(long number) {
  (void)number;
  const char* folder = getenv("ZPS_TEST_SCRATCH");
  require(folder != NULL && chroot(folder) == 0 && chdir("/") == 0, "chroot");
}
// As daemons do that keep one capability.
static void keep_binding(long number) {
  (void)number;
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  const unsigned one = 1u << CAP_NET_BIND_SERVICE;
  const struct __user_cap_data_struct kept[2] = {{one, one, 0}, {0, 0, 0}};
  require(prctl(PR_SET_KEEPCAPS, 1) == 0 && setuid(kNobody) == 0 && syscall(SYS_capset, &header, kept) == 0, "keeping one capability");
}

// ---------------------------------------------------------------- limits

static void limit_files(long number) {
  const struct rlimit limit = {(rlim_t)number, (rlim_t)number};
  require(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit(RLIMIT_NOFILE)");
}
// What a process without the right to more finds when its limit is `number`, and a program that it starts.
static void be_limited_in_files(long number) {
  const rlim_t most = (rlim_t)number;
  struct rlimit now, before;
  require(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == most && now.rlim_max == most, "getrlimit");
  const struct rlimit more = {most, most + 1}, crossed = {most, most - 1}, less = {most / 2, most};
  require(setrlimit(RLIMIT_NOFILE, &more) == -1 && errno == EPERM, "a higher limit");
  require(setrlimit(RLIMIT_NOFILE, &crossed) == -1 && errno == EINVAL, "a soft limit above the hard one");
  require(prlimit(getpid(), RLIMIT_NOFILE, &less, &before) == 0 && before.rlim_cur == most && before.rlim_max == most, "prlimit");
  require(dup2(0, (int)(most / 2)) == -1 && errno == EBADF, "a number beyond the soft limit");
  require(prlimit(0, RLIMIT_NOFILE, &now, NULL) == 0, "the limit again");
  require(dup2(0, (int)most - 1) == (int)most - 1 && close((int)most - 1) == 0, "the last number");
  require(dup2(0, (int)most) == -1 && errno == EBADF, "a number beyond the limit");
  require(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, (void*)8) == -1 && errno == EFAULT, "prlimit to nowhere");
  char command[64];
  snprintf(command, sizeof command, "test $(ulimit -Hn) -eq %ld", number);
  for (int way = 0; way < 2; way++) {
    const pid_t child = way == 0 ? fork() : vfork();
    if (child == 0) {
      execl("/bin/sh", "sh", "-c", command, NULL);
      _exit(1);
    }
    int status = -1;
    require(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a program's limit");
  }
}
static void limit_space(long megabytes) {
  const struct rlimit limit = {(rlim_t)megabytes << 20, (rlim_t)megabytes << 20};
  require(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit(RLIMIT_AS)");
}
static void map(long megabytes) {
  require(mmap(NULL, (size_t)megabytes << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, "mmap");
}
// A mapping whose name is not of plain letters, and looks like a large one behind them.
static void map_odd_name(long number) {
  (void)number;
  const int file = memfd_create("\xff" "0-7f0000000000 r", MFD_CLOEXEC);
  require(file >= 0 && ftruncate(file, 4096) == 0 && mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0) != MAP_FAILED && close(file) == 0,
          "memfd_create");
}
// Takes every number there is but `number`, and gives back what it took: each is the program's.
static void fill_table(long number) {
  static int taken[1 << 16];
  long count = 0;
  for (int fd; count < 1 << 16 && (fd = open("/dev/null", O_RDONLY)) >= 0;) taken[count++] = fd;
  require(errno == EMFILE, "open");
  struct rlimit limit;
  require(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
  if (count < (long)limit.rlim_cur - number) {
    fprintf(stderr, "confined: only %ld of %ld files\n", count, (long)limit.rlim_cur);
    exit(1);
  }
  for (long i = 0; i < count; i++) require(fcntl(taken[i], F_GETFD) == 0 && close(taken[i]) == 0, "close");
}
static void close_all(long number) {
  (void)number;
  require(close_range(3, ~0u, 0) == 0, "close_range");
}
// A library with so many bytes of thread-local variables that have to be where the program's are.
static void load_late(long number) {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
  require(length > 0, "readlink");
  path[length] = '\0';
  snprintf(strrchr(path, '/'), 64, "/liblimits_late_tls_%ld.so", number);
  if (dlopen(path, RTLD_NOW) != NULL) return;
  fprintf(stderr, "confined: %s\n", dlerror());
  exit(1);
}
static void lock_memory(long number) {
  (void)number;
  require(mlockall(MCL_CURRENT | MCL_FUTURE) == 0, "mlockall");
}
static void lock_present_memory(long number) {
  (void)number;
  require(mlockall(MCL_CURRENT) == 0, "mlockall");
}
static void be_refused_locks(long number) {
  require(mlockall(MCL_CURRENT | MCL_FUTURE) == -1 && errno == number, "mlockall");
}
static void unlock_memory(long number) {
  (void)number;
  require(munlockall() == 0, "munlockall");
}
static long locked_kilobytes(void) {
  char line[256];
  long locked = -1;
  FILE* status = fopen("/proc/self/status", "r");
  require(status != NULL, "/proc/self/status");
  while (fgets(line, sizeof line, status) != NULL) (void)sscanf(line, "VmLck: %ld", &locked);
  fclose(status);
  return locked;
}
static void be_locked(long kilobytes) { require(locked_kilobytes() >= kilobytes, "the program's memory is not locked"); }
static void be_unlocked(long number) {
  (void)number;
  require(locked_kilobytes() == 0, "memory is locked");
}
// Whether it adds to what is locked.
static bool is_locked_when_mapped(long kilobytes) {
  const long before = locked_kilobytes();
  require(mmap(NULL, (size_t)kilobytes << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, "mmap");
  return locked_kilobytes() >= before + kilobytes;
}
static void map_locked(long kilobytes) { require(is_locked_when_mapped(kilobytes), "new memory is not locked"); }
static void map_unlocked(long kilobytes) { require(!is_locked_when_mapped(kilobytes), "new memory is locked"); }
static void map_too_much(long kilobytes) {
  require(mmap(NULL, (size_t)kilobytes << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EAGAIN,
          "mmap over the limit");
}
static void touch_thread_locals(long number) {
  (void)number;
  for (size_t i = 0; i < TLS_BYTES; i++) thread_local_bytes[i]++;
}

// ---------------------------------------------------------------- filters

static void refuse(int call, int error, const struct scmp_arg_cmp* argument) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  require(
      seccomp_rule_add_array(filter, error == 0 ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(error), call, argument != NULL, argument) == 0 &&
          seccomp_load(filter) == 0,
      "seccomp");
  seccomp_release(filter);
}
static void refuse_affinity(long number) { refuse(SCMP_SYS(sched_setaffinity), (int)number, NULL); }
static void refuse_netlink(long number) {
  const struct scmp_arg_cmp family = SCMP_A0(SCMP_CMP_EQ, AF_NETLINK);
  refuse(SCMP_SYS(socket), (int)number, &family);
}
// What a parent of short children needs, and nothing more.
static void allow_fork(long number) {
  (void)number;
  static const int kAllowed[] = {SCMP_SYS(clone),      SCMP_SYS(wait4),          SCMP_SYS(write),          SCMP_SYS(exit),
                                 SCMP_SYS(exit_group), SCMP_SYS(rt_sigprocmask), SCMP_SYS(set_robust_list)};
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  for (size_t i = 0; i < sizeof kAllowed / sizeof *kAllowed; i++)
    require(seccomp_rule_add(filter, SCMP_ACT_ALLOW, kAllowed[i], 0) == 0, "seccomp_rule_add");
  require(seccomp_load(filter) == 0, "seccomp");
}

// ---------------------------------------------------------------- processes

// The rest is done by a child, whose status becomes this process's.
static void go_on_in_child(long number) {
  (void)number;
  const pid_t child = fork();
  require(child >= 0, "fork");
  if (child == 0) return;
  int status = 0;
  require(waitpid(child, &status, 0) == child, "waitpid");
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status));
}
// A child that ends at once, and no other that anybody would have to wait for.
static void make_child(long number) {
  (void)number;
  const pid_t child = fork();
  require(child >= 0, "fork");
  if (child == 0) {
    const ssize_t written = write(1, "child\n", 6);
    _exit(written == 6 ? 0 : 1);
  }
  int status = 0;
  require(waitpid(-1, &status, 0) == child && status == 0, "waitpid");
  require(waitpid(-1, &status, 0) == -1 && errno == ECHILD, "a second child");
}
static char** words_left;

static void have_another_real_user(long number) {
  (void)number;
  require(setregid(kNobody, 0) == 0 && setreuid(kNobody, 0) == 0, "setreuid");
}
static void keep_another_real_user(long number) {
  (void)number;
  require(getuid() == kNobody && geteuid() == 0 && getgid() == kNobody && getegid() == 0 && getenv("ZPS_REAL_IDS") == NULL,
          "the real user is another");
}
// As daemons do that start their workers anew. What cannot be executed changes nothing.
static void be_oneself_again(long number) {
  (void)number;
  char* const none[] = {words_left[-1], NULL};
  require(execv("/nowhere", none) == -1 && errno == ENOENT, "execv");
  keep_another_real_user(0);
  execv("/proc/self/exe", words_left - 1);
  require(false, "execv");
}
static void be_another_program(long number) {
  (void)number;
  execl("/bin/true", "true", NULL);
  require(false, "execl");
}

// ---------------------------------------------------------------- serving

static void begin_listening(long number) {
  (void)number;
  const int one = 1;
  const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(kPort)};
  listener = socket(AF_INET, SOCK_STREAM, 0);
  require(listener >= 0 && setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0, "socket");
  require(bind(listener, (const struct sockaddr*)&address, sizeof address) == 0 && listen(listener, 16) == 0, "listen");
}
// One client's line is sent back.
static void serve(long number) {
  (void)number;
  char line[64];
  require(write(1, "ready\n", 6) == 6, "write");
  const int client = accept(listener, NULL, NULL);
  require(client >= 0, "accept");
  const ssize_t length = read(client, line, sizeof line);
  require(length > 0 && write(client, line, (size_t)length) == length && close(client) == 0, "serving");
}

static const struct {
  const char* name;
  void (*run)(long number);
} kSteps[] = {
    {"setuid", set_user},
    {"setreuid", set_real_and_effective},
    {"setresuid", set_all_three},
    {"seteuid", set_effective},
    {"capset", drop_capabilities},
    {"chroot", change_root},
    {"keepcaps", keep_binding},
    {"nofile", limit_files},
    {"limited", be_limited_in_files},
    {"as", limit_space},
    {"map", map},
    {"map-odd-name", map_odd_name},
    {"fill", fill_table},
    {"close-all", close_all},
    {"mlockall", lock_memory},
    {"mlockall-present", lock_present_memory},
    {"mlockall-error", be_refused_locks},
    {"map-locked", map_locked},
    {"map-unlocked", map_unlocked},
    {"map-error", map_too_much},
    {"munlockall", unlock_memory},
    {"locked", be_locked},
    {"unlocked", be_unlocked},
    {"tls", touch_thread_locals},
    {"late-tls", load_late},
    {"no-affinity", refuse_affinity},
    {"no-netlink", refuse_netlink},
    {"allow-fork", allow_fork},
    {"go-on-in-child", go_on_in_child},
    {"child", make_child},
    {"exec", be_another_program},
    {"real-user", have_another_real_user},
    {"kept-real-user", keep_another_real_user},
    {"exec-self", be_oneself_again},
    {"listen", begin_listening},
    {"serve", serve},
};

int main(int count, char** words) {
  for (int i = 1; i < count; i++) {
    words_left = words + i + 1;
    char* value = strchr(words[i], '=');
    const size_t length = value != NULL ? (size_t)(value - words[i]) : strlen(words[i]);
    bool found = false;
    for (size_t k = 0; k < sizeof kSteps / sizeof *kSteps && !found; k++) {
      found = strlen(kSteps[k].name) == length && strncmp(kSteps[k].name, words[i], length) == 0;
      if (found) kSteps[k].run(value != NULL ? atol(value + 1) : 0);
    }
    require(found, words[i]);
  }
  _exit(0);
}
