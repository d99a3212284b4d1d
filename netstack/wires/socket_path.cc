// Looks who serves at a Unix socket, and makes room for the next one.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/socket_path.h"

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kTypes[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};

// The error of connect() with a socket of this type. -EPROTOTYPE: at `path` is one of another.
long try_connect(const char* path, int type) noexcept {
  const long fd = kernel_call(SYS_socket, AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fd;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path, strlen(path) + 1);
  const long result = kernel_call(SYS_connect, fd, as_arg(&address), sizeof address);
  (void)kernel_call(SYS_close, fd);
  return result;
}

// 0: a server with sockets of this type listens at `path`, -EPROTOTYPE: some other socket does, else why none is found. The server is not
// disturbed: it would take a connection for its peer, and the peer that comes next for one too many. It is known by being of neither of the
// other two types.
long look_for_server(const char* path, int type) noexcept {
  for (const int other : kTypes) {
    if (other == type) continue;
    const long result = try_connect(path, other);
    if (result == 0 || result == -EAGAIN) return -EPROTOTYPE;
    if (result != -EPROTOTYPE) return result;
  }
  return 0;
}

// The same; who is ended leaves the path to the next in some milliseconds (Wire::leave_name()).
long look_until_free(const char* path, int type) noexcept {
  constexpr int kMostLooks = 300;
  constexpr timespec kBetween{0, 1'000'000};
  long result = look_for_server(path, type);
  for (int look = 1; result == 0 && look < kMostLooks; look++) {
    (void)kernel_call(SYS_nanosleep, as_arg(&kBetween), 0);
    result = look_for_server(path, type);
  }
  return result;
}

}  // namespace

FolderLock::FolderLock(const char* path) noexcept {
  char folder[sizeof SocketPath::path];
  memcpy(folder, path, sizeof folder);
  char* slash = strrchr(folder, '/');
  slash[slash == folder ? 1 : 0] = '\0';
  fd_ = kernel_call(SYS_open, as_arg(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0) return;
  (void)kernel_call(SYS_flock, fd_, LOCK_EX);
  writable_ = kernel_call(SYS_faccessat2, fd_, as_arg("."), W_OK | X_OK, AT_EACCESS) != -EACCES;
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) (void)kernel_call(SYS_close, fd_);
}

const char* SocketPath::take_path(const char* text) noexcept {
  const char* const end = strchrnul(text, ',');
  const auto length = static_cast<size_t>(end - text);
  if (text[0] != '/' || length >= sizeof path) return nullptr;
  memcpy(path, text, length);
  path[length] = '\0';
  return end;
}

bool SocketPath::take_role(const char* text, size_t length) noexcept {
  struct Role {
    const char* text;
    bool client, automatic;
  };
  constexpr Role kRoles[] = {{"role=server", false, false}, {"role=client", true, false}, {"role=auto", false, true}};
  for (const Role& role : kRoles) {
    if (strlen(role.text) != length || memcmp(role.text, text, length) != 0) continue;
    client = role.client;
    automatic = role.automatic;
    return true;
  }
  return false;
}

base::Result<bool> SocketPath::settle_role(const FolderLock& folder) noexcept {
  if (!folder.there()) return base::make_error("wire %s: the folder of %s does not exist or may not be read", kind, path);
  const bool must_serve = !client && !automatic;
  const long result = must_serve ? look_until_free(path, socket_type) : look_for_server(path, socket_type);
  struct stat file {};
  const bool there = kernel_call(SYS_newfstatat, AT_FDCWD, as_arg(path), as_arg(&file), AT_SYMLINK_NOFOLLOW) == 0;
  if (there && (!S_ISSOCK(file.st_mode) || result == -EPROTOTYPE))
    return base::make_error("wire %s: %s is something else than a %s socket", kind, path, kind);
  if (result == -EACCES)
    return base::make_error("wire %s: %s is a socket of user %u, who lets nobody else connect to it", kind, path, file.st_uid);
  if (client) return true;
  const bool served = result == 0;
  if (served && !automatic) return base::make_error("wire %s: somebody serves %s already: use role=client or another path", kind, path);
  if (served) client = true;
  if (served) return true;
  if (!folder.writable()) return base::make_error("wire %s: no socket can be made at %s: its folder may not be written to", kind, path);
  if (result == -ECONNREFUSED && kernel_call(SYS_unlink, as_arg(path)) < 0) {
    return base::make_error("wire %s: %s was left by a server of user %u that is gone, and may not be removed", kind, path, file.st_uid);
  }
  return true;
}

}  // namespace netstack
