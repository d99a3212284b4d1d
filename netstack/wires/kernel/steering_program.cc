// The programs' instructions.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/steering_program.h"

#include <cstddef>
#include <initializer_list>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "base/high_fd.h"
#include "base/shared_memory.h"
#include "netstack/wires/kernel/frame_code.h"

namespace netstack {
namespace {

constexpr long kPage = 4096;
constexpr long kBoardBytes = (sizeof(PortSteering) + kPage - 1) / kPage * kPage;
constexpr int kNextProgram = -1;  // TCX_NEXT

// Registers: r6 the frame, r7 the length of its IP header, r8 its protocol and then what is known of its port, r9 flags.
class Steering {
 public:
  explicit Steering(int board, bool xdp = false) noexcept : board_(board), code_(xdp) {}

  [[nodiscard]] int ingress(const SteeringPath& path) noexcept {
    code_.move(r6, r1);
    look_at_device();
    judge();
    refuse(kNextProgram);
    taken_.land(code_);
    if (path.stack_end < 0) {
      redirect(BPF_FUNC_redirect_peer, path.pair, 0);
    } else {
      redirect(BPF_FUNC_redirect, path.stack_end, BPF_F_INGRESS);
    }
    return code_.load(BPF_PROG_TYPE_SCHED_CLS);
  }

  // A queue without a socket is the kernel's.
  [[nodiscard]] int xdp(int sockets) noexcept {
    code_.move(r6, r1);
    only_station();
    judge();
    refuse(XDP_PASS);
    taken_.land(code_);
    code_.address_of(r1, sockets, BPF_PSEUDO_MAP_FD, 0);
    code_.add(BPF_LDX | BPF_MEM | BPF_W, r2, r6, offsetof(xdp_md, rx_queue_index), 0);
    code_.set(r3, XDP_PASS);
    code_.call(BPF_FUNC_redirect_map);
    code_.leave();
    return code_.load(BPF_PROG_TYPE_XDP, BPF_F_XDP_HAS_FRAGS);
  }

  [[nodiscard]] int egress(const SteeringPath& path) noexcept {
    code_.move(r6, r1);
    code_.fetch(BPF_H, kTypeAt);
    const int v4 = code_.jump(BPF_JEQ, r0, ETH_P_IP);
    refused_.add(code_.jump(BPF_JNE, r0, ETH_P_IPV6));
    only_ip6(kSource6);
    taken_.add(code_.jump(BPF_JEQ, r8, IPPROTO_FRAGMENT));
    only_own_port(IPPROTO_ICMPV6, kUnreachable6);
    code_.land(v4);
    only_ip4(kSource4);
    code_.fetch(BPF_H, kFragmentAt);
    taken_.add(code_.jump(BPF_JSET, r0, kLaterFragment));
    only_own_port(IPPROTO_ICMP, kUnreachable4);
    taken_.land(code_);
    code_.set(r3, 0);
    code_.set(r4, 0);
    redirect(BPF_FUNC_redirect_neigh, path.interface, 0);
    refuse(TC_ACT_SHOT);
    return code_.load(BPF_PROG_TYPE_SCHED_CLS);
  }

 private:
  static constexpr int kTypeAt = -2;  // counted from the IP header, as all that follows
  static constexpr int kFragmentAt = 6, kProtocolAt = 9, kSource4 = 12, kDestination4 = 16, kAddresses4 = 8;  // RFC 791, 3.1
  static constexpr int kNextHeaderAt = 6, kSource6 = 8, kDestination6 = 24, kAddresses6 = 32, kHeader6 = 40;  // RFC 8200, 3
  static constexpr int kSourcePort = 0, kDestinationPort = 2;
  static constexpr int kLaterFragment = 0x1fff, kAnyFragment = 0x3fff;
  static constexpr int kUnreachable4 = 3, kUnreachable6 = 1, kTooBig6 = 2, kTooBig4 = 4;  // types of ICMP, and a code
  static constexpr int kCodeAt = 1, kReport = 8;  // its header, behind which the packet begins that it is about (RFC 792, RFC 4443)
  static constexpr int kScratchAt = -40, kPortsBytes = 4;     // on the program's stack

