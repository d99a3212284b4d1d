// What operations on streams do when they meet a datagram socket.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "tests/diff/random/world.h"

namespace random_sequences {

inline bool is_datagram(const File* file) { return file != nullptr && file->kind == FileKind::datagram; }

void connect_datagram(World& world, File* file, int address, uint16_t port);
void disconnect_datagram(World& world, File* file);
// With the arguments of the operations `receive`, `send` and `peer_receive`.
void receive_datagrams(World& world, const int* args);
void send_to_ones_peer(World& world, const int* args);
void receive_at_peer(World& world, const int* args);
// The trace calls the port of a datagram socket by its slot.
void note_datagram_port(World& world, int slot);

}  // namespace random_sequences
