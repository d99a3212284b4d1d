// Answers of every length leave whole, however a program writes them: no delayed acknowledgement of the client's stands between two parts
// of one.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include <string>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr uint64_t kLateMs = 35;  // Linux acknowledges after 40 ms what it has nothing to say to
// Some may be late on a busy machine, many in a row on a very busy one: an answer that waits for its acknowledgement is late each time.
constexpr int kQuestions = 5, kMostQuestions = 30;
constexpr size_t kSizes[] = {1, 4000, 16'320, 20'000, 33'000, 100'000};
const std::string kQuestion(80, 'q'), kHeader(68, 'h');

void set(int fd, int option, int value) { EXPECT_EQ(setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value), 0) << strerror(errno); }

class File {
 public:
  explicit File(const std::string& text) : file_(tmpfile()) {
    EXPECT_EQ(fwrite(text.data(), 1, text.size(), file_), text.size());
    EXPECT_EQ(fflush(file_), 0);
  }
  ~File() { fclose(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  void send_to(int fd, size_t bytes) {
    off_t at = 0;
    while (at < static_cast<off_t>(bytes))
      ASSERT_GT(sendfile(fd, fileno(file_), &at, bytes - static_cast<size_t>(at)), 0) << strerror(errno);
  }

 private:
  FILE* file_;
};

void send_text(int fd, const std::string& text, int flags = 0) {
  EXPECT_EQ(send(fd, text.data(), text.size(), flags | MSG_NOSIGNAL), static_cast<ssize_t>(text.size())) << strerror(errno);
}

// How a program writes a header and a body.
enum class Style { corked, corked_file, corked_pieces, more, more_file, vector, no_delay };
constexpr Style kStyles[] = {Style::corked,    Style::corked_file, Style::corked_pieces, Style::more,
                             Style::more_file, Style::vector,      Style::no_delay};
constexpr const char* kStyleNames[] = {"corked", "corked_file", "corked_pieces", "more", "more_file", "vector", "no_delay"};

void answer(int fd, Style style, const std::string& body, File& file) {
  const bool corks = style == Style::corked || style == Style::corked_file || style == Style::corked_pieces;
  if (corks) set(fd, TCP_CORK, 1);
  if (style == Style::vector) {
    iovec parts[] = {{const_cast<char*>(kHeader.data()), kHeader.size()}, {const_cast<char*>(body.data()), body.size()}};
    EXPECT_EQ(writev(fd, parts, 2), static_cast<ssize_t>(kHeader.size() + body.size()));
    return;
  }
  send_text(fd, kHeader, style == Style::more || style == Style::more_file ? MSG_MORE : 0);
  if (style == Style::corked_file || style == Style::more_file) {
    file.send_to(fd, body.size());
  } else if (style == Style::corked_pieces) {
    for (size_t at = 0; at < body.size(); at += 5001) send_text(fd, body.substr(at, 5001));
  } else {
    send_text(fd, body);
  }
  if (corks) set(fd, TCP_CORK, 0);
}

using Answers = DiffTest;

TEST_F(Answers, LeaveWhole) {
  for (const Style style : kStyles) {
    SCOPED_TRACE(kStyleNames[static_cast<int>(style)]);
    Connection c = connect_pair(Way::accepted);
    if (style == Style::no_delay) set(c.mine, TCP_NODELAY, 1);
    for (const size_t size : kSizes) {
      const std::string body(size, 'b');
      File file(body);
      int late = 0, asked = 0;
      for (; asked < kQuestions || (late == asked && asked < kMostQuestions); asked++) {
        EXPECT_EQ(peer.send(c.theirs, kQuestion).result, static_cast<int64_t>(kQuestion.size()));
        EXPECT_EQ(read_all(c.mine, kQuestion.size()), kQuestion);
        const uint64_t start = now_ms();
        answer(c.mine, style, body, file);
        EXPECT_TRUE(peer.recv_all(c.theirs, kHeader.size() + size) == kHeader + body);
        if (now_ms() - start >= kLateMs) late++;
      }
      EXPECT_LT(late, asked) << "answers of " << size << " bytes";
    }
    peer.close(c.theirs);
    close(c.mine);
  }
}

}  // namespace