  // Whose is what came: leads elsewhere in any case.
  void judge() noexcept {
    code_.fetch(BPF_H, kTypeAt);
    const int v4 = code_.jump(BPF_JEQ, r0, ETH_P_IP);
    refused_.add(code_.jump(BPF_JNE, r0, ETH_P_IPV6));
    only_ip6(kDestination6);
    const int udp6 = code_.jump(BPF_JEQ, r8, IPPROTO_UDP);
    const int tcp6 = code_.jump(BPF_JEQ, r8, IPPROTO_TCP);
    refused_.add(code_.jump(BPF_JNE, r8, IPPROTO_ICMPV6));
    report_in_icmp6();
    code_.land(tcp6);
    segment(kSource6, kAddresses6);
    code_.land(v4);
    only_ip4(kDestination4);
    code_.fetch(BPF_H, kFragmentAt);
    const int udp = code_.jump(BPF_JEQ, r8, IPPROTO_UDP);
    const int tcp = code_.jump(BPF_JEQ, r8, IPPROTO_TCP);
    refused_.add(code_.jump(BPF_JNE, r8, IPPROTO_ICMP));
    refused_.add(code_.jump(BPF_JSET, r0, kAnyFragment));
    report_in_icmp();
    code_.land(tcp);
    refused_.add(code_.jump(BPF_JSET, r0, kLaterFragment));
    segment(kSource4, kAddresses4);
    code_.land(udp);
    refused_.add(code_.jump(BPF_JSET, r0, kAnyFragment));
    code_.land(udp6);
    state_of_port(offsetof(PortSteering, udp), kDestinationPort);
    taken_.add(code_.jump(BPF_JSET, r8, PortSteering::takes));
    refused_.add(code_.jump(BPF_JA, 0, 0));
  }

  void refuse(int verdict) noexcept {
    refused_.land(code_);
    code_.outside().land(code_);
    code_.leave(verdict);
  }

  // What is meant for another station, or is of a VLAN, is nobody's business here.
  void look_at_device() noexcept {
    constexpr int kVlanId = 0xfff;
    code_.add(BPF_LDX | BPF_MEM | BPF_W, r1, r6, offsetof(__sk_buff, pkt_type), 0);
    refused_.add(code_.jump(BPF_JNE, r1, PACKET_HOST));
    code_.add(BPF_LDX | BPF_MEM | BPF_W, r1, r6, offsetof(__sk_buff, vlan_present), 0);
    const int untagged = code_.jump(BPF_JEQ, r1, 0);
    code_.add(BPF_LDX | BPF_MEM | BPF_W, r1, r6, offsetof(__sk_buff, vlan_tci), 0);
    refused_.add(code_.jump(BPF_JSET, r1, kVlanId));
    code_.land(untagged);
  }

  // The same. A frame of a VLAN has another type, unless the device has taken the tag off.
  void only_station() noexcept {
    constexpr int kRestAt = 4 - ETH_HLEN;
    for (const int part : {0, 1}) {
      code_.fetch(part == 0 ? BPF_W : BPF_H, part == 0 ? -ETH_HLEN : kRestAt);
      code_.address_of(r1, board_, BPF_PSEUDO_MAP_VALUE, offsetof(PortSteering, station));
      code_.add(BPF_LDX | BPF_MEM | BPF_W, r1, r1, part * static_cast<int>(sizeof(uint32_t)), 0);
      refused_.add(code_.jump_unlike(r0, r1));
    }
  }

