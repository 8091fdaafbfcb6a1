"""Read docs/faults.md: the message and the exit code that each test of a fault expects.

Each row of a table there describes one fault: what provokes it, what the user sees, the exit code, what is
kept, and the test. The test takes the fixture ``fault_row``, which is the row whose last cell names it,
provokes the fault, and calls ``fault_row.check(done)``. So the document is the expectation: a message that
changes in the code must change in the row.
"""

import re
import subprocess
from typing import NamedTuple

from tests.commands import ROOT

TABLE = ROOT / "docs" / "faults.md"


class Fault(NamedTuple):
    """One row of the table.

    Attributes:
        fault: What goes wrong.
        provoked_by: How the test provokes it.
        message: The key part of what is printed, in which ``...`` matches any text; empty if nothing is.
        exit_code: Exit code of the command, negative for a signal.
        kept: What is kept.
        test: ``test_file.py::test_name``, with the parameter in brackets if it has one.
    """

    fault: str
    provoked_by: str
    message: str
    exit_code: int
    kept: str
    test: str

    def check(self, done: "subprocess.CompletedProcess[str]") -> None:
        """Compare the output and the exit code of a command with the row; a traceback is always wrong."""
        printed = done.stdout + done.stderr
        assert "Traceback" not in printed, printed
        assert done.returncode == self.exit_code, printed
        self.check_text(printed)

    def check_text(self, printed: str) -> None:
        """Compare only a text with the row, for a test that runs no command; white space does not count."""
        pattern = re.escape(" ".join(self.message.split())).replace(re.escape("..."), ".*?")
        assert re.search(pattern, " ".join(printed.split())), f"{self.message!r} is not in {printed!r}"


def read_faults() -> dict[str, Fault]:
    """Read every row of the tables; the keys are the names of the tests."""
    rows = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != len(Fault._fields) or cells[0] == "fault" or set(cells[0]) <= {"-", " "}:
            continue
        fault, provoked_by, message, exit_code, kept, test = cells
        test = test.removesuffix(" *slow*").strip("`")
        assert test not in rows, f"two rows name {test}"
        rows[test] = Fault(fault, provoked_by, message.strip("`"), int(exit_code), kept, test)
    return rows
