"""docs/settings.md, written from the classes: ``python -m marketray.settings_page > docs/settings.md``."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from marketray.settings import Settings

__all__ = ["settings_page"]

_INTRO = """# Settings

One YAML file (`--config FILE`) plus environment variables; an unknown key is an error. A command-line
option wins over the environment, the environment over the file, the file over the default. The variable
of a key is `MARKETRAY_` + the key, nested with two underscores: `MARKETRAY_TUNING__STAGE1_TRIALS=5`.
`${NAME}` in the file stands for the environment variable NAME. Relative paths start at `home`
(`MARKETRAY_HOME`). This page is generated from the classes in `marketray/settings.py`
and the `marketray/settings_*.py` beside it.

| key | type | default | |
|---|---|---|---|
"""


_NOTE = re.compile(r"^    (\w+): .*?  # (.+)$", re.MULTILINE)
"""A field and the comment behind it, in a class's source."""


def settings_page() -> str:
    """The page as Markdown: one row a key, sections in the order of the class."""
    rows = [f"| `{key}` | {kind} | {default} | {note} |" for key, kind, default, note in _rows(Settings, "")]
    return _INTRO + "\n".join(rows) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    notes = dict(_NOTE.findall(inspect.getsource(model)))
    for name, field in model.model_fields.items():
        sections = [m for m in _members(field.annotation) if _is_section(m)]
        if not sections:
            yield f"{prefix}{name}", _kind(field), _default(field), notes.get(name, "")
        for section in sections:
            label = f"{prefix}{name}."
            if len(sections) > 1:
                label = f"{prefix}{name} ({section.model_fields['kind'].default})."
            yield from _rows(section, label)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _kind(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(m, attribute):g}"
        for m in field.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(m, attribute)
    ]
    name = " or ".join(_type_name(m) for m in _members(field.annotation))
    return ", ".join([name, *limits])


def _type_name(annotation: Any) -> str:
    if annotation is types.NoneType:
        return "empty"
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(annotation))
    if origin is tuple:
        inner = [a for a in typing.get_args(annotation) if a is not Ellipsis]
        return f"list of {_type_name(inner[0])}"
    if origin is dict:
        return "mapping"
    name: str = annotation.__name__
    words = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
    return {**words, "FeatureFile": "path", "StressWindow": "window"}.get(name, name.lower())


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "empty"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
