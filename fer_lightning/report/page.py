"""One self-contained page for a run, and one that compares several."""

import os
import re
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from fer_lightning.core.errors import FERError
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.evaluation.stats import wilson_interval
from fer_lightning.report import figures, html, tables
from fer_lightning.report.audit import audit_section
from fer_lightning.report.drawing import confident_mistakes, draw_run, save
from fer_lightning.report.runs import Run, read_run, within

_RELIABILITY = (
    "How often an answer given with some confidence was right. Bars below the diagonal: the model is surer "
    "than it should be. Below: how many images had that confidence."
)


def write_page(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder from whatever its files tell.

    Figures that need no images are drawn here where they are missing or outdated; ``drawing.draw_all`` draws
    the others while the images are at hand.

    Returns:
        The page.

    Raises:
        FERError: If the folder is no run folder, or a file in it is damaged.
    """
    draw_run(run_dir)
    run = read_run(run_dir)
    title = f"{run.model} on {run.dataset}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        html.paragraph(_subtitle(run), "soft"),
        html.banners([run]),
        html.cards(tables.headline_facts(run.metrics)),
        _results(run),
        html.section("Learning", html.figure(run, "learning_curves", "Loss and accuracy over epochs.")),
        html.section("Calibration", html.figure(run, f"reliability_{run.split}", _RELIABILITY)),
        _mistakes(run),
        _data(run),
        audit_section(run),
        _making(run),
        _wandb_hint(run),
    ]
    if run.config:
        config = f"<details><summary>config.yaml</summary><pre>{escape(run.config)}</pre></details>"
        sections.append(html.section("Configuration", config))
    return html.write(run_dir / "report.html", title, sections)


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write one page that compares several runs.

    Args:
        runs: Run folders, such as the jobs of a sweep.
        out: The page to write, or a folder that exists and gets a ``report.html``. It links to the runs' own
            pages by relative path.

    Returns:
        The page.

    Raises:
        FERError: If a folder is no run folder, a file in it is damaged, or ``out`` cannot be written.
    """
    if out.is_dir():
        out /= "report.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FERError(f"--out {out}: {error.strerror}; expected a page in a folder to write into") from error
    for folder in runs:
        draw_run(folder)
    loaded = [read_run(folder) for folder in runs]
    rows = tables.summarise_runs(runs)
    split = tables.measured_on(rows)
    title = f"{len(runs)} runs on {', '.join(sorted({run.dataset for run in loaded}))}"
    matrices = [
        html.figure(run, f"confusion_{run.split}", f"{run.folder.name}: {_confusions(run)}") for run in loaded
    ]
    sections = [
        f"<h1>{escape(title)}</h1>",
        html.banners(loaded),
        html.section("Runs", _comparison_table(rows, split, out.parent)),
        html.section(f"Accuracy, {split} split", _accuracy_figure(rows, split, out)),
        html.section("Confusion matrices", html.side_by_side(*matrices)),
    ]
    return html.write(out, title, sections)


def _subtitle(run: Run) -> str:
    parts = [run.state, _to_the_second(run.info.get("started")), run.info.get("name"), run.folder.name]
    return " · ".join(dict.fromkeys(str(part) for part in parts if part))


def _to_the_second(date: str | None) -> str | None:
    """Cut the milliseconds out of an ISO date."""
    return re.sub(r"\.\d+", "", date) if date else None


def _confusions(run: Run) -> str:
    """Name the three commonest confusions of the reported split."""
    counts = np.array(run.measured.get("confusion") or np.zeros((0, 0)))
    classes = list(run.measured.get("per_class") or {})
    np.fill_diagonal(counts, 0)
    pairs = [divmod(int(place), len(classes)) for place in np.argsort(-counts, axis=None, kind="stable")[:3]]
    told = [f"{classes[a]} taken for {classes[b]} ({counts[a, b]:,})" for a, b in pairs if counts[a, b]]
    return f"most often {', '.join(told)}." if told else "no confusions."


def _results(run: Run) -> str:
    if not run.split:
        return html.section("Results", html.paragraph("Nothing was measured."))
    rows = [
        [
            (name, name),
            *((tables.percent(score), score) for score in scores),
            *((f"{n:,}", n) for n in counts),
        ]
        for name, scores, counts in tables.per_class_rows(run.measured)
    ]
    confused = _confusions(run)
    return html.section(
        f"Results on the {run.split} split",
        html.paragraph(
            "Precision: of the images given this name, how many deserved it. Recall: of the images that "
            "deserve it, how many were given it. F1 is their harmonic mean. One-vs-rest accuracy counts the "
            "rightly rejected too, so it is high for rare classes whatever the model does.",
            "soft",
        ),
        html.table(tables.per_class_headers(run.measured), rows, label="each class"),
        html.figure(run, f"per_class_{run.split}", "Precision, recall and F1 of each class."),
        html.figure(
            run,
            f"confusion_{run.split}",
            f"Who was taken for whom, each row as percentages of its true class; {confused}",
            f"Confusion matrix in percent of each true class; {confused}",
        ),
        html.figure(
            run,
            f"confusion_counts_{run.split}",
            "The same in numbers of images.",
            f"Confusion matrix in numbers of images; {confused}",
        ),
    )


def _mistakes(run: Run) -> str:
    path = within(run.folder, f"predictions_{run.split}.npz")
    predictions = Predictions.load(path) if path.exists() else None
    graded = predictions is None or predictions.graded
    heading = "Most confident mistakes" if graded else "Mistakes"
    surest = "The wrong answers given with the highest probability, surest first."
    picture = html.figure(run, f"mistakes_{run.split}", surest if graded else "The first wrong answers.")
    if predictions is None:
        return html.section(heading, picture)
    shown = predictions.subset(confident_mistakes(predictions))
    headers = ("image", "true class", "answer", *(["probability %"] if graded else []))
    rows = [
        [(image, image), (true, true), (answer, answer), (tables.percent(confidence), confidence)][
            : len(headers)
        ]
        for image, true, answer, confidence in zip(
            shown.ids.tolist(),
            (shown.classes[label] for label in shown.labels),
            (shown.classes[label] for label in shown.predicted),
            shown.probs.max(axis=1, initial=0).tolist(),
            strict=True,
        )
    ]
    listing = html.table(headers, rows, text_columns=3, label=heading) if rows else ""
    unanswered = int((predictions.predicted < 0).sum())
    silence = f"{unanswered:,} of {len(predictions):,} images got no answer; they count as wrong."
    return html.section(
        heading,
        html.paragraph(silence if unanswered else ""),
        picture,
        listing and f"<details><summary>Their file names</summary>{listing}</details>",
    )


def _data(run: Run) -> str:
    data = run.info.get("data") or {}
    return html.section(
        "Data",
        html.paragraph(data.get("summary") or ""),
        html.figure(run, "samples", "The first training images of each class."),
        html.figure(run, "class_distribution", "How each split divides among the classes."),
        html.facts([("fingerprint", data.get("fingerprint"))]),
    )


def _making(run: Run) -> str:
    info = run.info
    git, machine, spent = (info.get(key) or {} for key in ("git", "machine", "durations"))
    speed, parameters, memory = (
        info.get("images_per_s"),
        info.get("num_parameters"),
        machine.get("memory_gib"),
    )
    commit = (git.get("commit"), git.get("dirty") and "with uncommitted changes")
    cores = machine.get("cores") and f"{machine['cores']} cores"
    room = memory and f"{memory:.0f} GiB"
    hardware = (machine.get("cpu"), cores, room, machine.get("accelerator"), machine.get("platform"))
    times = [f"{key.removesuffix('_s')} {tables.duration(value)}" for key, value in spent.items()]
    versions = [f"{name} {version}" for name, version in (info.get("versions") or {}).items()]
    return html.section(
        "How it was made",
        html.facts(
            [
                ("command", info.get("command") and html.Html(f"<code>{escape(info['command'])}</code>")),
                ("overrides", " ".join(run.overrides)),
                ("seed", info.get("seed")),
                ("commit", " ".join(part for part in commit if part)),
                ("machine", ", ".join(str(part) for part in hardware if part)),
                ("precision", info.get("precision")),
                ("memory format", "channels last" if info.get("channels_last") else None),
                ("CPU threads", info.get("num_threads")),
                ("parameters", parameters and f"{parameters:,}"),
                ("training speed", speed and f"{speed:,.0f} images/s"),
                ("epochs", len(info.get("epoch_seconds") or ()) or None),
                ("times", ", ".join(times)),
                ("started", _to_the_second(info.get("started"))),
                ("ended", _to_the_second(info.get("ended"))),
                ("versions", ", ".join(versions)),
            ]
        ),
    )


def _wandb_hint(run: Run) -> str:
    folder = run.folder / "wandb"
    if not folder.is_dir():
        return ""
    offline = sorted(folder.glob("offline-run-*"))
    commands = [
        f"wandb leet {shlex.quote(str(folder))}",
        *(f"wandb sync {shlex.quote(str(p))}" for p in offline),
    ]
    return html.section(
        "In Weights & Biases",
        html.paragraph("Browse the run in the terminal" + (", or upload it:" if offline else ":")),
        f"<pre>{escape(chr(10).join(commands))}</pre>",
    )


_COMPARED = {
    "model": "model",
    "overrides": "overrides",
    "state": "state",
    "val_acc": "val acc %",
    "acc": "acc %",
    "f1_macro": "macro F1 %",
    "leak_free_acc": "leak-free %",
    "ece": "ECE %",
    "no_answer": "no answer",
    "num_parameters": "parameters",
    "fit_s": "fit time",
    "images_per_s": "images/s",
}


def _comparison_table(rows: Sequence[tables.Row], split: str, start: Path) -> str:
    columns = {
        key: header for key, header in _COMPARED.items() if any(row[key] not in (None, "") for row in rows)
    }
    if "acc" in columns:
        columns["acc"] = f"{split} acc %"
    cells = [
        [(_run_link(row, start), row["run"]), *((tables.cell(row, key), row[key]) for key in columns)]
        for row in rows
    ]
    words = 1 + sum(key in ("model", "overrides", "state") for key in columns)
    compared = {(row["dataset"], row["split"], row["images"]) for row in rows if row["n"]}
    warning = "These runs were not measured on the same images: their numbers do not compare."
    grouped = "Shaded: mean ± standard deviation of runs that differ only in their seed."
    return "\n".join(
        (
            html.paragraph(warning, "banner") if len(compared) > 1 else "",
            html.table(
                ["run", *columns.values()],
                cells,
                text_columns=words,
                classes=[row["kind"] for row in rows],
                label="the runs",
            ),
            html.paragraph(grouped, "soft") if any(row["kind"] == "mean" for row in rows) else "",
        )
    )


def _run_link(row: tables.Row, start: Path) -> str:
    if row["kind"] != "run" or not (page := Path(row["folder"]) / "report.html").exists():
        return str(row["run"])
    target = quote(Path(os.path.relpath(page, start)).as_posix())
    return html.Html(f'<a href="{escape(target)}">{escape(row["run"])}</a>')


def _accuracy_figure(rows: Sequence[tables.Row], split: str, out: Path) -> str:
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        if row["kind"] == "run" and row["acc"] is not None:
            name = " ".join(word for word in (row["model"], *row["overrides"].split()) if "seed=" not in word)
            groups.setdefault(name, []).append((row["acc"], *wilson_interval(row["acc"], row["n"])))
    if not groups:
        return ""
    path = out.parent / "figures" / "accuracy.png"
    save(figures.accuracy_dots(groups, xlabel=f"{split} accuracy, %"), path)
    told = "; ".join(
        f"{name} {', '.join(tables.percent(run[0]) for run in members)}" for name, members in groups.items()
    )
    caption = (
        "A dot a run, with its 95 % interval for that many images; an upright line: the mean over seeds."
    )
    return html.image(path, f"Accuracy in percent: {told}", caption)
