"""The mark of limited and synthetic runs: in figures, in titles of tables, in file names."""

from collections.abc import Sequence

from fer_lightning.report.figures.language import text
from fer_lightning.report.run_results import RunResults

# The first one that a name ends with is its mark.
FILE_MARKS = ("_limited_synthetic", "_limited", "_synthetic", "")


def figure_mark(runs: Sequence[RunResults]) -> str:
    """Return the line that marks a figure of some runs, in the language of figures; empty for whole runs."""
    parts = []
    if limited := [run for run in runs if run.limited]:
        limits = ", ".join(dict.fromkeys(limit for run in limited for limit in run.limited))
        which = f"{len(limited)}/{len(runs)}, " if len(limited) < len(runs) else ""
        parts.append(f"{which}{text('limited')} ({limits})")
    if synthetic := [run for run in runs if run.synthetic]:
        which = f"{len(synthetic)}/{len(runs)}, " if len(synthetic) < len(runs) else ""
        parts.append(f"{which}{text('synthetic')}")
    return "; ".join(parts)


def title_mark(runs: Sequence[RunResults]) -> str:
    """Return what follows the title of a table or figure: `` (limited run, not results)`` or nothing."""
    parts = []
    if any(run.limited for run in runs):
        parts.append("limited run, not results")
    if any(run.synthetic for run in runs):
        parts.append("synthetic faces")
    return f" ({'; '.join(parts)})" if parts else ""


def file_mark(runs: Sequence[RunResults]) -> str:
    """Return the end of the names of files: ``_limited``, ``_synthetic``, both, or nothing."""
    limited = "_limited" if any(run.limited for run in runs) else ""
    return limited + ("_synthetic" if any(run.synthetic for run in runs) else "")
