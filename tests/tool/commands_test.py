"""zpstack run, doctor and config: what they accept, what they refuse, and that a refusal is one clear line."""
# SPDX-License-Identifier: BSD-3-Clause
import json
import os
import pathlib
import shutil
import sys
import tempfile
import unittest

import facts
from facts import run

SHOW = "echo wire=$ZPS_WIRE ip=$ZPS_IP hook=$ZPS_HOOK preload=$LD_PRELOAD"


class WithTool(unittest.TestCase):
    """A copy of the tool with a stub library beside it, and room for files."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.tool = self.folder / "zpstack"
        self.library = self.folder / "libzpstack.so"
        shutil.copy(facts.facts.build / "zpstack", self.tool)
        shutil.copy(facts.facts.stub, self.library)

    def file(self, name, text, mode=0o755):
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def assert_refused(self, result, *words, status=127):
        self.assertEqual(result.returncode, status, result)
        self.assertEqual(result.stdout, "")
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertTrue(result.stderr.startswith("zpstack: "), result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)


class Run(WithTool):
    def test_sets_environment_and_becomes_the_program(self):
        result = run(self.tool, "run", "--wire", "memif:/run/x,role=server", "--ip", "198.18.7.1/24", "--hook", "zpoline", "--", "sh", "-c", SHOW)
        self.assertEqual(result.stdout, f"wire=memif:/run/x,role=server ip=198.18.7.1/24 hook=zpoline preload={self.library}\n", result)
        self.assertEqual(result.stderr, "")

    def test_dashes_may_be_left_out_and_belong_to_the_program_after_its_name(self):
        result = run(self.tool, "run", "--wire", "tap", "sh", "-c", 'echo $ZPS_WIRE "$@"', "sh", "--wire", "veth", "--", "x")
        self.assertEqual(result.stdout, "tap --wire veth -- x\n", result)

    def test_exit_status_is_the_programs(self):
        self.assertEqual(run(self.tool, "run", "--", "sh", "-c", "exit 5").returncode, 5)

    def test_preload_is_prepended_once(self):
        other = self.folder / "other.so"
        shutil.copy(facts.facts.stub, other)
        result = run(self.tool, "run", "--", self.tool, "run", "--", "sh", "-c", SHOW, LD_PRELOAD=str(other))
        self.assertIn(f"preload={self.library}:{other}\n", result.stdout)

    def test_file_settings_needed_early_go_into_the_environment(self):
        file = self.file("zpstack.toml", 'hook = "zpoline"\nmemory_mb = 32\n')
        result = run(self.tool, "run", "--", "sh", "-c", "echo $ZPS_HOOK/$ZPS_MEMORY_MB", ZPS_TEST_CONFIG_FILE=str(file))
        self.assertEqual(result.stdout, "zpoline/\n", result)

    def test_bad_values_are_refused(self):
        for option, value, word in (("--wire", "tpa", "memif:/path"), ("--ip", "198.18.0.0/24", "198.18.0.2/24"), ("--ip", "1.2.3", "ZPS_IP"),
                                    ("--hook", "magic", "zpoline"), ("--wire", "veth:foo", "af_packet:interface"), ("--memory-mb", "3", "16"), ("--fallback", "maybe", "kernel"),
                                    ("--log", "loud", "debug"), ("--hook-library", "relative.so", "absolute path")):
            with self.subTest(option=option, value=value):
                self.assert_refused(run(self.tool, "run", option, value, "--", "true"), value, word)

    def test_usage_errors_are_refused(self):
        self.assert_refused(run(self.tool, "run", "--wrie", "tap", "--", "true"), "--wrie")
        self.assert_refused(run(self.tool, "run", "--wire", "tap"), "what is to be run")
        self.assert_refused(run(self.tool, "run", "--wire"), "--wire")
        self.assert_refused(run(self.tool, "run", "--hook-library", "/nonexistent.so", "--", "true"), "/nonexistent.so")

    def test_programs_that_cannot_run_are_refused(self):
        self.assert_refused(run(self.tool, "run", "--", "no-such-program"), "no-such-program", "No such file")
        self.assert_refused(run(self.tool, "run", "--", self.file("plain", "x", 0o644)), "Permission denied")
        self.assert_refused(run(self.tool, "run", "--", "/tmp"), "/tmp")

    def test_static_programs_run_in_place_of_a_program_beside_the_library(self):
        program = facts.facts.static_program
        self.assert_refused(run(self.tool, "run", "--", program), "zpstack-static", "No such file")
        for hook in ("auto", "sud", "off"):
            result = run(facts.facts.build / "zpstack", "run", "--hook", hook, "--", program)
            self.assertEqual((result.returncode, result.stderr), (7, ""), hook)

    def test_programs_of_another_kind_are_refused_or_run_plain(self):
        program = self.file("script", f"#!{facts.facts.static_program}\n")
        result = run(self.tool, "run", "--fallback", "kernel", "--", program)
        self.assertEqual(result.returncode, 7, result)
        self.assertEqual(result.stderr.count("\n"), 1)
        self.assertEqual(run(self.tool, "run", "--fallback", "kernel", "--log", "error", "--", program).stderr, "")

    def test_scripts_are_as_reachable_as_their_interpreter(self):
        self.assert_refused(run(self.tool, "run", "--", self.file("script", f"#!{facts.facts.static_program}\n")), "script", "statically linked")
        result = run(self.tool, "run", "--", self.file("script", f"#!/usr/bin/env sh\n{SHOW}\n"))
        self.assertIn(f"preload={self.library}", result.stdout)

    def test_set_user_id_programs_are_refused(self):
        program = self.folder / "setuid"
        shutil.copy("/bin/true", program)
        if os.getuid() == 0:
            os.chown(program, 65534, 65534)  # another user's: root gains nothing by its own
            program.chmod(0o4755)
        else:
            self.skipTest("only root can make a program of another user")
        self.assert_refused(run(self.tool, "run", "--", program), "set-user-id")

    def test_without_the_library_nothing_runs(self):
        self.library.unlink()
        self.assert_refused(run(self.tool, "run", "--", "true"), "libzpstack.so", str(self.folder))

    def test_a_path_that_ld_so_would_split_is_refused(self):
        folder = self.folder / "with space"
        folder.mkdir()
        for name in ("zpstack", "libzpstack.so"):
            shutil.copy(self.folder / name, folder)
        self.assert_refused(run(folder / "zpstack", "run", "--", "true"), "with space")


class Config(WithTool):
    def config(self, **environment):
        result = run(self.tool, "config", "--json", **environment)
        self.assertEqual(result.returncode, 0, result)
        return json.loads(result.stdout)

    def test_defaults(self):
        settings = self.config()
        self.assertEqual(settings["wire"], {"value": "veth", "from": "default"})
        self.assertEqual(settings["memory_mb"], {"value": "48", "from": "default"})
        self.assertEqual(len(settings), 23)

    def test_file_goes_over_default_and_environment_over_file(self):
        file = self.file("zpstack.toml", '# a comment\nwire = "tap"\nmemory_mb = 64\nhugepages = false\n')
        settings = self.config(ZPS_TEST_CONFIG_FILE=str(file), ZPS_MEMORY_MB="32", ZPS_WIRE="")
        self.assertEqual(settings["wire"], {"value": "tap", "from": str(file)})
        self.assertEqual(settings["memory_mb"], {"value": "32", "from": "ZPS_MEMORY_MB"})
        self.assertEqual(settings["hugepages"], {"value": "0", "from": str(file)})
        self.assertEqual(settings["mtu"], {"value": "", "from": "default"})

    def test_text_names_every_key(self):
        lines = run(self.tool, "config", ZPS_IP="10.0.0.1/8").stdout.splitlines()
        self.assertEqual(len(lines), 23)
        self.assertIn(["ip", "10.0.0.1/8", "ZPS_IP"], [line.split() for line in lines])

    def test_errors_are_one_line(self):
        self.assert_refused(run(self.tool, "config", ZPS_WIER="tap"), "ZPS_WIER", status=1)
        self.assert_refused(run(self.tool, "config", ZPS_MTU="9o00"), "ZPS_MTU=9o00", "576", status=1)
        for text, words in (("wier = 1\n", ("wier",)), ("mtu = \n", ("line 1",)), ("mtu = 1.5\n", ("mtu",)), ("[mtu]\n", ("mtu",)), ("mtu = 9\n", ("mtu=9", "576"))):
            with self.subTest(text=text):
                file = self.file("zpstack.toml", text)
                self.assert_refused(run(self.tool, "config", ZPS_TEST_CONFIG_FILE=str(file)), str(file), *words, status=1)
                self.assert_refused(run(self.tool, "run", "--", "true", ZPS_TEST_CONFIG_FILE=str(file)), str(file), *words)

    def test_bad_rules_are_one_line_with_their_place(self):
        file = self.file("zpstack.toml", '# ours\nrules = [\n  "kernel udp port=53",\n  "kernel peer=10.0.0.1/8",\n]\n')
        for command in (("config",), ("run", "--", "true"), ("config", "--explain", "10.0.0.1:80")):
            self.assert_refused(run(self.tool, *command, ZPS_TEST_CONFIG_FILE=str(file)), str(file), "line 4", "peer=10.0.0.1/8", status=127 if command[0] == "run" else 1)
        self.assert_refused(run(self.tool, "run", "--rules", "kernel tcp; drop udp", "--", "true"), "ZPS_RULES", "drop udp", "kernel or stack")

    def test_rules_are_an_option(self):
        result = run(self.tool, "run", "--rules", "kernel udp port=53", "--", "sh", "-c", "echo $ZPS_RULES")
        self.assertEqual(result.stdout, "kernel udp port=53\n", result)

    def test_variables_of_tests_are_ignored(self):
        self.assertEqual(self.config(ZPS_TEST_ANYTHING="x"), self.config())


class Explain(WithTool):
    def explain(self, what, *more, **environment):
        """(what, side, why) of each line."""
        result = run(self.tool, "config", "--json", "--explain", what, *more, **environment)
        self.assertEqual(result.returncode, 0, result)
        return [tuple(line.values()) for line in json.loads(result.stdout)]

    def side(self, what, *more, **environment):
        (_, side, why), = self.explain(what, *more, **environment)
        return side, why

    def test_without_rules(self):
        own = {"ZPS_IP": "10.1.0.2/16,fd00::2/64"}
        for what, environment, side, why in (
                ("127.0.0.1:80", {}, "kernel", "loopback"), ("[::1]:80", {}, "kernel", "loopback"), ("[fe80::1]:80", {}, "kernel", "link-local"),
                (":80", {}, "both", "all addresses"), ("*:53/udp", {}, "kernel", "udp = kernel"), ("*:53/udp", {"ZPS_UDP": "stack"}, "both", "udp = stack"),
                ("10.1.0.2:80", own, "stack", "an address of"), ("10.1.2.3:80/tcp", own, "stack", "in a network"), ("[fd00::9]:80", own, "stack", "in a network"),
                ("10.2.2.3:80", own, "kernel", "no way"), ("[fd00:0:0:1::9]:80", own, "kernel", "no way"),
                ("10.2.2.3:80", {**own, "ZPS_GATEWAY": "10.1.0.1"}, "stack", "gateway"), ("10.1.2.3:53/udp", own, "kernel", "udp = kernel"),
                ("203.0.113.1:80", {}, "kernel", "no way")):
            with self.subTest(what=what, environment=environment):
                said = self.side(what, **environment)
                self.assertEqual(said[0], side)
                self.assertIn(why, said[1])

    def test_the_first_rule_that_matches_is_named(self):
        own = {"ZPS_IP": "10.1.0.2/16", "ZPS_RULES": "stack udp port=53; kernel udp port=1-99; kernel tcp port=80; stack peer=10.1.9.0/24;kernel peer=10.1.8.0/21"}
        for what, side, rule in ((":53/udp", "both", "stack udp port=53"), ("10.1.0.2:54/udp", "kernel", "kernel udp port=1-99"), (":80", "kernel", "kernel tcp port=80"),
                                 ("10.1.9.9:80", "stack", "stack peer=10.1.9.0/24"), ("10.1.10.9:80", "kernel", "kernel peer=10.1.8.0/21"), ("10.1.16.9:80", "stack", "network")):
            with self.subTest(what=what):
                said = self.side(what, **own)
                self.assertEqual(said[0], side)
                self.assertIn(rule, said[1])
        self.assertIn("peers that a rule gives", self.side(":100/udp", **own)[1])

    def test_programs_with_another_answer_are_told(self):
        rules = {"ZPS_RULES": "kernel tcp port=80 program=nginx; kernel udp program=other"}
        self.assertEqual([line[:2] for line in self.explain(":80", **rules)], [("0.0.0.0:80/tcp", "both"), ("0.0.0.0:80/tcp of nginx", "kernel")])
        self.assertEqual(self.side(":80", "--program", "nginx", **rules)[0], "kernel")
        self.assertEqual(self.side(":80", "--program", "other", **rules)[0], "both")

    def test_names_are_resolved_and_their_servers_told(self):
        servers = self.file("resolv.conf", "# ours\nsearch example.org\nnameserver 10.1.0.53\nnameserver fd00::53\n")
        file = self.file("zpstack.toml", '\nrules = ["stack udp peer=10.1.0.53"]\n')
        said = self.explain("localhost:80", ZPS_TEST_RESOLV_CONF=str(servers), ZPS_TEST_CONFIG_FILE=str(file), ZPS_IP="10.1.0.2/16")
        self.assertIn(("127.0.0.1:80/tcp", "kernel", "loopback"), said)
        self.assertIn(("nameserver 10.1.0.53:53/udp", "stack", f'rule "stack udp peer=10.1.0.53/32" ({file}, line 2); in a network of the stack\'s'), said)
        self.assertIn(("nameserver [fd00::53]:53/udp", "kernel", "udp = kernel"), said)

    def test_what_is_no_place_is_refused(self):
        for what in ("x", "10.0.0.1", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:65536", "10.0.0.1:80/icmp", "fd00::1:80", "no.such.name.invalid:80"):
            with self.subTest(what=what):
                self.assert_refused(run(self.tool, "config", "--explain", what), what.split(":80")[0].split("/")[0], status=1)
        self.assert_refused(run(self.tool, "config", "--program", "nginx"), "--explain", status=1)


class Doctor(WithTool):
    def add_companions(self):
        for name in ("libzpstack-core.so", "libzpstack-stack.so"):
            shutil.copy(self.library, self.folder / name)

    def doctor(self, *options, **environment):
        result = run(self.tool, "doctor", "--json", *options, **environment)
        report = json.loads(result.stdout)
        self.assertEqual(result.returncode, 0 if report["works"] else 1)
        return report, {probe["what"]: probe for probe in report["probes"]}

    def test_every_probe_has_a_state_and_what_is_missing_a_mend(self):
        report, probes = self.doctor()
        self.assertEqual(report["wire"], "veth")
        for name in ("libraries", "versions", "page 0", "CAP_NET_ADMIN", "/dev/net/tun", "huge pages", "locked memory", "SELinux", "memory files",
                     "descriptors", "control group", "seccomp"):
            self.assertIn(name, probes)
        for probe in report["probes"]:
            self.assertIn(probe["state"], ("ok", "absent", "missing"))
            self.assertNotEqual(probe["detail"], "")
            if probe["state"] == "missing":
                self.assertNotEqual(probe["mend"], "", probe)

    def test_libraries_are_looked_for(self):
        _, probes = self.doctor()
        self.assertEqual(probes["libraries"]["state"], "missing")
        self.assertIn("is not beside", probes["libraries"]["detail"])
        self.add_companions()
        _, probes = self.doctor()
        self.assertEqual(probes["libraries"]["state"], "ok")

    def test_without_capabilities_the_default_does_not_work_and_memif_lacks_less(self):
        if os.getuid() != 0:
            self.skipTest("only root can give capabilities up")
        self.add_companions()
        drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
        missing = {}
        for wire in ("veth", "memif:/run/x"):
            result = run(*drop, self.tool, "doctor", "--json", ZPS_WIRE=wire)
            self.assertEqual(result.returncode, 0 if wire != "veth" else 1, result)
            missing[wire] = {probe["what"] for probe in json.loads(result.stdout)["probes"] if probe["state"] == "missing"}
        self.assertLessEqual({"CAP_NET_ADMIN", "CAP_NET_RAW"}, missing["veth"])
        self.assertEqual(set(), missing["memif:/run/x"])
        result = run(*drop, self.tool, "doctor", "--json", ZPS_WIRE="memif:/run/x", ZPS_HOOK="zpoline")
        self.assertEqual({"page 0"}, {probe["what"] for probe in json.loads(result.stdout)["probes"] if probe["state"] == "missing"})

    def test_text_ends_with_a_verdict(self):
        result = run(self.tool, "doctor")
        self.assertRegex(result.stdout.splitlines()[-1], "^hook auto, wire veth: will (not )?work here")

    def test_an_ordinary_user_hears_of_memif(self):
        if os.getuid() != 0:
            self.skipTest("only root can give capabilities up")
        self.add_companions()
        drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
        self.assertIn("ZPS_WIRE=memif:", run(*drop, self.tool, "doctor").stdout.splitlines()[-1])
        self.assertNotIn("ZPS_WIRE=memif:", run(*drop, self.tool, "doctor", ZPS_HOOK="zpoline").stdout)

    def test_a_low_limit_of_descriptors_is_missing(self):
        result = run("prlimit", "--nofile=256:256", self.tool, "doctor", "--json")
        probe = {probe["what"]: probe for probe in json.loads(result.stdout)["probes"]}["descriptors"]
        self.assertEqual((probe["state"], "ulimit -Hn" in probe["mend"]), ("missing", True), probe)

    def test_the_cards_of_the_machine_are_listed(self):
        _, probes = self.doctor()
        for function in pathlib.Path("/sys/bus/pci/devices").iterdir():
            if (function / "class").read_text().startswith("0x02"):
                self.assertIn((function / "vendor").read_text().strip()[2:], probes[function.name]["detail"])
        self.add_companions()
        _, probes = self.doctor(ZPS_WIRE="device:ff:1f.7", ZPS_IP="198.18.0.2/24")
        self.assertEqual(probes["0000:ff:1f.7"]["state"], "missing")

    def test_bad_settings_are_one_line(self):
        self.assert_refused(run(self.tool, "doctor", ZPS_WIRE="x"), "ZPS_WIRE=x", status=1)


if __name__ == "__main__":
    facts.main()
