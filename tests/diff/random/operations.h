// What each kind of operation does, as the table of kinds names it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace random_sequences {

class World;
struct File;

void run_socket(World& world, const int* args);
void run_bind(World& world, const int* args);
void run_bind_used(World& world, const int* args);
void run_listen(World& world, const int* args);
void run_connect(World& world, const int* args);
void run_connect_peer(World& world, const int* args);
void run_connect_port(World& world, const int* args);
void run_disconnect(World& world, const int* args);
void run_accept(World& world, const int* args);
void run_receive(World& world, const int* args);
void run_send(World& world, const int* args);
void run_corked(World& world, const int* args);
void run_sendfile(World& world, const int* args);
void run_splice(World& world, const int* args);
void run_fill(World& world, const int* args);
void run_shutdown(World& world, const int* args);
void run_close(World& world, const int* args);
void run_dup(World& world, const int* args);
void run_dup2(World& world, const int* args);
void run_dup3(World& world, const int* args);
void run_dup_from(World& world, const int* args);
void run_fork(World& world, const int* args);
void run_get_flags(World& world, const int* args);
void run_set_flags(World& world, const int* args);
void run_fd_flags(World& world, const int* args);
void run_nonblocking(World& world, const int* args);
void run_unread(World& world, const int* args);
void run_unsent(World& world, const int* args);
void run_at_mark(World& world, const int* args);
void run_set_option(World& world, const int* args);
void run_get_option(World& world, const int* args);
void run_local_name(World& world, const int* args);
void run_peer_name(World& world, const int* args);
void run_status(World& world, const int* args);
void run_seek(World& world, const int* args);
void run_epoll(World& world, const int* args);
void run_epoll_ctl(World& world, const int* args);
void run_epoll_wait(World& world, const int* args);
void run_poll(World& world, const int* args);
void run_select(World& world, const int* args);
void run_pipe(World& world, const int* args);
void run_look(World& world, const int* args);
void run_block(World& world, const int* args);
void run_peer_listen(World& world, const int* args);
void run_peer_connect(World& world, const int* args);
void run_peer_accept(World& world, const int* args);
void run_peer_send(World& world, const int* args);
void run_peer_receive(World& world, const int* args);
void run_peer_shutdown(World& world, const int* args);
void run_peer_close(World& world, const int* args);
void run_peer_reset(World& world, const int* args);
void run_peer_look(World& world, const int* args);
void run_datagram(World& world, const int* args);
void run_send_to(World& world, const int* args);
void run_send_to_peer(World& world, const int* args);
void run_peer_datagram(World& world, const int* args);
void run_peer_send_to(World& world, const int* args);

// The books of calls that other threads make: an accept() that gave `fd`, a connect() to an address where nobody is, which blocks.
void note_accepted(World& world, File* listener, int slot, int fd);
void note_connecting_to_nobody(World& world, File* file);

}  // namespace random_sequences
