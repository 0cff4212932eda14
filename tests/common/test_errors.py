"""What a person reads of an error."""

from common.errors import LONGEST, InputError


def test_a_message_is_one_line_that_moves_no_cursor():
    hostile = "a\nb\x1b[31m\u202e\udcff.png: remove it"
    assert str(InputError(hostile)) == r"a\nb\x1b[31m\u202e\udcff.png: remove it"
    assert str(InputError("caf\u00e9 \u05d0")) == "caf\u00e9 \u05d0"


def test_a_long_message_keeps_its_beginning_and_its_remedy():
    message = str(InputError("name.txt: " + "x" * 10**6 + ": remove it"))
    assert message.startswith("name.txt: ") and message.endswith("remove it")
    assert len(message) < LONGEST
