"""The model card of a network: data, protocol, accuracy, calibration, limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_lightning.evaluation.stats import wilson_interval

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"


def write_card(description: Mapping[str, Any]) -> str:
    """Write the model card of what ``pack_run`` describes, as Markdown for Hugging Face."""
    image, calibration, checkpoint = (description[key] for key in ("image", "calibration", "checkpoint"))
    run, metrics = description["run"], description["metrics"]
    model = checkpoint["config"]["model"]
    name = model["_target_"].rpartition(".")[2]
    colour = "grey" if image["channels"] == 1 else "colour"
    return _TEMPLATE.read_text(encoding="utf-8").format(
        name=description["name"],
        model=f"{name}-{model['depth']}" if "depth" in model else name,
        num_parameters=description["num_parameters"],
        image=f"{colour} image of {image['size']} x {image['size']} pixels",
        classes=", ".join(description["classes"]),
        fingerprint=checkpoint["fingerprint"],
        overrides=" ".join(run["overrides"]),
        commit=((run.get("git") or {}).get("commit") or "unknown")[:12],
        epoch=checkpoint["epoch"],
        accuracies="\n".join(_accuracy_row(title, metrics[split]) for split, title in _SPLITS.items()),
        recalls=", ".join(f"{name} {100 * value:.1f} %" for name, value in metrics["test"]["recall"].items()),
        temperature=calibration["temperature"],
        threshold=calibration["threshold"] or 0.0,
        precision=100 * calibration["precision"],
        calibrations="\n".join(
            _calibration_row(title, calibration[split]) for split, title in _SPLITS.items()
        ),
    )


_SPLITS = {"val": "PublicTest", "test": "PrivateTest"}


def _accuracy_row(title: str, measured: Mapping[str, Any]) -> str:
    low, high = wilson_interval(measured["acc"], measured["n"])
    leak_free = f"{100 * measured['leak_free_acc']:.2f} % of {measured['leak_free_n']:,}"
    return (
        f"| {title} | {measured['n']:,} | {100 * measured['acc']:.2f} % | {100 * low:.1f}-{100 * high:.1f} "
        f"| {leak_free} |"
    )


def _calibration_row(title: str, measured: Mapping[str, Any]) -> str:
    right = "-" if measured["sure_right"] is None else f"{100 * measured['sure_right']:.1f} %"
    eces = " | ".join(f"{100 * measured[key]:.2f} %" for key in ("ece_before", "ece_after"))
    nlls = " | ".join(f"{measured[key]:.4f}" for key in ("nll_before", "nll_after"))
    return f"| {title} | {eces} | {nlls} | {100 * measured['sure']:.1f} % | {right} |"
