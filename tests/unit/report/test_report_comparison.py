"""The paired comparison by example: what is counted, what is left out, and the plain sentence."""

from __future__ import annotations

import pytest

from tfgrpo.report.comparison import compare, mean_interval, signed


def test_a_clear_gain_with_an_exact_test() -> None:
    baseline = {f"t{i}": [0.0, 0.0] for i in range(10)}
    learned = {f"t{i}": [1.0, float(i > 4)] for i in range(10)}
    found = compare(baseline, learned, samples=2)
    assert (found.verdict, found.tasks) == ("better", 10)
    assert (found.before_mean, found.after_mean, found.difference) == (0.0, 0.75, 0.75)
    assert (found.before_pass_at_k, found.after_pass_at_k) == (0.0, 1.0)
    assert found.test == "exact sign-flip permutation test"
    assert found.p_value == pytest.approx(2 / 2**10)
    assert found.interval_method == "BCa bootstrap over tasks"
    assert found.sentence.startswith(
        "better at n = 10: mean reward 0.000 → 0.750, difference +0.750 (95 % interval +0."
    )
    assert found.sentence.endswith("p = 0.002).")


def test_many_differing_tasks_take_the_monte_carlo_test() -> None:
    baseline = {str(i): [float(i % 3 == 0)] for i in range(60)}
    learned = {str(i): [float(i % 3 != 1)] for i in range(60)}
    found = compare(baseline, learned, samples=1)
    assert found.test == "Monte Carlo sign-flip permutation test"
    assert found.p_value == pytest.approx(2 / 10_000)  # no p value below what the draws can show
    assert "p < 0.001" in found.sentence


def test_a_task_that_faulted_in_one_arm_is_left_out_and_named() -> None:
    found = compare(
        {"a": [1.0], "b": [1.0], "c": [], "d": [1.0]}, {"a": [1.0], "b": [], "c": [], "e": [0.0]}, samples=1
    )
    assert found.tasks == 1
    assert found.unpaired == ("b", "c", "d", "e")
    assert (found.before_mean, found.after_mean) == (1.0, 1.0)


def test_nothing_graded_says_so_and_invents_no_number() -> None:
    found = compare({"a": []}, {"a": [1.0]}, samples=4)
    assert (found.before_mean, found.after_mean, found.difference) == (None, None, None)
    assert (found.interval, found.p_value, found.verdict) == ((-1.0, 1.0), 1.0, "not distinguishable")
    assert found.sentence == "not distinguishable at n = 0: no task has a graded answer in both arms."


def test_one_task_says_nothing_about_others() -> None:
    found = compare({"a": [0.0]}, {"a": [1.0]}, samples=1)
    assert (found.interval, found.p_value, found.verdict) == ((-1.0, 1.0), 1.0, "not distinguishable")


@pytest.mark.parametrize(("tasks", "verdict"), [(5, "not distinguishable"), (6, "better")])
def test_equal_differences_are_judged_by_the_exact_test(tasks: int, verdict: str) -> None:
    found = compare({str(i): [0.0] for i in range(tasks)}, {str(i): [1.0] for i in range(tasks)}, samples=1)
    assert (found.verdict, found.interval) == (verdict, (1.0, 1.0))
    assert found.interval_method == "none: all values are equal"
    assert found.p_value == pytest.approx(2 / 2**tasks)


def test_pass_at_k_is_unbiased_and_needs_k_graded_answers() -> None:
    baseline = {"a": [1.0, 0.0, 0.0, 0.0], "b": [1.0]}
    found = compare(baseline, {"a": [1.0, 0.5], "b": [1.0, 1.0]}, samples=2)
    assert found.before_pass_at_k == pytest.approx(0.5)  # 1 - C(3, 2) / C(4, 2)
    assert found.after_pass_at_k == 1.0
    assert compare({"b": [1.0]}, {"b": [1.0]}, samples=2).before_pass_at_k is None


def test_a_higher_confidence_asks_for_more() -> None:
    baseline, learned = {str(i): [0.0] for i in range(7)}, {str(i): [1.0] for i in range(7)}
    assert compare(baseline, learned, samples=1, confidence=0.95).verdict == "better"
    assert compare(baseline, learned, samples=1, confidence=0.99).verdict == "not distinguishable"


def test_the_interval_of_a_mean() -> None:
    assert mean_interval([]).mean is None
    assert (mean_interval([0.5]).low, mean_interval([0.5]).high) == (0.0, 1.0)
    assert (mean_interval([1.0, 1.0]).low, mean_interval([1.0, 1.0]).high) == (1.0, 1.0)
    found = mean_interval([0.0, 1.0] * 50)
    assert found.mean == 0.5
    assert found.low == pytest.approx(0.4, abs=0.02)
    assert found.high == pytest.approx(0.6, abs=0.02)


def test_differences_are_written_with_their_sign() -> None:
    assert [signed(value) for value in (0.0123, -0.5, 0.0, -0.0001)] == ["+0.012", "−0.500", "0.000", "0.000"]


def test_a_p_value_of_exactly_one_in_twenty_is_not_enough() -> None:
    baseline = {str(i): [0.0] for i in range(6)} | {"6": [1.0], "7": [0.75]}
    learned = {str(i): [1.0] for i in range(6)} | {"6": [0.5], "7": [0.5]}
    found = compare(baseline, learned, samples=1, resamples=199)
    assert found.p_value == 0.05  # and 1 - 0.95 is a little more than that in binary
    assert found.interval[0] > 0
    assert found.verdict == "not distinguishable"
