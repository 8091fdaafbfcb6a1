"""The faces of a video as text: a row or a line for each."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from fer_lightning.core.errors import printable
from fer_lightning.inference.tracks import Track
from fer_lightning.inference.video_predictor import VideoPrediction


def describe_video(video: VideoPrediction) -> str:
    """Summarise what was predicted of a video, in one line."""
    found = video.summary()
    length = "" if video.problem is None or found["length"] is None else f" of {found['length']:.1f}"
    smoothed = f", smoothed over {found['smoothing']:g} s" if found["smoothing"] else ""
    text = (
        f"{printable(video.name)}: {found['seconds']:.1f}{length} seconds, {found['frames']:,} frames "
        f"predicted (at most {found['fps']:g} per second{smoothed})"
    )
    if not found["frames_with_faces"]:
        return f"{text}; no face found"
    shares = sorted(((share, name) for name, share in found["shares"].items() if share), reverse=True)
    shown = ", ".join(f"{name} {100 * share:.0f} %" for share, name in shares)
    return f"{text}, {found['frames_with_faces']:,} of them with faces: {shown}"


def track_table(tracks: Sequence[Track], classes: Sequence[str]) -> Table:
    """Lay out one row for each face of a video over time."""
    has_flags = any(track.flags for track in tracks)
    table = Table()
    table.add_column("face", justify="right")
    for title in ("seconds", "frames"):
        table.add_column(title, justify="right")
    table.add_column("expression")
    for name in classes:
        table.add_column(Text(name), justify="right")
    if has_flags:
        table.add_column("flags")
    for track in tracks:
        cells = [str(track.number), _seconds(track), f"{track.num_frames:,}"]
        cells_of_classes = [Text(track.expression, style="bold")]
        for name in classes:
            style = "bold" if name == track.expression else ""
            cells_of_classes.append(Text(f"{100 * track.probs[name]:.1f} %", style=style))
        table.add_row(*cells, *cells_of_classes, *([", ".join(track.flags)] if has_flags else []))
    return table


def track_line(track: Track) -> str:
    """Write the row of a face as a line."""
    falling = sorted(track.probs, key=lambda each: -track.probs[each])
    shown = ", ".join(f"{each} {100 * track.probs[each]:.1f} %" for each in falling)
    flags = f" [{', '.join(track.flags)}]" if track.flags else ""
    frames = "1 frame" if track.num_frames == 1 else f"{track.num_frames:,} frames"
    return f"  face {track.number}, {_seconds(track)} s, {frames}: {shown}{flags}"


def _seconds(track: Track) -> str:
    return f"{track.start:.1f}-{track.end:.1f}"
