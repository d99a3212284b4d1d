"""cmake --install: everything lands where Debian puts it, and the installed tool finds its companions."""
# SPDX-License-Identifier: BSD-3-Clause
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import facts
from facts import run

LIBRARIES = ("libzpstack.so", "libzpstack-core.so", "libzpstack-stack.so", "libzpstack-device.so")


class Install(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        result = run("cmake", "--install", facts.facts.build, "--prefix", "/usr", DESTDIR=str(self.root))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.usr = self.root / "usr"

    def test_files_are_in_place(self):
        for name in ("bin/zpstack", "include/zpstack/hook.h", "share/doc/zpstack/README.md", "share/doc/zpstack/configuration.md",
                     "share/doc/zpstack/LICENSE", "share/doc/zpstack/NOTICE"):
            self.assertTrue((self.usr / name).is_file(), name)
        self.assertEqual(facts.facts.libdir, "lib/x86_64-linux-gnu")

    def test_the_header_stands_alone(self):
        for compiler in (["gcc", "-xc"], ["g++", "-xc++"]):
            program = "#include <zpstack/hook.h>\nint main(void) { return 0; }\n"
            result = subprocess.run([*compiler, "-Wall", "-Werror", "-fsyntax-only", f"-I{self.usr}/include", "-"], input=program, capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, result.stderr)

    def test_libraries_lie_beside_each_other_and_are_found(self):
        built = {path.name for path in facts.facts.build.glob("libzpstack*.so") if not path.name.startswith("libzpstack-test-")}
        installed = {path.name for path in (self.usr / facts.facts.libdir).glob("*.so")} if built else set()
        self.assertEqual(installed, built)
        self.need_libraries()
        report = json.loads(run(self.usr / "bin/zpstack", "doctor", "--json").stdout)
        probe = {probe["what"]: probe for probe in report["probes"]}["libraries"]
        self.assertEqual(probe["state"], "ok", probe)
        self.assertIn(str(self.usr / facts.facts.libdir), probe["detail"])

    def test_the_installed_tool_runs_a_static_program(self):
        self.need_libraries()
        source = self.root / "static.c"
        source.write_text('#include <stdio.h>\nint main(int count, char** words) { return puts(words[count - 1]) < 0; }\n')
        subprocess.run(["gcc", "-static", "-o", self.root / "static", source], check=True)
        result = run(self.usr / "bin/zpstack", "run", "--", self.root / "static", "said")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "said\n", ""))

    def need_libraries(self):
        if not all((facts.facts.build / name).exists() for name in LIBRARIES):
            self.skipTest("this build makes no libraries")

    def need_page_zero(self):
        self.need_libraries()
        if os.getuid() != 0:
            self.skipTest("the hook maps page 0, which takes root")

    def test_the_installed_tool_runs_a_program_on_the_installed_core(self):
        self.need_page_zero()
        result = run(self.usr / "bin/zpstack", "run", "--", "cat", "/proc/self/maps")
        self.assertEqual(result.returncode, 0, result.stderr)
        for name in LIBRARIES[:2]:
            self.assertIn(str(self.usr / facts.facts.libdir / name), result.stdout)

    def test_a_bad_setting_stops_a_program_that_is_only_preloaded(self):
        self.need_page_zero()
        library = str(self.usr / facts.facts.libdir / LIBRARIES[0])
        for name, value in (("ZPS_WIER", "tap"), ("ZPS_WIRE", "tpa"), ("ZPS_IP", "1.2.3.4/99"), ("ZPS_HOOK", "magic"), ("ZPS_FALLBACK", "maybe"),
                            ("ZPS_LOG", "loud"), ("ZPS_HOOK_LIBRARY", "/nonexistent.so")):
            with self.subTest(name=name):
                result = run("echo", "ran", LD_PRELOAD=library, **{name: value})
                self.assertEqual((result.returncode, result.stdout), (127, ""), result)
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                self.assertIn(value if name != "ZPS_WIER" else name, result.stderr)


if __name__ == "__main__":
    facts.main()
