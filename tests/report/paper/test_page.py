import json
import re

import pytest

from fer_lightning.cli.report import load_images
from fer_lightning.core.errors import FERError
from fer_lightning.report.paper import answers, output
from fer_lightning.report.paper.page import write_paper

pytestmark = pytest.mark.usefixtures("fast_figures")


def text_of(page):
    return " ".join(re.sub("<[^>]*>", " ", page.read_text(encoding="utf-8")).split())


def files(folder, ending):
    return {path.stem for path in folder.glob(f"*.{ending}")}


@pytest.fixture
def complete(make_paper_run, tmp_path):
    """Write a report with everything: two families, two recipes, a language model, an audit."""
    runs = [
        make_paper_run("0_mlp", right=range(30)),
        make_paper_run("1_mlp", seed=1, right=range(28)),
        make_paper_run("2_cnn", model="cnn", right=range(45)),
        make_paper_run("3_mlp", experiment="improved", right=range(50)),
        make_paper_run("4_llm", model="gpt-x", right=range(20), info={"predictor": "llm"}),
        make_paper_run("5_rnn", model="rnn", info={"state": "failed", "reason": "no disk"}),
    ]
    audit = {"copies": {"groups": 1516}, "warnings": ["train images were blurred"]}
    (runs[0] / "audit.json").write_text(json.dumps(audit))
    return write_paper(runs, tmp_path / "out", load_images)


def test_page_has_every_table_and_figure(complete):
    text = text_of(complete)

    for part in (
        "CNN. It is ahead of MLP by 26.8 points",
        "With the improved recipe: MLP (improved) is the only network",
        "At n = 56 gpt-x is behind",
        "GPT-4 Turbo does not differ significantly from CNN and ResNet",
        "Table 1: test accuracy, the paper&#39;s recipe",
        "Table 2: 56 images, networks and language models",
        "Figure 1:",
        "Figure 2:",
        "Figure 3, CNN: ",
        "Figure 4: confusion matrices",
        "Figure 5: precision",
        "Figure 6:",
        "gpt-x: confusion matrix in images, n = 56.",
        "train images were blurred",
        "1,516",
        "5_rnn is left out: it failed (no disk).",
        "Section 3 mentions 3,589 test images",
    ):
        assert part in text, part
    assert "is missing" not in text


def test_every_comparison_has_a_leak_free_twin(make_paper_run, tmp_path):
    runs = [
        make_paper_run(
            f"{number}_{model}_{experiment}", model=model, experiment=experiment, right=range(right)
        )
        for number, (model, experiment, right) in enumerate(
            [("mlp", "paper", 9), ("cnn", "paper", 40), ("mlp", "improved", 20), ("cnn", "improved", 50)]
        )
    ]

    write_paper(runs, tmp_path / "out", load_images)

    for name in ("pairs", "pairs_improved"):
        everything, kept = (
            (tmp_path / f"out/tables/{stem}.md").read_text() for stem in (name, f"{name}_leak_free")
        )
        assert ("| 56 |" in everything, "| 49 |" in kept) == (True, True)


def test_audit_figure_behind_a_link_out_is_refused(make_paper_run, tmp_path):
    run = make_paper_run("run")
    (run / "audit.json").write_text(json.dumps({"copies": {"groups": 7}, "warnings": 3}))
    (run / "figures").mkdir()
    (tmp_path / "private.png").write_bytes(b"\x89PNG\r\n an image")
    (run / "figures/audit.png").symlink_to(tmp_path / "private.png")

    with pytest.raises(FERError, match="audit.png: a symbolic link that leads out of the run folder"):
        write_paper([run], tmp_path / "out", load_images)


def test_audit_examples_of_the_audited_run_are_shown(make_paper_run, tmp_path):
    run = make_paper_run("0_mlp")
    (run / "audit.json").write_text(json.dumps({"copies": {"groups": 7}, "warnings": 3}))
    assert "Examples: pixel-identical" not in text_of(write_paper([run], tmp_path / "out", load_images))

    (run / "figures").mkdir()
    (run / "figures/audit.png").write_bytes(b"\x89PNG\r\n an image")
    assert "Examples: pixel-identical images" in text_of(write_paper([run], tmp_path / "out", load_images))


