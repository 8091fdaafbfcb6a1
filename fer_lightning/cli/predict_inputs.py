"""The images and videos that a command line names: files, folders, patterns, cameras, standard input."""

import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_lightning.core.errors import FERError
from fer_lightning.core.text import writable
from fer_lightning.data.readers.files import IMAGE_SUFFIXES
from fer_lightning.data.readers.leftovers import is_ignored, is_leftover
from fer_lightning.inference.annotate import is_annotated
from fer_lightning.inference.images import MAX_PHOTO_BYTES, Photo
from fer_lightning.inference.video import VIDEO_SUFFIXES, is_url

STDIN = "-"


def expand_paths(arguments: Sequence[str]) -> list[str]:
    """List the images and videos that the arguments name, in their order; a folder's or a pattern's sorted.

    Args:
        arguments: Files, folders (with the folders in them), patterns such as ``'photos/*.jpg'``, numbers of
            cameras, and ``-`` for standard input. A path that does not exist is kept: reading it says so.

    Raises:
        FERError: If a folder holds no images or videos, a pattern matches nothing, nothing but leftovers of
            file managers is named, or a URL is.
    """
    found: list[str] = []
    for argument in arguments:
        if is_url(argument):  # which OpenCV would open
            raise FERError(
                f"{argument}: a URL, expected a file, a folder or a camera's number; download it first"
            )
        path = Path(argument).expanduser()
        if argument == STDIN or path.is_file():
            found.append(argument)
        elif path.is_dir():
            found += _in_folder(path)
        elif glob.has_magic(argument) and not path.exists():
            matches = sorted(name for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207 - as a shell matches
            if not matches:
                raise FERError(f"{argument}: no file matches this pattern")
            found += matches
        else:
            found.append(argument)
    images = [name for name in found if name == STDIN or not is_leftover(Path(name).name)]
    if not images:
        raise FERError(
            f"{found[0]}: left by a file manager or an operating system, no image or video; name one"
        )
    if images.count(STDIN) > 1:
        raise FERError("-: standard input can be read only once")
    return images


def _in_folder(folder: Path) -> list[str]:
    names = sorted(
        str(path)
        for path in folder.rglob("*")
        if path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
        and not any(is_ignored(part) for part in path.relative_to(folder).parts)
        and path.is_file()
        and not (path.stem.rpartition("_")[2].startswith("faces") and is_annotated(path))
    )
    if not names:
        raise FERError(f"{folder}: no image or video in this folder or the folders in it")
    return names


def named_photos(images: Sequence[str]) -> Iterator[tuple[str, Photo]]:
    """Pair each image with the name that results have; standard input is read when its turn comes."""
    for name in images:
        if name == STDIN:
            yield name, sys.stdin.buffer.read(MAX_PHOTO_BYTES)
        else:
            yield writable(name), Path(name).expanduser()
