"""The model card of a network: data, protocol, accuracy, calibration, limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_lightning.config.limits import limits_warning
from fer_lightning.core.names import dataset_title
from fer_lightning.evaluation.stats import wilson_interval

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_NUMBERS = dict(
    enumerate(["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
)

USAGE_OF_PACKAGE = """```python
from fer_lightning import FERPredictor

predictor = FERPredictor.load()
faces = predictor("photo.jpg")
```

`fer-lightning predict photo.jpg` does the same from a terminal."""


def write_card(
    description: Mapping[str, Any],
    *,
    usage: str = USAGE_OF_PACKAGE,
    files: str = "",
    measured: str = "",
    verification: str = "",
    licence: str | None = "mit",
) -> str:
    """Write the model card of a network, as Markdown for Hugging Face.

    Args:
        description: Of ``pack_run`` or ``describe_network``. Metrics, run and measured calibration may lack.
        usage: How to load the files, Markdown.
        files: What the files hold, a sentence; empty for those of ``pack_run``.
        measured: In which arithmetic accuracy was measured; empty for that of ``pack_run``.
        verification: A section on how the files were checked; empty for none.
        licence: As Hugging Face names it; None if it is the user's to choose.
    """
    name, image = description["name"], description["image"]
    classes = description["classes"]
    colour = "grey" if image["channels"] == 1 else "colour"
    files = files or (
        f"The weights are float16 in\n`{name}.safetensors`; `{name}.json` holds everything that is needed to "
        "build the network and to prepare an image."
    )
    start = "from scratch on" if _is_from_scratch(description) else "on"
    summary = (
        f"A {_model_name(description)} of {description['num_parameters']:,} parameters, trained {start} "
        f"{_data_name(description)}. It maps a {colour} image of {image['size']} x {image['size']} pixels\n"
        f"of one face to probabilities of {', '.join(classes)}. {files}"
    )
    return _TEMPLATE.read_text(encoding="utf-8").format(
        license="" if licence is None else f"license: {licence}\n",
        name=name,
        number=_NUMBERS.get(len(classes), len(classes)),
        summary=summary,
        usage=usage,
        data=_describe_data(description),
        accuracy=_describe_accuracy(description, measured),
        calibration=_describe_calibration(description),
        verification=f"## Verification\n\n{verification}\n\n" if verification else "",
        limits="\n".join(f"* {limit}" for limit in describe_limits(description)),
    )


def _model_name(description: Mapping[str, Any]) -> str:
    model = description["checkpoint"]["config"]["model"]
    name = str(model["_target_"]).rpartition(".")[2]
    return f"{name}-{model['depth']}" if "depth" in model else name


def _is_from_scratch(description: Mapping[str, Any]) -> bool:
    """Return whether the overrides of a run are known, and name no weights to start from."""
    overrides = (description.get("run") or {}).get("overrides")
    started = ("init_from=", "model.pretrained=", "model=timm")
    model = description["checkpoint"]["config"]["model"]
    return (
        overrides is not None
        and not model.get("pretrained")
        and not any(text.lstrip("+").startswith(started) for text in overrides)
    )


def _stored_data(description: Mapping[str, Any]) -> Mapping[str, Any]:
    return description["checkpoint"]["config"].get("data") or {}


def _data_name(description: Mapping[str, Any]) -> str:
    name = _stored_data(description).get("name")
    return dataset_title(name) if name else "a data set that its checkpoint does not name"


def _is_official_fer2013(description: Mapping[str, Any]) -> bool:
    data = _stored_data(description)
    return (
        data.get("name") == "fer2013" and data.get("protocol") == "official" and not data.get("val_fraction")
    )


def _describe_data(description: Mapping[str, Any]) -> str:
    checkpoint, run, data = description["checkpoint"], description.get("run"), _stored_data(description)
    commit = ((run or {}).get("git") or {}).get("commit")
    fingerprint = checkpoint["fingerprint"] or "not known"
    if _is_official_fer2013(description):
        text = (
            f"FER-2013 (Goodfellow et al. 2013, fingerprint `{fingerprint}`) with its official splits:\n"
            "trained on Training, the epoch chosen on PublicTest, tested on PrivateTest. "
        )
        if "fitted_on" in description["calibration"]:
            text += "Temperature and threshold were chosen on\nPublicTest, too. "
        text += "Its images and labels come from web searches and are meant for research."
    else:
        chosen = (
            "the weights of the last epoch, none was chosen"
            if checkpoint["selected_by"] == "last"
            else f"the epoch chosen by {checkpoint['selected_by']}"
        )
        held_out = data.get("val_fraction")
        text = (
            f"{_data_name(description)} (fingerprint `{fingerprint}`), protocol "
            f"{data.get('protocol', 'not known')}: {chosen}."
            + (
                f" {100 * held_out:.0f} % of the training images were held out to choose it."
                if held_out
                else ""
            )
        )
    shown = commit[:12] if commit else "unknown"
    text += f" The run, at commit\n`{shown}`, epoch {checkpoint['epoch'] + 1}"
    if run is None:
        return f"{text}. The command that trained it is not known."
    return f"{text}:\n\n```\npython train.py {' '.join(run['overrides'])}\n```"


def _titles(description: Mapping[str, Any]) -> dict[str, str]:
    official = _is_official_fer2013(description)
    return {"val": "PublicTest", "test": "PrivateTest"} if official else {"val": "val", "test": "test"}


def _describe_accuracy(description: Mapping[str, Any], measured: str) -> str:
    metrics, titles = description.get("metrics"), _titles(description)
    if not metrics:
        return "Not known: there are no results of a finished run next to the weights."
    rows = "\n".join(_accuracy_row(titles[split], metrics[split]) for split in titles if split in metrics)
    measured = (
        measured
        or "Of the float16 weights, computed in float32, with an image and its mirror image averaged:"
    )
    text = (
        f"{measured}\n\n"
        "| split | images | accuracy | 95 % CI | leak-free accuracy |\n"
        "| --- | --: | --: | --- | --- |\n"
        f"{rows}\n\n"
        "Leak-free leaves out images with a pixel-identical duplicate among the images that trained "
        "the network or, on\n"
        f"{titles['test']}, selected its epoch."
    )
    if "test" in metrics:
        recalls = ", ".join(
            f"{name} {'-' if value is None else f'{100 * value:.1f} %'}"
            for name, value in metrics["test"]["recall"].items()
        )
        text += f" Recall on {titles['test']}:\n{recalls}."
    if _data_name(description) == "FER-2013":
        text += "\nPeople agree with the labels of FER-2013 at about 65 %."
    return text


def _accuracy_row(title: str, measured: Mapping[str, Any]) -> str:
    low, high = wilson_interval(measured["acc"], measured["n"])
    leak_free = "not known"
    if measured["leak_free_acc"] is not None:
        leak_free = f"{100 * measured['leak_free_acc']:.2f} % of {measured['leak_free_n']:,}"
    return (
        f"| {title} | {measured['n']:,} | {100 * measured['acc']:.2f} % | {100 * low:.1f}-{100 * high:.1f} "
        f"| {leak_free} |"
    )


def _describe_calibration(description: Mapping[str, Any]) -> str:
    calibration, titles = description["calibration"], _titles(description)
    if calibration["temperature"] == 1 and calibration["threshold"] is None:
        metrics = (description.get("metrics") or {}).get("test") or {}
        ece = metrics.get("ece")
        known = (
            ""
            if ece is None
            else f" Their calibration error (ECE in 15 bins) on {titles['test']}: {100 * ece:.2f} %."
        )
        return f"The probabilities are the network's own: no temperature was fitted.{known}"
    fitted = titles["val"]
    text = f"The logits are divided by the temperature {calibration['temperature']:.4f}"
    text += (
        f", which has the lowest negative log-likelihood (NLL) on\n{fitted}."
        if "fitted_on" in calibration
        else "."
    )
    if calibration["threshold"] is not None:
        text += f" An answer is *unsure* if its highest probability is below {calibration['threshold']:.4f}"
        if "precision" in calibration:
            text += ": of the answers at or above it,\n"
            text += f"{100 * calibration['precision']:.0f} % are right on {fitted}"
        text += "."
    if not {"val", "test"} <= calibration.keys():
        return text
    rows = "\n".join(_calibration_row(title, calibration[split]) for split, title in titles.items())
    return (
        f"{text}\n\n"
        "| split | ECE before | ECE after | NLL before | NLL after | sure answers | of them right |\n"
        "| --- | --: | --: | --: | --: | --: | --: |\n"
        f"{rows}\n\n"
        "ECE in 15 bins. Photographs from elsewhere were not measured; expect the probabilities to "
        "be worse calibrated there."
    )


def _calibration_row(title: str, measured: Mapping[str, Any]) -> str:
    sure, right = (
        "-" if measured[key] is None else f"{100 * measured[key]:.1f} %" for key in ("sure", "sure_right")
    )
    eces = " | ".join(f"{100 * measured[key]:.2f} %" for key in ("ece_before", "ece_after"))
    nlls = " | ".join(f"{measured[key]:.4f}" for key in ("nll_before", "nll_after"))
    return f"| {title} | {eces} | {nlls} | {sure} | {right} |"


def describe_limits(description: Mapping[str, Any]) -> list[str]:
    """Say in sentences, with Markdown's emphasis, what a network is not made for."""
    image, name = description["image"], _stored_data(description).get("name")
    colour = "grey" if image["channels"] == 1 else "colour"
    limits = [
        "It predicts how people label faces in photographs. It does not know what anybody feels.",
        f"The network sees {image['size']} {colour} pixels a side. Expect more errors for faces "
        "that are small, turned, "
        "covered, dark or blurred.",
    ]
    if name == "synthetic":
        limits.append("It was trained on synthetic faces: its predictions on photographs are meaningless.")
    elif name == "fer2013":
        limits.append(
            "FER-2013 was never balanced for age, skin colour and culture; nothing here measures "
            "the differences. "
            "*disgust* has\n  1.5 % of the training images."
        )
    else:
        limits.append("Differences between ages, skin colours and cultures were not measured.")
    if description.get("limited"):
        limits.append(f"A {limits_warning(description['limited'])}.")
    limits.append(
        "Do not use it to judge persons: in hiring, policing, schooling, insurance, at borders or at work, "
        "where the law of\n  many countries forbids emotion recognition."
    )
    return limits


def describe_training(description: Mapping[str, Any]) -> str:
    """Say in one sentence what a network is and what trained it."""
    return (
        f"Network: {description['name']}, a {_model_name(description)} of {description['num_parameters']:,} "
        f"parameters, trained on {_data_name(description)}."
    )


def describe_accuracy(description: Mapping[str, Any]) -> str:
    """Say in one sentence how accurate a network is on the split that did not choose it."""
    measured, title = (description.get("metrics") or {}).get("test"), _titles(description)["test"]
    if measured is None:
        return "Its accuracy is not known."
    low, high = wilson_interval(measured["acc"], measured["n"])
    return (
        f"Accuracy on {title}: {100 * measured['acc']:.2f} % (95 % CI {100 * low:.1f}-{100 * high:.1f}, n = "
        f"{measured['n']:,})."
    )
