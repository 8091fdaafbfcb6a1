from fer_lightning.report.paper import collect, compare_predictors
from fer_lightning.report.paper_words import answer_first, answer_second, headline

NOBODY = compare_predictors({})


def contest_of(evidence, *, improved=False):
    return compare_predictors(
        {group.label: group.predictions[0] for group in evidence.block(improved=improved)}
    )


def first_answer(*runs):
    evidence = collect(runs)
    return answer_first(evidence, contest_of(evidence), contest_of(evidence, improved=True))


def test_a_winner_is_named_with_points_interval_p_and_n(make_paper_run):
    told = first_answer(
        make_paper_run("0_cnn", model="cnn", right=range(50)),
        make_paper_run("1_mlp", right=range(20)),
        make_paper_run("2_rnn", model="rnn", right=range(1, 20)),
    )

    assert told[0].startswith("CNN. It is ahead of MLP by 53.6 points (95 % interval ")
    assert told[0].endswith(
        "), p < 0.001, n = 56, the first seed of each (seed 0); the means over seeds agree."
    )
    assert told[1].startswith("MLP and RNN cannot be told apart (1.8 points, 95 % interval ")
    assert "p = 1.00" in told[1]
    assert told[2].endswith("not excluded: CNN, MLP and RNN.")
    assert told[3] == "ResNet is not among the runs, so that this leaves out what the paper asks."


def test_a_lead_that_chance_explains_makes_no_winner(make_paper_run):
    told = first_answer(
        make_paper_run("0_cnn", model="cnn", right=range(30)),
        make_paper_run("1_mlp", right=range(1, 29)),
        make_paper_run("2_rnn", model="rnn", right=range(3)),
    )

    assert told[0].startswith("No single one: CNN and MLP cannot be told apart (3.6 points")
    assert told[1].startswith("MLP is ahead of RNN by")
    assert not any("CNN and MLP" in sentence for sentence in told[1:])


def test_three_that_share_the_lead_are_all_named(make_paper_run):
    told = first_answer(
        make_paper_run("0_cnn", model="cnn", right=range(30)),
        make_paper_run("1_mlp", right=range(29)),
        make_paper_run("2_rnn", model="rnn", right=range(28)),
    )

    assert told[0].startswith(
        "No single one: MLP and RNN cannot be told apart from CNN, the best by its mean"
    )


def test_a_first_seed_that_leads_against_the_means_makes_no_winner(make_paper_run):
    told = first_answer(
        make_paper_run("0_mlp", right=range(10)),
        make_paper_run("1_mlp", seed=1, right=range(55)),
        make_paper_run("2_rnn", model="rnn", right=range(31)),
        make_paper_run("3_rnn", model="rnn", seed=1, right=range(31)),
    )

    assert told[0] == (
        "No single one: MLP is the best by its mean, but not by the first seed of each (seed 0) (n = 56)."
    )
    assert told[1].startswith("Of MLP and RNN, the first seeds put RNN ahead (37.5 points, 95 % interval 2")
    assert told[1].endswith("p < 0.001, n = 56), the means over seeds MLP: the seed decides.")
    assert not any("cannot be told apart" in sentence or "one seed" in sentence for sentence in told)


def test_a_difference_is_seen_from_whom_the_sentence_names_first(make_paper_run):
    told = first_answer(
        make_paper_run("0_mlp", right=range(30)),
        make_paper_run("1_mlp", seed=1, right=range(50)),
        make_paper_run("2_rnn", model="rnn", right=range(31)),
        make_paper_run("3_rnn", model="rnn", seed=1, right=range(31)),
    )

    assert told[0].startswith("No single one: MLP and RNN cannot be told apart (-1.8 points, 95 % interval -")
    assert "p = 1.00" in told[0]


def test_a_network_alone_has_nothing_to_be_better_than(make_paper_run):
    assert first_answer(make_paper_run("0_mlp"))[0] == (
        "MLP stands alone (n = 56): there is nothing to compare it with."
    )


def test_accuracies_stand_beside_the_papers_only_where_the_images_are_its_own(make_paper_run):
    right = range(28)

    same = first_answer(make_paper_run("0_mlp", right=right))
    other = first_answer(make_paper_run("1_mlp", images=range(40), right=right))

    assert "Beside the paper's Table 1, means over seeds: MLP 50.0 %, 9.3 points above." in same
    assert not any("Beside the paper" in sentence for sentence in other)
    assert "Not on the paper's data and images: MLP; see below Table 1." in other
    assert not any("Not t" in sentence for sentence in same)


