"""Which sentence answers a question, and the names and numbers in it; not its wording."""

from fer_lightning.report.paper.answers import (
    answer_first_question,
    answer_second_question,
    headline_cards,
)
from fer_lightning.report.paper.comparison import compare_predictors
from fer_lightning.report.paper.runs import collect_runs

NO_WINNER = "No clear winner: "
NOT_SIGNIFICANT = "not differ significantly"


def compare(networks):
    return compare_predictors({network.label: network.predictions[0] for network in networks})


def first_answer(*folders):
    runs = collect_runs(folders)
    return answer_first_question(
        runs, compare(runs.with_recipe(improved=False)), compare(runs.with_recipe(improved=True))
    )


def second_answer(make_paper_run, llm_right, *, status=None, **networks):
    folders = [make_paper_run(name, model=name, right=right) for name, right in networks.items()]
    if llm_right is not None:
        info = {"predictor": "llm"}
        folders.append(make_paper_run("llm", model="gpt-x", right=llm_right, info=info, status=status))
    return answer_second(folders)


def answer_second(folders):
    runs = collect_runs(folders)
    predictions = {network.label: network.predictions[0] for network in runs.networks}
    predictions |= {llm.label: llm.predictions for llm in runs.llms}
    return answer_second_question(runs, compare_predictors(predictions))


def has(sentence, *parts):
    """Return whether the sentence has these parts in this order."""
    position = 0
    for part in parts:
        position = sentence.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True


def test_winner_is_named_with_points_ci_p_and_n(make_paper_run):
    sentences = first_answer(
        make_paper_run("0_cnn", model="cnn", right=range(50)),
        make_paper_run("1_mlp", right=range(20)),
        make_paper_run("2_rnn", model="rnn", right=range(1, 20)),
    )

    winner, next_pair, single, missing = sentences[:4]
    assert winner.startswith("CNN. ")
    assert has(winner, "ahead of MLP by 53.6 points", "95 % CI ", "p < 0.001", "n = 56", "seed 0", "means")
    assert has(next_pair, "MLP and RNN", NOT_SIGNIFICANT, "1.8 points", "95 % CI ", "p = 1.00")
    assert has(single, "Single-seed", "CNN, MLP and RNN")
    assert has(missing, "ResNet", "not run")


def test_insignificant_lead_makes_no_winner(make_paper_run):
    sentences = first_answer(
        make_paper_run("0_cnn", model="cnn", right=range(30)),
        make_paper_run("1_mlp", right=range(1, 29)),
        make_paper_run("2_rnn", model="rnn", right=range(3)),
    )

    assert has(sentences[0], NO_WINNER, "CNN and MLP", NOT_SIGNIFICANT, "3.6 points")
    assert has(sentences[1], "MLP is ahead of RNN by")
    assert not any("CNN and MLP" in sentence for sentence in sentences[1:])


def test_all_networks_tied_with_the_best_are_named(make_paper_run):
    sentences = first_answer(
        make_paper_run("0_cnn", model="cnn", right=range(30)),
        make_paper_run("1_mlp", right=range(29)),
        make_paper_run("2_rnn", model="rnn", right=range(28)),
    )

    assert has(sentences[0], NO_WINNER, "MLP and RNN", NOT_SIGNIFICANT, "from CNN", "highest mean")


def test_first_seed_against_the_means_makes_no_winner(make_paper_run):
    sentences = first_answer(
        make_paper_run("0_mlp", right=range(10)),
        make_paper_run("1_mlp", seed=1, right=range(55)),
        make_paper_run("2_rnn", model="rnn", right=range(31)),
        make_paper_run("3_rnn", model="rnn", seed=1, right=range(31)),
    )

    assert has(sentences[0], NO_WINNER, "MLP has the highest mean", "seed 0", "n = 56")
    assert has(sentences[1], "RNN is ahead", "37.5 points, 95 % CI 2", "p < 0.001, n = 56", "means", "MLP")
    assert not any(NOT_SIGNIFICANT in sentence or "Single-seed" in sentence for sentence in sentences)


def test_difference_is_relative_to_the_network_named_first(make_paper_run):
    sentences = first_answer(
        make_paper_run("0_mlp", right=range(30)),
        make_paper_run("1_mlp", seed=1, right=range(50)),
        make_paper_run("2_rnn", model="rnn", right=range(31)),
        make_paper_run("3_rnn", model="rnn", seed=1, right=range(31)),
    )

    assert has(sentences[0], NO_WINNER, "MLP and RNN", "-1.8 points, 95 % CI -", "p = 1.00")


