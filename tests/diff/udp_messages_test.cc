// Datagrams as messages: many at a time, control messages both ways, the error queue.
// SPDX-License-Identifier: BSD-3-Clause
#include <time.h>

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/lib/datagram_messages.h"

using namespace testing_lib;

namespace {

class UdpMessages : public DatagramTest {};

TEST_F(UdpMessages, ManyAtATime) {
  sockaddr_in here{};
  const int fd = bound(&here);
  std::vector<std::string> texts;
  std::vector<iovec> parts(30);
  std::vector<mmsghdr> messages(30);
  for (size_t i = 0; i < 30; i++) texts.push_back("number " + std::to_string(i));
  for (size_t i = 0; i < 30; i++) {
    parts[i] = {texts[i].data(), texts[i].size()};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    messages[i].msg_hdr.msg_name = &there;
    messages[i].msg_hdr.msg_namelen = sizeof there;
  }
  EXPECT_EQ(sendmmsg(fd, messages.data(), 30, 0), 30) << strerror(errno);
  for (size_t i = 0; i < 30; i++) {
    EXPECT_EQ(messages[i].msg_len, texts[i].size());
    EXPECT_EQ(peer.recv_from(theirs).payload, texts[i]);
  }
  for (const std::string& text : texts) peer.send_to(theirs, here, text);
  std::vector<std::string> buffers(40, std::string(100, '.'));
  std::vector<iovec> into(40);
  std::vector<mmsghdr> got(40);
  std::vector<sockaddr_in> names(40);
  for (size_t i = 0; i < 40; i++) {
    into[i] = {buffers[i].data(), 100};
    got[i].msg_hdr.msg_iov = &into[i];
    got[i].msg_hdr.msg_iovlen = 1;
    got[i].msg_hdr.msg_name = &names[i];
    got[i].msg_hdr.msg_namelen = sizeof names[i];
  }
  int count = 0;
  while (count < 30) {
    const int more = recvmmsg(fd, got.data() + count, static_cast<unsigned>(30 - count), MSG_WAITFORONE, nullptr);
    ASSERT_GT(more, 0);
    count += more;
  }
  for (size_t i = 0; i < 30; i++) {
    EXPECT_EQ(buffers[i].substr(0, got[i].msg_len), texts[i]);
    EXPECT_EQ(to_text(names[i]), to_text(there));
  }
  EXPECT_EQ(recvmmsg(fd, got.data(), 4, MSG_DONTWAIT, nullptr), -1);
  EXPECT_EQ(errno, EAGAIN);
  timespec wrong{0, 2'000'000'000};
  EXPECT_EQ(recvmmsg(fd, got.data(), 4, 0, &wrong), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(UdpMessages, ManyForATime) {
  sockaddr_in here{};
  const int fd = bound(&here);
  char buffers[4][8];
  iovec parts[4];
  mmsghdr messages[4] = {};
  for (int i = 0; i < 4; i++) {
    parts[i] = {buffers[i], sizeof buffers[i]};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  for (int i = 0; i < 3; i++) peer.send_to(theirs, here, "x");
  ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
  timespec none{0, 0}, long_time{100, 0};
  EXPECT_EQ(recvmmsg(fd, messages, 4, 0, &none), 1) << "looked at after each";
  EXPECT_EQ(none.tv_sec, 0);
  EXPECT_EQ(none.tv_nsec, 0);
  EXPECT_EQ(recvmmsg(fd, messages, 2, 0, &long_time), 2);
  EXPECT_EQ(long_time.tv_sec, 99) << "what is left of it";
  EXPECT_GT(long_time.tv_nsec, 0);
  long_time = {7, 5};
  EXPECT_EQ(recvmmsg(fd, messages, 2, MSG_DONTWAIT, &long_time), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(long_time.tv_sec, 7);
  EXPECT_EQ(long_time.tv_nsec, 5);
}

TEST_F(UdpMessages, ManyToBothSides) {
  sockaddr_in near_here{};
  const int fd = open(), near = bound(&near_here);
  sockaddr_in to[4] = {there, ipv4("127.0.0.1", near_here.sin_port), there, ipv4("127.0.0.1", near_here.sin_port)};
  mmsghdr messages[4] = {};
  iovec part{const_cast<char*>("both"), 4};
  for (int i = 0; i < 4; i++) {
    messages[i].msg_hdr.msg_name = &to[i];
    messages[i].msg_hdr.msg_namelen = sizeof to[i];
    messages[i].msg_hdr.msg_iov = &part;
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  EXPECT_EQ(sendmmsg(fd, messages, 4, 0), 4) << strerror(errno);
  for (int i = 0; i < 2; i++) {
    EXPECT_EQ(peer.recv_from(theirs).payload, "both");
    EXPECT_EQ(wait_and_take(near), "both");
  }
  to[2].sin_port = 0;
  EXPECT_EQ(sendmmsg(fd, messages, 4, 0), 2) << "up to the first that fails";
  EXPECT_EQ(sendmmsg(fd, messages + 2, 2, 0), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(UdpMessages, WhatIsToldOfADatagram) {
  sockaddr_in here{};
  const int fd = bound(&here);
  peer.send_to(theirs, here, "plain");
  EXPECT_EQ(wait_for(fd, POLLIN), POLLIN);
  EXPECT_TRUE(receive(fd).control.empty());
  for (const int name : {IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_RECVORIGDSTADDR}) EXPECT_EQ(set(fd, IPPROTO_IP, name, 1), 0);
  EXPECT_EQ(set(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1), 0);
  EXPECT_EQ(peer.call(PeerOp::set_option, theirs, IPPROTO_IP, IP_TTL, 77).result, 0);
  EXPECT_EQ(peer.call(PeerOp::set_option, theirs, IPPROTO_IP, IP_TOS, 0x48).result, 0);
  timespec before{}, after{};
  clock_gettime(CLOCK_REALTIME, &before);
  peer.send_to(theirs, here, "much");
  EXPECT_EQ(wait_for(fd, POLLIN), POLLIN);
  const Received got = receive(fd);
  clock_gettime(CLOCK_REALTIME, &after);
  EXPECT_EQ(got.text, "much");
  EXPECT_EQ(got.flags, 0);
  EXPECT_EQ(to_text(from_family(got.from)), to_text(there));
  EXPECT_EQ(got.number(IPPROTO_IP, IP_TTL), 77);
  EXPECT_EQ(got.number(IPPROTO_IP, IP_TOS), 0x48);
  EXPECT_EQ(got.control.at({IPPROTO_IP, IP_TOS}).size(), 1u);
  const std::string& info = got.control.at({IPPROTO_IP, IP_PKTINFO});
  ASSERT_EQ(info.size(), sizeof(in_pktinfo));
  in_pktinfo packet;
  memcpy(&packet, info.data(), sizeof packet);
  EXPECT_EQ(packet.ipi_addr.s_addr, self_address().sin_addr.s_addr);
  EXPECT_EQ(packet.ipi_spec_dst.s_addr, self_address().sin_addr.s_addr);
  EXPECT_GT(packet.ipi_ifindex, 0);
  sockaddr_in original;
  ASSERT_EQ(got.control.at({IPPROTO_IP, IP_ORIGDSTADDR}).size(), sizeof original);
  memcpy(&original, got.control.at({IPPROTO_IP, IP_ORIGDSTADDR}).data(), sizeof original);
  EXPECT_EQ(to_text(original), to_text(here));
  timespec came;
  ASSERT_EQ(got.control.at({SOL_SOCKET, SO_TIMESTAMPNS}).size(), sizeof came);
  memcpy(&came, got.control.at({SOL_SOCKET, SO_TIMESTAMPNS}).data(), sizeof came);
  const auto ns = [](const timespec& t) { return t.tv_sec * 1'000'000'000LL + t.tv_nsec; };
  EXPECT_GE(ns(came), ns(before));
  EXPECT_LE(ns(came), ns(after));
  EXPECT_EQ(got.control.size(), 5u);
}

TEST_F(UdpMessages, WithoutRoomForControl) {
  sockaddr_in here{};
  const int fd = bound(&here);
  EXPECT_EQ(set(fd, IPPROTO_IP, IP_PKTINFO, 1), 0);
  for (const size_t room : {size_t{0}, size_t{8}, size_t{16}, size_t{20}, size_t{32}}) {
    peer.send_to(theirs, here, "x");
    EXPECT_EQ(wait_for(fd, POLLIN), POLLIN);
    const Received got = receive(fd, 0, room);
    EXPECT_EQ(got.text, "x");
    EXPECT_EQ(got.flags, room < CMSG_LEN(sizeof(in_pktinfo)) ? MSG_CTRUNC : 0) << room;
    const auto found = got.control.find({IPPROTO_IP, IP_PKTINFO});
    EXPECT_EQ(found != got.control.end(), room >= CMSG_LEN(0)) << room;
    if (found == got.control.end()) continue;
    EXPECT_EQ(found->second.size(), std::min(room - CMSG_LEN(0), sizeof(in_pktinfo))) << room;
  }
}

TEST_F(UdpMessages, ControlOfADatagramSent) {
  const int fd = open();
  EXPECT_EQ(send_with(fd, there, IPPROTO_IP, IP_TTL, bytes_of(7)), 1) << strerror(errno);
  EXPECT_EQ(send_with(fd, there, IPPROTO_IP, IP_TOS, bytes_of(0x10)), 1);
  EXPECT_EQ(send_with(fd, there, IPPROTO_IP, IP_TOS, bytes_of(uint8_t{0x10})), 1);
  EXPECT_EQ(send_with(fd, there, IPPROTO_IP, IP_PKTINFO, bytes_of(in_pktinfo{})), 1);
  in_pktinfo own{};
  own.ipi_spec_dst = self_address().sin_addr;
  EXPECT_EQ(send_with(fd, there, IPPROTO_IP, IP_PKTINFO, bytes_of(own)), 1);
  EXPECT_EQ(send_with(fd, there, SOL_SOCKET, SO_PRIORITY, bytes_of(1)), 1);
  EXPECT_EQ(send_with(fd, there, IPPROTO_TCP, 99, bytes_of(1)), 1) << "of another level: ignored";
  for (int i = 0; i < 7; i++) EXPECT_EQ(peer.recv_from(theirs).payload, "x");
  const struct {
    int level, type;
    std::string data;
  } wrong[] = {{IPPROTO_IP, IP_TTL, bytes_of(0)},   {IPPROTO_IP, IP_TTL, bytes_of(256)}, {IPPROTO_IP, IP_TTL, "ab"},
               {IPPROTO_IP, IP_TOS, bytes_of(256)}, {IPPROTO_IP, 99, bytes_of(1)},       {IPPROTO_IP, IP_PKTINFO, "abc"},
               {SOL_SOCKET, 12345, bytes_of(1)}};
  for (const auto& [level, type, data] : wrong) {
    EXPECT_EQ(send_with(fd, there, level, type, data), -1) << level << " " << type;
    EXPECT_EQ(errno, EINVAL) << level << " " << type;
  }
  EXPECT_EQ(peer.recv(theirs, 1, MSG_DONTWAIT).error, EAGAIN) << "nothing was sent";
}

TEST_F(UdpMessages, ReportsOfFailure) {
  sockaddr_in nowhere = there;
  nowhere.sin_port = htons(9);
  const int fd = open();
  EXPECT_EQ(set(fd, IPPROTO_IP, IP_RECVERR, 1), 0);
  EXPECT_EQ(receive(fd, MSG_ERRQUEUE).error, EAGAIN);
  EXPECT_EQ(send_to(fd, nowhere, "lost"), 4);
  EXPECT_EQ(wait_for(fd, POLLIN), POLLERR) << "though it is not connected";
  const Received got = receive(fd, MSG_ERRQUEUE);
  EXPECT_EQ(got.error, 0);
  EXPECT_EQ(got.flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
  EXPECT_EQ(to_text(from_family(got.from)), to_text(nowhere));
  const auto found = got.control.find({IPPROTO_IP, IP_RECVERR});
  ASSERT_NE(found, got.control.end());
  struct {
    sock_extended_err error;
    sockaddr_in offender;
  } told;
  ASSERT_EQ(found->second.size(), sizeof told);
  memcpy(&told, found->second.data(), sizeof told);
  EXPECT_EQ(told.error.ee_errno, static_cast<uint32_t>(ECONNREFUSED));
  EXPECT_EQ(told.error.ee_origin, SO_EE_ORIGIN_ICMP);
  EXPECT_EQ(told.error.ee_type, 3);
  EXPECT_EQ(told.error.ee_code, 3);
  EXPECT_EQ(told.offender.sin_addr.s_addr, there.sin_addr.s_addr);
  EXPECT_EQ(receive(fd, MSG_ERRQUEUE).error, EAGAIN);
  EXPECT_EQ(get(fd, SOL_SOCKET, SO_ERROR), 0) << "told by the queue";
  EXPECT_EQ(receive(fd, MSG_DONTWAIT).error, EAGAIN);
}

TEST_F(UdpMessages, ReportsOfOnesOwn) {
  const int fd = open();
  EXPECT_EQ(set(fd, IPPROTO_IP, IP_RECVERR, 1), 0);
  EXPECT_EQ(set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO), 0);
  for (const bool connected : {false, true}) {
    if (connected) {
      EXPECT_EQ(connect_to(fd, there), 0);
    }
    EXPECT_EQ(send_to(fd, there, std::string(60'000, 'x')), -1);
    EXPECT_EQ(errno, EMSGSIZE);
    EXPECT_EQ(wait_for(fd, POLLIN), POLLERR);
    EXPECT_EQ(get(fd, SOL_SOCKET, SO_ERROR), 0) << "which is no pending error";
    const Received got = receive(fd, MSG_ERRQUEUE);
    EXPECT_EQ(got.result, 0);
    const sockaddr_in name = from_family(got.from);
    EXPECT_EQ(name.sin_addr.s_addr, there.sin_addr.s_addr);
    EXPECT_EQ(name.sin_port, connected ? there.sin_port : 0);
    struct Told {
      sock_extended_err error;
      sockaddr_in offender;
    };
    const Told told = got.as<Told>(IPPROTO_IP, IP_RECVERR);
    EXPECT_EQ(told.error.ee_errno, static_cast<uint32_t>(EMSGSIZE));
    EXPECT_EQ(told.error.ee_origin, SO_EE_ORIGIN_LOCAL);
    EXPECT_GE(told.error.ee_info, 1280u) << "the path's MTU";
    EXPECT_EQ(told.offender.sin_family, AF_UNSPEC);
    EXPECT_EQ(receive(fd, MSG_ERRQUEUE).error, EAGAIN);
  }
}

TEST_F(UdpMessages, ReceivingThreads) {
  sockaddr_in here{};
  const int fd = bound(&here);
  std::vector<std::thread> threads;
  std::atomic<int> seen{0};
  for (int i = 0; i < 4; i++) {
    threads.emplace_back([&] {
      while (take(fd) != "end") seen++;
    });
  }
  for (int i = 0; i < 200; i++) EXPECT_EQ(peer.send_to(theirs, here, "x").result, 1);
  for (int i = 0; i < 4; i++) peer.send_to(theirs, here, "end");
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(seen, 200);
  uint32_t memory[9] = {};
  socklen_t bytes = sizeof memory;
  EXPECT_EQ(getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &bytes), 0);
  EXPECT_EQ(memory[8], 0u) << "none was thrown away";
}

}  // namespace
