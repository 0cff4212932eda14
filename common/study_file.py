"""Somebody's own study, from a YAML file.

    question: Does label smoothing help on my images?
    task: cifar
    base: {model: cnn, dataset: folder, data_dir: photos, epochs: 10}
    arms:
      plain: {label_smoothing: 0}
      smoothed: {label_smoothing: 0.1}
    metric: test/accuracy     # optional, as are baseline (the first arm), seeds, reported, shown,
                              # source, note and name (that of the file)

Settings are called as flags are. Nothing is trained before all of it has been checked.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from common.config import check_choice, parse
from common.errors import InputError
from common.study import MAX_SEEDS, Study, Task, check_study, slug

REQUIRED = ("question", "task", "arms")
TEXTS = ("name", "question", "task", "baseline", "metric", "source", "note")
MAX_BYTES = 1_000_000  # PyYAML reads this in half a minute
KEYS = (*TEXTS, "arms", "base", "seeds", "reported", "shown")
# What the study sets for its runs itself.
OWN = {"seed": "the study gives every run its seed", "task": "the key task stands above the arms"}


class _Loader(yaml.SafeLoader):
    """Refuses what could grow without bound, and keys of which one would silently win."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem=f"*{event.anchor} refers to another place: write out what stands there",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


def _make_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            problem = "a key is a list or mapping, not a name"
        elif key.value in seen:
            problem = f"'{key.value}' stands twice"
        else:
            seen.add(key.value)
            continue
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
    return loader.construct_mapping(node)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _make_mapping)


def read_study(path: Path, find_task: Callable[[str], Task], tasks: tuple[str, ...]) -> Study:
    """Read and check a study.

    Args:
        path: the file.
        find_task: name -> what a study needs to know of it.
        tasks: the names.

    Raises:
        InputError: the file cannot be read, a key is unknown or missing, or a value cannot be;
            the message names file, key and remedy.
    """
    content = _read_yaml(path)
    try:
        for key in content:
            check_choice("key", str(key), KEYS)
        for key in REQUIRED:
            if key not in content:
                raise InputError(f"the key {key} is missing: a study has {', '.join(REQUIRED)}")
        texts = {key: _text(key, content[key]) for key in TEXTS if key in content}
        task = find_task(check_choice("task", texts["task"], tasks))
        study = _make_study(path, content, texts, task)
        check_study(study, task)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return study


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"--study={path} is no study: it has more than {MAX_BYTES:,} bytes")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
        json.dumps(content, default=str, ensure_ascii=False).encode()  # half a surrogate pair
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"--study={path} cannot be read: {reason}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # PyYAML's, for a number of 5000 digits, a date such as 2026-13-41 or !!int before a word.
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        if problem.startswith("but "):  # the second half of PyYAML's sentence
            problem = f"{getattr(error, 'context', None) or 'it begins as one'}, {problem}"
        raise InputError(f"{path}{place} is not YAML: {problem}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no study: it must have the keys {', '.join(REQUIRED)}")
    return content


def _make_study(path: Path, content: dict[Any, Any], texts: dict[str, str], task: Task) -> Study:
    arms = _mapping("arms", content["arms"])
    if not arms:
        raise InputError("arms is empty: name at least one")
    settings = {name: _settings(f"arms.{name}", value, task) for name, value in arms.items()}
    seeds = content.get("seeds", 3)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= MAX_SEEDS:
        raise InputError(f"seeds is {seeds!r}: it must be a whole number from 1 to {MAX_SEEDS}")
    shown = content.get("shown", [])
    if not isinstance(shown, list):
        raise InputError(f"shown is {shown!r}: it must be a list of metrics")
    reported = _mapping("reported", content.get("reported"))
    study = Study(
        name=slug(path.stem),
        question=texts["question"],
        task=task.name,
        arms=settings,
        baseline=next(iter(settings)),
        metric=next(iter(task.metrics)),
        base=_settings("base", content.get("base"), task),
        seeds=seeds,
        reported={name: _number(f"reported.{name}", value) for name, value in reported.items()},
        source=path.name,
        shown=tuple(map(str, shown)),
    )
    return dataclasses.replace(study, **texts)  # type: ignore[arg-type]


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{key} is {value!r}: it must be a text; put it in quotes")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key} is {value!r}: it must be a number")
    return float(value)


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    """The value, {} for nothing; InputError unless it maps names to values."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{key} is {value!r}: it must map names to values, as {{name: value}}")
    for name in value:
        if not isinstance(name, str):
            raise InputError(f"{key} has the name {name!r}, which is no text: put it in quotes")
    return value


def _settings(key: str, value: Any, task: Task) -> dict[str, Any]:
    """Settings with the types of the task's configuration."""
    found = {}
    for name, given in _mapping(key, value).items():
        if name in OWN:
            raise InputError(f"{key}.{name}: leave it out, since {OWN[name]}")
        try:
            found[name] = parse(task.config, name, given)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
    return found