def test_single_network_has_no_comparison(make_paper_run):
    assert has(first_answer(make_paper_run("0_mlp"))[0], "MLP is the only network", "n = 56")


def test_table_1_is_compared_only_on_the_papers_images(make_paper_run):
    right = range(28)

    same = first_answer(make_paper_run("0_mlp", right=right))
    other = first_answer(make_paper_run("1_mlp", images=range(40), right=right))

    assert any(has(sentence, "Table 1", "MLP 50.0 %, 9.3 points above") for sentence in same)
    assert not any("Compared with" in sentence for sentence in other)
    assert any(has(sentence, "Not tested on the paper's images: MLP") for sentence in other)
    assert not any(sentence.startswith("Not t") for sentence in same)


def test_different_recipes_are_stated(make_paper_run):
    short = {"trainer": {"max_epochs": 1}}

    sentences = first_answer(make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn", config=short))

    assert any(has(sentence, "Not trained with the paper's recipe: CNN;") for sentence in sentences)
    assert any("different recipes" in sentence for sentence in sentences)


def test_improved_recipe_is_answered_separately(make_paper_run):
    sentences = first_answer(
        make_paper_run("0_mlp", right=range(10)),
        make_paper_run("1_mlp", experiment="improved", right=range(50)),
        make_paper_run("2_cnn", model="cnn", experiment="improved", right=range(20)),
    )

    assert sentences[0].startswith("MLP is the only network")
    expected = ("With the improved recipe: MLP (improved).", "ahead of CNN (improved) by 53.6")
    assert any(has(sentence, *expected) for sentence in sentences)


def test_language_model_is_compared_with_each_network(make_paper_run):
    sentences = second_answer(make_paper_run, range(30), cnn=range(55), mlp=range(1, 30), rnn=range(3))

    assert has(
        sentences[0],
        "At n = 56 gpt-x",
        "ahead of RNN by 48.2 points (p < 0.001)",
        "behind CNN by",
        NOT_SIGNIFICANT,
        "from MLP.",
    )


def test_unanswered_images_are_counted_by_reason(make_paper_run):
    status = ["ok"] * 50 + ["timeout"] * 4 + ["refusal"] * 2

    sentences = second_answer(make_paper_run, range(50), status=status, mlp=range(20))

    assert has(sentences[0], "gpt-x is ahead of MLP by", " 6 ", "(4 timeout and 2 refusal)", "count as wrong")


def test_language_model_without_any_answer_has_no_verdict(make_paper_run):
    sentences = second_answer(make_paper_run, (), status=["timeout"] * 56, mlp=range(50))

    assert has(sentences[0], "At n = 56 gpt-x gave no answer at all (56 timeout)")
    assert "ahead" not in sentences[0]


def test_networks_with_several_seeds_use_the_first(make_paper_run):
    folders = [make_paper_run(f"{seed}_mlp", seed=seed, right=range(30)) for seed in range(2)]
    folders.append(make_paper_run("llm", model="gpt-x", right=range(30), info={"predictor": "llm"}))

    assert "first seed" in answer_second(folders)[1]
    assert not any("first seed" in sentence for sentence in answer_second(folders[1:]))


def test_without_language_model_the_papers_table_answers(make_paper_run):
    sentences = second_answer(make_paper_run, None, cnn=range(50), mlp=range(10))

    assert sentences[0].startswith("No language model was evaluated")
    assert has(sentences[1], "56-image sample", "CNN is ahead of MLP (p < 0.001)")
    assert has(sentences[2], "Table 2 (n = 35) GPT-4 Turbo", NOT_SIGNIFICANT, "from CNN and")


def test_language_model_without_network_is_not_compared(make_paper_run):
    sentences = second_answer(make_paper_run, range(30))

    assert has(sentences[0], "No network was tested on the images", "gpt-x")


def test_without_networks_the_first_question_is_open(make_paper_run):
    runs = collect_runs([make_paper_run("llm", model="gpt-x", info={"predictor": "llm"})])

    [sentence] = answer_first_question(runs, compare([]), compare([]))

    assert sentence.startswith("No network was run")


def test_headline_shows_mean_n_and_the_papers_number(make_paper_run):
    folders = [make_paper_run(f"{seed}_mlp", seed=seed, right=range(14 * (seed + 1))) for seed in range(2)]

    assert headline_cards(collect_runs(folders)) == [("MLP", "37.5 %", "n = 56; the paper: 40.7 %")]
    others = collect_runs([make_paper_run("2_mlp", images=range(40))])
    assert headline_cards(others) == [("MLP", "0.0 %", "n = 40 of 56")]
