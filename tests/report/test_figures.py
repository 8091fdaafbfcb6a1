import itertools
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex

from fer_lightning.report import figures

HOSTILE = ("$\\frac{$", "_hidden", "<b>&", "a name of many, many words", "", "%s {}", "\\")


@pytest.fixture(autouse=True)
def check_global_settings_are_unchanged():
    def settings():
        return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}  # reading it selects one

    before = settings()
    yield
    assert settings() == before


def random_images(n):
    return np.random.default_rng(0).integers(0, 256, (n, 48, 48)).astype(np.uint8)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def overlaps(artists, figure):
    with mpl.rc_context(figures.STYLE):
        figure.draw_without_rendering()
        boxes = [artist.get_window_extent() for artist in artists if artist.get_text()]
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def test_normalised_confusion_matrix_shows_percent_of_each_row():
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 1000, 1000]])

    shares = figures.confusion_matrix(counts, ("a", "b", "c"), normalise=True).axes[0]
    plain = figures.confusion_matrix(counts, ("a", "b", "c"), normalise=False).axes[0]

    assert texts(shares) == ["75", "25", "0", "—", "—", "—", "0", "50", "50"]
    assert texts(plain) == ["3", "1", "0", "0", "0", "0", "0", "1,000", "1,000"]
    assert [label.get_text() for label in shares.get_yticklabels()] == ["a (4)", "b (0)", "c (2,000)"]


def test_confusion_matrix_has_a_colour_bar():
    counts = np.array([[3, 1], [0, 8]])
    for normalise, top in ((True, 100), (False, 8)):
        bar = figures.confusion_matrix(counts, ("a", "b"), normalise=normalise).axes[1]
        assert bar.get_ylim() == (0, top)
        assert len(bar.images) == 1


def test_ranking_curves_show_areas_of_each_class_and_their_mean():
    probs = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0], [0.85, 0.15, 0.0]])

    roc, pr = figures.ranking_curves(probs, np.array([0, 0, 1, 1]), ("sad", "fear", "absent")).axes

    def legend(axes):
        return [text.get_text() for text in axes.get_legend().get_texts()]

    assert legend(roc) == ["sad (0.750)", "fear (0.750)", "macro (0.750)", "chance (0.500)"]
    assert legend(pr) == ["sad (0.833)", "fear (0.833)", "macro (0.833)"]
    assert roc.lines[0].get_xdata().tolist() == [0, 0, 0.5, 0.5, 1]
    assert roc.lines[0].get_ydata().tolist() == [0, 0.5, 0.5, 1, 1]


def test_ranking_curves_of_many_classes_are_only_their_mean():
    probs = np.full((40, 20), 0.05)

    roc, _ = figures.ranking_curves(probs, np.arange(40) % 20, [f"class {n}" for n in range(20)]).axes

    assert [text.get_text() for text in roc.get_legend().get_texts()] == ["macro (0.500)", "chance (0.500)"]


