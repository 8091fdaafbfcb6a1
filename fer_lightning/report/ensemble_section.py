"""What the page of an ensemble shows: its members, how they were chosen, what the mean gains."""

from collections.abc import Mapping
from typing import Any

from fer_lightning.report import tables
from fer_lightning.report.paper.table import format_p_value
from fer_lightning.report.rendering import Table, TableCell, text_cell
from fer_lightning.report.run_results import RunResults


def ensemble_context(run: RunResults) -> dict[str, Any] | None:
    """Return the sentence and the table on the members of an ensemble; None for any other predictor."""
    ensemble = run.info.get("ensemble")
    if not isinstance(ensemble, Mapping) or not ensemble.get("members"):
        return None
    return {"sentence": _sentence(ensemble), "members": _members(ensemble, run.split or "")}


def _sentence(ensemble: Mapping[str, Any]) -> str:
    chosen = [member for member in ensemble["members"] if member["chosen"]]
    count = f"{len(chosen)} predictor{'' if len(chosen) == 1 else 's'}"
    sentences = [f"The mean of the probabilities of {count}."]
    if order := ensemble.get("order"):
        steps = ", ".join(
            f"{name} ({tables.percent(accuracy)} %)"
            for name, accuracy in zip(order, ensemble["val_acc_after"], strict=True)
        )
        sentences.append(
            f"Chosen one after the other by the accuracy of the mean on val, without any test image: {steps}."
        )
    if (disagreement := ensemble.get("disagreement")) is not None:
        sentences.append(f"Two of them differ on {tables.percent(disagreement)} % of the images, on average.")
    sentences.append(
        "Gain: accuracy of the mean minus that of the member on the same images, in points, with its 95 % CI "
        "and the p-value of the exact McNemar test, not adjusted for the number of members."
    )
    return " ".join(sentences)


def _members(ensemble: Mapping[str, Any], split: str) -> Table:
    rows = []
    for member in ensemble["members"]:
        low, high = member["gain_ci95"]
        val = member["val_acc"]
        rows.append(
            [
                TableCell(member["name"], member["name"], badge="chosen" if member["chosen"] else None),
                TableCell("—" if val is None else tables.percent(val), val),
                TableCell(tables.percent(member["acc"]), member["acc"]),
                TableCell(f"{100 * member['gain']:+.2f}", member["gain"]),
                text_cell(f"{100 * low:+.1f} to {100 * high:+.1f}"),
                TableCell(format_p_value(member["p_value"], equals=False), member["p_value"]),
            ]
        )
    headers = ["member", "val acc, %", f"{split} acc, %", "gain", "95 % CI", "p"]
    return Table(headers, rows, label="members of the ensemble")
