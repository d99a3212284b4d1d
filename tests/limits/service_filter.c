// Starts a program under the filters that systemd makes for Debian's redis-server.service: service_filter PROGRAM ...
// SPDX-License-Identifier: BSD-3-Clause
//
// SystemCallFilter=@system-service, SystemCallFilter=~@privileged @resources (anything else is death), RestrictAddressFamilies=AF_INET
// AF_INET6 AF_UNIX, RestrictNamespaces, MemoryDenyWriteExecute, NoNewPrivileges; filters one after the other, as there. The list is what
// `systemd-analyze syscall-filter` of version 252 expands these to on x86-64. The user and the capabilities are the caller's business.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const char kSystemService[] =
    "accept accept4 access add_key alarm arch_prctl bind brk capget chdir chmod clock_getres clock_gettime clock_nanosleep clone "
    "clone3 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old "
    "epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 "
    "fadvise64 fallocate fchdir fchmod fchmodat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs "
    "fsync ftruncate futex futex_waitv futimesat get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 "
    "getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid "
    "getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init "
    "inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit io_uring_enter "
    "io_uring_register io_uring_setup ioctl ioprio_get kcmp keyctl kill lgetxattr link linkat listen listxattr llistxattr "
    "lremovexattr lseek lsetxattr lstat madvise membarrier memfd_create mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap "
    "mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock "
    "munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause personality pidfd_open pidfd_send_signal pipe "
    "pipe2 poll ppoll prctl pread64 preadv preadv2 prlimit64 process_madvise process_vm_readv process_vm_writev pselect6 pwrite64 "
    "pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat "
    "renameat2 request_key restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn "
    "rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr "
    "sched_getparam sched_getscheduler sched_rr_get_interval sched_yield select semctl semget semop semtimedop sendfile sendmmsg "
    "sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setgid setitimer setns setpgid setregid setresgid setsid "
    "setsockopt setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socket socketpair splice stat statfs statx "
    "symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime "
    "timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat unshare "
    "userfaultfd utime utimensat utimes vfork vmsplice wait4 waitid write writev";

static void require(int result, const char* what) {
  if (result == 0) return;
  fprintf(stderr, "service_filter: %s: %s\n", what, strerror(-result));
  exit(1);
}

static void load(scmp_filter_ctx filter) {
  require(seccomp_load(filter), "seccomp_load");
  seccomp_release(filter);
}

static void filter_calls(void) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  char* names = strdup(kSystemService);
  for (char* name = strtok(names, " "); name != NULL; name = strtok(NULL, " ")) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number != __NR_SCMP_ERROR) require(seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0), name);
  }
  free(names);
  load(filter);
}

static void restrict_families(void) {
  enum { kFamilies = 46 };
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  for (int family = 0; family < kFamilies; family++) {
    if (family == AF_INET || family == AF_INET6 || family == AF_UNIX) continue;
    require(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, family)), "socket");
  }
  require(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_GE, kFamilies)), "socket");
  load(filter);
}

static void restrict_namespaces(void) {
  static const unsigned long kKinds[] = {CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
                                         CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET};
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  for (size_t i = 0; i < sizeof kKinds / sizeof *kKinds; i++) {
    require(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(unshare), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, kKinds[i], kKinds[i])),
            "unshare");
    require(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, kKinds[i], kKinds[i])),
            "clone");
  }
  require(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(setns), 0), "setns");
  require(seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0), "clone3");
  load(filter);
}

static void deny_write_execute(void) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  const unsigned long both = PROT_WRITE | PROT_EXEC;
  require(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, both, both)), "mmap");
  require(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC)),
          "mprotect");
  require(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(pkey_mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC)),
          "pkey_mprotect");
  load(filter);
}

int main(int count, char** words) {
  if (count < 2) return 2;
  require(-prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
  deny_write_execute();
  restrict_namespaces();
  restrict_families();
  filter_calls();  // last: it refuses seccomp() itself
  execvp(words[1], words + 1);
  perror(words[1]);
  return 127;
}
