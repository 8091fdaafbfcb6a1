"""What the page of a search shows besides that of a sweep: its trials in order, what mattered, the best."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import read_json_object
from fer_lightning.core.program import command_line, shell_quote
from fer_lightning.report import figures
from fer_lightning.report.comparison_figures import PageFigures
from fer_lightning.report.configurations import short_names
from fer_lightning.report.rendering import Image
from fer_lightning.report.run_results import naming_damage
from fer_lightning.report.tables import percent
from fer_lightning.runs.sweep import SEARCH_RECORD


class SearchSection(NamedTuple):
    """The section of a search.

    Attributes:
        sentence: How many trials there were and how they ended.
        best: The best trial, in words; None if none has finished.
        command: That trains with its settings; None if none has finished.
        figure: History and importance.
    """

    sentence: str
    best: str | None
    command: str | None
    figure: Image | None


def search_section(folders: Sequence[Path], files: PageFigures) -> SearchSection | None:
    """Describe the search whose trials the runs are; None if they are not those of one search.

    Args:
        folders: Of the runs.
        files: Of the page's figures.
    """
    above = {folder.resolve().parent for folder in folders}
    if len(above) != 1:
        return None
    try:
        with naming_damage(folder := above.pop()):
            record = read_json_object(folder / SEARCH_RECORD)
            return _describe(record, files) if record is not None and record["trials"] else None
    except FERError as error:
        return SearchSection(str(error), None, None, None)


def best_of_search(folder: Path) -> tuple[str, str] | None:
    """Return the best trial of the search in a sweep folder, see ``best_trial``; None if there is none."""
    with naming_damage(folder):
        record = read_json_object(folder / SEARCH_RECORD)
        return None if record is None else best_trial(record)


def _describe(record: Mapping[str, Any], files: PageFigures) -> SearchSection:
    trials = record["trials"]
    count = {
        state: sum(trial["state"] == state for trial in trials) for state in ("finished", "pruned", "failed")
    }
    ended = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    sentence = (
        f"{len(trials)} trials ({ended or 'none ended'}), chosen by {record['monitor']}; the test split "
        "chose nothing."
    )
    best = best_trial(record)
    return SearchSection(sentence, best and best[0], best and best[1], _figure(record, files))


def best_trial(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the best trial of a search in words, and the command that trains with its settings.

    Args:
        record: The content of ``search.json``.
    """
    if record["best"] is None:
        return None
    trial = record["trials"][record["best"]]
    # What belongs to the search and not to a run of its own.
    kept = [each for each in trial["overrides"] if not each.startswith(("resume=", "callbacks="))]
    command = " ".join([command_line("train"), *(shell_quote(each) for each in kept)])
    shown = _score(record["monitor"], trial["value"])
    return f"best trial: {trial['number']}, {record['monitor']} {shown}", command


def _score(monitor: str, value: float) -> str:
    return f"{value:.4f}" if monitor.endswith("loss") else f"{percent(value)} %"


def _figure(record: Mapping[str, Any], files: PageFigures) -> Image | None:
    trials = record["trials"]
    if all(trial["value"] is None for trial in trials):
        return None
    is_loss = record["monitor"].endswith("loss")
    scale = 1 if is_loss else 100
    values = [None if trial["value"] is None else scale * trial["value"] for trial in trials]
    short = short_names(list(record["importance"]))
    figure = figures.search_history(
        values,
        [trial["state"] == "pruned" for trial in trials],
        {short[name]: share for name, share in record["importance"].items()},
        ylabel=record["monitor"] + ("" if is_loss else ", %"),
        maximize=record["direction"] == "maximize",
    )
    caption = "One dot per trial, in the order of their beginning; the line is the best so far."
    if record["importance"]:
        caption += (
            " Importance: how much a setting's distribution among the better trials differs from that among "
            "all (PED-ANOVA, Watanabe et al. 2023), as shares of 100 %; of few trials it is mostly chance."
        )
    alt = f"{record['monitor']} of {len(trials)} trials in order"
    return files.save(figure, "search", alt, caption)
