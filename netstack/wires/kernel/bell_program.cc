// The program that rings, and what it needs.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/bell_program.h"

#include <arpa/inet.h>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/high_fd.h"
#include "base/shared_memory.h"
#include "base/permitted.h"
#include "base/syscall.h"
#include "netstack/wires/kernel/bpf.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;
using Board = WakeBells::Board;

constexpr long kPage = 4096;
constexpr long kBoardBytes = (sizeof(Board) + kPage - 1) / kPage * kPage;
constexpr int kLeastRoom = 8;  // times what they take
constexpr int kBellBytes = kPage;  // of its buffer: a ring buffer's least

// The frame's flow as WakeBells::flow_of() has it, in r8; what is none lands at the returned jumps. r6 is the frame.
struct NoFlow {
  int jump[5];
};
NoFlow find_flow(BpfCode& code) noexcept {
  constexpr int kFragmentBits = 0x3fff, kSynAck = 0x12, kSyn = 0x02;
  NoFlow none{};
  code.fetch(BPF_B, 0);
  const int is_v4 = code.jump(BPF_JEQ, r0, 0x45);
  code.add(BPF_ALU64 | BPF_AND | BPF_K, r0, 0, 0, 0xf0);
  none.jump[0] = code.jump(BPF_JNE, r0, 0x60);
  code.fetch(BPF_B, 6);
  none.jump[1] = code.jump(BPF_JNE, r0, IPPROTO_TCP);
  code.fetch(BPF_W, 20);
  code.move(r7, r0);
  code.fetch(BPF_W, 40);
  code.move(r8, r0);
  code.fetch(BPF_B, 40 + 13);
  const int has_v6 = code.jump(BPF_JA, 0, 0);
  code.land(is_v4);
  code.fetch(BPF_B, 9);
  none.jump[2] = code.jump(BPF_JNE, r0, IPPROTO_TCP);
  code.fetch(BPF_H, 6);
  none.jump[3] = code.jump(BPF_JSET, r0, kFragmentBits);
  code.fetch(BPF_W, 12);
  code.move(r7, r0);
  code.fetch(BPF_W, 20);
  code.move(r8, r0);
  code.fetch(BPF_B, 20 + 13);
  code.land(has_v6);
  // A SYN belongs to whoever accepts, though its flow may have been somebody's.
  code.add(BPF_ALU64 | BPF_AND | BPF_K, r0, 0, 0, kSynAck);
  none.jump[4] = code.jump(BPF_JEQ, r0, kSyn);
  code.add(BPF_ALU | BPF_XOR | BPF_X, r8, r7, 0, 0);
  code.add(BPF_ALU | BPF_MUL | BPF_K, r8, 0, 0, static_cast<int>(WakeBells::kHashFactor));
  code.add(BPF_ALU | BPF_RSH | BPF_K, r8, 0, 0, 32 - WakeBells::kFlowBits);
  return none;
}

constexpr int kBellAt = offsetof(Board, bell);

// r7 is the number, r8 the place on the board of the bell that is at home to the flow in r8, or of the common one.
void find_bell(BpfCode& code, const NoFlow& none, int board) noexcept {
  constexpr int kBellShift = 6;
  static_assert(sizeof(Board::Bell) == 1 << kBellShift);
  code.address_of(r1, board, BPF_PSEUDO_MAP_VALUE, 0);
  code.add(BPF_ALU64 | BPF_ADD | BPF_X, r1, r8, 0, 0);
  code.add(BPF_LDX | BPF_MEM | BPF_B, r7, r1, 0, 0);
  const int unknown = code.jump(BPF_JGE, r7, WakeBells::kBells);
  code.move(r2, r7);
  code.add(BPF_ALU64 | BPF_LSH | BPF_K, r2, 0, 0, kBellShift);
  code.address_of(r8, board, BPF_PSEUDO_MAP_VALUE, kBellAt);
  code.add(BPF_ALU64 | BPF_ADD | BPF_X, r8, r2, 0, 0);
  const int found = code.jump(BPF_JA, 0, 0);
  code.land(unknown);
  for (const int jump : none.jump) code.land(jump);
  code.set(r7, WakeBells::kCommon);
  code.address_of(r8, board, BPF_PSEUDO_MAP_VALUE, kBellAt);
  code.land(found);
}

// Of several processors one finds it armed.
void take_armed(BpfCode& code) noexcept {
  code.set(r0, WakeBells::armed);
  code.set(r1, WakeBells::rung);
  code.add(BPF_STX | BPF_ATOMIC | BPF_W, r8, r1, offsetof(Board::Bell, state), BPF_CMPXCHG);
}

// r1 is the buffer of the bell of r7. (Not looked up in a map of maps: each update of one waits for an RCU grace period.)
void find_buffer(BpfCode& code, const int* bells) noexcept {
  int found[WakeBells::kBells];
  for (int i = 0; i < WakeBells::kBells; i++) {
    const int other = i + 1 < WakeBells::kBells ? code.jump(BPF_JNE, r7, i) : -1;
    code.address_of(r1, bells[i], BPF_PSEUDO_MAP_FD, 0);
    found[i] = code.jump(BPF_JA, 0, 0);
    if (other >= 0) code.land(other);
  }
  for (const int jump : found) code.land(jump);
}

