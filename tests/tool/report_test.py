"""The page of bench/report in a browser, made up and as of the last run: no script error, every plot has marks of some size, the table can be sorted
and filtered; README's table."""
# SPDX-License-Identifier: BSD-3-Clause
import html
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import facts

BROWSER = ("chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom")
PLOTS = ["speedup", "throughput", "latency", "processor", "stages", "price", "bound"]
# Before the page's own script: hears of every error. Behind it: looks at the page and uses it, and leaves what it found in the page.
LISTENER = "<script>window.heard = []; window.addEventListener('error', (event) => window.heard.push(String(event.message)));</script>"
PROBE = """<pre id="found"></pre><script>
const cells = (column) => [...document.querySelectorAll('#rows tbody tr')].map((row) => row.cells[column].textContent);
const found = {plots: {}, outside: performance.getEntriesByType('resource').map((one) => one.name)};
for (const plot of document.querySelectorAll('section.plot')) {
  const boxes = [...plot.querySelectorAll('[id*="-mark-"]')].map((mark) => mark.getBBox());
  found.plots[plot.id] = {marks: boxes.length, empty: boxes.filter((box) => box.width <= 0 && box.height <= 0).length, width: plot.querySelector('svg').clientWidth};
}
found.before = cells(0);
document.querySelectorAll('#rows th')[2].click();
found.sorted = cells(2).map((text) => Number(text.replaceAll(',', '')));
const filter = document.querySelector('#filter');
filter.value = 'hello default';
filter.dispatchEvent(new Event('input'));
found.shown = [...document.querySelectorAll('#rows tbody tr')].filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
found.heard = window.heard;
document.querySelector('#found').textContent = JSON.stringify(found);
</script>"""


def made_up():
    """A run's JSON that has something for every plot."""
    import figures
    import rows
    told = {"host": {"machine": "a <machine>", "rounds": 3, "topology": {"processors": 2, "server_on": [0], "client_on": [1]}}, "rows": [], "sides": []}
    for place, case in enumerate(("get c1 P1", "get c50 P1", "hello c1", "hello c50", "echo 64 c1", "scale c100", "100k c50"), 1):
        latency = ((50, 10.0 * place), (90, 15.0 * place), (99, 40.0 * place), (99.9, 90.0 * place))
        measured = {side: [figures.Figures(1000 * place * factor, 10, 20, 3, 0.5, 2, 0.5, latency) for factor in (speed, 1.1 * speed)]
                    for side, speed in (("memif", 8), ("default", 0.9 + 0.1 * place), ("loopback", 1), ("veth", 0.9))}
        told["rows"] += rows.shaped(case, "requests/s", measured)
        told["sides"] += [rows.side(case, side, "requests/s", one) for side, one in measured.items()]
    told["rows"].append(rows.row("stages get c50", "memif", "instructions", zpstack=300, min=300, max=300, stages={"program": 200, "lwIP": 100}, stages_loopback={"program": 180}))
    told["rows"] += [rows.row(f"price {hook} c50", "memif", "requests/s", zpstack=10, min=9, max=11, loss_percent=loss) for hook, loss in (("symbols", 0), ("zpoline", 1), ("sud", 80))]
    told["rows"].append(rows.row("get c50 P16", "memif", "requests/s", zpstack=10, min=9, max=11, kernel_loopback=5, bound=20))
    told["rows"].append({"row": "apache c30", "place": "A", "failed": "wrk told no rate"})
    return told


def look_at(text, folder):
    """What the browser found in a page."""
    page = pathlib.Path(folder, "looked-at.html")
    page.write_text(text.replace("<head>", "<head>" + LISTENER).replace("</body>", PROBE + "</body>"))
    done = subprocess.run([*BROWSER, f"--user-data-dir={folder}/browser", page.as_uri()], capture_output=True, text=True, timeout=90)
    told = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told and told[1], done.stderr[-2000:]
    return json.loads(html.unescape(told[1]))


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.path.insert(0, str(facts.facts.source / "bench/lib"))
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.told = made_up()
        file, page = pathlib.Path(cls.folder.name, "run.json"), pathlib.Path(cls.folder.name, "run.html")
        file.write_text(json.dumps(cls.told))
        done = facts.run(facts.facts.source / "bench/report", file)
        assert done.returncode == 0, done.stderr
        cls.text = page.read_text()
        cls.found = look_at(cls.text, cls.folder.name)

    def test_no_script_error(self):
        self.assertEqual(self.found["heard"], [])

    def test_nothing_is_fetched(self):
        self.assertEqual(self.found["outside"], [])
        self.assertNotRegex(self.text, r"""(src|href)=["'](?!#)""")

    def test_every_plot_has_data(self):
        self.assertEqual(list(self.found["plots"]), PLOTS)
        self.check_plots(self.found)

    def test_the_page_of_the_last_run(self):
        found = look_at((facts.facts.source / "docs/report.html").read_text(), self.folder.name)
        self.assertEqual((found["heard"], found["outside"]), ([], []))
        self.assertTrue(found["plots"])
        self.check_plots(found)

    def check_plots(self, found):
        for name, plot in found["plots"].items():
            self.assertGreater(plot["marks"], 1, name)
            self.assertEqual(plot["empty"], 0, name)
            self.assertGreater(plot["width"], 300, name)

    def test_the_table_has_every_row_and_can_be_used(self):
        self.assertEqual(self.found["before"], [row["case"] for row in self.told["rows"] if "failed" not in row])
        self.assertEqual(self.found["sorted"], sorted(self.found["sorted"], reverse=True))
        self.assertEqual(set(self.found["shown"]), {"hello c1", "hello c50"})

    def test_plots_without_data_have_no_place(self):
        file = pathlib.Path(self.folder.name, "little.json")
        file.write_text(json.dumps({"host": {}, "rows": self.told["rows"][:1]}))
        self.assertEqual(facts.run(facts.facts.source / "bench/report", file).returncode, 0)
        self.assertEqual(re.findall(r'<section id="(\w+)" class="plot">', file.with_suffix(".html").read_text()), ["speedup"])


class Readme(unittest.TestCase):
    def test_the_block_is_exchanged_and_nothing_else(self):
        sys.path.insert(0, str(facts.facts.source / "bench/lib"))
        import readme
        told = made_up()
        page = readme.filled(f"above\n{readme.BEGIN}old\n{readme.END}below\n", told)
        self.assertTrue(page.startswith(f"above\n{readme.BEGIN}") and page.endswith(f"{readme.END}below\n"))
        self.assertNotIn("old", page)
        self.assertIn("| Redis GET, 1 client | 8,400 | 1,050 | 8.0 | 8.9 |", page)
        self.assertNotIn("stages", page)
        self.assertRaises(ValueError, readme.filled, "no marks", told)


class Stages(unittest.TestCase):
    def test_callgrinds_format(self):
        sys.path.insert(0, str(facts.facts.source / "bench/lib"))
        import callgrind
        text = ("events: Ir\nob=(1) /lib/libzpstack-stack.so\nfl=(1) /x/.deps/lwip/src/core/tcp_in.c\nfn=(1) tcp_input\n10 5\n+3 7\n"
                "cob=(2) /bin/program\ncfi=(2) ???\ncfn=(2) main\ncalls=1 0\n* 1000\n-1 2\nob=(2)\nfl=(2)\nfn=(2)\n0 30\nfn=(3) memcpy\n0 4\n")
        self.assertEqual(callgrind.stages(text), {"copying": 4, "lwIP": 14, "program": 30})


if __name__ == "__main__":
    facts.main()
