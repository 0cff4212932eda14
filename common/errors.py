"""The exceptions that a person, not a programmer, has to read: one line each, no traceback."""

LONGEST = 1000  # characters of a message


def one_line(message: object) -> str:
    """The message, of any length and content, as a line for a terminal.

    What a damaged file calls its parts stands in messages: characters that would end the line or
    move the cursor are escaped, and of a long message the middle is left out.
    """
    text = str(message)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class InputError(Exception):
    """Bad flag, file or data: the line names the thing and the remedy; exit status 2."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class DivergedError(Exception):
    """The loss is no longer a finite number; exit status 1."""


class FailedRunsError(Exception):
    """Some runs of a study failed, the others are reported; exit status 1."""


class StopNow(Exception):
    """Ctrl-C or SIGTERM in a computation that can be done again; the loop saves and stops."""


class LostProcessError(Exception):
    """Another process of the run is gone, and with it the run; exit status 1."""


class StoppedBySignal(Exception):
    """Ctrl-C or SIGTERM: the line says what is saved; exit status 128 + the signal."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal_number = signal_number


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of jax or numpy says so; jax has no class of its own for it."""
    says = ("RESOURCE_EXHAUSTED", "Out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in says)
