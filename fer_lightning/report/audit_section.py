"""The data audit section of a run's page, from the run's ``audit.json``."""

from typing import Any

from fer_lightning.report.rendering import Image, Table, TableCell, run_figure, text_cell
from fer_lightning.report.run_results import RunResults, read_audit

AUDIT_CAPTION = (
    "Examples: pixel-identical images with different labels, near-duplicates in different splits (those with "
    "different labels first), and blank images; each with its split, label and file name."
)

_EMPTY: dict[str, Any] = {
    "problem": "",
    "warnings": (),
    "facts": (),
    "medians": None,
    "definitions": "",
    "examples": None,
    "near_definition": "",
}


def audit_context(run: RunResults) -> dict[str, Any] | None:
    """Prepare the variables of ``templates/audit.html``; None for a run without an audit.

    If the file lacks what ``fer_lightning.data.audit`` writes, the section says only that.
    """
    audit = read_audit(run.folder)
    if not audit:
        return None
    examples = run_figure(run, "audit", AUDIT_CAPTION)
    try:
        return _context(audit, examples)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        problem = (
            f"audit.json is not as `python -m fer_lightning.data.audit` writes it "
            f"({type(error).__name__}: {error}) and is not shown."
        )
        return _EMPTY | {"problem": problem}


def _context(audit: dict[str, Any], examples: Image | None) -> dict[str, Any]:
    quality = audit["quality"]
    return _EMPTY | {
        "warnings": [str(warning) for warning in audit["warnings"]],
        "facts": _facts(audit),
        "medians": Table(
            ("median", *quality["medians"]), _median_rows(quality), label="medians of each split"
        ),
        "definitions": "; ".join(f"{name}: {text}" for name, text in quality["definitions"].items()),
        "examples": examples,
        "near_definition": f"Near-duplicates: {audit['near_duplicates']['definition']}",
    }


def _facts(audit: dict[str, Any]) -> list[tuple[str, str]]:
    published = {True: "pixel for pixel FER-2013 as published", False: "not FER-2013 as published"}
    return [
        *_duplicate_facts(audit),
        *_group_facts(audit),
        *_constant_facts(audit),
        *_balance_facts(audit),
        ("pixels", published.get(audit["as_published"], "")),
        *_published_facts(audit),
    ]


def _published_facts(audit: dict[str, Any]) -> list[tuple[str, str]]:
    """Show how the images compare with those of FER-2013, unless all are as published."""
    compared = audit.get("published")
    if not compared or audit["as_published"]:
        return []
    words = {
        "same_pixels": "as published",
        "mirrored": "mirrored",
        "altered": "with altered pixels",
        "foreign": "not recognised",
        "copies": "added copies",
        "missing": "missing",
        "relabelled": "with another label",
        "moved": "in another split",
    }
    counts = [f"{compared[key]:,} {word}" for key, word in words.items() if compared[key]]
    return [("images of FER-2013", ", ".join(counts))]


def _duplicate_facts(audit: dict[str, Any]) -> list[tuple[str, str]]:
    copies, near = audit["copies"], audit["near_duplicates"]
    totals = {split: sum(by_class.values()) for split, by_class in audit["counts"].items()}
    pairs = [(split, other) for split in totals for other in totals if f"{split}_in_{other}" in copies]
    facts = [
        (
            "exact duplicates",
            f"{copies['images']:,} images in {copies['groups']:,} groups, {copies['redundant']:,} redundant; "
            f"{copies['conflicting_groups']:,} groups with conflicting labels",
        )
    ]
    facts += [
        (
            f"{split} in {other}",
            f"{copies[f'{split}_in_{other}']:,} of {totals[split]:,} {split} images are duplicates of "
            f"{other} images, {near[f'{split}_near_{other}']:,} more have a near-duplicate there",
        )
        for split, other in pairs
        if totals[split] and totals[other]
    ]
    whole, across = near["all"], near["across_splits"]
    found = (
        f"{whole['pairs']:,} pairs, {whole['images']:,} images in {whole['groups']:,} groups; across splits "
        f"{across['pairs']:,} pairs; mirrored {near['mirrored_pairs']:,}"
    )
    facts.append(("near-duplicates", found if near["complete"] else f"search incomplete; found {found}"))
    return facts


def _group_facts(audit: dict[str, Any]) -> list[tuple[str, str]]:
    groups = audit.get("groups")
    if not groups:
        return []
    torn = [
        f"{count:,} {key.replace('_', ' ')}" for key, count in groups.items() if key != "groups" and count
    ]
    where = f"images whose group is in another split: {', '.join(torn)}" if torn else "none in two splits"
    return [("groups", f"{groups['groups']:,}, {where}")]


def _constant_facts(audit: dict[str, Any]) -> list[tuple[str, str]]:
    constant = audit["constant"]
    where = ", ".join(f"{constant[split]:,} in {split}" for split in audit["counts"] if constant[split])
    return [("blank images", f"{constant['images']:,}{f' ({where})' if where else ''}")]


def _balance_facts(audit: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for split, balance in audit["balance"].items():
        if balance:
            ratio = f", {balance['ratio']:.1f} times as many" if balance["ratio"] else ", which has no image"
            text = f"largest class {balance['largest']}, smallest {balance['smallest']}{ratio}"
            facts.append((f"{split} balance", text))
    return facts


def _median_rows(quality: dict[str, Any]) -> list[list[TableCell]]:
    """Make one row per measure of image quality and one column per split, with the published value if any."""
    rows = []
    for measure in quality["definitions"]:
        row = [text_cell(measure)]
        for split, medians in quality["medians"].items():
            value = medians.get(measure)
            known = ((quality["known"] or {}).get(split) or {}).get(measure)
            shown = "—" if value is None else f"{value:,.1f}"
            row.append(TableCell(shown if known is None else f"{shown} (published {known:,.1f})", value))
        rows.append(row)
    return rows