  // Goes on with what has the shared address at `at`.
  void only_ip4(int at) noexcept {
    code_.fetch(BPF_W, at);
    code_.address_of(r1, board_, BPF_PSEUDO_MAP_VALUE, offsetof(PortSteering, address));
    code_.add(BPF_LDX | BPF_MEM | BPF_W, r1, r1, 0, 0);
    refused_.add(code_.jump_unlike(r0, r1));
    code_.fetch(BPF_B, 0);
    header_length();
    code_.move(r7, r0);
    code_.fetch(BPF_B, kProtocolAt);
    code_.move(r8, r0);
  }

  // r0 is the first byte of an IPv4 header, and then that one's length.
  void header_length() noexcept {
    constexpr int kWordShift = 2, kLengthBits = 0xf;
    code_.add(BPF_ALU64 | BPF_AND | BPF_K, r0, 0, 0, kLengthBits);
    code_.add(BPF_ALU64 | BPF_LSH | BPF_K, r0, 0, 0, kWordShift);
  }

  // That a datagram did not arrive. Of segments, and of what was too long, the kernel is told. Leads elsewhere in any case.
  void report_in_icmp() noexcept {
    code_.fetch_behind(BPF_B, r7, 0);
    refused_.add(code_.jump(BPF_JNE, r0, kUnreachable4));
    code_.fetch_behind(BPF_B, r7, kCodeAt);
    refused_.add(code_.jump(BPF_JEQ, r0, kTooBig4));
    code_.fetch_behind(BPF_B, r7, kReport + kProtocolAt);
    refused_.add(code_.jump(BPF_JNE, r0, IPPROTO_UDP));
    code_.fetch_behind(BPF_B, r7, kReport);
    header_length();
    code_.add(BPF_ALU64 | BPF_ADD | BPF_K, r0, 0, 0, kReport);
    code_.add(BPF_ALU64 | BPF_ADD | BPF_X, r7, r0, 0, 0);
    of_own_port(offsetof(PortSteering, udp));
  }

  // The same, and what the stack heeds of paths (netstack/lwip/path_mtus.h).
  void report_in_icmp6() noexcept {
    code_.fetch_behind(BPF_B, r7, 0);
    code_.move(r9, r0);
    code_.fetch_behind(BPF_B, r7, kReport + kNextHeaderAt);
    code_.move(r8, r0);
    code_.set(r7, kHeader6 + kReport + kHeader6);
    const int too_big = code_.jump(BPF_JEQ, r9, kTooBig6);
    refused_.add(code_.jump(BPF_JNE, r9, kUnreachable6));
    refused_.add(code_.jump(BPF_JNE, r8, IPPROTO_UDP));
    code_.land(too_big);
    const int udp = code_.jump(BPF_JEQ, r8, IPPROTO_UDP);
    refused_.add(code_.jump(BPF_JNE, r8, IPPROTO_TCP));
    of_own_port(offsetof(PortSteering, tcp));
    code_.land(udp);
    of_own_port(offsetof(PortSteering, udp));
  }

  // What the stack has sent from a port of its own. Leads elsewhere in any case.
  void of_own_port(int table) noexcept {
    state_of_port(table, kSourcePort);
    taken_.add(code_.jump(BPF_JSET, r8, PortSteering::takes));
    refused_.add(code_.jump(BPF_JA, 0, 0));
  }

  // The same. Behind other headers (RFC 8200, 4) there is nothing that would be the stack's.
  void only_ip6(int at) noexcept {
    constexpr int kHalf = 8;
    code_.set(r2, ETH_HLEN + at);
    code_.load_bytes(kScratchAt, 2 * kHalf);
    code_.add(BPF_LDX | BPF_MEM | BPF_DW, r2, r10, kScratchAt, 0);
    code_.add(BPF_LDX | BPF_MEM | BPF_DW, r3, r10, kScratchAt + kHalf, 0);
    code_.address_of(r1, board_, BPF_PSEUDO_MAP_VALUE, offsetof(PortSteering, words_be));
    Exits ours;
    for (int i = 0; i < kMostIp6Addresses; i++) {
      code_.add(BPF_LDX | BPF_MEM | BPF_DW, r4, r1, i * 2 * kHalf, 0);
      const int differs = code_.jump_unlike(r4, r2);
      code_.add(BPF_LDX | BPF_MEM | BPF_DW, r4, r1, i * 2 * kHalf + kHalf, 0);
      const int other = code_.jump_unlike(r4, r3);
      ours.add(code_.jump(BPF_JA, 0, 0));
      code_.land(differs);
      code_.land(other);
    }
    refused_.add(code_.jump(BPF_JA, 0, 0));
    ours.land(code_);
    code_.set(r7, kHeader6);
    code_.fetch(BPF_B, kNextHeaderAt);
    code_.move(r8, r0);
  }