// Rings the bell of r7 and r8 if it is armed, else, if its owner is late, the common one if that is.
void ring_bell(BpfCode& code, int board, const int* bells) noexcept {
  constexpr int kRecordAt = -8, kPayloadBytes = WakeBells::kRecordBytes - BPF_RINGBUF_HDR_SZ;
  take_armed(code);
  const int is_armed = code.jump(BPF_JEQ, r0, WakeBells::armed);
  const int nobody = code.jump(BPF_JEQ, r7, WakeBells::kCommon);
  code.call(BPF_FUNC_ktime_get_ns);
  code.add(BPF_LDX | BPF_MEM | BPF_DW, r1, r8, offsetof(Board::Bell, looked_ns), 0);
  code.add(BPF_ALU64 | BPF_SUB | BPF_X, r0, r1, 0, 0);
  const int looks = code.jump(BPF_JSLT, r0, WakeBells::kLateNs);
  code.set(r7, WakeBells::kCommon);
  code.address_of(r8, board, BPF_PSEUDO_MAP_VALUE, kBellAt);
  take_armed(code);
  const int not_armed = code.jump(BPF_JNE, r0, WakeBells::armed);
  code.land(is_armed);
  code.call(BPF_FUNC_ktime_get_ns);
  code.add(BPF_STX | BPF_MEM | BPF_DW, r8, r0, offsetof(Board::Bell, looked_ns), 0);
  code.add(BPF_ST | BPF_MEM | BPF_DW, r10, 0, kRecordAt, 0);
  find_buffer(code, bells);
  code.move(r2, r10);
  code.add(BPF_ALU64 | BPF_ADD | BPF_K, r2, 0, 0, kRecordAt);
  code.set(r3, kPayloadBytes);
  code.set(r4, BPF_RB_FORCE_WAKEUP);
  code.call(BPF_FUNC_ringbuf_output);
  const int refused = code.jump(BPF_JNE, r0, 0);
  code.set(r1, 1);
  code.add(BPF_STX | BPF_ATOMIC | BPF_DW, r8, r1, offsetof(Board::Bell, rings), BPF_ADD);
  for (const int jump : {nobody, looks, not_armed}) code.land(jump);
  code.leave(0);
  code.land(refused);  // the next frame tries again
  code.add(BPF_ST | BPF_MEM | BPF_W, r8, 0, offsetof(Board::Bell, state), WakeBells::armed);
  code.leave(0);
}

int make_program(int board, const int* bells) noexcept {
  BpfCode code;
  code.move(r6, r1);
  const NoFlow none = find_flow(code);
  find_bell(code, none, board);
  ring_bell(code, board, bells);
  return code.load(BPF_PROG_TYPE_SOCKET_FILTER);
}

long set(int fd, int level, int option, int value) noexcept {
  return kernel_call(SYS_setsockopt, fd, level, option, as_arg(&value), sizeof value);
}

bool make_all(BellFds& fds) noexcept {
  fds.board = make_bpf_map(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), kBoardBytes, 1, BPF_F_MMAPABLE);
  if (fds.board < 0) return false;
  for (int& fd : fds.bell) {
    fd = make_bpf_map(BPF_MAP_TYPE_RINGBUF, 0, 0, kBellBytes);
    if (fd < 0) return false;
  }
  const int program = make_program(fds.board, fds.bell);
  if (program < 0) return false;
  bool rings = true;
  for (int& fd : fds.socket) {
    fd = base::move_fd_high(static_cast<int>(kernel_call(SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)));
    rings = rings && fd >= 0 && set(fd, SOL_SOCKET, SO_ATTACH_BPF, program) == 0 && set(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1) == 0;
  }
  (void)base::close_high_fd(program);
  return rings;
}

// True as well where nobody can tell.
bool is_behind_filter() noexcept {
  const long file = kernel_call(SYS_open, as_arg("/proc/thread-self/status"), O_RDONLY | O_CLOEXEC);
  if (file < 0) return true;
  char text[kPage];
  const long length = kernel_call(SYS_read, file, as_arg(text), sizeof text);
  (void)kernel_call(SYS_close, file);
  constexpr char kNone[] = "\nSeccomp:\t0\n";
  return length <= 0 || memmem(text, static_cast<size_t>(length), kNone, sizeof kNone - 1) == nullptr;
}

bool bind_to(int socket, int interface, uint16_t protocol) noexcept {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = interface;
  address.sll_protocol = htons(protocol);
  return base::may_call(SYS_bind) && kernel_call(SYS_bind, socket, as_arg(&address), sizeof address) == 0;
}

}  // namespace

bool has_room_for_bells() noexcept { return base::high_fd_count() > kLeastRoom * BellFds::kCount; }

BellFds make_bell_fds() noexcept {
  BellFds fds;
  for (int& fd : fds.bell) fd = -1;
  if (has_room_for_bells() && base::may_call(SYS_bpf) && !is_behind_filter() && make_all(fds)) return fds;
  close_bell_fds(fds);
  return fds;
}

void close_bell_fds(BellFds& fds) noexcept {
  for (int n = 0; n < BellFds::kCount; n++) {
    if (fds.at(n) >= 0) (void)base::close_high_fd(fds.at(n));
    fds.at(n) = -1;
  }
}

WakeBells map_bells(BellFds& fds) noexcept {
  if (!fds.exist()) return {};
  void* const board = base::map_shared_file(fds.board, kBoardBytes);
  void* const common = base::map_shared_file(fds.bell[WakeBells::kCommon], kPage);
  if (board == nullptr || common == nullptr) {
    if (board != nullptr) base::unmap_shared_file(board, kBoardBytes);
    if (common != nullptr) base::unmap_shared_file(common, kPage);
    close_bell_fds(fds);
    return {};
  }
  return {static_cast<Board*>(board), static_cast<WakeBells::Page*>(common)};
}

bool hang_bells_before(const int* sockets, int interface) noexcept { return bind_to(sockets[0], interface, ETH_P_ALL); }

bool hang_bells_late(const int* sockets, int interface) noexcept {
  return bind_to(sockets[0], interface, ETH_P_IP) && bind_to(sockets[1], interface, ETH_P_IPV6) &&
         bind_to(sockets[2], interface, ETH_P_ARP);
}

}  // namespace netstack
