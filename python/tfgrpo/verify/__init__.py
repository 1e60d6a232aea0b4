"""Verifiers: what turns an answer into a reward. `build_verifier` makes the configured one."""

from __future__ import annotations

from tfgrpo.config import VerifierSection
from tfgrpo.verify.answer import normalise
from tfgrpo.verify.base import Verifier
from tfgrpo.verify.exact import ExactVerifier
from tfgrpo.verify.math import MathVerifier
from tfgrpo.verify.python import PythonVerifier

__all__ = ["ExactVerifier", "MathVerifier", "PythonVerifier", "Verifier", "build_verifier", "normalise"]


def build_verifier(section: VerifierSection) -> Verifier:
    """The verifier that the `[verifier]` table asks for; close it with `aclose` when the run is over.

    Raises:
        ConfigError: `verifier.function` cannot be imported.
    """
    match section.kind:
        case "exact":
            return ExactVerifier(section.field)
        case "math":
            return MathVerifier(section.field, timeout=section.timeout)
        case "python":
            return PythonVerifier(str(section.function), field=section.field, timeout=section.timeout)
