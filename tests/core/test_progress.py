"""The line of a terminal that says what is being done."""

import io
import logging
from types import SimpleNamespace

import pytest
from rich.console import Console

from fer_lightning.core import progress, terminal
from fer_lightning.core.progress import clear_progress, show_progress


class Terminal(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self):
        return True

    def fileno(self):
        raise OSError

    def screen(self):
        """What a terminal shows: carriage returns and erased lines followed."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                erased = part.removeprefix("\x1b[2K")
                shown = erased if erased != part else erased + shown[len(erased) :]
            lines.append(shown)
        return lines


@pytest.fixture
def screen(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stdout=shown))  # pytest sets sys.stdout itself
    monkeypatch.setattr(progress, "_shown", False)
    monkeypatch.setenv("TERM", "xterm")
    return shown


def test_line_is_replaced_and_goes_away(screen):
    show_progress("loading the data")
    assert screen.screen() == ["loading the data ..."]
    show_progress("decoding images", 12_288, 35_887)
    show_progress("drawing figures")
    assert screen.screen() == ["drawing figures ..."]
    clear_progress()
    assert screen.screen() == [""]


def test_line_fits_the_terminal_and_counts_what_is_known(screen):
    show_progress("decoding images", 5)
    assert screen.screen() == ["decoding images 5 ..."]
    clear_progress()
    show_progress("x" * 200)
    assert len(screen.screen()[0]) == 79


def test_frequent_states_are_passed_over(screen, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    show_progress("decoding images", 1, 10)
    show_progress("decoding images", 2, 10)
    assert screen.screen() == ["decoding images 1 of 10 ..."]
    now[0] += 1
    show_progress("decoding images", 3, 10)
    assert screen.screen() == ["decoding images 3 of 10 ..."]


def test_nothing_is_shown_away_from_a_terminal(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stdout=file))
    show_progress("loading the data")
    clear_progress()
    assert file.getvalue() == ""


def test_nothing_is_shown_on_a_terminal_that_erases_nothing(screen, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    show_progress("loading the data")
    assert screen.getvalue() == ""


def test_log_line_removes_it_and_breaks_no_word_and_no_command(screen, monkeypatch):
    monkeypatch.setattr(
        terminal, "console", Console(file=screen, width=40, force_terminal=True, color_system=None)
    )
    show_progress("loading the data")
    words = "28,709 training images and 3,589 validation images; 288 duplicates"
    command = "  wandb sync '/a folder/with a long name/and another one/wandb'"
    record = logging.LogRecord("x", logging.INFO, "", 0, f"{words}\n{command}", (), None)
    terminal._TerminalHandler().emit(record)
    lines = screen.screen()
    assert not any("loading" in line for line in lines)
    assert [line.rstrip() for line in lines if line] == [
        "28,709 training images and 3,589",
        "validation images; 288 duplicates",
        command,
    ]
