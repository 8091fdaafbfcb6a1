"""One self-contained HTML page for a run, and one that compares several.

Names of images, classes and runs come from strangers' files: whatever reaches the page goes through
``escape``, and its content policy forbids loading anything.
"""

import base64
import os
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np

from fer_lightning.predictions import Predictions
from fer_lightning.report import figures, tables
from fer_lightning.report.drawing import confident_mistakes, draw_run, save
from fer_lightning.report.runs import Run, read_run

_RELIABILITY = (
    "How often an answer given with some confidence was right. Bars below the diagonal: the model is surer "
    "than it should be. Below: how many images had that confidence."
)


class _Html(str):
    """Text that is markup already, made by this module."""


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
        _paragraph(_subtitle(run), "soft"),
        _banners([run]),
        _cards(tables.headline_facts(run.metrics)),
        _results(run),
        _section("Learning", _figure(run, "learning_curves", "Loss and accuracy over epochs.")),
        _section("Calibration", _figure(run, f"reliability_{run.split}", _RELIABILITY)),
        _mistakes(run),
        _data(run),
        _making(run),
        _wandb_hint(run),
    ]
    if run.config:
        config = f"<details><summary>config.yaml</summary><pre>{escape(run.config)}</pre></details>"
        sections.append(_section("Configuration", config))
    return _write(run_dir / "report.html", title, sections)


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write one page that compares several runs.

    Args:
        runs: Run folders, such as the jobs of a sweep.
        out: The page to write; its folder is made. It links to the runs' own pages by relative path.

    Returns:
        ``out``.

    Raises:
        FERError: If a folder is no run folder, or a file in it is damaged.
    """
    for folder in runs:
        draw_run(folder)
    loaded = [read_run(folder) for folder in runs]
    rows = tables.summarise_runs(runs)
    split = tables.measured_on(rows)
    title = f"{len(runs)} runs on {', '.join(sorted({run.dataset for run in loaded}))}"
    matrices = [
        _figure(run, f"confusion_{run.split}", f"{run.folder.name}: {_confusions(run)}") for run in loaded
    ]
    sections = [
        f"<h1>{escape(title)}</h1>",
        _banners(loaded),
        _section("Runs", _comparison_table(rows, split, out.parent)),
        _section(f"Accuracy, {split} split", _accuracy_figure(rows, split, out)),
        _section(
            "Confusion matrices", f'<div class="side">{"".join(matrices)}</div>' if any(matrices) else ""
        ),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    return _write(out, title, sections, layout="wide")


def _write(path: Path, title: str, sections: Iterable[str], layout: str = "") -> Path:
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    html = template.substitute(title=escape(title), layout=layout, body="\n".join(filter(None, sections)))
    # File names that are not UTF-8 hold lone surrogates, which cannot be encoded.
    path.write_text(html, encoding="utf-8", errors="replace")
    return path


def _section(heading: str, *parts: str) -> str:
    content = "\n".join(filter(None, parts))
    return f"<section><h2>{escape(heading)}</h2>\n{content}</section>" if content else ""


def _paragraph(text: str, css_class: str = "") -> str:
    return f'<p class="{css_class}">{escape(text)}</p>' if text else ""


def _facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Write a list of names and values, without those that are not known."""
    known = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{_inner(value)}</dd>" for name, value in known)
    return f"<dl>{items}</dl>" if items else ""


def _inner(value: Any) -> str:
    return value if isinstance(value, _Html) else escape(str(value))


