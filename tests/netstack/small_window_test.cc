// A window that is small, however it became so: data moves without a timer of either side, whoever works first and however much is read at
// a time.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <random>

using namespace netstack_test;

namespace {

constexpr size_t kTotal = 2 << 20;  // several of the windows that a connection begins with

struct Case {
  Segments segments;
  int buffer;
};

void PrintTo(const Case& one, std::ostream* out) { *out << one.buffer; }

class SmallWindow : public StackTest, public testing::WithParamInterface<Case> {
 protected:
  void SetUp() override {
    pair_ = Pair::get(GetParam().segments);
    StackTest::SetUp();
  }
  // Reads and writes as the dice fall. When nothing moves any more while the clock stands still, it is over. Returns what has arrived.
  size_t move(TcpStream& from, TcpStream& to, unsigned seed) {
    std::mt19937 dice(seed);
    size_t sent = 0, got = 0;
    const std::string piece(50'000, 'p');
    for (int quiet = 0; got < kTotal && quiet < 4;) {
      const size_t before = got;
      test_clock->now_ns += dice() % 8 * kMs;
      const size_t most = std::min(kTotal - sent, dice() % 4 == 0 ? size_t{700} : piece.size());
      if (const long n = send_text(from, piece.substr(0, most)); n > 0) sent += static_cast<size_t>(n);
      for (unsigned polls = dice() % 4; polls > 0; polls--) (dice() % 2 != 0 ? pair_.client : pair_.server)->poll(test_now());
      if (dice() % 8 == 0) pair_.settle();
      for (unsigned reads = dice() % 3; reads > 0; reads--) {
        if (const long n = read_some(to, 1 + dice() % (seed % 2 != 0 ? 20'000 : 1500)); n > 0) got += static_cast<size_t>(n);
      }
      if (got != before) {
        quiet = 0;
        continue;
      }
      pair_.settle();
      while (const long n = read_some(to, 65'536)) {
        if (n < 0) break;
        got += static_cast<size_t>(n);
      }
      pair_.settle();
      quiet = got != before ? 0 : quiet + 1;
    }
    return got;
  }
};

TEST_P(SmallWindow, NoTimerStandsBetween) {
  for (unsigned seed = 1; seed <= 6; seed++) {
    SCOPED_TRACE(seed);
    auto [client, server] = connected();
    EXPECT_EQ(0, server->set_option(TcpOption::receive_buffer_bytes, GetParam().buffer));
    EXPECT_EQ(kTotal, move(*client, *server, seed));
    for (TcpStream* stream : {client, server}) {
      (void)stream->set_option(TcpOption::linger_s, 0);
      stream->release();
    }
    pair_.settle();
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Segments segments : {Segments::unchecked, Segments::checked, Segments::by_reference}) {
    for (const int buffer : {2304, 4096, 5000, 16384, 40'000}) all.push_back({segments, buffer});
  }
  return all;
}
std::string name_of(const testing::TestParamInfo<Case>& test) {
  constexpr const char* kNames[] = {"Unchecked", "Checked", "ByReference"};
  return kNames[static_cast<int>(test.param.segments)] + std::to_string(test.param.buffer);
}
INSTANTIATE_TEST_SUITE_P(, SmallWindow, testing::ValuesIn(cases()), name_of);

}  // namespace
