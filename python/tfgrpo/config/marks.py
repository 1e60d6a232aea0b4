"""The marks that every configuration key carries, and the walk that collects the keys by them.

`Shapes` and `Speed` say if a key is part of a run's identity: `Config.digest` hashes the keys marked `Shapes`, and a
run may change those marked `Speed` when it is resumed. `Everyday` says where a file writes a key: in its own table;
every other key is an expert key, written in the table of the same name under `[expert]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

T = TypeVar("T")
KeyPath: TypeAlias = tuple[str, ...]

EXPERT = "expert"


class Mark(StrEnum):
    """The part a key has in a run: it shapes the results, or only speed, cost and names."""

    SHAPES = "shapes"
    SPEED = "speed"


class Place(Enum):
    """The place of a key in a file, if it is not under `[expert]`."""

    EVERYDAY = "everyday"


Shapes = Annotated[T, Mark.SHAPES]
Speed = Annotated[T, Mark.SPEED]
Everyday = Annotated[T, Place.EVERYDAY]


class Section(BaseModel):
    """Base of every table: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


@dataclass(frozen=True)
class Setting:
    """One key of the configuration, as its field declares it."""

    path: KeyPath
    mark: Mark
    everyday: bool
    default: Any

    @property
    def name(self) -> str:
        """The key as Python reads it: `practice.oversample`."""
        return ".".join(self.path)

    @property
    def spelled(self) -> str:
        """The key as a file writes it: `expert.practice.oversample`."""
        return self.name if self.everyday else f"{EXPERT}.{self.name}"


def table_of(field: FieldInfo) -> type[Section] | None:
    """The class of a field that is a table, None for a field that is a value."""
    choices = get_args(field.annotation) or (field.annotation,)
    return next((each for each in choices if isinstance(each, type) and issubclass(each, Section)), None)


def walk(model: type[BaseModel], path: KeyPath = (), *, everyday: bool = True) -> Iterator[Setting]:
    """Yield every key of a table and of the tables in it, in the order of declaration.

    A table at the top has no place of its own; a table further down is an expert table with all its keys, unless
    it is marked `Everyday`.

    Raises:
        TypeError: a field carries neither `Shapes` nor `Speed`.
    """
    for name, field in model.model_fields.items():
        here = (*path, name)
        marked = Place.EVERYDAY in field.metadata
        if (table := table_of(field)) is not None:
            yield from walk(table, here, everyday=everyday and (marked or not path))
            continue
        mark = next((one for one in field.metadata if isinstance(one, Mark)), None)
        if mark is None:
            raise TypeError(f"{'.'.join(here)} is marked neither Shapes nor Speed")
        default = None if field.is_required() else field.get_default()
        yield Setting(here, mark, everyday and marked, default)


def value_at(tree: Any, path: KeyPath) -> Any:
    """The value of a key in a tree of tables, None where a table on the way is not set."""
    for part in path:
        if tree is None:
            return None
        tree = getattr(tree, part)
    return tree
