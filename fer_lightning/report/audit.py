"""The section of a page that tells what is wrong with the data: from a run's ``audit.json``."""

import json
from pathlib import Path
from typing import Any

from fer_lightning.core.errors import FERError
from fer_lightning.report import html
from fer_lightning.report.runs import Run, within

AUDIT_CAPTION = (
    "The worst of it: pixel-identical pictures under two labels, near-duplicates in different splits "
    "(differently labelled ones first), and constant images; each with its split, label and file name."
)


def read_audit(folder: Path) -> dict[str, Any]:
    """Read a run's ``audit.json``; empty where there is none.

    Raises:
        FERError: If it is damaged.
    """
    path = within(folder, "audit.json")
    try:
        audit = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise FERError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(audit, dict):
        raise FERError(f"{path}: holds a {type(audit).__name__}, expected an object as train.py writes it")
    return audit


def audit_section(run: Run) -> str:
    """Write the section: warnings, figures, pictures; nothing for a run without an audit.

    Of a file that lacks what ``fer_lightning.data.audit.facts`` writes, only that it does is said.
    """
    audit = read_audit(run.folder)
    if not audit:
        return ""
    try:
        return _section(run, audit)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        text = (
            f"audit.json is not as `python -m fer_lightning.data.audit` writes it "
            f"({type(error).__name__}: {error}) and is not shown."
        )
        return html.section("The data's audit", html.paragraph(text, "banner"))


def _section(run: Run, audit: dict[str, Any]) -> str:
    near, definitions = audit["near_duplicates"], audit["quality"]["definitions"]
    return html.section(
        "The data's audit",
        *(html.paragraph(warning, "banner bad") for warning in audit["warnings"]),
        html.facts(_facts(audit)),
        html.table(("median", *audit["quality"]["medians"]), _medians(audit), label="medians of each split"),
        html.paragraph("; ".join(f"{figure}: {text}" for figure, text in definitions.items()), "soft"),
        html.figure(run, "audit", AUDIT_CAPTION),
        html.paragraph(f"Near-duplicates: {near['definition']}", "soft"),
    )


def _facts(audit: dict[str, Any]) -> list[tuple[str, str]]:
    copies, constant, near = audit["copies"], audit["constant"], audit["near_duplicates"]
    totals = {split: sum(by_class.values()) for split, by_class in audit["counts"].items()}
    pairs = [(split, other) for split in totals for other in totals if f"{split}_in_{other}" in copies]
    facts = [
        (
            "identical copies",
            f"{copies['images']:,} images in {copies['groups']:,} groups, {copies['redundant']:,} redundant; "
            f"{copies['conflicting_groups']:,} groups with conflicting labels",
        )
    ]
    facts += [
        (
            f"{split} in {other}",
            f"{copies[f'{split}_in_{other}']:,} of {totals[split]:,} {split} images also stand in {other}, "
            f"{near[f'{split}_near_{other}']:,} more have a near-duplicate there",
        )
        for split, other in pairs
        if totals[split] and totals[other]
    ]
    whole, across = near["all"], near["across_splits"]
    found = (
        f"{whole['pairs']:,} pairs, {whole['images']:,} images in {whole['groups']:,} groups; across splits "
        f"{across['pairs']:,} pairs; mirrored {near['mirrored_pairs']:,}"
    )
    facts.append(("near-duplicates", found if near["complete"] else f"not all looked for; found {found}"))
    where = ", ".join(f"{constant[split]:,} in {split}" for split in totals if constant[split])
    facts.append(("constant images", f"{constant['images']:,}{f' ({where})' if where else ''}"))
    facts += [
        (
            f"{split} balance",
            f"largest class {balance['largest']}, smallest {balance['smallest']}"
            + (f", {balance['ratio']:.1f} times as many" if balance["ratio"] else ", which has no image"),
        )
        for split, balance in audit["balance"].items()
        if balance
    ]
    published = {True: "pixel for pixel FER-2013 as published", False: "not FER-2013 as published"}
    return [*facts, ("pixels", published.get(audit["as_published"], ""))]


def _medians(audit: dict[str, Any]) -> list[list[tuple[Any, Any]]]:
    """Give a row a figure, a column a split, the known good value beside it."""
    quality = audit["quality"]
    rows = []
    for figure in quality["definitions"]:
        row: list[tuple[Any, Any]] = [(figure, figure)]
        for split, medians in quality["medians"].items():
            value, known = medians.get(figure), ((quality["known"] or {}).get(split) or {}).get(figure)
            shown = "—" if value is None else f"{value:,.1f}"
            row.append((shown if known is None else f"{shown} (known {known:,.1f})", value))
        rows.append(row)
    return rows