def test_altered_data_are_named_as_the_reason(make_paper_run, tmp_path):
    altered = {"data": {"fingerprint": "feedbeef"}}

    text = text_of(write_paper([make_paper_run("0_mlp", info=altered)], tmp_path / "out", load_images))

    assert "MLP: its data are not FER-2013 as published (fingerprint feedbeef), so no difference" in text
    assert "not on the paper" not in text


def test_figures_are_in_the_order_of_the_paper(complete):
    captions = re.findall(r"<figcaption>(Figure \d)", complete.read_text(encoding="utf-8"))

    assert list(dict.fromkeys(captions)) == [f"Figure {number}" for number in range(1, 7)]
    assert captions.index("Figure 1") == 0
    alts = re.findall(r'alt="([^"]*)"', complete.read_text(encoding="utf-8"))
    assert alts[0] == "accuracy: CNN 80.4, MLP 51.8, MLP (improved) 89.3"


def test_cards_and_rows_of_table_1_are_in_the_same_order(complete):
    cards = re.findall(r"<div><small>([^<]*)</small><b>", complete.read_text(encoding="utf-8"))
    rows = (complete.parent / "tables/table_1.md").read_text().splitlines()[4:]

    assert cards == ["CNN", "MLP", "MLP (improved)"]
    assert [row.split(" | ")[0].strip("| ") for row in rows[:4]] == [
        "CNN", "MLP", "ResNet-34 (pre-trained)", "RNN",
    ]  # fmt: skip


def test_shown_tables_have_no_empty_column(complete):
    for table in complete.parent.glob("tables/*.md"):
        _, _, _, rule, *lines = table.read_text().splitlines()
        rows = [re.split(r" \| ", line.strip("| ")) for line in lines if line.startswith("|")]
        for position, alignment in enumerate(rule.strip("| ").split(" | ")):
            column = {row[position] for row in rows}
            assert alignment == ":--" or column != {"—"}, (table.name, position)


def write_history(run, **columns):
    names = ["epoch", *columns]
    rows = [
        ",".join(map(str, (epoch, *(values[epoch] for values in columns.values())))) for epoch in range(2)
    ]
    (run / "metrics.csv").write_text("\n".join([",".join(names), *rows]) + "\n")


def test_learning_curves_are_of_validation_only_if_every_run_has_it(make_paper_run, tmp_path):
    runs = [make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn")]
    train = {"train/acc": [0.1, 0.2], "train/loss": [2.0, 1.0]}
    write_history(runs[0], **train)
    write_history(runs[1], **train, **{"val/acc": [0.1, 0.2], "val/loss": [2.0, 1.0]})
    assert "Accuracy and loss in training." in text_of(write_paper(runs, tmp_path / "out", load_images))
    assert (tmp_path / "out/figures/learning_curves.pdf").exists()

    shown = text_of(write_paper(runs[1:], tmp_path / "out", load_images))
    assert "Accuracy and loss in validation." in shown


def test_departures_that_networks_share_are_said_once(make_paper_run, tmp_path):
    short = {"trainer": {"max_epochs": 1}}
    slow = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 0.1}}
    runs = [
        make_paper_run("0_mlp", config=short),
        make_paper_run("1_cnn", model="cnn", config=short | slow),
        make_paper_run("2_rnn", model="rnn", config=short | slow),
    ]

    text = text_of(write_paper(runs, tmp_path / "out", load_images))

    shared = "All three: trainer.max_epochs=1 (the paper: 30 epochs); single seed, so the training variance"
    assert shared in text
    assert "CNN and RNN: optimizer.lr=0.1 (the paper: learning rate 0.001)." in text
    assert text.count("30 epochs") == 1


def test_equal_networks_share_a_drawing(make_paper_run, tmp_path):
    runs = [make_paper_run("0_mlp"), make_paper_run("1_mlp", experiment="improved")]

    page = write_paper(runs, tmp_path / "out", load_images)

    assert "Figure 3, MLP and MLP (improved): " in text_of(page)
    assert {stem for stem in files(page.parent / "figures", "svg") if "figure_3" in stem} == {"figure_3_mlp"}


