"""Reading and writing a YAML settings file, and saying what is wrong with a value."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError

from marketray.errors import SettingsError
from marketray.settings_gate import GateSettings
from marketray.settings_sections import FeatureFile

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["describe", "read_feature_file", "read_gate_file", "read_settings_file", "save_settings"]


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe subset; a key that stands twice in a mapping is an error, not the last one's win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping.

        Raises
        ------
        ConstructorError
            A key stands twice.
        """
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConstructorError(None, None, f"the key {twice[0]!r} stands twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def read_settings_file(path: Path, option: str = "--config") -> dict[str, Any]:
    """The file's keys with ``${NAME}`` in strings replaced by environment variables; empty: no keys.

    Parameters
    ----------
    option:
        What named the file, for messages.

    Raises
    ------
    SettingsError
        The file cannot be read, is no YAML mapping of names, or uses a variable that is not set.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        msg = f"{option} {path}: cannot be read ({e.strerror})"
        raise SettingsError(msg, hint="pass the path of a YAML file such as configs/quickstart.yaml") from e
    except UnicodeDecodeError as e:
        msg = f"{option} {path}: not a text file in UTF-8 ({e.reason} at byte {e.start})"
        raise SettingsError(msg, hint="pass the path of a YAML file such as configs/quickstart.yaml") from e
    try:
        loaded = yaml.load(text, _UniqueKeys)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as e:
        msg = f"{option} {path}: not valid YAML ({' '.join(str(e).split())})"
        raise SettingsError(msg) from e
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        msg = f"{option} {path}: got a {type(loaded).__name__}; required: a mapping of keys"
        raise SettingsError(msg)
    strange = [key for key in loaded if not isinstance(key, str)]
    if strange:
        msg = f"{option} {path}: got the keys {strange}; required: names of settings"
        raise SettingsError(msg, hint="docs/settings.md lists every key with its default")
    expanded: dict[str, Any] = _expand(loaded, f"{option} {path}")
    return expanded


def read_gate_file(path: Path) -> GateSettings:
    """The rules in the file named by ``gate.file``, defaults where it has none; `path` is absolute.

    Raises
    ------
    SettingsError
        The file cannot be read, has an unknown rule or key, or a threshold out of range.
    """
    values = read_settings_file(path, "gate.file")
    try:
        rules = GateSettings(**values)
    except ValidationError as e:
        lines = [f"{'.'.join(map(str, d['loc']))}: {describe(d)}" for d in e.errors()]
        msg = f"gate.file {path}: {'; '.join(lines)}"
        raise SettingsError(msg, hint="configs/gate.yaml has every rule with its default") from e
    if rules.file is not None:
        msg = f"gate.file {path}: got the key 'file'; required: rules, not another file"
        raise SettingsError(msg, hint="configs/gate.yaml has every rule with its default")
    return rules


def read_feature_file(path: Path) -> FeatureFile:
    """A file named by ``features.files`` with its text; `path` is absolute.

    Raises
    ------
    SettingsError
        The file cannot be read, or is no text in UTF-8.
    """
    try:
        return FeatureFile(path=str(path), text=path.read_text(encoding="utf-8"))
    except OSError as e:
        msg = f"features.files: {path} cannot be read ({e.strerror})"
        raise SettingsError(msg, hint="relative paths start at MARKETRAY_HOME") from e
    except UnicodeDecodeError as e:
        msg = f"features.files: {path} is not a text file in UTF-8 ({e.reason} at byte {e.start})"
        raise SettingsError(msg, hint="name a Python file; docs/user-features.md has an example") from e


def save_settings(settings: Settings, path: Path) -> None:
    """Write what was set (not the defaults) as a file that `read_settings_file` reads.

    The address of the tracking server is left out, since it can hold a password. Of feature files only
    the path is kept.

    Raises
    ------
    SettingsError
        The file cannot be written.
    """
    left_out: Any = {"tracking": {"uri": True}, "features": {"files": {"__all__": {"text"}}}}
    values = settings.model_dump(mode="json", exclude_unset=True, exclude=left_out)
    values["home"] = str(settings.home_path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values, sort_keys=True), encoding="utf-8")
    except OSError as e:
        msg = f"{path}: the settings cannot be written ({e.strerror})"
        raise SettingsError(msg, hint="free space or fix the permissions, then run again") from e


def _expand(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {k: _expand(v, where) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, where) for v in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda m: _environment(m[1], where), value)
    return value


def _environment(name: str, where: str) -> str:
    if name not in os.environ:
        msg = f"{where}: ${{{name}}} is used but the environment variable {name} is not set"
        raise SettingsError(msg, hint=f"export {name}=…")
    return os.environ[name]


def describe(detail: Any) -> str:
    """One of pydantic's error details in our words, with what was got."""
    if detail["type"] == "extra_forbidden":
        return "unknown key"
    got = detail.get("input")
    shown = "" if isinstance(got, dict) else f" (got {got!r})"
    return f"{detail['msg']}{shown}"
