"""The HTML page that compares several runs, such as the jobs of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_lightning.core.errors import FERError
from fer_lightning.core.names import dataset_title
from fer_lightning.report import comparison_figures, comparison_runs, summary
from fer_lightning.report.configurations import group_configurations, rank
from fer_lightning.report.drawing import draw_run
from fer_lightning.report.marks import figure_mark, title_mark
from fer_lightning.report.paired_tests import paired_tests
from fer_lightning.report.provenance import readable_date
from fer_lightning.report.rendering import render_page, run_banners
from fer_lightning.report.run_results import RunResults, damaged_run, naming_damage
from fer_lightning.report.search_section import search_section


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write one page that compares several runs, and return it.

    Args:
        runs: Run folders, such as the jobs of a sweep.
        out: The page, or an existing folder, which gets a ``report.html``. The page links to the runs' own
            pages by relative paths. Its figures are in ``figures`` next to it.
    """
    if out.is_dir():
        out /= "report.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FERError(f"--out {out}: {error.strerror}; expected a page in a folder to write into") from error
    read = summary.read_summary(runs)
    results = [_drawn(run) for run in read.runs]
    if all(run.state == "damaged" for run in results):
        raise FERError(str(results[0].info["reason"]))
    rows, split = read.rows, summary.common_split(read.rows)
    configurations = group_configurations(rows, results)
    test_sets = {(row["dataset"], row["split"], row["images"]) for row in rows if row["n"]}
    files = comparison_figures.PageFigures(out.parent / "figures", figure_mark(results))
    ranking = rank(configurations, split, comparable=len(test_sets) <= 1)
    return render_page(
        out,
        "comparison.html",
        title=_title(results),
        about=_facts(results),
        summary_csv=_summary_url(results, out),
        warnings=_banners(results, comparable=len(test_sets) <= 1),
        order=ranking.sentence if ranking.configurations else "",
        configurations=comparison_runs.configurations_table(ranking, split),
        runs=comparison_runs.runs_table(rows, ranking, split, out.parent),
        more=comparison_runs.more_table(rows, ranking),
        search=search_section([run.folder for run in results], files),
        split=split,
        mark=title_mark(results),
        limited=any(run.limited for run in results),
        accuracy=comparison_figures.accuracy_figure(ranking, split, files),
        tests=paired_tests(ranking),
        curves=comparison_figures.curves_figure(ranking, files),
        settings=comparison_figures.settings_figures(rows, ranking, split, files),
        classes=comparison_figures.class_section(ranking, split, files),
        matrices=comparison_figures.matrices(ranking, files),
    )


def _drawn(run: RunResults) -> RunResults:
    """Draw a run's figures; a run whose files are damaged in that respect becomes one without results."""
    if run.state == "damaged":
        return run
    try:
        with naming_damage(run.folder):
            draw_run(run.folder)
            return run
    except (FERError, OSError) as error:
        return damaged_run(run.folder, error)


def _banners(results: Sequence[RunResults], *, comparable: bool) -> list[tuple[str, bool]]:
    banners = run_banners(results)
    if not comparable:
        text = "These runs were not evaluated on the same images: their results are not comparable."
        banners.insert(0, (text, False))
    return list(dict.fromkeys(banners))


def _title(results: Sequence[RunResults]) -> str:
    datasets = {dataset_title(run.dataset) for run in results if run.state != "damaged"}
    folders = {run.folder.resolve().parent for run in results}
    sweeps = sorted(folder.name for folder in folders if (folder / "sweep.json").is_file())
    name = f"Sweep {sweeps[0]}: " if len(folders) == len(sweeps) == 1 else ""
    return f"{name}{len(results)} run{'s' * (len(results) > 1)} on {', '.join(sorted(datasets))}"


def _facts(results: Sequence[RunResults]) -> list[tuple[str, Any]]:
    """List where the runs come from: date, command, commit; what differs between runs is left out."""
    started = min((str(run.info["started"]) for run in results if run.info.get("started")), default=None)
    commands = {str(run.info.get("command")) for run in results if run.info.get("command")}
    git = [run.info.get("git") for run in results]
    commits = {
        f"{str(each['commit'])[:12]}{' with uncommitted changes' if each.get('dirty') else ''}"
        for each in git
        if isinstance(each, dict) and each.get("commit")
    }
    finished = sum(run.state == "finished" for run in results)
    return [
        ("started", readable_date(started)),
        ("finished", None if finished == len(results) else f"{finished} of {len(results)} runs"),
        ("command", commands.pop() if len(commands) == 1 else None),
        ("commit", ", ".join(sorted(commits))),
    ]


def _summary_url(results: Sequence[RunResults], out: Path) -> str | None:
    """Return the URL of the summary.csv of these runs, if it is next to the page."""
    here = out.parent.resolve()
    is_theirs = all(run.folder.resolve().parent == here for run in results)
    return "summary.csv" if is_theirs and (out.parent / "summary.csv").is_file() else None
