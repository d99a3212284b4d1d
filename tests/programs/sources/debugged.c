// Something to look at with debuggers: threads that wait in system calls, and a function that is called again and again.
// SPDX-License-Identifier: BSD-3-Clause
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int ends[2];

__attribute__((noinline)) int stop_here(int round) {
  __asm__ volatile("" : : : "memory");
  return round * 2;
}

static void* wait_for_input(void* unused) {
  char byte;
  return read(ends[0], &byte, 1) == 1 ? unused : NULL;
}

int main(int count, char** words) {
  pthread_t thread;
  if (pipe(ends) != 0 || pthread_create(&thread, NULL, wait_for_input, NULL) != 0) return 1;
  int sum = 0;
  for (int round = 0; round < 3; round++) {
    sum += stop_here(round);
    const ssize_t written = write(1, "round\n", 6);
    if (written != 6) return 1;
  }
  if (count > 1 && strcmp(words[1], "wait") == 0) {
    char line[16];
    const ssize_t length = read(0, line, sizeof line);
    printf("input %zd\n", length);
  }
  if (count > 1 && strcmp(words[1], "crash") == 0) *(volatile int*)16 = 1;
  const ssize_t written = write(ends[1], "x", 1);
  pthread_join(thread, NULL);
  printf("sum %d %zd\n", sum, written);
  return 4;
}
