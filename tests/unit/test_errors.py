"""Errors: every class pickles and copies whole, and each caller gets an object of its own."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from tfgrpo import errors
from tfgrpo.errors import ModelError, RateLimitedError, RunStoppedError, TfgrpoError

CLASSES = sorted(
    (kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TfgrpoError)),
    key=lambda kind: kind.__name__,
)


def made(kind: type[TfgrpoError]) -> TfgrpoError:
    if issubclass(kind, ModelError):
        return kind("told", status=503, retry_after=2.5, maybe_paid=True)
    if issubclass(kind, RunStoppedError):
        return kind(RateLimitedError("told", status=429))
    return kind("told")


def same(one: TfgrpoError, other: TfgrpoError) -> bool:
    def fields(error: TfgrpoError) -> dict[str, object]:
        return {name: repr(value) for name, value in vars(error).items() if not name.startswith("__")}

    return type(one) is type(other) and str(one) == str(other) and fields(one) == fields(other)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_comes_through_a_pickle_and_a_copy(kind: type[TfgrpoError]) -> None:
    error = made(kind)
    pickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    for again in (pickled, copy.copy(error), copy.deepcopy(error)):
        assert again is not error
        assert same(again, error)
        assert again.message == "told"
        assert again.kind == kind.__name__


@pytest.mark.parametrize("kind", CLASSES)
def test_again_is_a_fresh_object_without_a_trace(kind: type[TfgrpoError]) -> None:
    error = made(kind)
    try:
        raise error from ValueError("cause")
    except TfgrpoError as raised:
        again = raised.again()
    assert again is not error
    assert same(again, error)
    assert again.__traceback__ is None
    assert error.__traceback__ is not None


def test_what_can_be_retried_is_told_by_the_class() -> None:
    retryable = {kind.__name__ for kind in CLASSES if kind.retryable}
    assert retryable == {
        "ConnectError",
        "ConnectionLostError",
        "MalformedReplyError",
        "ModelTimeoutError",
        "OverloadedError",
        "RateLimitedError",
        "ServerError",
    }
