"""docs/faults.md, read: what each fault's test holds the commands to."""

import re
import subprocess
from typing import NamedTuple

from tests.commands import ROOT

TABLE = ROOT / "docs" / "faults.md"


class Promise(NamedTuple):
    """A row of the table.

    Attributes:
        sentence: As printed, ``...`` for what differs; empty where nothing is to be seen.
        exit_code: Of the command.
        test: ``test_file.py::test_name``, with its parameter in brackets where it has one.
    """

    fault: str
    provoked_by: str
    sentence: str
    exit_code: int
    kept: str
    test: str

    def hold(self, done: "subprocess.CompletedProcess[str]") -> None:
        """Compare what a command printed, and how it ended, with the row."""
        printed = done.stdout + done.stderr
        assert "Traceback" not in printed, printed
        assert done.returncode == self.exit_code, printed
        self.hold_text(printed)

    def hold_text(self, printed: str) -> None:
        """Compare a text alone, where no command was run."""
        pattern = re.escape(" ".join(self.sentence.split())).replace(re.escape("..."), ".*?")
        assert re.search(pattern, " ".join(printed.split())), f"{self.sentence!r} is not in {printed!r}"


def promises() -> dict[str, Promise]:
    """Every row, by the test that it names."""
    rows = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != len(Promise._fields) or cells[0] == "fault" or set(cells[0]) <= {"-", " "}:
            continue
        fault, provoked_by, sentence, exit_code, kept, test = cells
        test = test.removesuffix(" *slow*").strip("`")
        assert test not in rows, f"two rows name {test}"
        rows[test] = Promise(fault, provoked_by, sentence.strip("`"), int(exit_code), kept, test)
    return rows
