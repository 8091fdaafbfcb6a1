import json
import re

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.report.paper_page import write_paper

pytestmark = pytest.mark.usefixtures("saving_costs_nothing")


def text_of(page):
    return " ".join(re.sub("<[^>]*>", " ", page.read_text(encoding="utf-8")).split())


def files(folder, ending):
    return {path.stem for path in folder.glob(f"*.{ending}")}


@pytest.fixture
def whole(make_paper_run, tmp_path):
    """The report of all that it can show: two families, two recipes, a language model, an audit."""
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
    return write_paper(runs, tmp_path / "out")


def test_one_page_repeats_every_table_and_figure(whole):
    text = text_of(whole)

    for told in (
        "CNN. It is ahead of MLP by 26.8 points",
        "With the improved recipe: MLP (improved) stands alone",
        "At n = 56 gpt-x is behind",
        "GPT-4 Turbo cannot be told apart from CNN and ResNet",
        "Table 1: test accuracy, the paper&#x27;s recipe",
        "Table 2: 56 images, networks and language model",
        "Figure 1:",
        "Figure 2:",
        "Figure 3, CNN: ",
        "Figure 4: who was taken for whom",
        "Figure 5: precision",
        "Figure 6:",
        "gpt-x: who was taken for whom, n = 56.",
        "train images were blurred",
        "1,516",
        "5_rnn is left out: it failed (no disk).",
        "Section 3 speaks of 3,589 test images",
    ):
        assert told in text, told
    assert "is missing" not in text


def test_every_test_of_all_images_is_made_again_without_leaked_copies(make_paper_run, tmp_path):
    runs = [
        make_paper_run(
            f"{number}_{model}_{experiment}", model=model, experiment=experiment, right=range(right)
        )
        for number, (model, experiment, right) in enumerate(
            [("mlp", "paper", 9), ("cnn", "paper", 40), ("mlp", "improved", 20), ("cnn", "improved", 50)]
        )
    ]

    write_paper(runs, tmp_path / "out")

    for name in ("pairs", "pairs_improved"):
        everything, kept = (
            (tmp_path / f"out/tables/{stem}.md").read_text() for stem in (name, f"{name}_leak_free")
        )
        assert ("| 56 |" in everything, "| 49 |" in kept) == (True, True)


def test_the_worst_of_the_data_is_no_picture_from_elsewhere(make_paper_run, tmp_path):
    run = make_paper_run("run")
    (run / "audit.json").write_text(json.dumps({"copies": {"groups": 7}, "warnings": 3}))
    (run / "figures").mkdir()
    (tmp_path / "private.png").write_bytes(b"\x89PNG\r\n a picture")
    (run / "figures/audit.png").symlink_to(tmp_path / "private.png")

    with pytest.raises(FERError, match="audit.png: a symbolic link that leads out of the run folder"):
        write_paper([run], tmp_path / "out")


def test_the_worst_of_the_data_is_shown_as_the_audited_run_drew_it(make_paper_run, tmp_path):
    run = make_paper_run("0_mlp")
    (run / "audit.json").write_text(json.dumps({"copies": {"groups": 7}, "warnings": 3}))
    assert "The worst of it" not in text_of(write_paper([run], tmp_path / "out"))

    (run / "figures").mkdir()
    (run / "figures/audit.png").write_bytes(b"\x89PNG\r\n a picture")
    assert "The worst of it: pixel-identical pictures" in text_of(write_paper([run], tmp_path / "out"))


def test_altered_data_are_the_reason_why_no_difference_is_taken(make_paper_run, tmp_path):
    altered = {"data": {"fingerprint": "feedbeef"}}

    text = text_of(write_paper([make_paper_run("0_mlp", info=altered)], tmp_path / "out"))

    assert "MLP: its data are not FER-2013 as published (fingerprint feedbeef), so that no difference" in text
    assert "that are not the paper" not in text


