/* A server for static programs: a thread of its own, detached, for each connection, which gives back what it gets.
 * SPDX-License-Identifier: BSD-3-Clause
 * Usage: static_server port */
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static __thread int connections_of_this_thread;

static void* serve(void* argument) {
  const int fd = (int)(intptr_t)argument;
  char buffer[16384];
  long got;
  if (++connections_of_this_thread != 1) abort(); /* it has another thread's variables */
  while ((got = read(fd, buffer, sizeof buffer)) > 0) {
    for (long sent = 0; sent < got;) {
      const long written = write(fd, buffer + sent, (size_t)(got - sent));
      if (written < 0) return NULL;
      sent += written;
    }
  }
  close(fd);
  return NULL;
}

int main(int count, char** arguments) {
  const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(count > 1 ? arguments[1] : "0"))};
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  if (bind(listener, (const struct sockaddr*)&any, sizeof any) != 0 || listen(listener, 128) != 0) return 1;
  puts("ready");
  fflush(stdout);
  for (;;) {
    pthread_t thread;
    const int fd = accept(listener, NULL, NULL);
    if (fd >= 0 && pthread_create(&thread, &detached, serve, (void*)(intptr_t)fd) != 0) return 2;
  }
}
