"""Features of the user: a Python file whose functions are registered by a decorator.

The file is evaluated from its text, which travels with the settings, so that every node of a cluster
and the service see the same definitions. It may import installed packages, but no files beside it.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import re
import types
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from marketray.bars import COLUMNS, OPTIONAL
from marketray.errors import SettingsError
from marketray.features.definition import NEWS, Feature

if TYPE_CHECKING:
    from marketray.settings_sections import FeatureFile

__all__ = ["FAULTS", "feature", "user_features"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_HINT = "docs/user-features.md says what a file of features must look like"

FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SystemExit,
    TypeError,
    ValueError,
    pl.exceptions.PolarsError,
)
"""What a fault in a user's code raises: the standard library's errors short of MemoryError, Polars' own,
and a script's sys.exit. An interrupt, a lack of memory and a class of the file's own keep their trace."""

Definition = TypeVar("Definition", bound=Callable[[], pl.Expr])


@dataclass(frozen=True)
class _Declaration:
    function: Callable[[], Any]
    name: Any
    group: Any
    lookback: Any
    inputs: Any
    unit: str


@dataclass
class _Registry:
    module: str
    declared: list[_Declaration] = field(default_factory=list)


_current: ContextVar[_Registry | None] = ContextVar("marketray_features", default=None)


def feature(
    name: str | None = None,
    *,
    group: str = "user",
    lookback: int,
    inputs: Sequence[str] = (),
    unit: str = "fraction",
) -> Callable[[Definition], Definition]:
    """Register a function without arguments as a feature; it returns a Polars expression.

    Parameters
    ----------
    name:
        Column name: lower-case letters, digits and '_'; the function's name where not given.
    group:
        The group that ``features.groups`` switches, a built-in one or one of your own.
    lookback:
        Bars the value depends on, the current one included.
    inputs:
        Optional bar columns that it needs (`marketray.bars.OPTIONAL`), and "news" where it is made of news
        features; without them the feature is dropped.
    unit:
        For people: "fraction", "minutes", …

    Returns
    -------
    Callable
        A decorator that returns the function unchanged. Its docstring becomes the feature's formula.
    """

    def register(function: Definition) -> Definition:
        registry = _current.get()
        if registry is not None:
            called = getattr(function, "__name__", "feature") if name is None else name
            if getattr(function, "__module__", None) != registry.module:
                msg = f"features.files: {called!r} is defined in another module; required: in the file itself"
                raise SettingsError(msg, hint="the file travels alone; put the definition into it")
            declared = _Declaration(function, called, group, lookback, inputs, unit)
            registry.declared.append(declared)
        return function

    return register


def user_features(files: Sequence[FeatureFile], built_in: Collection[str]) -> list[Feature]:
    """The features that `files` register, in order.

    Parameters
    ----------
    files:
        Files with their text.
    built_in:
        Names that are taken.

    Raises
    ------
    SettingsError
        A file has no text, is no valid Python, fails, or registers nothing; or a feature has an invalid
        or taken name, a lookback below 1, unknown inputs, or is not an expression.
    """
    taken = dict.fromkeys((*built_in, *COLUMNS), "marketray")
    found = []
    for file in files:
        for declared in _declarations(file):
            _check_declaration(declared, file.path, taken)
            taken[declared.name] = file.path
            found.append(_as_feature(declared, file.path))
    return found


class _TextLoader(importlib.abc.InspectLoader):
    """Makes a module from a text, as an import makes it from a file."""

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - given by the base class
        return self.text

    def get_code(self, fullname: str) -> types.CodeType:  # noqa: ARG002 - given by the base class
        return self.source_to_code(self.text, self.path)


def _declarations(file: FeatureFile) -> list[_Declaration]:
    if file.text is None:
        msg = f"features.files: {file.path} comes without its text"
        raise SettingsError(msg, hint="take the settings from load_settings, which reads the files")
    loader = _TextLoader(file.text, file.path)
    registry = _Registry(module="marketray_user_features")
    spec = importlib.util.spec_from_loader(registry.module, loader)
    assert spec is not None
    token = _current.set(registry)
    try:
        loader.exec_module(importlib.util.module_from_spec(spec))
    except SyntaxError as e:
        msg = f"features.files: {file.path} line {e.lineno}: not valid Python ({e.msg})"
        raise SettingsError(msg, hint="fix the line") from e
    except FAULTS as e:
        where = _line(e, file.path)
        msg = f"features.files: {file.path}{where} failed: {type(e).__name__}: {e}"
        raise SettingsError(msg, hint=_HINT) from e
    finally:
        _current.reset(token)
    if not registry.declared:
        msg = f"features.files: {file.path} registers no feature"
        raise SettingsError(msg, hint=_HINT)
    return registry.declared


def _line(error: BaseException, path: str) -> str:
    """Where in the file the error was raised, as ' line N'."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" line {line}" if line else ""


def _check_declaration(declared: _Declaration, path: str, taken: dict[str, str]) -> None:
    where = f"features.files: {path}: {declared.name!r}"
    for what, value in (("name", declared.name), ("group", declared.group)):
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            msg = (
                f"{where}: {what}={value!r}; required: lower-case letters, digits and '_', a letter first "
                "(with the decorator's brackets, @feature(lookback=…))"
            )
            raise SettingsError(msg, hint=_HINT)
    if declared.name in taken:
        owner = "marketray itself" if taken[declared.name] == "marketray" else taken[declared.name]
        msg = f"{where} is taken by {owner}; required: a name of its own"
        raise SettingsError(msg, hint="rename it")
    if not isinstance(declared.lookback, int) or declared.lookback < 1:
        msg = f"{where}: lookback={declared.lookback!r}; required: a whole number of bars, at least 1"
        raise SettingsError(msg, hint="count the bars it depends on, the current one included")
    unknown = isinstance(declared.inputs, str) or sorted(set(declared.inputs) - {*COLUMNS, NEWS})
    if unknown:
        msg = f"{where}: inputs={declared.inputs!r}; required: a list of some of {[*COLUMNS, NEWS]}"
        raise SettingsError(msg, hint=_HINT)


def _as_feature(declared: _Declaration, path: str) -> Feature:
    where = f"features.files: {path}: {declared.name!r}"
    try:
        made = declared.function()
    except FAULTS as e:
        msg = f"{where}{_line(e, path)} failed: {type(e).__name__}: {e}"
        raise SettingsError(msg, hint=_HINT) from e
    if not isinstance(made, pl.Expr):
        msg = f"{where}: the function returned {type(made).__name__}; required: a Polars expression"
        raise SettingsError(msg, hint="return an expression such as pl.col('close').pct_change()")
    if made.meta.has_multiple_outputs():
        msg = f"{where}: the expression makes several columns; required: one, from columns named one by one"
        raise SettingsError(msg, hint="register a function for each column")
    return Feature(
        name=declared.name,
        group=declared.group,
        lookback=declared.lookback,
        expression=made,
        formula=" ".join((declared.function.__doc__ or "").split()),
        source=path,
        unit=declared.unit,
        inputs=tuple(name for name in (*OPTIONAL, NEWS) if name in declared.inputs),
    )