def test_samples_drawn_by_a_seed_are_repeatable_and_of_their_class():
    images = np.arange(200, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
    labels = np.arange(200) % 2

    def shown(seed):
        axes = figures.samples_per_class(images, labels, ("even", "odd"), seed=seed).axes[0]
        return [int(image.get_array()[0, 0]) for image in axes.images]

    assert shown(0) == shown(0) != shown(1)
    assert shown(0)[:8] != list(range(0, 16, 2))
    assert [value % 2 for value in shown(0)] == [0] * 8 + [1] * 8
    assert len(set(shown(0))) == 16


def test_own_style_file_replaces_colours_and_sizes(monkeypatch, tmp_path):
    style = tmp_path / "mine.mplstyle"
    style.write_text("axes.prop_cycle: cycler('color', ['ff0000', '00ff00', '0000ff'])\nfont.size: 6\n")
    monkeypatch.setenv("FER_FIGURE_STYLE", str(style))
    entry = {"precision": 0.5, "recall": 0.5, "f1": 0.25, "n": 3}

    figure = figures.per_class_bars({"fear": entry})

    with figures.style_context():
        assert mpl.colors.to_hex(figure.axes[0].patches[0].get_facecolor()) == "#ff0000"
        assert mpl.rcParams["font.size"] == 6
        assert mpl.rcParams["pdf.fonttype"] == 42


def test_confusion_matrix_has_a_column_for_unanswered_images():
    counts = np.array([[3, 0, 1], [0, 2, 0]])

    shares = figures.confusion_matrix(counts, ("a", "b"), normalise=True).axes[0]
    without = figures.confusion_matrix(counts * [1, 1, 0], ("a", "b"), normalise=True).axes[0]

    assert texts(shares) == ["75", "0", "25", "0", "100", "0"]
    assert [label.get_text() for label in shares.get_xticklabels()] == ["a", "b", "no answer"]
    assert [label.get_text() for label in shares.get_yticklabels()] == ["a (4)", "b (2)"]
    assert texts(without) == ["100", "0", "0", "100"]
    assert [label.get_text() for label in without.get_xticklabels()] == ["a", "b"]


def test_undefined_score_has_no_bar():
    entry = {"precision": None, "recall": 0.5, "f1": 0.25, "n": 3}

    axes = figures.per_class_bars({"fear": entry}).axes[0]

    precision, recall, f1 = (bars[0].get_width() for bars in axes.containers)
    assert np.isnan(precision)
    assert (recall, f1) == (50, 25)


def test_class_distribution_shows_percent_of_each_split():
    counts = {"train": {"a": 300, "b": 100}, "test": {"a": 3}}

    axes = figures.class_distribution(counts).axes[0]

    assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [[75, 25], [100, 0]]
    assert texts(axes) == ["300", "100", "3", "0"]


def test_learning_curves_mark_best_epoch_and_skip_missing_values():
    history = {
        "epoch": [0, 1, 2],
        "train/loss": [3, 2, 1],
        "train/acc": [0.1, 0.2, 0.3],
        "val/loss": [np.nan] * 3,
    }

    loss, accuracy = figures.learning_curves(history, best_epoch=1).axes

    assert [line.get_label() for line in loss.lines] == ["training", "best epoch: 2"]
    assert list(accuracy.lines[0].get_ydata()) == pytest.approx([10, 20, 30])
    assert set(loss.lines[1].get_xdata()) == {2}
    assert loss.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert (loss.get_xlabel(), loss.get_xlim()) == ("epoch", (0.5, 3.5))


def test_reliability_diagram_shows_accuracy_at_each_confidence():
    confidence = np.array([0.95, 0.97, 1.0, 1.0, 0.35], dtype=np.float32)
    correct = np.array([True, True, True, False, False])

    upper, lower = figures.reliability_diagram(confidence, correct, ece=0.125, num_bins=10).axes

    assert [bar.get_height() for bar in upper.patches] == [0, 75]
    assert [bar.get_height() for bar in lower.patches] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 4]
    assert upper.get_title(loc="left") == "calibration error 12.5 points, 5 images"


def test_probability_of_an_error_is_rounded_down():
    axes = figures.misclassified_images(random_images(1), ["sad"], ["fear"], [0.9999]).axes[0]

    assert texts(axes) == ["sad\n→ fear 99 %"]
    assert len(axes.images) == 1


def test_samples_have_one_row_per_class():
    labels = np.array([0, 2, 2, 0, 2])
    images = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)

    axes = figures.samples_per_class(images, labels, ("a", "b", "c"), num_each=2).axes[0]

    shown = [(int(image.get_array()[0, 0]), int(image.get_extent()[3])) for image in axes.images]
    assert shown == [(0, 0), (3, 0), (1, 2), (2, 2)]


def test_audit_examples_are_below_their_heading():
    pair, single = (
        (random_images(2), ["train: sad\na", "test: fear\nb"]),
        (random_images(1), ["train: sad\nc"]),
    )

    axes = figures.audit_examples({"alike": [pair] * 4, "constant": [single]}).axes[0]

    assert texts(axes)[:3] == ["alike", "constant", "train: sad\na"]
    tops = [round(image.get_extent()[3], 2) for image in axes.images]
    assert [tops.count(top) for top in sorted(set(tops))] == [6, 2, 1]
    heading = axes.texts[1].get_position()[1]
    assert tops[7] + 1 < heading < tops[8]


