"""Sentences on how a data set differs from the published FER-2013."""

from collections.abc import Mapping
from typing import Any

from fer_lightning.data.audit.quality import FER2013_FINGERPRINT

# Images of one split with a pixel-identical duplicate in another, or only a near-duplicate, as published.
PUBLISHED_LEAKS = {
    "test_in_train": 288,
    "val_in_train": 280,
    "test_in_val": 44,
    "test_near_train": 148,
    "val_near_train": 142,
    "test_near_val": 42,
}

# Figures of the comparison with the published images, in words.
COMPARED = {
    "same_pixels": "images with published pixels",
    "mirrored": "mirrored images",
    "altered": "images with altered pixels",
    "foreign": "images not recognised",
    "copies": "added copies",
    "missing": "missing images",
    "relabelled": "images with another label",
    "moved": "images in another split",
}

_SIZE = 48


def describe_differences(
    compared: Mapping[str, Any] | None,
    leaks: Mapping[str, int],
    *,
    name: str,
    image_size: int,
) -> list[str]:
    """Name what was done to FER-2013.

    Args:
        compared: The result of ``compare_with_published``.
        leaks: The images with a duplicate (``test_in_train``) or only a near-duplicate (``test_near_train``)
            in another split.
        name: The name of the data set.
        image_size: Side of its images, in pixels.

    Returns:
        One sentence for each kind of difference; none if the data set is as published.
    """
    if compared is None:
        return []
    subject = "this FER-2013" if name == "fer2013" else f"{name} holds images of FER-2013 and"
    if compared["foreign"] and not any(
        compared[kind] for kind in ("same_pixels", "mirrored", "altered", "copies")
    ):
        found = [f"none of the {compared['foreign']:,} images is one of the published FER-2013"]
        return [f"{found[0]}, so {_incomparable(compared, leaky=False)}"]
    found = [
        sentence
        for sentence in (
            _pixels(compared, image_size),
            _labels(compared),
            _splits(compared),
            _missing(compared),
            _copies(compared),
            _foreign(compared),
        )
        if sentence
    ]
    more = _more_leaks(compared, leaks)
    sentences = [f"{subject} {sentence}" for sentence in found]
    if sentences:
        advice = _incomparable(compared, leaky=bool(more))
        sentences[0] += f". {advice[0].upper()}{advice[1:]}"
    if more:
        sentences.append(f"more images leak than in the published FER-2013: {'; '.join(more)}")
    return sentences


def _incomparable(compared: Mapping[str, Any], *, leaky: bool) -> str:
    if compared["test_intact"] and not leaky:
        return "the test images are those published, so scores on them are comparable"
    return (
        "scores on it are not comparable with published ones; an unaltered copy is msambare/fer2013 of "
        f"Kaggle, whose fingerprint here is {FER2013_FINGERPRINT[:12]}"
    )


def _such_as(compared: Mapping[str, Any], kind: str) -> str:
    ids = compared["examples"][kind]
    return f", such as {', '.join(ids)}" if ids else ""


def _images(count: int) -> str:
    return f"{count:,} image{'s' if count != 1 else ''}"


def _labels(compared: Mapping[str, Any]) -> str:
    labels, count = compared["labels"], compared["relabelled"]
    renamed = ", ".join(f"{new} (published as {old})" for new, old in labels["renamed"].items())
    parts = [f"has classes of other names: {renamed}"] if renamed else []
    if count:
        total = f"has other labels than published for {_images(count)}{_such_as(compared, 'relabelled')}"
        causes = [f"{one} and {two} are swapped" for one, two in labels["swapped"]]
        causes += [f"{old} is labelled {new}" for old, new in labels["renumbered"].items()]
        if labels["shuffled"]:
            causes.append("they agree no more often than shuffled ones")
        elif causes and labels["others"]:
            causes.append(f"{labels['others']:,} others differ")
        parts.append(f"{total}: {', '.join(causes)}" if causes else total)
    return " and ".join(parts)


def _splits(compared: Mapping[str, Any]) -> str:
    if not compared["moved"]:
        return ""
    swapped = [f"{one} and {two} are swapped" for one, two in compared["swapped_splits"]]
    named = {f"{a} in {b}" for pair in compared["swapped_splits"] for a, b in (pair, pair[::-1])}
    moves = [f"{count:,} of {move}" for move, count in compared["moves"].items() if move not in named]
    return (
        f"has {_images(compared['moved'])} in another split than published{_such_as(compared, 'moved')}: "
        f"{', '.join(swapped + moves)}"
    )


def _missing(compared: Mapping[str, Any]) -> str:
    if not compared["missing"]:
        return ""
    where = ", ".join(f"{count:,} of {split}" for split, count in compared["missing_by_split"].items())
    classes = compared["missing_classes"]
    whole = f"; every image of {' and '.join(classes)} is missing" if classes else ""
    return f"lacks {_images(compared['missing'])} of the published {compared['num_images']:,}: {where}{whole}"


def _copies(compared: Mapping[str, Any]) -> str:
    if not compared["copies"]:
        return ""
    where = ", ".join(
        f"{count:,} more of {one} in the same split" if one == two else f"{count:,} of {one} also in {two}"
        for move, count in compared["copied"].items()
        for one, two in [move.split(" in ")]
    )
    number = compared["copies"]
    return f"has {number:,} added cop{'y' if number == 1 else 'ies'}{_such_as(compared, 'copies')}: {where}"


def _foreign(compared: Mapping[str, Any]) -> str:
    if not compared["foreign"]:
        return ""
    where = ", ".join(f"{count:,} in {split}" for split, count in compared["foreign_by_split"].items())
    found = f"has {_images(compared['foreign'])} that are not recognised as FER-2013's"
    return f"{found}{_such_as(compared, 'foreign')}: {where}"


def _pixels(compared: Mapping[str, Any], image_size: int) -> str:
    parts = []
    if compared["mirrored"]:
        parts.append(
            f"has {_images(compared['mirrored'])} mirrored left to right{_such_as(compared, 'mirrored')}"
        )
    if count := compared["altered"]:
        if image_size != _SIZE:
            parts.append(
                f"has {_images(count)} at {image_size} pixels a side that were published at {_SIZE}, so they "
                f"were {'enlarged' if image_size > _SIZE else 'reduced'}"
            )
        else:
            seems = f"; they look {compared['look']}" if compared["look"] else ""
            parts.append(
                f"has {_images(count)} with altered pixels (compressed, resized, or changed in light, "
                f"noise or sharpness){_such_as(compared, 'altered')}{seems}"
            )
    return " and ".join(parts)


def _more_leaks(compared: Mapping[str, Any], leaks: Mapping[str, int]) -> list[str]:
    """List the leaks of more images than published.

    Where val and test are swapped, their leaks are too; images that are all altered are more alike.
    """
    if ["val", "test"] in compared["swapped_splits"] or 2 * compared["altered"] > compared["num_images"]:
        return []
    more = []
    for key, number in PUBLISHED_LEAKS.items():
        if leaks[key] > number:
            split, kind, other = key.split("_")
            what = "duplicate" if kind == "in" else "near-duplicate"
            more.append(f"{leaks[key]:,} {split} images have a {what} in {other} ({number:,} as published)")
    return more
