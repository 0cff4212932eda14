"""What CI installs is pinned, and is what the requirements ask for."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def read(name):
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def test_every_pin_is_exact():
    for pin in read("constraints.txt"):
        assert [each.operator for each in pin.specifier] == ["=="], pin


@pytest.mark.parametrize("name", ["common", "cpu", "dev"])
def test_every_requirement_has_a_lower_bound_and_a_pin_above_it(name):
    pins = read("constraints.txt")
    for wanted in read(f"requirements-{name}.txt"):
        assert [each.operator for each in wanted.specifier] == [">="], wanted
        pinned = [pin for pin in pins if spelt(pin) == spelt(wanted)]
        assert pinned, f"{wanted} is not in constraints.txt: make constraints"
        for pin in pinned:
            assert all(wanted.specifier.contains(each.version) for each in pin.specifier), pin


def spelt(requirement):
    return requirement.name.lower().replace("_", "-")
