"""scripts/check-layers finds each kind of breach, and only breaches."""
# SPDX-License-Identifier: BSD-3-Clause
import pathlib
import tempfile
import unittest

import facts
from facts import run

LICENCE = "SPDX-License-Identifier: BSD-3-Clause\n"
HEAD = "// A file of a test.\n// " + LICENCE

GOOD = {
    "base/a.cc": HEAD + '#include "base/a.h"\n#include <cstdint>\n',
    "netstack/wires/port.cc": HEAD + '#include <rte_ethdev.h>\n#include "netstack/wire.h"\n',
    "netstack/glue.cc": HEAD + '#include "lwip/tcp.h"\n',
    "netstack/stack_image.cc": HEAD + '#include "netstack/tcp/tcp.h"\n#include "netstack/lwip/core.h"\n#include "netstack/wires/memif/rings.h"\n',
    "netstack/tcp/stream.cc": HEAD + '#include "base/list.h"\n#include "netstack/lwip/core.h"\n#include "netstack/stack.h"\n#include "netstack/tcp/tcp.h"\n',
    "netstack/lwip/core.cc": HEAD + '#include "netstack/lwip/port/hooks.h"\n#include "netstack/wire.h"\n',
    "netstack/wires/open_wire.cc": HEAD + '#include "netstack/wires/kernel/veth.h"\n#include "netstack/wires/memif/memif.h"\n',
    "netstack/wires/kernel/veth.cc": HEAD + '#include "netstack/wires/eal.h"\n#include "netstack/make_stack.h"\n',
    "shim/files/file.cc": HEAD + '#include "netstack/stack.h"\n#include "zpoline/hook.h"\n',
    "zpoline/sites/scanner.cc": HEAD + "#include <capstone/capstone.h>\n",
    "base/config.cc": HEAD + 'const char* a = getenv("A");\n',
    "base/essay.h": "// The first line,\n// and its end.\n// " + LICENCE + "//\n// An essay.\n",
    "base/block.h": "/* The first line.\n * " + LICENCE + " *\n * An essay. */\n",
    "zpoline/entry/entry.S": "/* The first line. */\n/* " + LICENCE.strip() + " */\n",
    "tests/servers/server.go": HEAD + "package main\n",
    "scripts/run": "#!/bin/sh\n# Runs.\n# " + LICENCE,
    "scripts/lib/a.py": '"""A module."""\n# ' + LICENCE,
    "scripts/lib/b.py": '#!/usr/bin/env python3\n"""A script.\n\nUsage.\n"""\n# ' + LICENCE + "import os\n",
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
    "netstack/lwip/a.cc": (HEAD + '#include "netstack/tcp/tcp.h"\n', "netstack/lwip/ may know netstack/wire.h"),
    "netstack/lwip/a.h": (HEAD + '#include "netstack/lwip_stack.h"\n', "netstack/lwip/ may know"),
    "netstack/lwip/port/a.h": (HEAD + '#include "netstack/tcp/hooks.h"\n', "netstack/lwip/ may know"),
    "shim/family/a.cc": (HEAD + '#include "shim/files/file.h"\n', "shim/family/ may know"),
    "shim/files/a.cc": (HEAD + '#include "shim/calls/calls.h"\n', "shim/files/ may know shim/family/"),
    "zpoline/sites/a.cc": (HEAD + '#include "zpoline/life/trap.h"\n', "zpoline/sites/ may know"),
    "netstack/tcp/a.cc": (HEAD + '#include "netstack/wires/eal.h"\n', "netstack/tcp/ may know"),
    "netstack/tcp/a.h": (HEAD + '#include "netstack/make_stack.h"\n', "netstack/tcp/ may know"),
    "netstack/wires/a.h": (HEAD + '#include "netstack/wires/kernel/veth.h"\n', "netstack/wires/ may know"),
    "netstack/wires/b.cc": (HEAD + '#include "netstack/lwip/core.h"\n', "netstack/wires/ may know"),
    "netstack/wires/kernel/a.cc": (HEAD + '#include "netstack/wires/memif/memif.h"\n', "netstack/wires/kernel/ may know"),
    "netstack/wires/memif/a.cc": (HEAD + '#include "netstack/wires/kernel/veth.h"\n', "netstack/wires/memif/ may know"),
    "netstack/b.cc": (HEAD + '#include "../tcp/tcp.h"\n', "path from the root"),
    "zpoline/sites/rewriter.cc": (HEAD + "#include <capstone/capstone.h>\n", "disassembler"),
    "shim/d.cc": (HEAD + 'const char* a = getenv("A");\n', "environment"),
    "base/c.cc": ("int a;\n", "begin with a comment"),
    "scripts/a.py": ("import os\n", "begin with a comment"),
    "base/f.cc": ("// A file of a test.\nint a;\n", "SPDX"),
    "base/f.h": ("// A file of a test.\n//\n// An essay.\n// " + LICENCE, "SPDX"),
    "base/g.h": ("// A file of a test.\n#pragma once\n// " + LICENCE, "SPDX"),
    "tests/a.go": ("// A file of a test.\npackage main\n", "SPDX"),
    "zpoline/entry/a.S": ("/* A file of a test. */\n.text\n", "SPDX"),
    "scripts/b.py": ('"""A module.\n# ' + LICENCE + '"""\nimport os\n', "SPDX"),
    "scripts/b": ("#!/bin/sh\n# Runs.\nset -e\n", "SPDX"),
    "base/d.cc": (HEAD + "// TO" + "DO: later\n", "unfinished"),
    "base/e.cc": (HEAD + "\n" * 500, "over 500"),
    "base/wide.cc": (HEAD + "//" + "-" * 139 + "\n", "over 140"),
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
