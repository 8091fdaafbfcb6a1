import math
import pickle

import pytest

from fer_lightning.inference.results import UNSURE, Box, Face
from fer_lightning.inference.tracks import Tracker, iou

BOX = Box(10, 10, 20, 20)


def face(x=10.0, happy=1.0, flags=()):
    probs = {"happy": happy, "sad": 1 - happy}
    return Face("clip.mp4", Box(x, 10, 20, 20), 0.9, max(probs, key=probs.get), probs, flags)


def test_iou_is_the_intersection_over_the_union():
    assert iou(BOX, BOX) == 1
    assert iou(BOX, Box(20, 10, 20, 20)) == pytest.approx(1 / 3)
    assert iou(BOX, Box(30, 10, 20, 20)) == 0
    assert iou(None, None) == 1
    assert iou(BOX, None) == 0


def test_moving_face_keeps_its_track_and_another_place_starts_one():
    tracker = Tracker(fps=5)
    for i in range(10):
        (found,) = tracker.update(i / 5, [face(10 + 5 * i)])
        assert (found.track, found.seconds) == (1, i / 5)
    (found,) = tracker.update(2, [face(500)])
    assert found.track == 2
    assert [(track.number, track.num_frames) for track in tracker.tracks()] == [(1, 10), (2, 1)]


def test_faces_that_cross_keep_their_tracks():
    tracker = Tracker(fps=5)
    for i in range(21):
        left, right = face(10.0 * i), face(200 - 10.0 * i)
        faces = [left] if i == 10 else [left, right]  # one hides the other
        numbers = [found.track for found in tracker.update(i / 5, faces)]
        if i == 0:
            first = numbers
    assert numbers == first
    assert len(tracker.tracks()) == 2


def test_missed_frames_do_not_end_a_track_but_a_second_does():
    tracker = Tracker(fps=5)
    for seconds in (0, 0.2, 0.8, 1.0):
        tracker.update(seconds, [face()])
    tracker.update(1.4, [])
    tracker.update(2.2, [face()])
    assert [(track.start, track.end, track.num_frames) for track in tracker.tracks()] == [
        (0, 1.0, 4),
        (2.2, 2.2, 1),
    ]


def test_a_cut_ends_all_tracks():
    tracker = Tracker(fps=5)
    tracker.update(0, [face()])
    tracker.cut()
    (found,) = tracker.update(0.2, [face()])
    assert found.track == 2


def test_smoothing_weights_by_age_whatever_the_frame_rate():
    tracker = Tracker(fps=5, smoothing=0.5)
    assert tracker.update(0, [face(happy=1.0)])[0].probs["happy"] == 1
    found = tracker.update(0.2, [face(happy=0.0)])[0]
    weight = math.exp(-0.2 / 0.5)
    assert found.probs["happy"] == pytest.approx(weight / (1 + weight))
    assert found.probs["happy"] + found.probs["sad"] == pytest.approx(1)
    assert found.expression == "sad"
    # Half a second of one and a second of the other, at two rates: the same within the coarseness.
    smoothed = []
    for fps in (20, 100):
        tracker = Tracker(fps=fps, smoothing=0.5)
        for i in range(int(1.5 * fps)):
            last = tracker.update(i / fps, [face(happy=float(i / fps < 0.5))])[0]
        smoothed.append(last.probs["happy"])
    assert smoothed[0] == pytest.approx(smoothed[1], abs=0.02)


def test_no_smoothing_gives_each_frame_its_own_answer():
    tracker = Tracker(fps=5, smoothing=0)
    tracker.update(0, [face(happy=1.0)])
    assert tracker.update(0.2, [face(happy=0.25)])[0].probs["happy"] == 0.25


def test_track_has_mean_probabilities_shares_and_frequent_flags():
    tracker = Tracker(fps=5, smoothing=0)
    for i, happy in enumerate((0.9, 0.8, 0.4, 0.7)):
        tracker.update(
            i / 5, [face(happy=happy, flags=("blurred",) if i < 2 else ("dark",) if i == 3 else ())]
        )
    (track,) = tracker.tracks()
    assert track.expression == "happy"
    assert track.probs["happy"] == pytest.approx(0.7)
    assert track.shares == {"happy": 0.75, "sad": 0.25}
    assert track.flags == ("blurred",)
    assert track.to_dict()["frames"] == 4


def test_track_of_one_frame_is_flagged_as_short():
    tracker = Tracker(fps=5)
    tracker.update(0, [face()])
    assert tracker.tracks()[0].flags == ("short",)


def test_unsure_is_decided_by_the_smoothed_probabilities():
    tracker = Tracker(fps=5, smoothing=0.5, threshold=0.8)
    assert tracker.update(0, [face(happy=0.9, flags=(UNSURE,))])[0].flags == ()
    assert tracker.update(0.2, [face(happy=0.1)])[0].flags == (UNSURE,)


def test_face_of_a_video_survives_pickling_and_has_its_columns():
    found = Tracker(fps=5).update(0.4, [face()])[0]
    assert pickle.loads(pickle.dumps(found)) == found
    assert found.to_row() | {"seconds": 0.4, "track": 1} == found.to_row()
    assert found.to_dict()["track"] == 1
