"""Files and folders that operating systems and file managers leave among images; they are passed over."""

_NAMES = {
    "__macosx",  # macOS
    "icon\r",
    "network trash folder",
    "temporary items",
    "thumbs.db",  # Windows
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "system volume information",
    "$recycle.bin",
    "recycler",
    "found.000",
    "lost+found",  # Linux
    "lost.dir",  # Android
    "@eadir",  # network storage
    "#recycle",
    "#snapshot",
    "@recycle",
    "@recently-snapshot",
    "@tmp",
    "picasa.ini",  # programs
    "zbthumbnail.info",
    "__pycache__",
}
_HIDDEN_NAMES = {
    ".ds_store",
    ".appledouble",
    ".apdisk",
    ".fseventsd",
    ".spotlight-v100",
    ".temporaryitems",
    ".trashes",
    ".directory",
    ".nomedia",
    ".thumbnails",
    ".picasa.ini",
    ".ipynb_checkpoints",
    ".git",
    ".gitignore",
    ".gitattributes",
    ".gitkeep",
    ".svn",
}
_ENDINGS = (":zone.identifier",)  # a note of Windows on a download, seen from Linux


def is_leftover(name: str) -> bool:
    """Return whether a file or folder was left by an operating system or a program."""
    lower = name.lower()
    return (
        lower in _NAMES
        or lower in _HIDDEN_NAMES
        or lower.startswith(("._", ".trash-"))
        or lower.endswith(_ENDINGS)
    )


def is_ignored(name: str) -> bool:
    """Return whether a name in a data set is passed over: hidden, or left by a program."""
    return name.startswith(".") or is_leftover(name)
