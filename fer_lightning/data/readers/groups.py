"""The group of each image, such as a person or a video: from its id, its folder or a CSV."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special

_KEY_COLUMNS = ("id", "image", "file", "filename", "file_name", "name", "path")
_FORMS = (
    "a regular expression on image ids such as 's(\\d+)_', a folder level such as folder:1, or a column of a "
    "CSV such as {csv: subjects.csv, column: subject}"
)
_MAX_CELL = 200  # letters of a group


class Grouping(Protocol):
    """One way to find the group of an image."""

    def settings(self) -> list[Any]:
        """Return JSON values that change when the groups do."""
        ...

    def group_of(self, image_id: str, path: str) -> str:
        """Return the group of an image.

        Args:
            image_id: ``split/class/name``, with the split that the source lists it in.
            path: The path below the root, as it is spelled there.
        """
        ...


def open_grouping(setting: object) -> Grouping | None:
    """Open a setting ``data.source.group``.

    Args:
        setting: A regular expression, ``folder:N``, a dict of ``csv``, ``column`` and possibly ``key`` (the
            column that names the images), or None.

    Raises:
        FERError: If it is none of these, or the CSV has a fault.
    """
    if setting is None:
        return None
    if isinstance(setting, Mapping):
        return _CsvGroups(setting)
    if not isinstance(setting, str) or not setting:
        raise FERError(f"data.source.group={setting}: expected {_FORMS}")
    if found := re.fullmatch(r"folder:(.*)", setting):
        return _FolderGroups(found[1])
    return _RegexGroups(setting)


class _RegexGroups:
    """The first group of a regular expression, or all that it matches."""

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise FERError(
                f"data.source.group={pattern}: not a regular expression ({error}); expected {_FORMS}"
            ) from error

    def settings(self) -> list[Any]:
        return ["regex", self._pattern.pattern]

    def group_of(self, image_id: str, path: str) -> str:  # noqa: ARG002 - of all groupings
        found = self._pattern.search(image_id)
        group = found and found[1 if self._pattern.groups else 0]
        if not group:
            raise FERError(
                f"data.source.group={self._pattern.pattern}: finds no group in the image id {image_id}; "
                "expected a regular expression that matches every id"
            )
        return str(group)


class _FolderGroups:
    """A folder between the class folder and the image; 1 is the one below the class folder."""

    def __init__(self, level: str) -> None:
        if not re.fullmatch("[1-9][0-9]{0,2}", level):
            raise FERError(
                f"data.source.group=folder:{level}: expected folder: and a whole number of at least 1, as in "
                "folder:1 for the folders below the class folders"
            )
        self._level = int(level)

    def settings(self) -> list[Any]:
        return ["folder", self._level]

    def group_of(self, image_id: str, path: str) -> str:
        folders = image_id.split("/")[2:-1]
        if len(folders) < self._level:
            raise FERError(
                f"data.source.group=folder:{self._level}: {path} has {len(folders)} folders below its class "
                f"folder, expected at least {self._level}"
            )
        return folders[self._level - 1]


class _CsvGroups:
    """A column of a CSV whose rows name images by id, by class and name, by path or by file name."""

    def __init__(self, setting: Mapping[Any, Any]) -> None:
        unknown = sorted(set(map(str, setting)) - {"csv", "column", "key"})
        if unknown or not all(isinstance(setting.get(key), str) for key in ("csv", "column")):
            raise FERError(f"data.source.group={dict(setting)}: expected {_FORMS}")
        self._path = Path(str(setting["csv"])).expanduser()
        self._column, self._key = str(setting["column"]), setting.get("key")
        self._used: dict[str, str] = {}  # file names that found a row -> class and name of their image
        check_not_special(self._path, given=f"data.source.group: {self._path}")
        try:
            content = self._path.read_bytes()
            utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
            text = content.decode("utf-16" if utf16 else "utf-8-sig")
        except OSError as error:
            raise FERError(
                f"data.source.group: {self._path}: {error.strerror or error}; expected a CSV"
            ) from error
        except UnicodeDecodeError as error:
            raise FERError(f"data.source.group: {self._path}: not UTF-8 text; expected a CSV") from error
        self._groups = self._read(text)

    def _read(self, text: str) -> dict[str, str]:
        lines, skipped = text.splitlines(), 0
        while lines and (not lines[0].strip() or re.fullmatch(r'"?sep=."?', lines[0].strip())):
            lines, skipped = lines[1:], skipped + 1
        delimiter = max(",;\t", key=lines[0].count) if lines else ","
        groups: dict[str, str] = {}
        try:
            reader = csv.reader(lines, delimiter=delimiter)
            header = [name.strip().lower() for name in next(reader, [])]
            column, key = self._position(self._column, header), self._key_position(header)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                where = f"data.source.group: {self._path}:{reader.line_num + skipped}"
                if len(cells) != len(header):
                    raise FERError(f"{where}: {len(cells)} columns, expected {len(header)}")
                name, group = _slashed(cells[key].strip()), cells[column].strip()
                if not group or len(group) > _MAX_CELL:
                    raise FERError(f"{where}: {group[:20]!r} in the column {self._column}, expected a group")
                if groups.setdefault(name, group) != group:
                    raise FERError(f"{where}: {name} is in the group {group}, and before in {groups[name]}")
        except csv.Error as error:
            raise FERError(f"data.source.group: {self._path}: not a CSV ({error})") from error
        return groups

    def _position(self, name: object, header: list[str]) -> int:
        wanted = str(name).strip().lower()
        if wanted not in header:
            raise FERError(
                f"data.source.group: {self._path}:1: no column {name}, found: "
                f"{', '.join(header) or 'nothing'}"
            )
        return header.index(wanted)

    def _key_position(self, header: list[str]) -> int:
        if self._key is not None:
            return self._position(self._key, header)
        for name in _KEY_COLUMNS:
            if name in header and name != self._column.strip().lower():
                return header.index(name)
        raise FERError(
            f"data.source.group: {self._path}:1: no column that names the images, expected one of "
            f"{', '.join(_KEY_COLUMNS)}, or its name as key: {{csv: ..., column: ..., key: ...}}"
        )

    def settings(self) -> list[Any]:
        return ["csv", sorted(self._groups.items())]

    def group_of(self, image_id: str, path: str) -> str:
        path, below = _slashed(path), image_id.partition("/")[2]
        for key in (image_id, below, path):
            if key in self._groups:
                return self._groups[key]
        name = below.rpartition("/")[2]
        for key in (name, name.rpartition(".")[0]):
            if key in self._groups:
                if self._used.setdefault(key, below) != below:
                    raise FERError(
                        f"data.source.group: {self._path}: {key} is the name of {self._used[key]} and of "
                        f"{below}; name the images by class and file name, such as {below}"
                    )
                return self._groups[key]
        raise FERError(
            f"data.source.group: {self._path}: no row for the image {below}; expected one for each image, "
            "by its id, its class and name, or its file name"
        )


def _slashed(path: str) -> str:
    """Write a path with slashes; of an absolute one, the class and the name."""
    path = path.replace("\\", "/").removeprefix("./")
    return "/".join(path.split("/")[-2:]) if re.match(r"/|[A-Za-z]:/", path) else path