LIMITS = ["trainer=smoke", "trainer.limit_train_batches=2"]


def banner_texts(page):
    html = page.read_text(encoding="utf-8")
    assert '<div class="banner">' not in html  # all are red
    found = re.findall(r'<div class="banner bad">(.*?)</div>', html, re.DOTALL)
    return " ".join(re.sub("<[^>]*>", " ", " ".join(found)).split())


def test_limited_runs_answer_no_question_and_are_marked_in_every_file(make_paper_run, tmp_path, monkeypatch):
    marks = []
    real = output.save_figure
    monkeypatch.setattr(
        output, "save_figure", lambda *args, **look: marks.append(look["mark"]) or real(*args, **look)
    )
    info = {"limited": LIMITS}
    runs = [
        make_paper_run("0_mlp", right=range(9), images=range(40), info=info),
        make_paper_run("1_cnn", model="cnn", right=range(30), images=range(40), info=info),
    ]

    page = write_paper(runs, tmp_path / "out", load_images)

    text = text_of(page)
    assert "All 2 runs are limited (trainer=smoke, trainer.limit_train_batches=2)" in banner_texts(page)
    assert "Not tested on the paper&#39;s images" in banner_texts(page)
    assert "CNN and MLP (40 of 56 images)" in banner_texts(page)
    assert text.count("n = 40 of 56") == 2
    assert answers.FIRST_QUESTION not in text
    assert answers.SECOND_QUESTION not in text
    assert "It is ahead of" not in text
    assert "These runs leave images out, so this page does not say which network" in text
    assert "These runs leave images out: these tests mean nothing." in text
    tables, figures = page.parent / "tables", page.parent / "figures"
    for folder, ending in (
        (tables, "md"),
        (tables, "csv"),
        (tables, "tex"),
        (figures, "pdf"),
        (figures, "svg"),
    ):
        stems = files(folder, ending) - {"table_2_papers_pairs"}
        assert len(stems) > 3
        assert all(stem.endswith("_limited") for stem in stems), stems
    title = "Table 1: test accuracy, the paper's recipe (limited run, not results)"
    assert f"**{title}**" in (tables / "table_1_limited.md").read_text()
    assert f"\\caption{{{title}}}" in (tables / "table_1_limited.tex").read_text()
    assert set(marks) == {f"limited run: not results ({', '.join(LIMITS)})"}


def test_whole_runs_on_other_images_are_compared_only_with_each_other(make_paper_run, tmp_path):
    runs = [
        make_paper_run("0_mlp", right=range(9), images=range(40)),
        make_paper_run("1_cnn", model="cnn", right=range(30), images=range(40)),
    ]

    page = write_paper(runs, tmp_path / "out", load_images)

    text = text_of(page)
    assert "CNN and MLP (40 of 56 images)" in banner_texts(page)
    assert answers.FIRST_QUESTION not in text
    assert "Which network is ahead on these images, which are not the paper&#39;s?" in text
    assert "CNN. It is ahead of MLP by" in text
    assert "The paper&#39;s values are not shown: they are of other images." in text
    assert files(page.parent / "figures", "pdf") >= {"figure_4_confusion"}


def test_tables_and_figures_are_saved_in_every_format(complete):
    tables, figures = complete.parent / "tables", complete.parent / "figures"

    assert files(tables, "md") == files(tables, "csv") == files(tables, "tex")
    assert files(tables, "md") >= {
        "table_1",
        "table_1_improved",
        "table_2",
        "pairs",
        "table_2_pairs",
        "counts",
    }
    assert files(tables, "md") >= {"table_2_papers_pairs", "calibration", "cost", "audit", "layers_mlp"}
    assert files(figures, "png") == files(figures, "pdf")
    assert files(figures, "png") >= {
        "figure_1_class_distribution",
        "figure_2_samples",
        "figure_3_mlp",
        "figure_4_confusion",
        "figure_5_per_class_improved",
        "figure_6_sample",
        "confusion_gpt_x",
    }


