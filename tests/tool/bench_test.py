"""What bench/run makes of its files, of what clients print and of a server's processes; one row of `programs` from end to end."""
# SPDX-License-Identifier: BSD-3-Clause
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import unittest

import facts

ROW = "redis c50"


class Files(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.path[:0] = [str(facts.facts.source / "bench/lib"), str(facts.facts.source / "scripts/lib")]
        global catalogue, clients, compare, figures, price, processes, programs, rows, times, usage
        import catalogue
        import clients
        import compare
        import figures
        import price
        import processes
        import programs
        import rows
        import times
        import usage

    def test_every_row_has_a_name_of_its_own_and_a_client_that_can_be_read(self):
        rows = [row for program in catalogue.programs(["*"]) for row in program.rows]
        self.assertGreater(len(rows), 20)
        self.assertEqual(len({row.name for row in rows}), len(rows))
        for row in rows:
            self.assertIn(row.client.split()[0], clients.READERS, row.name)

    def test_no_place_is_left_unfilled(self):
        for program in [*catalogue.programs(["*"]), *catalogue.programs(["*"], catalogue.CASES)]:
            for row in program.rows:
                values = {**dict(row.values), "where": program.where, "server": program.server, "bench": "b", "build": "b", "folder": "f", "port": 1, "beside_port": 2,
                          "address": "a", "seconds": 1, "exact_seconds": 1, "requests": 1}
                texts = [row.client, program.server, *program.beside, *program.prepare, *program.fill, *(text for _, text in program.files)]
                texts += [text for way in program.ways.values() for text in (way["server"], way.get("where", ""))]
                for text in texts:
                    self.assertNotRegex(catalogue.fill_in(text, values), r"@\w+@", program.name)

    def test_rows_are_chosen_by_patterns(self):
        chosen = catalogue.programs(["redis c1", "memcached*"])
        self.assertEqual([row.name for program in chosen for row in program.rows], ["memcached -t 2 c50", "memcached -t 4 c50", "redis c1"])

    def test_a_side_may_be_another_build(self):
        (redis,) = catalogue.programs([ROW])
        with tempfile.TemporaryDirectory() as folder:
            sides = [programs.side_of(number, side, redis, folder, "/this") for number, side in enumerate(["native", "zpstack", "before=/that"])]
        self.assertEqual([side.name for side in sides], ["native", "zpstack", "before"])
        self.assertEqual([side.environment("server").get("LD_PRELOAD") for side in sides], [None, "/this/libzpstack.so", "/that/libzpstack.so"])
        self.assertEqual([side.environment("client") for side in sides], [{}, {}, {}])
        self.assertEqual(len({side.port for side in sides}), 3)

    def test_figures_are_read_from_what_clients_print(self):
        wrk = "  Latency Distribution\n     50%   47.00us\n     75%    1.20ms\n     90%    2.00ms\n     99%    3.50ms\nRequests/sec:  16955.25\n"
        self.assertEqual(clients.read(["/usr/bin/wrk"], wrk), (16955.25, 47, 3500))
        self.assertIsNone(clients.read(["wrk"], wrk + "  Socket errors: connect 0, read 3, write 0, timeout 0\n"))
        redis = '"test","rps","avg_latency_ms","min","p50","p95","p99","max"\n"GET","30434.78","0.031","0.016","0.031","0.055","0.071","1.2"\n'
        self.assertEqual(clients.read(["redis-benchmark"], redis), (30434.78, 31, 71))
        report = ("throughput summary: 5.50 requests per second\n  latency summary (msec):\n          avg       min       p50       p95       p99       max\n"
                  "        0.476     0.056     0.471     0.703     0.863     4.447\n")
        self.assertEqual(clients.read(["redis-benchmark"], report), (5.5, 471, 863))
        self.assertEqual(clients.read(["pgbench"], "latency average = 0.2 ms\ntps = 16351.5 (without initial connection time)\n"), (16351.5, None, None))
        self.assertIsNone(clients.read(["pgbench"], "FATAL\n"))

    def test_distributions_are_read_from_what_clients_print(self):
        redis = ("Latency by percentile distribution:\n0.000% <= 0.063 milliseconds (cumulative count 1)\n50.000% <= 0.471 milliseconds (cumulative count 9)\n"
                 "Cumulative distribution of latencies:\n0.015% <= 0.103 milliseconds (cumulative count 3)\n")
        self.assertEqual(clients.distribution(["redis-benchmark"], redis), ((0, 63), (50, 471)))
        self.assertEqual(clients.distribution(["wrk"], "percentile 99.9 12.5\npercentile 100 20.0\n"), ((99.9, 12.5), (100, 20)))
        self.assertEqual(clients.distribution(["bench_load_client"], '{"rate": 2.0, "latency_us": [[50, 1.5]]}\n'), ((50, 1.5),))
        self.assertEqual(clients.distribution(["pgbench"], "tps = 1"), ())

    def test_rows_have_the_shape_and_ratios_of_medians(self):
        ours = [figures.Figures(rate, 10, 20, 2, 0.5, 3, 0.25) for rate in (100, 300, 200)]
        kernels = [figures.Figures(rate) for rate in (40, 50, 60)]
        (row,) = rows.shaped("get c50 P1", "requests/s", {"memif": ours, "loopback": kernels, "unix": kernels})
        self.assertEqual(row, {
            "case": "get c50 P1", "wire": "memif", "unit": "requests/s", "zpstack": 200, "min": 100, "max": 300, "kernel_loopback": 50, "kernel_veth": None,
            "ratio_loopback": 4, "ratio_veth": None, "p50_us": 10, "p99_us": 20, "cpu_s": 5e-6, "switches": 0.75, "kernel_unix": 50, "ratio_unix": 4})

    def test_loss_to_the_hook_is_the_median_of_the_rounds(self):
        rates = lambda *all_rates: [figures.Figures(rate) for rate in all_rates]  # noqa: E731
        self.assertEqual(price.lost(rates(90, 50, 99), rates(100, 100, 100)), 10)

    def test_samples_belong_to_the_call_that_they_were_taken_in(self):
        kernel, ours, libc = "[kernel.kallsyms]", "/b/libzpstack-stack.so", "/lib/libc.so.6"
        stacks = {
            "kernel: sends": [("tcp_v4_rcv", kernel), ("packet_sendmsg", kernel), ("__sys_sendmmsg", kernel), ("submit(int, unsigned int)", ours)],
            "kernel: receives": [("_copy_to_iter", kernel), ("__x64_sys_recvmsg", kernel), ("fetch", ours)],
            "kernel: reads a file": [("filemap_read", kernel), ("do_preadv", kernel), ("take", ours)],
            "kernel: else": [("asm_sysvec_apic_timer_interrupt", kernel), ("tcp_output", ours)],
            "zpstack": [("__vdso_clock_gettime", "[vdso]"), ("poll", ours), ("main", "/usr/bin/server")],
            "program, libc": [("memcpy", libc), ("poll", ours)],
        }
        one = {stage: "\n".join(f"\t{0xffff + at:16x} {function} ({where})" for at, (function, where) in enumerate(stack)) for stage, stack in stacks.items()}
        text = "".join(f"  7 \n{lines}\n\n" for lines in [*one.values(), one["zpstack"]])
        self.assertEqual(times.samples(text), {**dict.fromkeys(stacks, 1), "zpstack": 2})

    def test_a_pair_of_ones_own_is_cut_at_the_colons(self):
        self.assertEqual(compare.split(["server", "-p", "1", "::", "client", "::"]), (["server", "-p", "1"], ["client", "::"]))
        for words in (["server"], ["::", "client"], ["server", "::"]):
            self.assertRaises(processes.Failure, compare.split, words)

    def test_a_program_of_ones_own_may_listen_at_either_family(self):
        sockets = [socket.create_server((address, 0), family=family) for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))]
        ports = [listener.getsockname()[1] for listener in sockets]
        self.assertLessEqual(set(ports), set(compare.listening_ports(os.getpid())))
        for listener in sockets:
            listener.close()

    def test_usage_counts_children_and_those_that_have_ended(self):
        work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
        with subprocess.Popen(["sh", "-c", f"({work}); echo; read line; exit 0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
            shell.stdout.readline()
            used = usage.of(shell.pid)
            self.assertGreaterEqual(used.cpu, 0.01)
            self.assertEqual({process for process, _ in used.switches}, {shell.pid})
            shell.stdin.close()


class EndToEnd(unittest.TestCase):
    def test_one_row(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "rows.json")
            result = facts.run(facts.facts.source / "bench/run", "programs", "--build", facts.facts.build, "--rows", ROW, "--rounds", "1",
                               "--seconds", "1", "--places", "C", "--json", file)
            self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
            (row,) = json.loads(file.read_text())["rows"]
        self.assertEqual((row["row"], row["place"], list(row["sides"])), (ROW, "C", ["native", "zpstack"]), row)
        for figures in row["sides"].values():
            for figure in ("rate", "min", "max", "p50_us", "p99_us", "cpu_us"):
                self.assertGreater(figures[figure], 0, figure)
        self.assertAlmostEqual(row["ratios"]["zpstack"], row["sides"]["zpstack"]["rate"] / row["sides"]["native"]["rate"], places=2)


if __name__ == "__main__":
    facts.main()
