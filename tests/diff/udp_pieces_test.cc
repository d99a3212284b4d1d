// Datagrams in pieces, and pieces of a message that are datagrams each: MSG_MORE, UDP_CORK, UDP_SEGMENT, UDP_GRO.
// SPDX-License-Identifier: BSD-3-Clause
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

#include "tests/lib/datagram_messages.h"

using namespace testing_lib;

namespace {

class UdpPieces : public DatagramTest {
 protected:
  static ssize_t send_segments(int fd, const std::string& text, uint16_t segment) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof segment)] = {};
    auto* const head = reinterpret_cast<cmsghdr*>(control);
    *head = {CMSG_LEN(sizeof segment), SOL_UDP, UDP_SEGMENT};
    memcpy(CMSG_DATA(head), &segment, sizeof segment);
    iovec part{const_cast<char*>(text.data()), text.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    return sendmsg(fd, &message, 0);
  }
};

TEST_F(UdpPieces, More) {
  const int fd = open();
  EXPECT_EQ(send_to(fd, there, "one ", MSG_MORE), 4) << strerror(errno);
  EXPECT_EQ(send(fd, "two ", 4, MSG_MORE), 4) << "where it goes is known: " << strerror(errno);
  sockaddr_in elsewhere = there;
  elsewhere.sin_port = htons(9);
  if (family() == Family::ip6) {
    EXPECT_EQ(sendto(fd, "4", 1, 0, reinterpret_cast<const sockaddr*>(&there), sizeof there), -1) << "IPv4 cannot go on with it";
    EXPECT_EQ(errno, EINVAL);
  }
  EXPECT_EQ(send_to(fd, elsewhere, "three", 0), 5) << "and nothing changes that";
  EXPECT_EQ(peer.recv_from(theirs).payload, "one two three");
  EXPECT_EQ(send_to(fd, there, "alone"), 5);
  EXPECT_EQ(peer.recv_from(theirs).payload, "alone");
  EXPECT_EQ(send_to(fd, there, std::string(40'000, 'x'), MSG_MORE), 40'000);
  EXPECT_EQ(send_to(fd, there, std::string(40'000, 'y')), -1);
  EXPECT_EQ(errno, EMSGSIZE);
  EXPECT_EQ(send_to(fd, there, "after"), 5) << "what was too long is gone";
  EXPECT_EQ(peer.recv_from(theirs).payload, "after");
}

TEST_F(UdpPieces, Corked) {
  const int fd = open();
  ASSERT_EQ(connect_to(fd, there), 0);
  EXPECT_EQ(set(fd, SOL_UDP, UDP_CORK, 1), 0);
  EXPECT_EQ(send(fd, "a", 1, 0), 1);
  EXPECT_EQ(send(fd, "b", 1, 0), 1);
  EXPECT_EQ(peer.recv(theirs, 1, MSG_DONTWAIT).error, EAGAIN);
  EXPECT_EQ(set(fd, SOL_UDP, UDP_CORK, 0), 0);
  EXPECT_EQ(peer.recv_from(theirs).payload, "ab");
  EXPECT_EQ(send(fd, "c", 1, 0), 1);
  EXPECT_EQ(peer.recv_from(theirs).payload, "c");
  EXPECT_EQ(set(fd, SOL_UDP, UDP_CORK, 1), 0);
  EXPECT_EQ(send(fd, "lost", 4, 0), 4) << "with the socket";
}

TEST_F(UdpPieces, Segments) {
  const int fd = open();
  ASSERT_EQ(connect_to(fd, there), 0);
  std::string text;
  for (int i = 0; i < 1050; i++) text += static_cast<char>('a' + i / 100);
  EXPECT_EQ(send_segments(fd, text, 100), 1050) << strerror(errno);
  for (size_t i = 0; i < 11; i++) EXPECT_EQ(peer.recv_from(theirs).payload, text.substr(i * 100, 100)) << i;
  EXPECT_EQ(set(fd, SOL_UDP, UDP_SEGMENT, 500), 0);
  iovec parts[3] = {{text.data(), 499}, {text.data() + 499, 2}, {text.data() + 501, 549}};
  EXPECT_EQ(writev(fd, parts, 3), 1050);
  for (size_t i = 0; i < 3; i++) EXPECT_EQ(peer.recv_from(theirs).payload, text.substr(i * 500, 500)) << i;
  EXPECT_EQ(send(fd, "short", 5, 0), 5);
  EXPECT_EQ(peer.recv_from(theirs).payload, "short");
  EXPECT_EQ(send_segments(fd, std::string(129, 'x'), 1), -1);
  EXPECT_EQ(errno, EINVAL) << "too many";
  EXPECT_EQ(set(fd, SOL_UDP, UDP_SEGMENT, 70'000), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(set(fd, SOL_UDP, UDP_SEGMENT, 0), 0);
  const bool ip6 = family() == Family::ip6;
  const int mtu = ip6 ? get(fd, IPPROTO_IPV6, IPV6_MTU) : get(fd, IPPROTO_IP, IP_MTU);
  const auto most = static_cast<uint16_t>(std::min(mtu - (ip6 ? 48 : 28), 20'000));
  EXPECT_EQ(send_segments(fd, std::string(2u * most, 'x'), most), 2 * most);
  for (int i = 0; i < 2; i++) EXPECT_EQ(peer.recv_from(theirs).result, most);
}

// The system's network may bring them one by one all the same; a stack knows what waits.
TEST_F(UdpPieces, SeveralAtOnce) {
  sockaddr_in here{}, elsewhere{};
  const int fd = bound(&here), another = peer.datagram_socket(&elsewhere);
  EXPECT_EQ(set(fd, SOL_UDP, UDP_GRO, 1), 0);
  EXPECT_EQ(get(fd, SOL_UDP, UDP_GRO), 1);
  std::vector<std::string> texts;
  for (const size_t bytes : {100u, 100u, 100u, 40u, 40u, 100u, 0u, 100u}) {
    texts.push_back(std::string(bytes, static_cast<char>('a' + texts.size())));
    peer.send_to(theirs, here, texts.back());
  }
  peer.send_to(another, here, texts.emplace_back(100, 'z'));
  size_t taken = 0, messages = 0;
  while (taken < texts.size()) {
    ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
    const Received got = receive(fd, MSG_DONTWAIT);
    ASSERT_GE(got.result, 0) << strerror(got.error);
    EXPECT_EQ(got.flags, 0);
    std::string all = texts[taken];
    const size_t segment = got.has(SOL_UDP, UDP_GRO) ? static_cast<size_t>(got.number(SOL_UDP, UDP_GRO)) : all.size();
    EXPECT_EQ(segment, texts[taken].size());
    for (taken++; taken < texts.size() && all.size() < got.text.size(); taken++) all += texts[taken];
    EXPECT_EQ(got.text, all);
    EXPECT_EQ(to_text(from_family(got.from)), to_text(got.text.back() == 'z' ? elsewhere : there));
    messages++;
  }
  if (on_stack()) {
    EXPECT_EQ(messages, 6u);
  }
  for (int i = 0; i < 3; i++) peer.send_to(theirs, here, "1234");
  iovec part{texts[0].data(), 10};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ssize_t sum = 0;
  while (sum < 12) {
    ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
    const ssize_t count = recvmsg(fd, &message, MSG_TRUNC);
    EXPECT_EQ(count % 4, 0) << "no more than there is room for";
    EXPECT_EQ(message.msg_flags & MSG_TRUNC, 0);
    sum += count;
  }
}

}  // namespace
