"""scripts/check-layers finds each kind of breach, and only breaches."""
import pathlib
import tempfile
import unittest

import facts
from facts import run

HEAD = "// A file of a test.\n"

GOOD = {
    "base/a.cc": HEAD + '#include "base/a.h"\n#include <cstdint>\n',
    "netstack/wires/port.cc": HEAD + '#include <rte_ethdev.h>\n#include "netstack/wire.h"\n',
    "netstack/glue.cc": HEAD + '#include "lwip/tcp.h"\n',
    "shim/files/file.cc": HEAD + '#include "netstack/stack.h"\n#include "zpoline/hook.h"\n',
    "zpoline/sites/scanner.cc": HEAD + "#include <capstone/capstone.h>\n",
    "base/config.cc": HEAD + 'const char* a = getenv("A");\n',
    "scripts/run": "#!/bin/sh\n# Runs.\n",
    "scripts/lib/a.py": '"""A module."""\n',
}

BAD = {
    "shim/a.cc": (HEAD + "#include <rte_mbuf.h>\n", "DPDK"),
    "netstack/a.cc": (HEAD + "#include <rte_mbuf.h>\n", "DPDK"),
    "netstack/wires/a.cc": (HEAD + '#include "lwip/tcp.h"\n', "lwIP"),
    "shim/b.cc": (HEAD + '#include "lwip/tcp.h"\n', "lwIP"),
    "shim/c.cc": (HEAD + '#include "netstack/arena_pool.h"\n', "shim/ may know"),
    "zpoline/a.cc": (HEAD + '#include "shim/files/file.h"\n', "zpoline/ may know"),
    "base/b.cc": (HEAD + '#include "zpoline/hook.h"\n', "base/ may know"),
    "apps/x/a.cc": (HEAD + '#include "shim/files/file.h"\n', "apps/ may know"),
    "zpoline/sites/rewriter.cc": (HEAD + "#include <capstone/capstone.h>\n", "disassembler"),
    "shim/d.cc": (HEAD + 'const char* a = getenv("A");\n', "environment"),
    "base/c.cc": ("int a;\n", "begin with a comment"),
    "scripts/a.py": ("import os\n", "begin with a comment"),
    "base/d.cc": (HEAD + "// TO" + "DO: later\n", "unfinished"),
    "base/e.cc": (HEAD + "\n" * 500, "over 500"),
    "tests/e.cc": (HEAD + "\n" * 700, "over 700"),
}


class CheckLayers(unittest.TestCase):
    def check(self, files):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return run(facts.facts.source / "scripts/check-layers", "--root", folder)

    def test_a_good_tree_passes(self):
        result = self.check(GOOD)
        self.assertEqual((result.returncode, result.stdout), (0, f"check-layers: {len(GOOD)} files, 0 breaches\n"))

    def test_each_breach_is_found(self):
        for name, (text, word) in BAD.items():
            with self.subTest(name=name):
                result = self.check({**GOOD, name: text})
                self.assertEqual(result.returncode, 1, result)
                self.assertIn(f"{len(GOOD) + 1} files, 1 breaches", result.stdout)
                self.assertRegex(result.stdout, f"^{name}:.*{word}")

    def test_an_empty_tree_does_not_pass(self):
        self.assertEqual(self.check({}).returncode, 1)


if __name__ == "__main__":
    facts.main()