def test_networks_under_different_recipes_are_said_to_be(make_paper_run):
    short = {"trainer": {"max_epochs": 1}}

    told = first_answer(make_paper_run("0_mlp"), make_paper_run("1_cnn", model="cnn", config=short))

    assert "Not trained by the paper's recipe: CNN; see below Table 1." in told
    assert "These networks were not all trained by one recipe: see below Table 1." in told


def test_the_improved_recipe_is_answered_apart(make_paper_run):
    told = first_answer(
        make_paper_run("0_mlp", right=range(10)),
        make_paper_run("1_mlp", experiment="improved", right=range(50)),
        make_paper_run("2_cnn", model="cnn", experiment="improved", right=range(20)),
    )

    assert told[0].startswith("MLP stands alone")
    assert any(
        sentence.startswith("With the improved recipe: MLP (improved). It is ahead of CNN (improved) by 53.6")
        for sentence in told
    )


def second_answer(make_paper_run, language_model, *, status=None, **networks):
    runs = [make_paper_run(name, model=name, right=right) for name, right in networks.items()]
    if language_model is not None:
        asked = {"predictor": "llm"}
        runs.append(make_paper_run("llm", model="gpt-x", right=language_model, info=asked, status=status))
    evidence = collect(runs)
    predictions = {group.label: group.predictions[0] for group in evidence.groups}
    predictions |= {model.label: model.predictions for model in evidence.language_models}
    return answer_second(evidence, compare_predictors(predictions))


def test_a_language_model_is_set_against_each_network(make_paper_run):
    told = second_answer(make_paper_run, range(30), cnn=range(55), mlp=range(1, 30), rnn=range(3))

    assert told[0].startswith("At n = 56 gpt-x is ahead of RNN by 48.2 points (p < 0.001), is behind CNN by")
    assert told[0].endswith(" and cannot be told apart from MLP.")


def test_what_a_language_model_left_unanswered_stands_beside_the_verdict(make_paper_run):
    status = ["ok"] * 50 + ["timeout"] * 4 + ["refusal"] * 2

    told = second_answer(make_paper_run, range(50), status=status, mlp=range(20))

    assert told[0].startswith("At n = 56 gpt-x is ahead of MLP by")
    assert told[0].endswith(
        " Of its images 6 brought no answer (4 timeout and 2 refusal) and count as wrong, which a server "
        "that fails would bring about too."
    )


def test_a_language_model_that_never_answered_gets_no_verdict(make_paper_run):
    told = second_answer(make_paper_run, (), status=["timeout"] * 56, mlp=range(50))

    assert told[0] == "At n = 56 gpt-x gave no answer at all (56 timeout): there is nothing to compare."


def test_networks_of_several_seeds_are_said_to_stand_with_their_first(make_paper_run):
    runs = [make_paper_run(f"{seed}_mlp", seed=seed, right=range(30)) for seed in range(2)]
    runs.append(make_paper_run("llm", model="gpt-x", right=range(30), info={"predictor": "llm"}))
    evidence = collect(runs)
    parts = {group.label: group.predictions[0] for group in evidence.groups}
    parts |= {model.label: model.predictions for model in evidence.language_models}

    assert answer_second(evidence, compare_predictors(parts))[1] == (
        "Networks of several seeds stand there with their first."
    )


def test_without_a_language_model_only_the_papers_own_table_answers(make_paper_run):
    told = second_answer(make_paper_run, None, cnn=range(50), mlp=range(10))

    assert told[0].startswith("No language model is among the runs")
    assert told[1] == "At n = 56 our own networks compare so: CNN is ahead of MLP (p < 0.001)."
    assert told[2].startswith(
        "In the paper's own Table 2 (n = 35) GPT-4 Turbo cannot be told apart from CNN and"
    )


def test_a_language_model_without_a_network_is_compared_with_nobody(make_paper_run):
    told = second_answer(make_paper_run, range(30))

    assert told[0] == "No network among the runs was tested on the images that gpt-x was asked about."


def test_without_a_network_of_the_papers_recipe_the_first_question_stays_open(make_paper_run):
    evidence = collect([make_paper_run("llm", model="gpt-x", info={"predictor": "llm"})])

    assert answer_first(evidence, NOBODY, NOBODY) == ["No network of the paper's recipe is among the runs."]


def test_the_headline_gives_mean_n_and_the_papers_number(make_paper_run):
    runs = [make_paper_run(f"{seed}_mlp", seed=seed, right=range(14 * (seed + 1))) for seed in range(2)]

    assert headline(collect(runs)) == [("MLP", "37.5 %", "n = 56; the paper: 40.7 %")]
    assert headline(collect([make_paper_run("2_mlp", images=range(40))])) == [("MLP", "0.0 %", "n = 40")]