def test_tables_lie_beside_the_page_as_markdown_and_csv_and_figures_as_png_and_pdf(whole):
    tables, figures = whole.parent / "tables", whole.parent / "figures"

    assert files(tables, "md") == files(tables, "csv")
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


def test_data_that_are_gone_cost_two_figures_and_say_so(make_paper_run, tmp_path, monkeypatch):
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

    text = text_of(write_paper([make_paper_run("0_mlp", config=gone)], tmp_path / "out"))

    assert "Figure 2 is missing: the data were not found again (data=fer2013: not found" in text
    assert "Figure 6 is missing" in text


def test_other_pixels_under_the_same_name_are_not_shown_as_the_runs_own(make_paper_run, tmp_path):
    info = {"data": {"fingerprint": "of another copy"}}

    text = text_of(write_paper([make_paper_run("0_mlp", info=info)], tmp_path / "out"))

    assert "are not those of the runs" in text


def test_synthetic_runs_are_marked_and_not_set_against_the_paper(make_paper_run, tmp_path):
    drawn = {"synthetic": True, "dataset": "fer2013", "data": {"fingerprint": "drawn"}}

    page = write_paper([make_paper_run("0_mlp", info=drawn)], tmp_path / "out")

    assert "Synthetic data" in text_of(page)
    row = (page.parent / "tables/table_1.md").read_text()
    assert re.search(r"\| MLP \|.*\| 40.71 \| — \|", row)
    assert "so that no difference is taken" in text_of(page)


def test_a_departure_from_the_recipe_and_a_single_seed_stand_below_table_1(make_paper_run, tmp_path):
    run = make_paper_run("0_mlp", config={"trainer": {"max_epochs": 1}})

    text = text_of(write_paper([run], tmp_path / "out"))

    assert "MLP: trainer.max_epochs=1 (the paper: 30 epochs); run with one seed" in text


def test_names_from_strangers_files_stay_text(make_paper_run, tmp_path):
    run = make_paper_run("0_llm", model='<img src=x onerror="alert(1)">', info={"predictor": "llm"})

    page = write_paper([run, make_paper_run("1_mlp")], tmp_path / "out")

    assert "<img src=x" not in page.read_text(encoding="utf-8")
    assert "confusion_img_src_x_onerror_alert_1" in files(page.parent / "figures", "png")


def test_a_pretrained_network_is_drawn_without_fetching_its_weights(make_paper_run, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lightning.models.resnet._fetch", lambda depth: pytest.fail("a download"))
    network = {
        "_target_": "fer_lightning.models.resnet.ResNet",
        "num_classes": 7,
        "image_size": 16,
        "depth": 18,
        "stem": "imagenet",
        "pretrained": True,
    }

    page = write_paper([make_paper_run("0_resnet", model="resnet", network=network)], tmp_path / "out")

    assert "Figure 3, ResNet-18 (pre-trained): 11,1" in text_of(page)


def test_an_output_folder_that_is_a_file_is_refused_in_a_sentence(make_paper_run, tmp_path):
    (tmp_path / "page.html").write_text("mine")

    with pytest.raises(FERError, match=r"--out .*page\.html: .*expected a folder"):
        write_paper([make_paper_run("0_mlp")], tmp_path / "page.html")


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ({"_target_": "fer_lightning.models.mlp.MLP", "no_such_size": 1}, "cannot be built"),
        ({"hidden": [8]}, "names no model._target_"),
    ],
)
def test_a_network_that_cannot_be_built_costs_its_figure_alone(make_paper_run, tmp_path, network, told):
    run = make_paper_run("0_mlp", network=network)

    text = text_of(write_paper([run], tmp_path / "out"))

    assert re.search(rf"Figure 3, MLP is missing: .*0_mlp.*{told}", text)


def test_a_large_sample_says_how_many_of_it_are_shown(make_paper_run, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lightning.report.paper_page._NUM_EACH", 3)

    text = text_of(write_paper([make_paper_run("0_mlp")], tmp_path / "out"))

    assert "Figure 6: the first 3 of each class of 35 images" in text
