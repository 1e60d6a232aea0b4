"""Verifiers: what turns an answer into a reward."""

from tfgrpo.verify.answer import normalise
from tfgrpo.verify.exact import ExactVerifier
from tfgrpo.verify.math import MathVerifier
from tfgrpo.verify.python import PythonVerifier

__all__ = ["ExactVerifier", "MathVerifier", "PythonVerifier", "normalise"]
