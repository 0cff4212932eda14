"""The sentences say what the table says."""

import dataclasses

import pytest

from common.study_answer import answer
from common.study_table import make_table
from tests.common.study_cases import STUDY, TASK, make_result


def ask(scores, **changes):
    """The answer for scores by arm."""
    study = dataclasses.replace(STUDY, **{"reported": {}} | changes)
    results = [
        make_result(arm, seed, score)
        for arm, row in scores.items()
        for seed, score in enumerate(row)
    ]
    return answer(study, make_table(study, results), TASK.metrics)


HALF = (0.50, 0.52, 0.48)


def test_a_difference_beyond_chance():
    told = ask({"half": HALF, "one <b>": (0.60, 0.62, 0.581)})
    assert told.startswith("one <b> has the best test accuracy, 0.6003 ± 0.0195 over 3 seeds: ")
    assert "seeds: 0.1003 above half (95 % interval over seeds +0.0989 to +0.1018" in told
    assert "p < 0.001), beyond chance." in told


def test_a_difference_that_may_be_chance():
    told = ask({"half": HALF, "one <b>": (0.55, 0.50, 0.49), "two | 2": (0.1, 0.12, 0.081)})
    assert "which chance alone could do" in told
    assert "Different from half beyond chance: two | 2 (-0.3997)." in told


def test_the_baseline_may_be_best():
    told = ask({"half": HALF, "one <b>": (0.49, 0.52, 0.46)})
    assert told.startswith("half has the best test accuracy")
    assert "Not told apart from half: one <b> (-0.0100)." in told


def test_arms_with_the_same_scores_have_no_best():
    for change in (0.0, 1e-5):  # which is not shown
        other = tuple(score + change for score in HALF)
        told = ask({"half": HALF, "one <b>": other, "two | 2": other})
        assert told == "All arms have the same test accuracy, 0.5000 ± 0.0200 over 3 seeds."


def test_one_seed_is_no_evidence():
    told = ask({"half": (0.5,), "one <b>": (0.6,), "two | 2": (0.4,)})
    assert "with a single seed" in told and "one seed cannot tell from chance" in told
    assert "with one seed and so without a test: two | 2 (-0.1000)." in told


def test_of_a_loss_the_lowest_is_best():
    told = ask({"half": HALF, "one <b>": (0.7, 0.71, 0.72)}, metric="test/loss")
    assert told.startswith("one <b> has the best test loss, 0.2900")
    assert "below half" in told


@pytest.mark.parametrize(
    "reported, said",
    [
        ({"half": 0.4, "one <b>": 0.9}, "order of the report (one <b> 0.9, half 0.4) is reprod"),
        ({"half": 0.9, "one <b>": 0.4}, "half 0.4) is not reproduced: here it is one <b> 0.6000"),
        ({"half": 0.9}, "For half the report gave 0.9."),
    ],
)
def test_agreement_with_the_report(reported, said):
    said = said.replace("half 0.4) is not", "one <b> 0.4) is not")
    assert said in ask({"half": HALF, "one <b>": (0.6, 0.6, 0.6)}, reported=reported)


def test_an_order_of_the_report_that_may_be_chance():
    scores = {"half": HALF, "one <b>": (0.55, 0.50, 0.49)}
    told = ask(scores, reported={"half": 0.9, "one <b>": 0.4})
    assert "these are not told apart here: half and one <b>." in told


def test_a_single_arm():
    assert ask({"half": HALF}) == "half has a test accuracy of 0.5000 ± 0.0200 over 3 seeds."
