"""Every table of bench/run in a tiny form: its rows are there and have the shape; a pair of one's own; another stack's server on the wire."""
# SPDX-License-Identifier: BSD-3-Clause
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import facts

# A case of each table, and whether its client tells the times to the answer.
CASES = {
    "redis": ("get c50 P1", True), "nginx": ("hello c50", True), "echo": ("echo 64 c50", True), "bulk": ("bulk 1 up", False), "connrate": ("connrate c50", True),
    "scale": ("scale c10", True), "idle": ("idle c10", False), "memory": ("memory c0", False),
}
WIRES = "memif,default,loopback,veth,unix"
TINY = ("--quick", "--rounds", "1", "--seconds", "0.2")


def bench(*words):
    command = [facts.facts.source / "bench/run", *words]
    return subprocess.run([str(word) for word in command], env=facts.clean_environment(), capture_output=True, text=True, timeout=200)


class Tables(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.path[:0] = [str(facts.facts.source / "bench/lib"), str(facts.facts.source / "scripts/lib")]
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.file = pathlib.Path(cls.folder.name, "all.json")
        cls.told, cls.output, cls.statuses = {"rows": [], "sides": [], "host": {}}, "", []
        cls.measure("hook", "startup", *CASES, "loss", "price", rows=[case for case, _ in CASES.values()] + ["loss 1% echo 64 c50", "price c1"])
        cls.measure("bound", "stages", rows=["get c50 P1"])

    @classmethod
    def measure(cls, *names, rows):
        done = bench(*names, *TINY, "--build", facts.facts.build, "--wires", WIRES, "--rows", ",".join(rows), "--json", cls.file)
        cls.output += done.stdout + done.stderr
        cls.statuses.append(done.returncode)
        if done.returncode == 0:
            told = json.loads(cls.file.read_text())
            cls.told = {"host": cls.told["host"] or told["host"], "rows": cls.told["rows"] + told["rows"], "sides": cls.told["sides"] + told["sides"]}

    def rows(self, table, **wanted):
        found = [row for row in self.told["rows"] if row["table"] == table and all(row[key] == value for key, value in wanted.items())]
        self.assertTrue(found, f"no row of {table} {wanted}\n{self.output}")
        return found

    def test_it_ends_well(self):
        self.assertEqual(self.statuses, [0, 0], self.output)

    def test_every_row_has_the_shape(self):
        import rows
        for row in self.told["rows"]:
            self.assertLessEqual(set(rows.KEYS), row.keys(), row)
            self.assertIn(row["wire"], ("memif", "default", "host"))
            self.assertLessEqual(row["min"], row["zpstack"], row)
            self.assertLessEqual(row["zpstack"], row["max"], row)

    def test_every_table_compares_both_wires_with_the_kernel(self):
        for table, (case, times) in CASES.items():
            for wire in ("memif", "default"):
                (row,) = self.rows(table, case=case, wire=wire)
                for kernel in ("loopback", "veth"):
                    self.assertIsNotNone(row[f"kernel_{kernel}"], row)
                    if row[f"kernel_{kernel}"]:  # an idle server of the kernel's takes nothing
                        self.assertAlmostEqual(row[f"ratio_{kernel}"], row["zpstack"] / row[f"kernel_{kernel}"], delta=0.01 * row[f"ratio_{kernel}"] + 0.001)
                self.assertEqual(row["p50_us"] is not None and 0 < row["p50_us"] <= row["p99_us"], times, row)

    def test_tables_of_one_wire_or_none(self):
        (redis,) = self.rows("redis", wire="default")
        self.assertGreater(redis["kernel_unix"], 0)
        if "loss: skipped" not in self.output:
            (lossy,) = self.rows("loss", wire="default")
            self.assertGreater(lossy["kernel_veth"], 0)
        self.assertEqual({row["case"] for row in self.rows("price", wire="memif")}, {f"price {hook} c1" for hook in ("symbols", "zpoline", "nopage0", "sud", "int3", "ptrace")})
        self.assertGreater(self.rows("price", case="price ptrace c1")[0]["loss_percent"], 50)
        (bound,) = self.rows("bound", wire="memif")
        self.assertGreater(bound["bound"], bound["zpstack"])
        for row in (bound, self.rows("price", case="price zpoline c1")[0]):
            self.assertGreater(row["kernel_loopback"], 0)
            self.assertGreater(row["kernel_veth"], 0)
        (stages,) = self.rows("stages", wire="memif")
        self.assertGreater(stages["stages"]["lwIP"], 0)
        self.assertGreater(stages["stages"]["hook"], 0)
        self.assertEqual(stages["zpstack"], sum(stages["stages"].values()))
        self.assertGreater(stages["kernel_calls_loopback"]["read"], 0.5)
        self.assertIn("native getpid", [row["case"] for row in self.rows("hook", wire="host", unit="ns")])
        self.assertIn("added to true", [row["case"] for row in self.rows("startup", wire="host", unit="ms")])

    def test_sides_tell_distributions_and_both_prices(self):
        for side in ("memif", "default", "loopback", "veth"):
            (told,) = [one for one in self.told["sides"] if one["case"] == "echo 64 c50" and one["side"] == side]
            times = [microseconds for _, microseconds in told["latency_us"]]
            self.assertGreater(len(times), 5)
            self.assertEqual(times, sorted(times))
            self.assertEqual({*told["server"], *told["client"]}, {"cpu_us", "switches"})

    def test_host_says_what_the_figures_depend_on(self):
        host = self.told["host"]
        for key in ("machine", "kernel", "distribution", "topology", "versions", "settings", "zpstack", "rounds", "seconds", "command"):
            self.assertTrue(host.get(key), key)
        self.assertTrue(host["versions"]["redis-server"])
        for what in ("versions", "settings"):
            self.assertRegex(self.output, rf"(?m)^{what}: \w")
        self.assertIn("price", host["took_s"])
        self.assertEqual(host["rounds"], 1)


class Others(unittest.TestCase):
    def test_a_pair_of_ones_own(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "rows.json")
            result = bench("compare", "--rounds", "1", "--build", facts.facts.build, "--wires", "default,loopback", "--figure", "rate\": ([0-9.]+)", "--json", file, "--",
                           facts.facts.build / "bench_load_server", "7000", "::", facts.facts.build / "bench_load_client", "echo", "@address@", "@port@", "1", "64", "0.1")
            self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
            (row,) = json.loads(file.read_text())["rows"]
        self.assertEqual((row["case"], row["wire"]), ("compare", "default"))
        self.assertGreater(row["ratio_loopback"], 0)
        self.assertIn("cannot make fair", result.stdout)

    def test_another_stacks_server_on_the_wire(self):
        library = facts.facts.build / "libzpstack.so"
        peer = f"env LD_PRELOAD={library} ZPS_WIRE=memif:@socket@,role=server ZPS_IP=@address@/24 @build@/bench_load_server @port@"
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "rows.json")
            result = bench("echo", *TINY, "--build", facts.facts.build, "--rows", "echo 64 c50", "--wires", "memif", "--peer", peer, "--json", file)
            self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
            (row,) = json.loads(file.read_text())["rows"]
        self.assertGreater(row["peer"], 0)
        self.assertAlmostEqual(row["ratio_peer"], row["zpstack"] / row["peer"], places=2)


if __name__ == "__main__":
    facts.main()
