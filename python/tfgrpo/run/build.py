"""The parts that a configuration names, built with plain arguments: agent, verifier, distiller, gate, cache."""

from __future__ import annotations

from tfgrpo.config import AgentSection, Config, Endpoint, VerifierSection
from tfgrpo.dispatch import Dispatcher, PrefixCache
from tfgrpo.distill import Asker, Prompts
from tfgrpo.engine.context import distiller_send
from tfgrpo.engine.gate import GainGate, Gate, OpenGate
from tfgrpo.engine.plan import Method
from tfgrpo.protocols import Agent, Verifier
from tfgrpo.rollout import DirectAgent
from tfgrpo.verify import ExactVerifier, MathVerifier, PythonVerifier


def build_agent(section: AgentSection) -> Agent:
    """The agent that `[agent]` describes."""
    return DirectAgent(
        max_tokens=section.max_tokens, top_p=section.top_p, response_schema=section.response_schema
    )


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


def build_asker(config: Config, prompts: Prompts, dispatcher: Dispatcher) -> Asker:
    """The distiller's questions, as `[distill]` wants them."""
    return Asker(
        distiller_send(dispatcher),
        prompts,
        graded=config.practice.ground_truth,
        objective=config.practice.learning_objective,
        lesson=config.distill.lesson,
        words=config.distill.experience_words,
        neighbours=config.distill.neighbours,
        temperature=config.distill.temperature,
        max_tokens=config.distill.max_tokens,
    )


def build_gate(method: Method) -> Gate:
    """The gate that `practice.select` asks for."""
    return GainGate(method.candidates) if method.select == "gain" else OpenGate()


def build_cache(endpoint: Endpoint) -> PrefixCache:
    """What is known beforehand of the prefix cache of an endpoint."""
    automatic = endpoint.prefix_cache == "auto" and endpoint.local is None
    priced = endpoint.price is not None and endpoint.price.cached_input is not None
    return PrefixCache(
        used=endpoint.prefix_cache == "on" or (automatic and priced),
        learn=automatic,
        leading_questions=endpoint.leading_questions,
    )