def test_missing_data_leave_out_two_figures(make_paper_run, tmp_path, monkeypatch):
    monkeypatch.delenv("FER2013_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    gone = {
        "data": {
            "_target_": "fer_lightning.data.datamodule.FERDataModule",
            "name": "fer2013",
            "root": str(tmp_path / "nowhere"),
            "classes": ["a"],
            "image_size": 16,
        }
    }

    text = text_of(write_paper([make_paper_run("0_mlp", config=gone)], tmp_path / "out", load_images))

    assert "Figure 2 is missing: the data were not found (data=fer2013: not found" in text
    assert "Figure 6 is missing" in text


def test_data_with_another_fingerprint_are_not_shown(make_paper_run, tmp_path):
    info = {"data": {"fingerprint": "of another copy"}}

    text = text_of(write_paper([make_paper_run("0_mlp", info=info)], tmp_path / "out", load_images))

    assert "are not those of the runs" in text


def test_synthetic_runs_are_not_compared_with_the_paper(make_paper_run, tmp_path):
    drawn = {"synthetic": True, "dataset": "fer2013", "data": {"fingerprint": "drawn"}}

    page = write_paper([make_paper_run("0_mlp", info=drawn)], tmp_path / "out", load_images)

    assert "Synthetic faces" in banner_texts(page)
    row = (page.parent / "tables/table_1_synthetic.csv").read_text()
    assert re.search(r"^MLP,.*,40.71,,", row, re.MULTILINE)
    assert answers.FIRST_QUESTION not in text_of(page)
    assert "so no difference is given" in text_of(page)


def test_departures_and_single_seeds_are_below_table_1(make_paper_run, tmp_path):
    run = make_paper_run("0_mlp", config={"trainer": {"max_epochs": 1}})

    text = text_of(write_paper([run], tmp_path / "out", load_images))

    assert "MLP: trainer.max_epochs=1 (the paper: 30 epochs); single seed" in text


def test_hostile_names_are_escaped(make_paper_run, tmp_path):
    run = make_paper_run("0_llm", model='<img src=x onerror="alert(1)">', info={"predictor": "llm"})

    page = write_paper([run, make_paper_run("1_mlp")], tmp_path / "out", load_images)

    assert "<img src=x" not in page.read_text(encoding="utf-8")
    assert "confusion_img_src_x_onerror_alert_1" in files(page.parent / "figures", "png")


def test_pretrained_network_is_drawn_without_a_download(make_paper_run, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lightning.models.resnet._fetch", lambda depth: pytest.fail("a download"))
    network = {
        "_target_": "fer_lightning.models.resnet.ResNet",
        "num_classes": 7,
        "image_size": 16,
        "depth": 18,
        "stem": "imagenet",
        "pretrained": True,
    }

    page = write_paper(
        [make_paper_run("0_resnet", model="resnet", network=network)], tmp_path / "out", load_images
    )

    assert "Figure 3, ResNet-18 (pre-trained): 11,1" in text_of(page)


def test_out_that_is_a_file_is_refused(make_paper_run, tmp_path):
    (tmp_path / "page.html").write_text("mine")

    with pytest.raises(FERError, match=r"--out .*page\.html: .*expected a folder"):
        write_paper([make_paper_run("0_mlp")], tmp_path / "page.html", load_images)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ({"_target_": "fer_lightning.models.mlp.MLP", "no_such_size": 1}, "cannot be built"),
        ({"hidden": [8]}, "has no model._target_"),
    ],
)
def test_failing_network_leaves_out_only_its_figure(make_paper_run, tmp_path, network, reason):
    run = make_paper_run("0_mlp", network=network)

    text = text_of(write_paper([run], tmp_path / "out", load_images))

    assert re.search(rf"Figure 3, MLP is missing: .*0_mlp.*{reason}", text)


def test_large_sample_is_shown_in_part(make_paper_run, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lightning.report.paper.page_figures._MAX_IMAGES_PER_CLASS", 3)

    text = text_of(write_paper([make_paper_run("0_mlp")], tmp_path / "out", load_images))

    assert "Figure 6: the first 3 of each class of 35 test images" in text
