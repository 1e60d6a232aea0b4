"""The distiller's prompts: versioned text files, overridable one by one.

A file `<name>.md` starts with `version: N`, then has a `## system` and a `## user` part; both are jinja2
templates. Unknown variables are errors, so that an overriding file cannot silently lose its data.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import jinja2
from jinja2 import meta

from tfgrpo.errors import ConfigError
from tfgrpo.types import Message

COMMON = frozenset({"objective", "lesson", "graded", "words"})
#: The variables of each prompt.
VARIABLES = {
    "summarize": COMMON | {"task", "steps", "experiences", "grade", "truth"},
    "advantage": COMMON | {"task", "attempts", "truth", "experiences"},
    "propose": COMMON | {"experiences", "new"},
    "consolidate": COMMON | {"experiences", "proposals"},
    "generalize": COMMON | {"situations", "strategy", "bound"},
    "repair": frozenset({"reason"}),
}
NAMES = tuple(VARIABLES)


class Prompts:
    """The prompt files in force.

    Args:
        folder: a folder whose `<name>.md` files replace ours; names that are not ours are errors.

    Raises:
        ConfigError: a file is missing its parts, is no valid template, has an unknown name, or uses a
            variable that its prompt does not have: told before anything is paid.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"distill.prompts: there is no folder {folder}.")
        own = {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.md"))}
        unknown = sorted(own.keys() - set(NAMES))
        if unknown:
            raise ConfigError(
                f"distill.prompts: {folder} holds {unknown[0]}.md, which is no prompt of ours; "
                f"the names are {', '.join(NAMES)}."
            )
        environment = jinja2.Environment(  # noqa: S701  prompts are plain text, not HTML
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
        )
        self._templates: dict[str, tuple[jinja2.Template, jinja2.Template]] = {}
        digest = hashlib.sha256()
        for name in NAMES:
            place = str(own.get(name, f"{name}.md"))
            try:
                text = (own.get(name) or resources.files(__package__).joinpath(f"{name}.md")).read_text(
                    "utf-8"
                )
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{place}: cannot be read as UTF-8 text: {error}.") from None
            digest.update(f"{name}\0{text}\0".encode())
            self._templates[name] = _parse(text, place, environment, VARIABLES[name])
        self.digest = digest.hexdigest()

    def render(self, name: str, **values: object) -> tuple[Message, ...]:
        """The system and user message of a prompt.

        Raises:
            ConfigError: an overriding file does with a variable what cannot be done with it.
        """
        system, user = self._templates[name]
        try:
            return (
                Message("system", system.render(values).strip()),
                Message("user", user.render(values).strip()),
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError(f"The prompt {name}.md cannot be rendered: {error}.") from None


def _parse(
    text: str, place: str, environment: jinja2.Environment, variables: frozenset[str]
) -> tuple[jinja2.Template, jinja2.Template]:
    head, found, rest = text.partition("## system\n")
    system, found_user, user = rest.partition("## user\n")
    if not head.startswith("version: ") or not found or not found_user:
        raise ConfigError(
            f"{place}: a prompt file starts with 'version: N' and has a '## system' and a '## user' part."
        )
    try:
        used = meta.find_undeclared_variables(environment.parse(system + user))
        if unknown := sorted(used - variables):
            raise ConfigError(
                f"{place}: uses the unknown variable {unknown[0]}; known here: {', '.join(sorted(variables))}."
            )
        return environment.from_string(system), environment.from_string(user)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{place}: is no valid jinja2 template: {error.message}.") from None
