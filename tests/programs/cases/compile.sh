#!/bin/bash
# gcc, g++, make -j, ar, ld: vfork and exec of cc1, as and collect2, pipes between them, programs that run.
# hooked: gcc-12|x86_64-linux-gnu-gcc-12 cc1 cc1plus as|x86_64-linux-gnu-as ld|ld.bfd|x86_64-linux-gnu-ld.bfd make
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"

for i in $(seq 1 12); do
  cat >"part$i.c" <<END
#include <stdio.h>
#include <string.h>
int part$i(int x) { char text[64]; snprintf(text, sizeof text, "%d", x * $i); return (int)strlen(text) + x; }
END
done
{
  for i in $(seq 1 12); do echo "int part$i(int);"; done
  echo '#include <stdio.h>'
  echo 'int main(void) { int sum = 0;'
  for i in $(seq 1 12); do echo "sum += part$i(sum + $i);"; done
  echo 'printf("%d\n", sum); return 0; }'
} >main.c
printf 'objects := main.o $(patsubst %%,part%%.o,$(shell seq 1 12))\nall: program\nprogram: $(objects)\n\t$(CC) -o $@ $^\n%%.o: %%.c\n\t@$(CC) -O2 -c -o $@ $<\nsub:\n\t@+$(MAKE) --no-print-directory program\n' >Makefile
step make make -s -j4 program
step program ./program
step recursive make -s -j3 -B sub
step archive ar rcsD libparts.a part*.o
step archived gcc -o archived main.o libparts.a
step run ./archived
step pipe gcc -pipe -O1 -c -o piped.o main.c
step assembly gcc -S -O2 -o part1.s part1.c
step shared gcc -shared -fPIC -o libpart.so part1.c
step dependencies gcc -MM main.c
step lto gcc -flto=2 -O2 -o lto main.c part*.c
step lto-run ./lto

cat >sorted.cc <<'END'
#include <algorithm>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
int main() {
  std::vector<std::thread> threads;
  std::vector<long> sums(8);
  for (int t = 0; t < 8; t++) threads.emplace_back([&sums, t] { for (int i = 0; i < 100000; i++) sums[t] += i % (t + 1); });
  for (auto& thread : threads) thread.join();
  for (long sum : sums) std::cout << sum << '\n';
  try { throw std::runtime_error("thrown"); } catch (const std::exception& e) { std::cout << e.what() << '\n'; }
  std::map<std::string, int> words{{"b", 2}, {"a", 1}};
  for (auto& [word, n] : words) std::cout << word << n << '\n';
}
END
step g++ g++ -std=c++20 -O1 -pipe -o sorted sorted.cc
step sorted ./sorted
step error gcc -c -o broken.o - -x c <<<'int main( { }'
echo 'int main( { }' >broken.c
gcc -c broken.c 2>&1 | head -3
step missing gcc -o none missing.c 2>&1
make -s none 2>&1
echo "make $?"
