// What a socket tells about its connection: TCP_INFO, SO_MEMINFO, SIOCOUTQ and its kin, and the control messages of recvmsg().
// SPDX-License-Identifier: BSD-3-Clause
#include <errno.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr int kEstablished = 1, kFinWait2 = 5, kClose = 7, kListen = 10;

// What a running kernel may tell beyond the headers' tcp_info, all zero if it is older.
struct LongInfo {
  char known[232];
  uint32_t tcpi_rcv_wnd, tcpi_rehash;
  uint16_t tcpi_total_rto, tcpi_total_rto_recoveries;
  uint32_t tcpi_total_rto_time;
};
static_assert(offsetof(tcp_info, tcpi_snd_wnd) + sizeof(uint32_t) == sizeof LongInfo::known);

LongInfo long_info_of(int fd) {
  LongInfo info{};
  socklen_t size = sizeof info;
  EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  return info;
}

bool kernel_tells_more() {
  char info[512];
  socklen_t size = sizeof info;
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size), 0);
  close(fd);
  return size >= sizeof(LongInfo);
}

tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  EXPECT_EQ(size, sizeof info);
  return info;
}

int ask(int fd, unsigned long request) {
  int value = -1;
  EXPECT_EQ(ioctl(fd, request, &value), 0) << strerror(errno);
  return value;
}

// What comes about in the background, the last acknowledgement for one.
void await(const std::function<bool()>& there) {
  const uint64_t end = now_ms() + 30'000;
  while (!there() && now_ms() < end) poll(nullptr, 0, 1);
  EXPECT_TRUE(there());
}

void set(int fd, int level, int name, int value) { ASSERT_EQ(setsockopt(fd, level, name, &value, sizeof value), 0) << strerror(errno); }

class Figures : public BothWays {};
ZPS_BOTH_WAYS(Figures);

