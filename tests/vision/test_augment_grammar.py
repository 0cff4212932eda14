"""The --augment string: what it accepts, and what it says of what it does not."""

import pytest

from common.errors import InputError
from vision import augment
from vision.operations import OPERATIONS


def test_parse_reads_the_grammar():
    assert augment.parse("") == augment.parse("none") == ()
    assert augment.parse("standard") == (("flip", {}), ("crop", {"pad": 4}))
    assert augment.parse(" standard + cutout( 8 , fill = 0.2 ) ") == (
        ("flip", {}),
        ("crop", {"pad": 4}),
        ("cutout", {"size": 8, "fill": 0.2}),
    )
    assert augment.parse("crop()") == augment.parse("crop") == (("crop", {}),)
    assert augment.parse("crop(2, reflect)") == (("crop", {"pad": 2, "fill": "reflect"}),)
    assert [name for name, _ in augment.parse("report_b")] == [
        "rotate",
        "shift",
        "shear",
        "zoom",
        "flip",
    ]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_reads_its_own_usage(name):
    operation = OPERATIONS[name]
    assert augment.parse(operation.usage(name)) == ((name, operation.defaults),)
    assert operation.summary.endswith(".")


@pytest.mark.parametrize(
    "spec,parts",
    [
        ("flipp", ["'flipp'", "none, standard, report_b, flip(", "cutmix(alpha=1.0)"]),
        ("flip++crop", ["''", "valid"]),
        ("crop(4", ["the bracket of 'crop(4' is not closed"]),
        ("none+flip", ["'none+flip' joins none and others: leave none out"]),
        ("cutout(size=8,8)", ["'8' in 'cutout(size=8,8)' follows a named argument"]),
        ("flip + standard(3)", ["'standard(3)'"]),
        ("crop(size=3)", ["'size=3'", "crop(pad=4, fill=zeros)"]),
        ("crop(1,zeros,3)", ["'3'", "crop(pad=4, fill=zeros)"]),
        ("crop(4,pad=3)", ["'pad=3'"]),
        ("alternating_flip(1)", ["'1'", "valid: alternating_flip"]),
        ("crop(-1)", ["'crop(-1)'", "pad", "whole number from 0 to 31"]),
        ("crop(2.5)", ["whole number"]),
        ("crop(fill=black)", ["zeros, reflect"]),
        ("rotate(500)", ["degrees", "from 0 to 180"]),
        ("rotate(forty)", ["a number"]),
        ("shift(1)", ["fraction"]),
        ("zoom(nan)", ["range"]),
        ("noise(inf)", ["sigma", "at least 0"]),
        ("mixup(0)", ["alpha", "0.01"]),
        ("standard+flip", ["flip twice"]),
        ("standard+alternating_flip", ["alternating_flip", "standard holds flip"]),
        ("rotate(fill=wrap)+zoom(0.1,reflect)", ["rotate has wrap", "zoom has reflect"]),
    ],
)
def test_errors_name_the_part_and_the_remedy(spec, parts):
    with pytest.raises(InputError) as error:
        augment.make_augment(spec, 10)
    message = str(error.value)
    assert message.startswith("--augment: ") and "\n" not in message
    for part in parts:
        assert part in message