def test_audit_captions_do_not_overlap():
    pair = (random_images(2), ["train: surprise\nTraining_12345678", "val: surprise\nPrivateTest_12345678"])

    figure = figures.audit_examples({"alike": [pair] * 3})

    assert not overlaps(figure.axes[0].texts, figure)


def test_accuracy_dots_are_sorted_by_mean_over_seeds():
    runs = {"mlp": [(0.4, 0.39, 0.41)], "cnn": [(0.5, 0.4, 0.6), (0.7, 0.6, 0.8)]}

    axes = figures.accuracy_dots(runs).axes[0]

    assert [label.get_text() for label in axes.get_yticklabels()] == ["cnn", "mlp"]
    assert axes.yaxis_inverted()
    assert axes.lines[0].get_xdata() == pytest.approx(60)


def test_hostile_names_are_plain_text_and_do_not_overlap():
    counts = np.diag(np.arange(7))
    entry = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "n": 1}
    matrix = figures.confusion_matrix(counts, HOSTILE, normalise=True)
    bars = figures.per_class_bars(dict.fromkeys(HOSTILE, entry))
    shown = figures.misclassified_images(random_images(7), HOSTILE, HOSTILE[::-1], [1.0] * 7)

    assert not overlaps(matrix.axes[0].get_yticklabels() + matrix.axes[0].texts, matrix)
    assert not overlaps(bars.axes[0].get_yticklabels(), bars)
    assert not overlaps(shown.axes[0].texts, shown)


def test_drawing_does_not_import_pyplot():
    code = "import sys, fer_lightning.report.drawing; print('matplotlib.pyplot' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_confusion_panels_show_counts_shaded_by_share():
    counts = {"CNN": np.array([[8, 2], [0, 0]]), "MLP": np.array([[1, 9], [500, 500]])}

    panels = figures.confusion_panels(counts, ("sad", "happy")).axes

    assert [axes.get_title(loc="left") for axes in panels] == ["CNN", "MLP"]
    assert texts(panels[1]) == ["1", "9", "500", "500"]
    shades = panels[1].collections[0].get_array()
    assert np.asarray(shades).ravel() == pytest.approx([0.1, 0.9, 0.5, 0.5])


def test_place_after_an_odd_number_of_confusion_panels_holds_the_colour_key():
    counts = dict.fromkeys(("CNN", "MLP", "RNN"), np.eye(2, dtype=int))

    *_, spare = figures.confusion_panels(counts, ("sad", "happy")).axes

    [key] = spare.child_axes
    assert (key.get_title(loc="left"), key.get_xlim()) == ("% of each true class", (0, 100))
    assert len(figures.confusion_panels({"CNN": np.eye(2, dtype=int)}, ("sad", "happy")).axes) == 1


def test_published_values_are_next_to_ours():
    rows = {
        "CNN": figures.AccuracyRow([0.60, 0.64], (0.61, 0.63), 0.55, (0.54, 0.56)),
        "MLP": figures.AccuracyRow([0.46], (0.45, 0.47), None, None),
        "ResNet": figures.AccuracyRow([], None, 0.68, (0.67, 0.69)),
    }

    figure = figures.published_accuracy(rows)

    axes = figure.axes[0]
    drawn = {(line.get_label(), round(float(x), 6)) for line in axes.lines for x in line.get_xdata()}
    ours, seed, paper = "ours (mean, 95 % CI)", "one seed", "the paper"
    assert drawn == {(ours, 62), (seed, 60), (seed, 64), (paper, 55), (ours, 46), (paper, 68)}
    assert texts(axes) == ["62.0", "55.0", "46.0", "68.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CNN", "MLP", "ResNet"]
    spans = [segment[:, 0].tolist() for lines in axes.collections for segment in lines.get_segments()]
    assert spans == [pytest.approx(span) for span in ([61, 63], [54, 56], [45, 47], [67, 69])]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [ours, seed, paper]


def test_labels_of_parallel_coordinates_lie_on_the_colour_of_the_page():
    axes = figures.parallel_coordinates({"lr": [0.1, 0.2]}, [0.2, 0.6], ylabel="%").axes[0]

    assert {to_hex(text.get_bbox_patch().get_facecolor()) for text in axes.texts} == {"#fefefe"}
    assert [text.get_ha() for text in axes.texts] == ["right", "right", "left", "left"]


