"""The generated pages are up to date, and the documents' links lead somewhere."""
# SPDX-License-Identifier: BSD-3-Clause
import hashlib
import json
import re
import sys
import unittest

import facts
from facts import run


class Documents(unittest.TestCase):
    def test_configuration_page_is_what_the_table_says(self):
        page = (facts.facts.source / "docs/configuration.md").read_text()
        self.assertEqual(run(facts.facts.build / "zpstack", "config", "--markdown").stdout, page, "run scripts/update-docs")

    def test_readmes_table_is_the_last_run(self):
        sys.path.insert(0, str(facts.facts.source / "bench/lib"))
        import readme
        page = (facts.facts.source / "README.md").read_text()
        self.assertEqual(readme.filled(page, json.loads(readme.MEASURED.read_text())), page, "run scripts/update-docs")

    def test_report_is_of_the_last_run(self):
        report, measured = ((facts.facts.source / "docs" / name).read_bytes() for name in ("report.html", "measured.json"))
        self.assertIn(f'<meta name="measured" content="{hashlib.sha256(measured).hexdigest()}">', report.decode(), "run scripts/update-docs")

    def test_local_links_lead_to_files(self):
        root = facts.facts.source
        pages = [root / "README.md", *root.glob("docs/**/*.md")]
        self.assertGreater(len(pages), 3)
        for page in pages:
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
                if "://" not in target:
                    self.assertTrue((page.parent / target).exists(), f"{page.relative_to(root)} links to {target}")


if __name__ == "__main__":
    facts.main()
