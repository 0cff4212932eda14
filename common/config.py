"""Frozen configurations: override, check, and go to JSON and back."""

import dataclasses
import difflib
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from common.errors import InputError

Config = TypeVar("Config")
MANY = 8  # of more names than these an unknown one's likely meaning is told apart


def check_choice(what: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`; else an InputError that lists them."""
    names = list(choices)
    if value not in names:
        raise InputError(f"{what}={value} is unknown{suggest(value, names)}")
    return value


def suggest(value: str, names: Sequence[str]) -> str:
    """What to choose instead of an unknown name; of many names the one that was meant first."""
    folded = {name.lower(): name for name in names}
    alike = difflib.get_close_matches(str(value).lower(), folded, n=1)
    meant = f" (did you mean {folded[alike[0]]}?)" if alike and len(names) > MANY else ""
    return f"{meant}: choose one of {', '.join(names)}"


def check_range(
    what: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    """Raise an InputError unless low <= value <= high (low < value with `open_low`)."""
    within = low < value if open_low else low <= value
    finite = abs(value) <= sys.float_info.max  # Python's whole numbers have no end
    if not within or not value <= high or not finite:
        least = f"above {low:g}" if open_low else f"at least {low:g}"
        largest = str(high) if isinstance(high, int) else f"{high:g}"
        most = " and finite" if math.isinf(high) else f" and at most {largest}"
        shown = f"{value:g}" if finite or isinstance(value, float) else "a number too large"
        raise InputError(f"{what}={shown} is out of range: it must be {least}{most}")


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy with `changes` applied; entries that are None mean "leave the default"."""
    given = {name: value for name, value in changes.items() if value is not None}
    known = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            flags = ", ".join(f"--{field}" for field in known)
            raise InputError(f"--{name} does not belong to this task: its flags are {flags}")
    return dataclasses.replace(config, **given)  # type: ignore[type-var]


def parse(kind: type, name: str, value: Any) -> Any:
    """A value of a file, such as 1e-3, "64" or [32, 16], as the field `name` of a dataclass has it.

    Raises InputError for a field that does not exist, or a value that it cannot have.
    """
    hints = get_type_hints(kind)
    if name not in hints:
        raise InputError(f"{name} is not a setting{suggest(name, list(hints))}")
    if value is None or _fits(value, hints[name]):
        return value
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    for target in (int, float, str):
        if target in (get_args(hints[name]) or (hints[name],)) and not isinstance(value, bool):
            try:
                return target(text)
            except ValueError:
                pass
    wanted = getattr(hints[name], "__name__", str(hints[name]).removesuffix(" | None"))
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    raise InputError(f"{name} is {value!r}: it must be {names.get(wanted, wanted)}")


def write_json(path: Path, content: Any) -> None:
    """Indented, and in one piece: a reader never sees half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


def read_json(path: Path, kind: type = dict) -> Any:
    """What `write_json` wrote of a dictionary or list (`kind`); InputError if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, kind):
            raise ValueError(f"it holds no {'object' if kind is dict else 'array'}")
        return content
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {reason}; restore it from a copy") from None


def save(config: Any, path: Path) -> None:
    """Write a dataclass as JSON."""
    write_json(path, dataclasses.asdict(config))


def load(kind: type[Config], path: Path) -> Config:
    """Read what `save` wrote; InputError if the file is absent or of another version."""
    if not path.exists():
        raise InputError(f"{path} does not exist: --run names a folder that a run wrote")
    fields = read_json(path)
    try:
        task = getattr(kind, "task", None)
        if task and "task" not in fields:
            raise InputError(f"{path} is no configuration of a run: restore it from a copy")
        if fields.get("task") != task:
            raise InputError(f"{path} is of a run of --task={fields['task']}: give that task")
        for name, hint in get_type_hints(kind).items():
            if name in fields and not _fits(fields[name], hint):
                raise TypeError(f"{name} is {fields[name]!r}")
        return kind(**fields)
    except TypeError as error:
        raise InputError(f"{path} is not a configuration of this version: {error}") from None


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of an annotated type, such as `int` or `float | None`."""
    kinds = get_args(hint) or (hint,)
    if value is None or isinstance(value, bool):
        return type(value) in kinds
    return type(value) in kinds or (isinstance(value, int) and float in kinds)