def test_per_class_panels_share_legend_and_scale():
    entry = {"precision": 0.5, "recall": None, "f1": 0.25, "n": 3}

    figure = figures.per_class_panels({"CNN": {"sad": entry}, "MLP": {"sad": entry}, "RNN": {"sad": entry}})

    *panels, spare = figure.axes
    assert [axes.get_xlim() for axes in panels] == [(0, 100)] * 3
    assert not figure.legends
    assert not spare.axison
    assert [text.get_text() for text in spare.get_legend().get_texts()] == ["precision", "recall", "F1"]
    even = figures.per_class_panels({"CNN": {"sad": entry}, "MLP": {"sad": entry}})
    assert len(even.axes) == 2
    assert [text.get_text() for text in even.legends[0].get_texts()] == ["precision", "recall", "F1"]


def test_architecture_has_one_box_per_layer():
    layers = [("conv", "batch norm, ReLU", "64, 12, 12", "640", "9,216"), ("linear", "", "7", "7", "7")] * 9

    figure = figures.architecture(layers)

    axes = figure.axes[0]
    assert len(axes.patches) == 18
    assert [text for text in texts(axes)[3:] if text] == [text for layer in layers for text in layer if text]
    arrows = [text.arrow_patch for text in axes.texts if getattr(text, "arrow_patch", None)]
    assert [type(arrow.get_arrowstyle()).__name__ for arrow in arrows] == ["CurveFilledB"] * 17
    assert not overlaps(axes.texts[3:], figure)


def test_many_classes_give_figures_of_a_normal_size():
    classes = [f"class {number}" for number in range(150)]
    counts = np.diag(np.arange(1, 151))
    for normalise in (False, True):
        figure = figures.confusion_matrix(counts, classes, normalise=normalise)
        assert max(figure.get_size_inches()) < 20
        assert not texts(figure.axes[0])
        assert len(figure.axes[0].get_yticklabels()) == 50
        figure.draw_without_rendering()
    samples = figures.samples_per_class(random_images(150), np.arange(150), classes)
    assert len(samples.axes[0].images) == 30
    assert samples.axes[0].get_title(loc="left") == "the first 30 of 150 classes"


def test_two_classes_are_drawn():
    figures.confusion_matrix(np.array([[3, 1], [0, 2]]), ("a", "b"), normalise=True).draw_without_rendering()
    samples = figures.samples_per_class(random_images(3), np.array([0, 1, 1]), ("a", "b"))
    assert len(samples.axes[0].images) == 3


def test_colour_images_are_drawn_in_colour():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[..., 0] = 255
    drawn = [
        figures.misclassified_images(images, ["a", "b"], ["b", "a"], [0.9, 0.8]),
        figures.samples_per_class(images, np.array([0, 1]), ("a", "b")),
        figures.audit_examples({"conflict": [(images, ["one", "two"])]}),
    ]
    for figure in drawn:
        for image in figure.axes[0].images:
            assert image.to_rgba(image.get_array(), bytes=True)[0, 0].tolist() == [255, 0, 0, 255]


def history(acc, *, first=0):
    return {
        "epoch": list(range(first, first + len(acc))),
        "val/acc": acc,
        "val/loss": [3.0 / value for value in acc],
    }


