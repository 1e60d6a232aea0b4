"""Two arms over the same tasks, compared in pairs: the difference with an interval and a test, both by scipy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

# scipy takes two seconds to import: it is, inside the functions that compare, when a run has ended.

Verdict = Literal["better", "worse", "not distinguishable"]
Rewards = Mapping[str, Sequence[float]]

_SOLVED = 1.0 - 1e-9
_QUANTUM = 1e-9  # differences become whole multiples of it: sums are then exact in any order
_BATCH_NUMBERS = 4_000_000  # at most this many floats of resamples at a time
_EVERYTHING = (-1.0, 1.0)  # rewards lie in [0, 1], so their differences lie here


class Estimate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mean with its bootstrap interval over `n` values; `mean` is None when there are none."""

    mean: float | None
    low: float
    high: float
    n: int


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Two arms over the `tasks` tasks that have graded answers in both: `before` is compared with, `after` is compared.

    Means are Mean@k: the mean over tasks of each task's mean reward. Pass@k is the chance that one of k
    answers has reward 1, over the tasks with at least k graded answers in both arms; None without such tasks.
    `unpaired` are the ids of tasks without a graded answer in one of the arms: they count nowhere.
    """

    tasks: int
    samples: int
    confidence: float
    before_mean: float | None
    after_mean: float | None
    before_pass_at_k: float | None
    after_pass_at_k: float | None
    difference: float | None
    interval: tuple[float, float]
    interval_method: str
    p_value: float
    test: str
    verdict: Verdict
    sentence: str
    unpaired: tuple[str, ...] = ()


def compare(
    before: Rewards,
    after: Rewards,
    *,
    samples: int,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 9_999,
) -> Comparison:
    """Compare two arms in pairs.

    The verdict is "better" or "worse" only if the sign-flip test rejects at 1 - confidence *and* the
    bootstrap interval of the difference excludes 0; otherwise it is "not distinguishable". Swapping the arms
    mirrors the result exactly; the order and the names of the tasks change nothing.

    Args:
        before: the graded rewards of each task, in [0, 1], by task id. A task whose samples all faulted has
            none (an empty sequence, or no entry).
        after: the same for the other arm.
        samples: k of Mean@k and Pass@k: answers asked for per task.
        confidence: of the interval.
        seed: of every draw.
        resamples: draws of the bootstrap and, where it is not exact, of the test.
    """
    everything = sorted(before.keys() | after.keys())
    paired = [task for task in everything if before.get(task) and after.get(task)]
    pairs = [(_mean(before[task]), _mean(after[task])) for task in paired]
    first, second = _mean([b for b, _ in pairs]), _mean([a for _, a in pairs])
    quanta = np.rint([(a - b) / _QUANTUM for b, a in pairs])
    interval, method = _interval(quanta, confidence, seed, resamples)
    p_value, test = _sign_flip_test(quanta, seed, resamples)
    difference = float(quanta.sum() / len(pairs) * _QUANTUM) if pairs else None
    verdict = _verdict(interval, p_value, confidence)
    deep = [task for task in paired if min(len(before[task]), len(after[task])) >= samples]
    return Comparison(
        tasks=len(pairs),
        samples=samples,
        confidence=confidence,
        before_mean=first if pairs else None,
        after_mean=second if pairs else None,
        before_pass_at_k=pass_at_k([before[task] for task in deep], samples),
        after_pass_at_k=pass_at_k([after[task] for task in deep], samples),
        difference=difference,
        interval=interval,
        interval_method=method,
        p_value=p_value,
        test=test,
        verdict=verdict,
        sentence=_sentence(verdict, len(pairs), first, second, difference, interval, confidence, p_value),
        unpaired=tuple(sorted(set(everything) - set(paired))),
    )


def mean_interval(
    values: Sequence[float], *, confidence: float = 0.95, seed: int = 0, resamples: int = 9_999
) -> Estimate:
    """The mean of rewards in [0, 1] with its bootstrap interval.

    Give one value a task (its mean reward), because answers to one task are not independent. Fewer than two
    values say nothing about other tasks: their interval is all of [0, 1].
    """
    if len(values) < 2:
        return Estimate(_mean(values) if values else None, 0.0, 1.0, len(values))
    quanta = np.sort(np.rint(np.asarray(values) / _QUANTUM))
    (low, high), _ = _bootstrap(quanta, confidence, seed, resamples)
    return Estimate(_mean(values), low, high, len(values))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def pass_at_k(rewards: Sequence[Sequence[float]], k: int) -> float | None:
    """Mean over tasks of 1 - C(n - c, k) / C(n, k): n >= k graded answers of which c have reward 1."""
    if not rewards:
        return None
    from scipy import special

    chances = []
    for answers in rewards:
        failed = sum(value < _SOLVED for value in answers)
        chances.append(1.0 - float(special.comb(failed, k) / special.comb(len(answers), k)))
    return _mean(chances)


def _interval(
    quanta: NDArray[Any], confidence: float, seed: int, resamples: int
) -> tuple[tuple[float, float], str]:
    """The interval of the mean difference, and how it was made."""
    if len(quanta) < 2:
        return _EVERYTHING, "none: fewer than two tasks"
    ordered, flipped = _oriented(quanta)
    (low, high), method = _bootstrap(ordered, confidence, seed, resamples)
    return ((0.0 - high, 0.0 - low) if flipped else (low, high)), method


def _oriented(quanta: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """One order and one orientation for the same data, and whether it was turned round.

    So the draws that follow depend neither on the order of the tasks nor on which arm comes first.
    """
    ordered, turned = np.sort(quanta), np.sort(-quanta)
    flipped = bool(ordered.tolist() < turned.tolist())
    return (turned if flipped else ordered), flipped


def _bootstrap(
    quanta: NDArray[Any], confidence: float, seed: int, resamples: int
) -> tuple[tuple[float, float], str]:
    if quanta.min() == quanta.max():
        value = float(quanta[0] * _QUANTUM)
        return (value, value), "none: all values are equal"
    from scipy import stats

    for method in ("BCa", "percentile"):
        found = stats.bootstrap(
            (quanta,),
            np.mean,
            n_resamples=resamples,
            batch=max(1, _BATCH_NUMBERS // len(quanta)),
            confidence_level=confidence,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            break
    return (float(found.low * _QUANTUM), float(found.high * _QUANTUM)), f"{method} bootstrap over tasks"


def _sign_flip_test(quanta: NDArray[Any], seed: int, resamples: int) -> tuple[float, str]:
    """Under the null hypothesis each task's difference has either sign with equal chance."""
    differing, _ = _oriented(quanta[quanta != 0])
    if len(differing) < 2:  # of one difference, both signs are equally extreme
        return 1.0, f"none: {'one task differs' if len(differing) else 'no task differs'}"
    from scipy import stats

    found = stats.permutation_test(
        (differing,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _BATCH_NUMBERS // len(differing)),
        rng=np.random.default_rng(seed),
    )
    exact = 2.0 ** len(differing) <= resamples
    return float(found.pvalue), f"{'exact' if exact else 'Monte Carlo'} sign-flip permutation test"


def _verdict(interval: tuple[float, float], p_value: float, confidence: float) -> Verdict:
    if p_value < 1.0 - confidence - 1e-12:  # 1 - 0.95 is a little more than 0.05
        if interval[0] > 0:
            return "better"
        if interval[1] < 0:
            return "worse"
    return "not distinguishable"


def _sentence(
    verdict: Verdict,
    tasks: int,
    before: float,
    after: float,
    difference: float | None,
    interval: tuple[float, float],
    confidence: float,
    p_value: float,
) -> str:
    if difference is None:
        return "not distinguishable at n = 0: no task has a graded answer in both arms."
    low, high = interval
    shown = f"p = {p_value:.3f}" if p_value >= 0.0005 else "p < 0.001"
    return (
        f"{verdict} at n = {tasks}: mean reward {before:.3f} → {after:.3f}, difference {signed(difference)} "
        f"({100 * confidence:g} % interval {signed(low)} to {signed(high)}, {shown})."
    )


def signed(value: float) -> str:
    """A difference as text, three decimals, always with its sign (a true minus)."""
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")
