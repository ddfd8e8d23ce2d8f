"""Features of the user: a Python file that registers functions by a decorator, and fitted features by a call.

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
from marketray.features.fits import Fit
from marketray.features.fitted import FittedFeature

if TYPE_CHECKING:
    from marketray.settings_sections import FeatureFile

__all__ = ["FAULTS", "feature", "fitted_feature", "user_features"]

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
    path: str
    declared: list[_Declaration] = field(default_factory=list)
    fitted: list[FittedFeature] = field(default_factory=list)


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


def fitted_feature(name: str, *, of: str, fit: Fit, group: str = "user", unit: str | None = None) -> None:
    """Register a feature whose parameters are fitted on training rows, fold by fold.

    Parameters
    ----------
    name, group:
        As for `feature`.
    of:
        The feature that it is made from: a built-in one or one of your files.
    fit:
        One of the kinds in `marketray.features.fits`.
    unit:
        For people; by default the kind's own.
    """
    registry = _current.get()
    if registry is None:
        return
    where = f"features.files: {registry.path}: {name!r}"
    _check_names(where, name, group)
    _check_fit(where, fit)
    registry.fitted.append(FittedFeature(name, group, of, fit, unit or fit.unit, registry.path))


def user_features(
    files: Sequence[FeatureFile], built_in: Collection[str], fitted: Collection[str] = ()
) -> tuple[list[Feature], list[FittedFeature]]:
    """The features and the fitted features that `files` register, in order.

    Parameters
    ----------
    files:
        Files with their text.
    built_in, fitted:
        Names that are taken: by columns, and by fitted features.

    Raises
    ------
    SettingsError
        A file has no text, is no valid Python, fails, or registers nothing; or a feature has an invalid
        or taken name, a lookback below 1, unknown inputs, or is not an expression; or a fitted feature is
        made from something that is no feature.
    """
    taken = dict.fromkeys((*built_in, *fitted, *COLUMNS), "marketray")
    found: list[Feature] = []
    found_fitted: list[FittedFeature] = []
    for file in files:
        registry = _registered(file)
        for declared in registry.declared:
            _check_declaration(declared, file.path)
            _claim(declared.name, file.path, taken)
            found.append(_as_feature(declared, file.path))
        for made in registry.fitted:
            _claim(made.name, file.path, taken)
            found_fitted.append(made)
    features = {name for name in built_in if not name.startswith("_")} | {f.name for f in found}
    for made in found_fitted:
        if made.of not in features:
            msg = f"features.files: {made.source}: {made.name!r}: of={made.of!r} is not a feature"
            raise SettingsError(msg, hint="name a feature that is not fitted; docs/features.md lists them")
    return found, found_fitted


class _TextLoader(importlib.abc.InspectLoader):
    """Makes a module from a text, as an import makes it from a file."""

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - given by the base class
        return self.text

    def get_code(self, fullname: str) -> types.CodeType:  # noqa: ARG002 - given by the base class
        return self.source_to_code(self.text, self.path)


def _registered(file: FeatureFile) -> _Registry:
    if file.text is None:
        msg = f"features.files: {file.path} comes without its text"
        raise SettingsError(msg, hint="take the settings from load_settings, which reads the files")
    loader = _TextLoader(file.text, file.path)
    registry = _Registry("marketray_user_features", file.path)
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
    if not registry.declared and not registry.fitted:
        msg = f"features.files: {file.path} registers no feature"
        raise SettingsError(msg, hint=_HINT)
    return registry


def _line(error: BaseException, path: str) -> str:
    """Where in the file the error was raised, as ' line N'."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" line {line}" if line else ""


def _claim(name: str, path: str, taken: dict[str, str]) -> None:
    """Note that `name` is taken by the file; refuse it if it is already."""
    if name in taken:
        owner = "marketray itself" if taken[name] == "marketray" else taken[name]
        msg = f"features.files: {path}: {name!r} is taken by {owner}; required: a name of its own"
        raise SettingsError(msg, hint="rename it")
    taken[name] = path


def _check_names(where: str, name: object, group: object) -> None:
    for what, value in (("name", name), ("group", group)):
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            msg = (
                f"{where}: {what}={value!r}; required: lower-case letters, digits and '_', a letter first "
                "(with the decorator's brackets, @feature(lookback=…))"
            )
            raise SettingsError(msg, hint=_HINT)


def _check_fit(where: str, fit: object) -> None:
    if not isinstance(fit, Fit):
        msg = f"{where}: fit={fit!r}; required: a kind of marketray.features.fits, such as PercentileRank()"
        raise SettingsError(msg, hint=_HINT)


def _check_declaration(declared: _Declaration, path: str) -> None:
    where = f"features.files: {path}: {declared.name!r}"
    _check_names(where, declared.name, declared.group)
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
