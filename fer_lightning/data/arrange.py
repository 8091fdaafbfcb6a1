"""From decoded images to a data set: open splits, order, arrays, fingerprint."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.near_duplicates import NearDuplicates
from fer_lightning.data.cache_files import channels_of, fingerprint_of
from fer_lightning.data.dealing import Belonging, split_off
from fer_lightning.data.faces import SPLITS, Faces, Holdout, Source, pixel_hash


class Decoded(NamedTuple):
    """A decoded record; the first four fields give the order of the images."""

    split: int
    digest: bytes
    label: int
    id: str
    pixels: NDArray[np.uint8]
    target: NDArray[np.float32] | None = None
    group: str | None = None


Stack = Callable[[list[NDArray[np.uint8]]], NDArray[np.uint8]]


def split_off_open(
    faces: list[Decoded],
    source: Source,
    holdout: Holdout,
    find: Callable[..., NearDuplicates] | None,
    stack: Stack = np.stack,
) -> tuple[list[Decoded], tuple[str, ...]]:
    """Split off what the source leaves open; return the images, and notes on how that was done."""
    _check_pixels(faces, source)
    faces.sort(key=lambda face: face[1:4])
    hashes = _hashes(faces)
    near = None if find is None else find(stack([face.pixels for face in faces]), hashes)
    dealt = split_off(
        holdout,
        Belonging(hashes, _stack_groups(faces), near),
        np.array([face.label for face in faces]),
        np.array([face.split for face in faces], np.uint8),
        np.array([face.id for face in faces]),
        tuple(source.classes),
    )
    moved = [
        face._replace(split=split, id=f"{SPLITS[split]}/{face.id.partition('/')[2]}")
        for face, split in zip(faces, dealt.splits.tolist(), strict=True)
    ]
    return moved, tuple(note for note in (near.left_out if near else "", dealt.note) if note)


def _check_pixels(faces: list[Decoded], source: Source) -> None:
    size = source.image_size
    shape = (size, size) if channels_of(source) == 1 else (size, size, channels_of(source))
    for face in faces:
        if face.pixels.shape != shape or face.pixels.dtype != np.uint8:
            raise FERError(
                f"{source.name}: {face.id}: pixels of shape {face.pixels.shape} and type "
                f"{face.pixels.dtype}, expected {shape} and uint8 in [0, 255]"
            )


def _hashes(faces: list[Decoded]) -> NDArray[np.uint64]:
    return np.array([pixel_hash(face.digest) for face in faces], np.uint64)


def arrange(
    faces: list[Decoded], bad: list[str], notes: tuple[str, ...], source: Source, stack: Stack = np.stack
) -> Faces:
    """Sort decoded images by content, and stack them; the arrays are writeable.

    Args:
        faces: The good images; sorted in place.
        bad: The images that were skipped, as ``where: reason``.
        notes: On how the splits were made.
        source: Where they come from.
        stack: Makes one array of the images.
    """
    _check_pixels(faces, source)
    assert len({face.id for face in faces}) == len(faces), f"{source.name}: image ids are not unique"
    faces.sort(key=lambda face: face[:4])
    targets = _stack_targets(faces, source.name)
    return Faces(
        images=stack([face.pixels for face in faces]),
        labels=np.array([face.label for face in faces], np.int64),
        splits=np.array([face.split for face in faces], np.uint8),
        hashes=_hashes(faces),
        ids=np.array([face.id for face in faces]),
        classes=tuple(source.classes),
        fingerprint=fingerprint_of(
            [face.digest for face in faces],
            [face.split for face in faces],
            [face.label for face in faces],
            targets,
            source,
        ),
        skipped=tuple(bad),
        targets=targets,
        groups=_stack_groups(faces),
        notes=notes,
    )


def _stack_targets(faces: list[Decoded], name: str) -> NDArray[np.float32] | None:
    """Stack the targets to ``(N, C)`` float32; None if there are none."""
    targets = [face.target for face in faces if face.target is not None]
    if not targets:
        return None
    if len(targets) < len(faces):
        without = next(face.id for face in faces if face.target is None)
        raise FERError(
            f"{name}: {len(targets):,} of {len(faces):,} images have a soft target and the others, such as "
            f"{without}, have none; give one to every image, or to none"
        )
    return np.stack(targets)


def _stack_groups(faces: list[Decoded]) -> NDArray[np.str_] | None:
    """Stack the groups to ``(N,)`` str; None if there are none."""
    groups = [face.group for face in faces if face.group is not None]
    assert len(groups) in (0, len(faces)), "images with and without a group"
    return np.array(groups) if groups else None