  // r8 is what the board says of the port that stands there in the header behind IP's.
  void state_of_port(int table, int at) noexcept {
    code_.fetch_behind(BPF_H, r7, at);
    code_.add(BPF_ALU64 | BPF_AND | BPF_K, r0, 0, 0, 0xffff);
    code_.address_of(r1, board_, BPF_PSEUDO_MAP_VALUE, table);
    code_.add(BPF_ALU64 | BPF_ADD | BPF_X, r1, r0, 0, 0);
    code_.add(BPF_LDX | BPF_MEM | BPF_B, r8, r1, 0, 0);
  }

  // A segment to a port of the stack's, unless the kernel knows better. Leads elsewhere in any case.
  void segment(int source_at, int addresses_bytes) noexcept {
    constexpr int kFlagsAt = 13, kSyn = 0x02, kSynAck = 0x12;
    code_.fetch_behind(BPF_B, r7, kFlagsAt);
    code_.move(r9, r0);
    code_.add(BPF_ALU64 | BPF_AND | BPF_K, r9, 0, 0, kSynAck);
    state_of_port(offsetof(PortSteering, tcp), kDestinationPort);
    const int goes_on = code_.jump(BPF_JNE, r9, kSyn);
    taken_.add(code_.jump(BPF_JSET, r8, PortSteering::takes_syn));
    refused_.add(code_.jump(BPF_JA, 0, 0));
    code_.land(goes_on);
    const int may_be_ours = code_.jump(BPF_JSET, r8, PortSteering::takes | PortSteering::sends);
    refused_.add(code_.jump(BPF_JA, 0, 0));
    code_.land(may_be_ours);
    unless_kernels(source_at, addresses_bytes);
  }

  // While the stack has the port the kernel's listener there is the placeholder, and what the kernel remembers of a connection that has
  // ended means nothing to ours. What nobody knows any more at a port that was the stack's, the stack resets: a reset of the kernel's would
  // overtake what the connection's end has left in a ring.
  void unless_kernels(int source_at, int addresses_bytes) noexcept {
    code_.set(r2, ETH_HLEN + source_at);
    code_.load_bytes(kScratchAt, addresses_bytes);
    code_.move(r2, r7);
    code_.add(BPF_ALU64 | BPF_ADD | BPF_K, r2, 0, 0, ETH_HLEN);
    code_.load_bytes(kScratchAt + addresses_bytes, kPortsBytes);
    code_.move(r1, r6);
    code_.move(r2, r10);
    code_.add(BPF_ALU64 | BPF_ADD | BPF_K, r2, 0, 0, kScratchAt);
    code_.set(r3, addresses_bytes + kPortsBytes);
    code_.set(r4, BPF_F_CURRENT_NETNS);
    code_.set(r5, 0);
    code_.call(BPF_FUNC_skc_lookup_tcp);
    taken_.add(code_.jump(BPF_JEQ, r0, 0));
    code_.add(BPF_LDX | BPF_MEM | BPF_W, r9, r0, offsetof(bpf_sock, state), 0);
    code_.move(r1, r0);
    code_.call(BPF_FUNC_sk_release);
    const int is_had = code_.jump(BPF_JSET, r8, PortSteering::takes);
    refused_.add(code_.jump(BPF_JA, 0, 0));
    code_.land(is_had);
    taken_.add(code_.jump(BPF_JEQ, r9, BPF_TCP_LISTEN));
    taken_.add(code_.jump(BPF_JEQ, r9, BPF_TCP_TIME_WAIT));
    refused_.add(code_.jump(BPF_JA, 0, 0));
  }

