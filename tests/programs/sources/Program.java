// Exercises a Java machine: threads, sockets, processes, files, NIO, collectors, compiled code, deliberate faults.
// SPDX-License-Identifier: BSD-3-Clause
import java.io.*;
import java.net.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;

public class Program {
  static void threads() throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(16);
    List<Future<Long>> sums = new ArrayList<>();
    for (int t = 0; t < 64; t++) {
      final int seed = t;
      sums.add(pool.submit(() -> { long sum = 0; for (int i = 0; i < 200000; i++) sum = sum * 31 + i + seed; return sum; }));
    }
    long total = 0;
    for (Future<Long> sum : sums) total += sum.get();
    pool.shutdown();
    System.out.println("threads " + total);
    AtomicInteger counter = new AtomicInteger();
    for (int round = 0; round < 20; round++) {
      Thread[] many = new Thread[50];
      for (int i = 0; i < many.length; i++) (many[i] = new Thread(counter::incrementAndGet)).start();
      for (Thread thread : many) thread.join();
    }
    System.out.println("short threads " + counter);
    Thread sleeper = new Thread(() -> { try { Thread.sleep(60000); } catch (InterruptedException e) { System.out.println("interrupted"); } });
    sleeper.start();
    sleeper.interrupt();
    sleeper.join();
  }

  static void sockets() throws Exception {
    try (ServerSocket listener = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"))) {
      Thread server = new Thread(() -> {
        try {
          for (int i = 0; i < 20; i++) {
            Socket socket = listener.accept();
            new Thread(() -> { try (socket) { socket.getInputStream().transferTo(socket.getOutputStream()); } catch (IOException e) { System.out.println(e); } }).start();
          }
        } catch (IOException e) { System.out.println(e); }
      });
      server.start();
      long echoed = 0;
      for (int i = 0; i < 20; i++) {
        try (Socket socket = new Socket("127.0.0.1", listener.getLocalPort())) {
          socket.getOutputStream().write(new byte[1000 * i]);
          socket.shutdownOutput();
          echoed += socket.getInputStream().readAllBytes().length;
        }
      }
      server.join();
      System.out.println("sockets " + echoed);
    }
    try (ServerSocketChannel listener = ServerSocketChannel.open(); Selector selector = Selector.open()) {
      listener.bind(new InetSocketAddress("127.0.0.1", 0)).configureBlocking(false);
      listener.register(selector, SelectionKey.OP_ACCEPT);
      SocketChannel client = SocketChannel.open(listener.getLocalAddress());
      client.write(ByteBuffer.wrap("through a selector".getBytes()));
      client.shutdownOutput();
      String text = null;
      while (text == null) {
        selector.select();
        for (Iterator<SelectionKey> keys = selector.selectedKeys().iterator(); keys.hasNext();) {
          SelectionKey key = keys.next();
          keys.remove();
          if (key.isAcceptable()) {
            listener.accept().configureBlocking(false).register(selector, SelectionKey.OP_READ, new StringBuilder());
          } else {
            ByteBuffer buffer = ByteBuffer.allocate(5);
            int count = ((SocketChannel) key.channel()).read(buffer);
            if (count < 0) { text = key.attachment().toString(); key.channel().close(); }
            else ((StringBuilder) key.attachment()).append(StandardCharsets.UTF_8.decode(buffer.flip()));
          }
        }
      }
      client.close();
      System.out.println(text);
    }
  }

  static void processes() throws Exception {
    for (int i = 0; i < 5; i++) {
      Process process = new ProcessBuilder("sh", "-c", "read line; echo got $line; exit " + i).start();
      process.getOutputStream().write(("line " + i + "\n").getBytes());
      process.getOutputStream().close();
      System.out.print(new String(process.getInputStream().readAllBytes()));
      System.out.println(process.waitFor());
    }
    Process sleeper = new ProcessBuilder("sleep", "60").start();
    sleeper.destroy();
    System.out.println("destroyed " + sleeper.waitFor());
    try { new ProcessBuilder("/nonexistent").start(); } catch (IOException e) { System.out.println("no such program"); }
    ProcessBuilder pipe = new ProcessBuilder("sort", "-r").redirectErrorStream(true);
    Process sort = pipe.start();
    sort.getOutputStream().write("a\nc\nb\n".getBytes());
    sort.getOutputStream().close();
    System.out.print(new String(sort.getInputStream().readAllBytes()));
  }

  static class Node { Node next; int[] data = new int[4]; }

  static void machine() throws Exception {
    int caught = 0;
    Node none = null;
    for (int i = 0; i < 200000; i++) {  // compiled code leaves null checks to SIGSEGV
      try { caught += (i % 1000 == 0 ? none : new Node()).data.length == 4 ? 0 : 1; } catch (NullPointerException e) { caught++; }
    }
    System.out.println("null pointers " + caught);
    try { System.out.println(1 / (args(0))); } catch (ArithmeticException e) { System.out.println(e.getMessage()); }
    System.out.println("depth " + (depth(0) > 1000));
    Node list = null;
    for (int i = 0; i < 3000000; i++) { Node node = new Node(); node.next = i % 100 == 0 ? null : list; list = node; }
    System.gc();
    Path file = Files.createTempFile("java", "x");
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
      var map = channel.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
      for (int i = 0; i < 1 << 20; i++) map.put(i, (byte) i);
      map.force();
    }
    System.out.println("mapped " + Files.size(file) + " " + Arrays.hashCode(Files.readAllBytes(file)));
    Files.delete(file);
  }

  static int args(int n) { return n; }
  static int depth(int n) { try { return depth(n + 1); } catch (StackOverflowError e) { return n; } }

  public static void main(String[] arguments) throws Exception {
    threads();
    sockets();
    processes();
    machine();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("shutdown hook")));
    System.exit(5);
  }
}