def lines(axes):
    return {
        line.get_label(): (line.get_xdata().tolist(), [round(float(value), 6) for value in line.get_ydata()])
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def test_overlaid_curves_have_one_named_line_per_configuration_from_epoch_1():
    groups = {
        "cnn": [history([0.2, 0.4]), history([0.4, 0.6])],
        "mlp lr=0.1": [history([0.1, float("nan"), 0.3])],
    }

    accuracy, loss = figures.overlaid_curves(groups, split="val", split_name="validation").axes

    assert lines(accuracy) == {"cnn": ([1, 2], [30, 50]), "mlp lr=0.1": ([1, 3], [10, 30])}
    assert len(accuracy.lines) == 4  # two seeds, their mean, and the single run
    assert loss.get_yscale() == "linear"
    colors = {line.get_label(): line.get_color() for line in accuracy.lines}
    assert colors["cnn"] != colors["mlp lr=0.1"]
    diverged = groups | {"rnn": [history([0.01])]}
    assert figures.overlaid_curves(diverged, split="val", split_name="").axes[1].get_yscale() == "log"


def test_class_dots_leave_out_undefined_scores():
    groups = {
        "a": {"sad": {"recall": 0.5, "f1": None}, "happy": {"recall": 0.25, "f1": 1.0}},
        "b": {"sad": {"recall": 0.0, "f1": 0.1}, "happy": {"recall": 1.0, "f1": 0.2}},
    }

    recall, f1 = figures.class_dots(groups).axes

    assert {name: y for name, (y, _) in lines(recall).items()} == {"a": [50, 25], "b": [0, 100]}
    assert np.isnan(lines(f1)["a"][0][0])
    assert [label.get_text() for label in recall.get_yticklabels()] == ["sad", "happy"]


def test_setting_that_spans_a_decade_has_a_logarithmic_axis_with_plain_numbers():
    settings = {"lr": [0.0001, 0.01, np.nan], "dropout": [0.1, 0.5, 0.3], "size": [1, 2, 2.01]}

    figure = figures.setting_scatter(
        settings, [0.1, 0.2, 0.3], ["cnn", "mlp", "mlp"], ylabel="val accuracy, %"
    )

    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear", "linear"]
    ticks = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]
    assert ticks == [["0.0001", "0.01"], ["0.1", "0.3", "0.5"], ["1", "2"]]
    assert lines(figure.axes[0]) == {"cnn": ([0.0001], [10]), "mlp": ([0.01], [20])}
    many = figures.setting_scatter({"lr": np.logspace(-4, 0, 9)}, [0.1] * 9, ["cnn"] * 9, ylabel="%")
    with mpl.rc_context(figures.STYLE):
        many.draw_without_rendering()
    assert not [label for label in many.axes[0].get_xticklabels() if "$" in label.get_text()]


@pytest.mark.parametrize("colors", [None, ["ff0000", "00ff00", "0000ff"]], ids=["own style", "short cycle"])
def test_series_differ_in_colour_or_line(colors, monkeypatch, tmp_path):
    if colors:
        style = tmp_path / "mine.mplstyle"
        style.write_text(f"axes.prop_cycle: cycler('color', {colors})\n")
        monkeypatch.setenv("FER_FIGURE_STYLE", str(style))
    groups = {f"run {n}": [history([0.2, 0.4])] for n in range(figures.MAX_SERIES)}

    accuracy, _ = figures.overlaid_curves(groups, split="val", split_name="validation").axes

    looks = [(to_hex(line.get_color()), line.get_linestyle()) for line in accuracy.lines]
    assert len(set(looks)) == figures.MAX_SERIES
    assert [color for color, _ in looks[:3]] == [f"#{c}" for c in colors or ["0072b2", "e69f00", "009e73"]]


def test_parallel_coordinates_place_each_run_on_each_axis():
    axes = figures.parallel_coordinates(
        {"lr": [0.001, 0.1, 0.01], "size": [5, 5, 5]}, [0.2, 0.6, 0.4], ylabel="%"
    ).axes[0]

    drawn = [line.get_ydata().tolist() for line in axes.lines if len(line.get_ydata()) == 3]
    assert drawn == [[0, 0.5, 0], [0.5, 0.5, 0.5], [1, 0.5, 1]]  # the most accurate run is drawn last
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lr", "size", "%"]
    assert texts(axes) == ["0.001", "0.01", "0.1", "5", "20.0", "60.0"]


@pytest.mark.parametrize("name", HOSTILE)
def test_comparison_figures_take_any_name(name, tmp_path):
    score = {"recall": 0.5, "f1": 0.5}
    for figure in (
        figures.overlaid_curves({name: [history([0.2])], "b": []}, split="val", split_name="validation"),
        figures.class_dots({name: {name: score}, "b": {name: score}}),
        figures.setting_scatter({name: [1, 20]}, [0.1, 0.2], [name, "b"], ylabel="%"),
        figures.parallel_coordinates({name: [1, 20]}, [0.1, 0.2], ylabel="%"),
    ):
        with mpl.rc_context(figures.STYLE):
            figure.draw_without_rendering()