  // What the stack may send: from a port that is or was its own, or the report that nobody has a port. Leads elsewhere in any case.
  void only_own_port(int icmp, int unreachable) noexcept {
    const int tcp = code_.jump(BPF_JEQ, r8, IPPROTO_TCP);
    const int udp = code_.jump(BPF_JEQ, r8, IPPROTO_UDP);
    refused_.add(code_.jump(BPF_JNE, r8, icmp));
    code_.fetch_behind(BPF_B, r7, 0);
    taken_.add(code_.jump(BPF_JEQ, r0, unreachable));
    refused_.add(code_.jump(BPF_JA, 0, 0));
    code_.land(tcp);
    state_of_port(offsetof(PortSteering, tcp), kSourcePort);
    const int looked_up = code_.jump(BPF_JA, 0, 0);
    code_.land(udp);
    state_of_port(offsetof(PortSteering, udp), kSourcePort);
    code_.land(looked_up);
    taken_.add(code_.jump(BPF_JNE, r8, 0));
    refused_.add(code_.jump(BPF_JA, 0, 0));
  }

  void redirect(int helper, int interface, int flags) noexcept {
    code_.set(r1, interface);
    code_.set(r2, flags);
    code_.call(helper);
    code_.leave();
  }

  const int board_;
  FrameCode code_;
  Exits taken_, refused_;
};

// The program is its link's from then on.
int link(int program, int interface) noexcept {
  const int made = link_to_ingress(program, interface);
  (void)base::close_high_fd(program);
  return made;
}

}  // namespace

long link_steering(const SteeringPath& path, SteeringFds* out, const char** what) noexcept {
  *what = "make a BPF map";
  out->board = make_bpf_map(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), kBoardBytes, 1, BPF_F_MMAPABLE);
  if (out->board < 0) return out->board;
  *what = "load a BPF program";
  const int egress = Steering(out->board).egress(path);
  if (egress < 0) return egress;
  const int ingress = Steering(out->board).ingress(path);
  if (ingress < 0) {
    (void)base::close_high_fd(egress);
    return ingress;
  }
  *what = "link a program to an interface (tcx, Linux 6.6)";
  out->egress = link(egress, path.pair);
  out->ingress = link(ingress, path.interface);
  return out->egress < 0 ? out->egress : out->ingress < 0 ? out->ingress : 0;
}

long link_xdp_steering(const XdpSteering& at, SteeringFds* out, const char** what) noexcept {
  *what = "make a BPF map";
  out->board = make_bpf_map(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), kBoardBytes, 1, BPF_F_MMAPABLE);
  if (out->board < 0) return out->board;
  *what = "load an XDP program";
  const int program = Steering(out->board, true).xdp(at.sockets);
  if (program < 0) return program;
  *what = "link an XDP program to the interface";
  out->ingress = link_to_xdp(program, at.interface, at.flags);
  (void)base::close_high_fd(program);
  return out->ingress < 0 ? out->ingress : 0;
}

void close_steering(const SteeringFds& fds) noexcept {
  for (const int fd : {fds.ingress, fds.egress, fds.board}) {
    if (fd >= 0) (void)base::close_high_fd(fd);
  }
}

int link_drop(int interface) noexcept {
  BpfCode code;
  code.leave(TC_ACT_SHOT);
  const int program = code.load(BPF_PROG_TYPE_SCHED_CLS);
  return program < 0 ? program : link(program, interface);
}

PortSteering* map_steering(int board) noexcept { return static_cast<PortSteering*>(base::map_shared_file(board, kBoardBytes)); }

}  // namespace netstack
