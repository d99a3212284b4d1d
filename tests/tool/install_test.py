"""cmake --install: everything lands where Debian puts it, and the installed tool finds its companions."""
import json
import pathlib
import subprocess
import tempfile
import unittest

import facts
from facts import run


class Install(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        result = run("cmake", "--install", facts.facts.build, "--prefix", "/usr", DESTDIR=str(self.root))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.usr = self.root / "usr"

    def test_files_are_in_place(self):
        for name in ("bin/zpstack", "include/zpstack/hook.h", "share/doc/zpstack/README.md", "share/doc/zpstack/configuration.md"):
            self.assertTrue((self.usr / name).is_file(), name)
        self.assertEqual(facts.facts.libdir, "lib/x86_64-linux-gnu")

    def test_the_header_stands_alone(self):
        for compiler in (["gcc", "-xc"], ["g++", "-xc++"]):
            program = "#include <zpstack/hook.h>\nint main(void) { return 0; }\n"
            result = subprocess.run([*compiler, "-Wall", "-Werror", "-fsyntax-only", f"-I{self.usr}/include", "-"], input=program, capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, result.stderr)

    def test_libraries_lie_beside_each_other_and_are_found(self):
        built = {path.name for path in facts.facts.build.glob("libzpstack*.so")}
        installed = {path.name for path in (self.usr / facts.facts.libdir).glob("*.so")} if built else set()
        self.assertEqual(installed, built)
        if not {"libzpstack.so", "libzpstack-core.so", "libzpstack-stack.so"} <= built:
            self.skipTest("this build makes no libraries")
        report = json.loads(run(self.usr / "bin/zpstack", "doctor", "--json").stdout)
        probe = {probe["what"]: probe for probe in report["probes"]}["libraries"]
        self.assertEqual(probe["state"], "ok", probe)
        self.assertIn(str(self.usr / facts.facts.libdir), probe["detail"])


if __name__ == "__main__":
    facts.main()
