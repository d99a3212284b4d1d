"""What bench/run programs makes of its files, of what clients print and of a server's processes; one row from end to end."""
# SPDX-License-Identifier: BSD-3-Clause
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import facts

ROW = "redis c50"


class Files(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.path.insert(0, str(facts.facts.source / "bench/lib"))
        global catalogue, clients, programs, usage
        import catalogue
        import clients
        import programs
        import usage

    def test_every_row_has_a_name_of_its_own_and_a_client_that_can_be_read(self):
        rows = [row for program in catalogue.programs(["*"]) for row in program.rows]
        self.assertGreater(len(rows), 20)
        self.assertEqual(len({row.name for row in rows}), len(rows))
        for row in rows:
            self.assertIn(row.client.split()[0], clients.READERS, row.name)

    def test_no_place_is_left_unfilled(self):
        for program in catalogue.programs(["*"]):
            for row in program.rows:
                values = {**dict(row.values), "folder": "f", "port": 1, "beside_port": 2, "address": "a", "seconds": 1, "requests": 1}
                texts = [row.client, program.server, *program.beside, *program.prepare, *program.fill, *(text for _, text in program.files)]
                for text in texts:
                    self.assertNotRegex(catalogue.fill_in(text, values), r"@\w+@", program.name)

    def test_rows_are_chosen_by_patterns(self):
        chosen = catalogue.programs(["redis c1", "memcached*"])
        self.assertEqual([row.name for program in chosen for row in program.rows], ["memcached -t 2 c50", "memcached -t 4 c50", "redis c1"])

    def test_a_side_may_be_another_build(self):
        (redis,) = catalogue.programs([ROW])
        with tempfile.TemporaryDirectory() as folder:
            sides = [programs.Side(number, side, redis, folder, "/this") for number, side in enumerate(["native", "zpstack", "before=/that"])]
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
        self.assertEqual(clients.read(["pgbench"], "latency average = 0.2 ms\ntps = 16351.5 (without initial connection time)\n"), (16351.5, None, None))
        self.assertIsNone(clients.read(["pgbench"], "FATAL\n"))

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
