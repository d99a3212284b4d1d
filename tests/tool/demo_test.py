"""What scripts/demo makes of rates: the rows of its table, its JSON, and the benchmark's output it reads them from."""
# SPDX-License-Identifier: BSD-3-Clause
import json
import pathlib
import sys
import tempfile
import unittest

import facts

CASES = [
    *(f"{command} {load}" for command in ("get", "set") for load in ("c1 P1", "c50 P1", "c512 P1", "c50 P16")),
    "kernel client get c1 P1", "kernel client get c50 P1", "kernel client get c50 P16",
]


class FakeSide:
    """A side of the comparison that has measured `rates` for each of its commands and loads."""

    def __init__(self, commands, loads, rates):
        self.commands = commands
        self.rates = {(command, clients, pipeline): rates for command in commands for clients, pipeline in loads}


class DemoTable(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.path.insert(0, str(facts.facts.source / "scripts/lib"))
        global demo, redis_pair
        import demo
        import redis_pair

    def rows(self):
        loads = [(clients, pipeline) for clients, pipeline, _ in demo.LOADS]
        over_default = [(clients, pipeline) for clients, pipeline, both in demo.LOADS if both]
        return demo.table_rows(FakeSide(("set", "get"), loads, [300.0, 100.0, 200.0]), FakeSide(("set", "get"), loads, [50.0, 100.0, 80.0]),
                               FakeSide(("get",), over_default, [100.0, 100.0, 120.0]))

    def test_rows_are_the_promised_cases(self):
        self.assertEqual([case for case, _, _ in self.rows()], CASES)

    def test_json_holds_medians_and_their_ratio(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "table.json")
            demo.write_json(self.rows(), file)
            table = json.loads(file.read_text())
        self.assertEqual([row["case"] for row in table["rows"]], CASES)
        self.assertEqual(table["rows"][0], {"case": "get c1 P1", "unit": "req/s", "zpstack": 200.0, "kernel_loopback": 80.0, "ratio_loopback": 2.5})

    def test_rates_are_read_from_the_benchmarks_csv(self):
        output = ('WARNING: Could not fetch server CONFIG\n"test","rps","avg_latency_ms"\n"SET","12345.60","0.1"\n"GET","99000","0.2"\n'
                  '"LRANGE_100 (first 100 elements)","5.5","0.2"\n')
        self.assertEqual(redis_pair.parse_rates(output), {"set": 12345.6, "get": 99000.0, "lrange_100": 5.5})
        self.assertEqual(redis_pair.parse_rates("Error: Connection refused\n"), {})


class Usage(unittest.TestCase):
    def test_help_does_nothing_else(self):
        result = facts.run(facts.facts.source / "scripts/demo", "--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("scripts/demo [--json FILE]", result.stdout)
        self.assertNotIn("install-deps:", result.stdout)


if __name__ == "__main__":
    facts.main()