TEST_P(Figures, OfARequestAndItsAnswer) {
  const Connection c = connect_pair();
  const std::string request(3000, 'q'), answer(2000, 'a');
  ASSERT_EQ(send(c.mine, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  ASSERT_EQ(peer.recv_all(c.theirs, request.size()), request);
  ASSERT_EQ(peer.send(c.theirs, answer).result, static_cast<int64_t>(answer.size()));
  ASSERT_EQ(read_all(c.mine, answer.size()), answer);
  await([&] { return ask(c.mine, SIOCOUTQ) == 0; });
  const tcp_info info = info_of(c.mine);
  EXPECT_EQ(info.tcpi_state, kEstablished);
  EXPECT_EQ(info.tcpi_ca_state, 0);
  EXPECT_EQ(info.tcpi_bytes_sent, request.size());
  EXPECT_EQ(info.tcpi_bytes_received, answer.size());
  EXPECT_GE(info.tcpi_bytes_acked, request.size());
  EXPECT_LE(info.tcpi_bytes_acked, request.size() + 1);  // Linux counts the SYN of who connects
  EXPECT_EQ(info.tcpi_unacked, 0u);
  EXPECT_EQ(info.tcpi_notsent_bytes, 0u);
  EXPECT_EQ(info.tcpi_retrans, 0u);
  EXPECT_EQ(info.tcpi_total_retrans, 0u);
  EXPECT_EQ(info.tcpi_bytes_retrans, 0u);
  EXPECT_GE(info.tcpi_data_segs_out, 1u);
  EXPECT_GE(info.tcpi_data_segs_in, 1u);
  EXPECT_GT(info.tcpi_segs_out, info.tcpi_data_segs_out);  // an acknowledgement at least
  EXPECT_GT(info.tcpi_segs_in, info.tcpi_data_segs_in);
  EXPECT_GE(info.tcpi_delivered, 1u);
}

TEST_P(Figures, OfTheWay) {
  const Connection c = connect_pair();
  const std::string bytes(100'000, 'b');
  ASSERT_EQ(send(c.mine, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  ASSERT_EQ(peer.recv_all(c.theirs, bytes.size()), bytes);
  await([&] { return ask(c.mine, SIOCOUTQ) == 0; });
  const tcp_info info = info_of(c.mine);
  EXPECT_GT(info.tcpi_rtt, 0u);
  EXPECT_LT(info.tcpi_rtt, 1'000'000u);
  EXPECT_GT(info.tcpi_rttvar, 0u);
  EXPECT_GT(info.tcpi_min_rtt, 0u);
  EXPECT_LE(info.tcpi_min_rtt, 1'000'000u);
  EXPECT_GE(info.tcpi_rto, 40'000u);
  EXPECT_GE(info.tcpi_snd_cwnd, 10u);
  EXPECT_GE(info.tcpi_snd_mss, 1000u);
  EXPECT_GE(info.tcpi_advmss, 1000u);
  EXPECT_GE(info.tcpi_pmtu, info.tcpi_snd_mss + 40);
  EXPECT_LE(info.tcpi_pmtu, 65536u);
  EXPECT_GT(info.tcpi_snd_ssthresh, info.tcpi_snd_cwnd);
  EXPECT_GT(info.tcpi_rcv_space, 1000u);
  EXPECT_GT(info.tcpi_snd_wnd, 1000u);
  EXPECT_GT(info.tcpi_snd_wscale, 0);
  EXPECT_GT(info.tcpi_rcv_wscale, 0);
  EXPECT_NE(info.tcpi_options & TCPI_OPT_WSCALE, 0);
  EXPECT_NE(info.tcpi_options & TCPI_OPT_SACK, 0);
  EXPECT_GT(info.tcpi_delivery_rate, 1000u);
  EXPECT_LT(info.tcpi_busy_time, 10'000'000u);
  EXPECT_LT(info.tcpi_last_data_sent, 10'000u);
  EXPECT_LT(info.tcpi_last_data_recv, 10'000u);
  EXPECT_LT(info.tcpi_last_ack_recv, 10'000u);
}

TEST_P(Figures, OfABornConnection) {
  const Connection c = connect_pair();
  const tcp_info info = info_of(c.mine);
  EXPECT_EQ(info.tcpi_state, kEstablished);
  EXPECT_GT(info.tcpi_rtt, 0u) << "the handshake was one";
  EXPECT_GT(info.tcpi_rttvar, 0u);
  EXPECT_EQ(info.tcpi_bytes_sent, 0u);
  EXPECT_EQ(info.tcpi_bytes_received, 0u);
  EXPECT_EQ(info.tcpi_data_segs_out, 0u);
}

TEST_P(Figures, OfAPeerThatDoesNotRead) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_SNDBUF, 100'000);
  const std::string bytes(8192, 'w');
  int64_t written = 0;
  for (ssize_t n; wait_for(c.mine, POLLOUT, 300) != 0 && (n = send(c.mine, bytes.data(), bytes.size(), MSG_DONTWAIT)) > 0;) written += n;
  ASSERT_GT(written, 100'000);
  tcp_info info{};
  int queued = 0;
  await([&] {  // what the window took is acknowledged, and no probe is on its way
    info = info_of(c.mine);
    queued = ask(c.mine, SIOCOUTQ);
    return queued > 0 && queued == ask(c.mine, SIOCOUTQNSD) && static_cast<uint32_t>(queued) == info.tcpi_notsent_bytes;
  });
  EXPECT_GE(info.tcpi_bytes_acked + static_cast<uint64_t>(queued), static_cast<uint64_t>(written));
  EXPECT_LE(info.tcpi_bytes_acked + static_cast<uint64_t>(queued), static_cast<uint64_t>(written) + 1);
  EXPECT_GT(info.tcpi_busy_time, 100'000u);
  EXPECT_GT(info.tcpi_rwnd_limited, 100'000u);
  EXPECT_LE(info.tcpi_rwnd_limited, info.tcpi_busy_time);
  uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t size = sizeof memory;
  ASSERT_EQ(getsockopt(c.mine, SOL_SOCKET, SO_MEMINFO, memory, &size), 0);
  EXPECT_EQ(size, sizeof memory);
  EXPECT_GE(memory[SK_MEMINFO_WMEM_QUEUED], static_cast<uint32_t>(queued));
  EXPECT_EQ(memory[SK_MEMINFO_SNDBUF], 200'000u);
}

TEST_P(Figures, OfTheWindow) {
  if (!kernel_tells_more()) GTEST_SKIP() << "the running kernel does not tell";
  const Connection c = connect_pair();
  const uint32_t window = long_info_of(c.mine).tcpi_rcv_wnd;
  EXPECT_GT(window, 10'000u);
  EXPECT_LT(window, 100'000'000u);
}

// The peer does not hear what it takes to come from far away.
TEST_P(Figures, OfTimeouts) {
  if (!kernel_tells_more()) GTEST_SKIP() << "the running kernel does not tell";
  const Connection c = connect_pair();
  const LongInfo before = long_info_of(c.mine);  // the SYN may have had to be sent again
  const uint32_t retransmitted = info_of(c.mine).tcpi_total_retrans;
  ASSERT_EQ(peer.call(PeerOp::set_option, c.theirs, IPPROTO_IP, IP_MINTTL, 255).result, 0);
  ASSERT_EQ(write(c.mine, "unheard", 7), 7);
  await([&] { return long_info_of(c.mine).tcpi_total_rto > before.tcpi_total_rto; });
  EXPECT_GE(info_of(c.mine).tcpi_retransmits, 1);
  EXPECT_EQ(info_of(c.mine).tcpi_unacked, 1u);
  EXPECT_EQ(info_of(c.mine).tcpi_ca_state, 4) << "TCP_CA_Loss";
  ASSERT_EQ(peer.call(PeerOp::set_option, c.theirs, IPPROTO_IP, IP_MINTTL, 0).result, 0);
  EXPECT_EQ(peer.recv_all(c.theirs, 7), "unheard");
  await([&] { return ask(c.mine, SIOCOUTQ) == 0; });
  const LongInfo info = long_info_of(c.mine);
  EXPECT_EQ(info.tcpi_total_rto_recoveries, before.tcpi_total_rto_recoveries + 1);
  EXPECT_LT(info.tcpi_total_rto_time, 60'000u);
  EXPECT_GT(info_of(c.mine).tcpi_total_retrans, retransmitted);
  EXPECT_GE(info_of(c.mine).tcpi_bytes_retrans, 7u);
  EXPECT_EQ(info_of(c.mine).tcpi_ca_state, 0);
}

TEST_P(Figures, OfWhatIsNotRead) {
  const Connection c = connect_pair();
  ASSERT_EQ(peer.send(c.theirs, "twelve bytes").result, 12);
  ASSERT_NE(wait_for(c.mine, POLLIN), 0);
  EXPECT_EQ(ask(c.mine, SIOCINQ), 12);
  uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t size = sizeof memory;
  ASSERT_EQ(getsockopt(c.mine, SOL_SOCKET, SO_MEMINFO, memory, &size), 0);
  EXPECT_GE(memory[SK_MEMINFO_RMEM_ALLOC], 12u);
}

TEST_P(Figures, OutliveTheConnection) {
  const Connection c = connect_pair();
  ASSERT_EQ(peer.send(c.theirs, "abc").result, 3);
  ASSERT_EQ(read_all(c.mine, 3), "abc");
  shutdown(c.mine, SHUT_WR);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
  await([&] { return info_of(c.mine).tcpi_state == kFinWait2; });
  peer.reset(c.theirs);
  ASSERT_NE(wait_for(c.mine, POLLIN), 0);
  await([&] { return info_of(c.mine).tcpi_state == kClose; });
  const tcp_info info = info_of(c.mine);
  EXPECT_EQ(info.tcpi_bytes_received, 3u);
  EXPECT_GE(info.tcpi_data_segs_in, 1u);
  EXPECT_GT(info.tcpi_rtt, 0u);
}

TEST_F(Figures, OfListeners) {
  for (const in_addr_t address : {htonl(INADDR_ANY), self_address().sin_addr.s_addr}) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    ASSERT_EQ(listen(listener, 7), 0);
    socklen_t size = sizeof at;
    ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size), 0);
    EXPECT_EQ(info_of(listener).tcpi_state, kListen);
    EXPECT_EQ(info_of(listener).tcpi_unacked, 0u);
    EXPECT_EQ(info_of(listener).tcpi_sacked, 7u);
    for (int i = 0; i < 2; i++) ASSERT_EQ(peer.connect(peer.socket(), self_address(at.sin_port)).result, 0);
    await([&] { return info_of(listener).tcpi_unacked == 2; });
    close(listener);
  }
}

// The control messages of one recvmsg() with room for `bytes`.
struct Control {
  int level, type;
  std::string data;
};

std::vector<Control> receive(int fd, size_t bytes, int flags = 0) {
  std::string data(bytes, '\0');
  alignas(cmsghdr) char room[512];
  iovec part{data.data(), data.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = room;
  header.msg_controllen = sizeof room;
  EXPECT_GE(recvmsg(fd, &header, flags), 0) << strerror(errno);
  std::vector<Control> all;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    all.push_back({c->cmsg_level, c->cmsg_type, {reinterpret_cast<char*>(CMSG_DATA(c)), c->cmsg_len - CMSG_LEN(0)}});
  }
  return all;
}

int inq_of(const std::vector<Control>& all) {
  for (const Control& control : all) {
    if (control.level == IPPROTO_TCP && control.type == TCP_CM_INQ && control.data.size() == sizeof(int)) {
      return *reinterpret_cast<const int*>(control.data.data());
    }
  }
  return -1;
}

TEST_P(Figures, InqSaysWhatIsLeft) {
  const Connection c = connect_pair();
  ASSERT_EQ(peer.send(c.theirs, "0123456789").result, 10);
  ASSERT_NE(wait_for(c.mine, POLLIN), 0);
  EXPECT_TRUE(receive(c.mine, 1).empty());
  set(c.mine, IPPROTO_TCP, TCP_INQ, 1);
  EXPECT_EQ(inq_of(receive(c.mine, 3)), 6);
  EXPECT_EQ(inq_of(receive(c.mine, 2, MSG_PEEK)), 6);
  EXPECT_EQ(inq_of(receive(c.mine, 6)), 0);
  peer.shutdown(c.theirs, SHUT_WR);
  ASSERT_NE(wait_for(c.mine, POLLRDHUP) & POLLRDHUP, 0);
  EXPECT_EQ(inq_of(receive(c.mine, 1)), 1) << "there is an end to read";
  set(c.mine, IPPROTO_TCP, TCP_INQ, 0);
  EXPECT_TRUE(receive(c.mine, 1).empty());
}

TEST_P(Figures, InqIsCutToItsRoom) {
  const Connection c = connect_pair();
  set(c.mine, IPPROTO_TCP, TCP_INQ, 1);
  ASSERT_EQ(peer.send(c.theirs, "ab").result, 2);
  ASSERT_NE(wait_for(c.mine, POLLIN), 0);
  char byte;
  char room[CMSG_LEN(2)] = {};
  iovec part{&byte, 1};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = room;
  header.msg_controllen = sizeof room;
  ASSERT_EQ(recvmsg(c.mine, &header, 0), 1);
  EXPECT_EQ(header.msg_flags, MSG_CTRUNC);
  EXPECT_EQ(header.msg_controllen, sizeof room);
  header.msg_controllen = 3;
  ASSERT_EQ(recvmsg(c.mine, &header, 0), 1);
  EXPECT_EQ(header.msg_flags, MSG_CTRUNC);
  EXPECT_EQ(header.msg_controllen, 0u);
}

TEST_P(Figures, TimestampsSayWhenDataCame) {
  const Connection c = connect_pair();
  const struct {
    int name, type;
    size_t bytes;
    long per_second;
  } kinds[] = {{SO_TIMESTAMP_OLD, SO_TIMESTAMP_OLD, 16, 1'000'000},
               {SO_TIMESTAMPNS_OLD, SO_TIMESTAMPNS_OLD, 16, 1'000'000'000},
               {SO_TIMESTAMP_NEW, SO_TIMESTAMP_NEW, 16, 1'000'000},
               {SO_TIMESTAMPNS_NEW, SO_TIMESTAMPNS_NEW, 16, 1'000'000'000}};
  for (const auto& kind : kinds) {
    set(c.mine, SOL_SOCKET, kind.name, 1);
    poll(nullptr, 0, 5);  // the kernel begins to take times a moment later
    timespec before{};
    clock_gettime(CLOCK_REALTIME, &before);
    ASSERT_EQ(peer.send(c.theirs, "x").result, 1);
    ASSERT_NE(wait_for(c.mine, POLLIN), 0);
    const std::vector<Control> all = receive(c.mine, 1);
    timespec after{};
    clock_gettime(CLOCK_REALTIME, &after);
    ASSERT_EQ(all.size(), 1u) << kind.name;
    EXPECT_EQ(all[0].level, SOL_SOCKET);
    EXPECT_EQ(all[0].type, kind.type);
    ASSERT_EQ(all[0].data.size(), kind.bytes);
    const auto* words = reinterpret_cast<const int64_t*>(all[0].data.data());
    const double came = static_cast<double>(words[0]) + static_cast<double>(words[1]) / static_cast<double>(kind.per_second);
    const auto seconds = [](const timespec& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9; };
    EXPECT_GE(came, seconds(before) - 0.05);
    EXPECT_LE(came, seconds(after) + 0.001);
    set(c.mine, SOL_SOCKET, kind.name, 0);
  }
}

}  // namespace
