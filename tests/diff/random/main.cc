// Runs random sequences of socket operations and tells what every one of them said.
// SPDX-License-Identifier: BSD-3-Clause
//
// Usage: diff_random --agent CONTROL     the other end of the wire (agent.h)
//        diff_random --rows              the rows of docs/differences.md that are left out
//        diff_random --serve             reads commands from standard input; the agent's socket is $ZPS_TEST_CONTROL
//
// Commands, and their answers, which end with a line "END":
//   mass SEED FIRST COUNT   a line per world: its number, the number of its operations, the digest of its trace
//   trace WORLD             the trace that a world of the last `mass` left
//   show SEED WORLD         the sequence of a world
//   run LINES               followed by so many lines of a sequence: the trace
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <string>
#include <vector>

#include "tests/diff/random/agent.h"
#include "tests/diff/random/arrival.h"
#include "tests/diff/random/exclusions.h"
#include "tests/diff/random/generator.h"
#include "tests/diff/random/world.h"

using namespace random_sequences;

namespace {

struct Sides {
  Agent agent;
  Barrier barrier;
};

// `told`: every line is printed as soon as it is there, so that a hang can be located.
std::string trace_of(Sides& sides, const std::vector<Operation>& sequence, bool told) {
  World world(sides.agent, sides.barrier);
  size_t printed = 0;
  const auto tell = [&] {
    if (!told) return;
    fputs(world.trace().c_str() + printed, stdout);
    fflush(stdout);
    printed = world.trace().size();
  };
  for (const Operation& operation : sequence) {
    world.run(operation);
    tell();
  }
  world.finish();
  tell();
  return world.trace();
}

std::map<uint64_t, std::string> traces;  // of the last mass

void run_mass(Sides& sides, uint64_t seed, uint64_t first, uint64_t count) {
  traces.clear();
  for (uint64_t number = first; number < first + count; number++) {
    const std::vector<Operation> sequence = generate(seed, number);
    const std::string& trace = traces[number] = trace_of(sides, sequence, false);
    printf("%llu %zu %08x\n", static_cast<unsigned long long>(number), sequence.size(),
           digest(trace.data(), static_cast<unsigned>(trace.size())));
    fflush(stdout);
  }
}

std::vector<Operation> read_sequence(size_t lines) {
  std::vector<Operation> sequence;
  char line[400];
  while (lines-- > 0 && fgets(line, sizeof line, stdin) != nullptr) {
    line[strcspn(line, "\n")] = 0;
    Operation operation;
    if (from_text(line, &operation)) sequence.push_back(operation);
    else printf("cannot read: %s\n", line);
  }
  return sequence;
}

void serve(Sides& sides) {
  char line[400];
  while (fgets(line, sizeof line, stdin) != nullptr) {
    unsigned long long a, b, c;
    if (sscanf(line, "mass %llu %llu %llu", &a, &b, &c) == 3) {
      run_mass(sides, a, b, c);
    } else if (sscanf(line, "trace %llu", &a) == 1) {
      fputs(traces[a].c_str(), stdout);
    } else if (sscanf(line, "show %llu %llu", &a, &b) == 2) {
      for (const Operation& operation : generate(a, b)) puts(to_text(operation).c_str());
    } else if (sscanf(line, "run %llu", &a) == 1) {
      (void)trace_of(sides, read_sequence(a), true);
    }
    puts("END");
    fflush(stdout);
  }
}

// The wire and its addresses are there from the first listen() on.
void make_stack() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || listen(fd, 1) != 0) perror("listen");
  close(fd);
}

void count_signal(int number) {
  volatile int& count = number == SIGALRM ? sigalrm_count : sigpipe_count;
  count = count + 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "--agent") == 0) serve_as_agent(argv[2]);
  if (argc == 2 && strcmp(argv[1], "--rows") == 0) {
    for (const char* row : kExclusions) puts(row);
    for (int i = 0; i < kOptionCount; i++) {
      if (kOptions[i].excluded != nullptr) puts(kOptions[i].excluded);
    }
    return 0;
  }
  const char* control = getenv("ZPS_TEST_CONTROL");
  if (argc != 2 || strcmp(argv[1], "--serve") != 0 || control == nullptr) {
    fprintf(stderr, "usage: %s --agent CONTROL | ZPS_TEST_CONTROL=... %s --serve\n", argv[0], argv[0]);
    return 2;
  }
  struct sigaction action {};
  action.sa_handler = count_signal;
  sigaction(SIGPIPE, &action, nullptr);
  sigaction(SIGALRM, &action, nullptr);
  make_stack();
  Agent agent(control);
  Sides sides{agent, Barrier(agent)};
  serve(sides);
  return 0;
}