def _table(
    headers: Sequence[str],
    rows: Iterable[Sequence[tuple[Any, Any]]],
    *,
    text_columns: int = 1,
    classes: Iterable[str] = (),
) -> str:
    """Write a table that sorts by click.

    Args:
        headers: One a column.
        rows: Cells as (what is shown, what it sorts by); None sorts last.
        text_columns: How many of the first columns hold words.
        classes: A CSS class for each row, if any.
    """
    styles = [' class="text"' if column < text_columns else "" for column in range(len(headers))]
    head = "".join(
        f"<th scope=col{style}><button>{escape(header)}</button></th>"
        for header, style in zip(headers, styles, strict=True)
    )
    row_classes = iter(classes)
    body = "\n".join(
        f'<tr class="{next(row_classes, "")}">'
        + "".join(
            f'<td{style} data-value="{escape("" if key is None else str(key))}">{_inner(shown)}</td>'
            for (shown, key), style in zip(row, styles, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _image(path: Path, alt: str, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _figure(run: Run, name: str, caption: str, alt: str = "") -> str:
    path = run.folder / "figures" / f"{name}.png"
    return _image(path, alt or caption, caption) if path.exists() else ""


def _subtitle(run: Run) -> str:
    parts = [run.state, run.info.get("started"), run.info.get("name"), run.folder.name]
    return " · ".join(dict.fromkeys(str(part) for part in parts if part))


def _banners(runs: Sequence[Run]) -> str:
    banners = []
    if any(run.synthetic for run in runs):
        which = "" if all(run.synthetic for run in runs) else " for some of these runs"
        text = (
            f"Synthetic data{which}: the faces were drawn by a program. The numbers say nothing about people."
        )
        banners.append(f'<p class="banner">{escape(text)}</p>')
    for run in runs:
        name = run.folder.name if len(runs) > 1 else "This run"
        if run.state in ("failed", "interrupted"):
            reason = f": {run.info['reason']}" if run.info.get("reason") else ""
            text = f"{name} {'failed' if run.state == 'failed' else 'was interrupted'}{reason}"
            banners.append(f'<p class="banner bad">{escape(text)}</p>')
        elif run.state != "finished":
            text = f"{name} had not ended when the page was written, or was killed."
            banners.append(f'<p class="banner">{escape(text)}</p>')
    return "\n".join(banners)


def _cards(facts: Iterable[tuple[str, str, str]]) -> str:
    cards = "".join(
        f"<div><small>{escape(what)}</small><b>{escape(value)}</b><small>{escape(note)}</small></div>"
        for what, value, note in facts
    )
    return f'<div class="cards">{cards}</div>' if cards else ""


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
        return _section("Results", _paragraph("Nothing was measured."))
    rows = [
        [(name, name), *((tables.percent(score), score) for score in scores), (f"{n:,}", n)]
        for name, scores, n in tables.per_class_rows(run.measured)
    ]
    confused = _confusions(run)
    return _section(
        f"Results on the {run.split} split",
        _paragraph(
            "Precision: of the images given this name, how many deserved it. Recall: of the images that "
            "deserve it, how many were given it. F1 is their harmonic mean. One-vs-rest accuracy counts the "
            "rightly rejected too, so it is high for rare classes whatever the model does.",
            "soft",
        ),
        _table(tables.PER_CLASS_HEADERS, rows),
        _figure(run, f"per_class_{run.split}", "Precision, recall and F1 of each class."),
        _figure(
            run,
            f"confusion_{run.split}",
            f"Who was taken for whom, each row as percentages of its true class; {confused}",
            f"Confusion matrix in percent of each true class; {confused}",
        ),
        _figure(
            run,
            f"confusion_counts_{run.split}",
            "The same in numbers of images.",
            f"Confusion matrix in numbers of images; {confused}",
        ),
    )


def _mistakes(run: Run) -> str:
    picture = _figure(
        run, f"mistakes_{run.split}", "The wrong answers given with the highest probability, surest first."
    )
    path = run.folder / f"predictions_{run.split}.npz"
    if not path.exists():
        return _section("Most confident mistakes", picture)
    predictions = Predictions.load(path)
    shown = predictions.subset(confident_mistakes(predictions))
    rows = [
        [(image, image), (true, true), (answer, answer), (tables.percent(confidence), confidence)]
        for image, true, answer, confidence in zip(
            shown.ids.tolist(),
            (shown.classes[label] for label in shown.labels),
            (shown.classes[label] for label in shown.predicted),
            shown.probs.max(axis=1, initial=0).tolist(),
            strict=True,
        )
    ]
    listing = _table(("image", "true class", "answer", "probability %"), rows, text_columns=3) if rows else ""
    unanswered = int((predictions.predicted < 0).sum())
    silence = f"{unanswered:,} of {len(predictions):,} images got no answer; they count as wrong."
    return _section(
        "Most confident mistakes",
        _paragraph(silence if unanswered else ""),
        picture,
        listing and f"<details><summary>Their file names</summary>{listing}</details>",
    )


def _data(run: Run) -> str:
    data = run.info.get("data") or {}
    return _section(
        "Data",
        _paragraph(data.get("summary") or ""),
        _figure(run, "samples", "The first training images of each class."),
        _figure(run, "class_distribution", "How each split divides among the classes."),
        _facts([("fingerprint", data.get("fingerprint"))]),
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
    return _section(
        "How it was made",
        _facts(
            [
                ("command", info.get("command") and _Html(f"<code>{escape(info['command'])}</code>")),
                ("overrides", " ".join(run.overrides)),
                ("seed", info.get("seed")),
                ("commit", " ".join(part for part in commit if part)),
                ("machine", ", ".join(str(part) for part in hardware if part)),
                ("precision", info.get("precision")),
                ("memory format", info.get("memory_format")),
                ("CPU threads", info.get("num_threads")),
                ("parameters", parameters and f"{parameters:,}"),
                ("training speed", speed and f"{speed:,.0f} images/s"),
                ("epochs", len(info.get("epoch_seconds") or ()) or None),
                ("times", ", ".join(times)),
                ("started", info.get("started")),
                ("ended", info.get("ended")),
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
    return _section(
        "In Weights & Biases",
        _paragraph("Browse the run in the terminal" + (", or upload it:" if offline else ":")),
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
    "num_parameters": "parameters",
    "fit_s": "fit time",
    "images_per_s": "images/s",
}


def _comparison_table(rows: Sequence[tables.Row], split: str, start: Path) -> str:
    headers = ["run", *_COMPARED.values()]
    headers[headers.index("acc %")] = f"{split} acc %"
    cells = [
        [(_run_link(row, start), row["run"]), *((tables.cell(row, key), row[key]) for key in _COMPARED)]
        for row in rows
    ]
    compared = {(row["dataset"], row["split"], row["n"]) for row in rows if row["n"]}
    warning = "These runs were not measured on the same images: their numbers do not compare."
    grouped = "Shaded: mean ± standard deviation of runs that differ only in their seed."
    return "\n".join(
        (
            _paragraph(warning, "banner") if len(compared) > 1 else "",
            _table(headers, cells, text_columns=4, classes=[row["kind"] for row in rows]),
            _paragraph(grouped, "soft") if any(row["kind"] == "mean" for row in rows) else "",
        )
    )


def _run_link(row: tables.Row, start: Path) -> str:
    if row["kind"] != "run" or not (page := Path(row["folder"]) / "report.html").exists():
        return str(row["run"])
    target = quote(Path(os.path.relpath(page, start)).as_posix())
    return _Html(f'<a href="{escape(target)}">{escape(row["run"])}</a>')


def _accuracy_figure(rows: Sequence[tables.Row], split: str, out: Path) -> str:
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        if row["kind"] == "run" and row["acc"] is not None:
            name = " ".join(word for word in (row["model"], *row["overrides"].split()) if "seed=" not in word)
            groups.setdefault(name, []).append((row["acc"], *tables.wilson_interval(row["acc"], row["n"])))
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
    return _image(path, f"Accuracy in percent: {told}", caption)
