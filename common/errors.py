"""The exceptions that a person, not a programmer, has to read: one line each, no traceback."""


class InputError(Exception):
    """Bad flag, file or data: the line names the thing and the remedy; exit status 2."""


class DivergedError(Exception):
    """The loss is no longer a finite number; exit status 1."""


class FailedRunsError(Exception):
    """Some runs of a study failed, the others are reported; exit status 1."""


class LostProcessError(Exception):
    """Another process of the run is gone, and with it the run; exit status 1."""


class StoppedBySignal(Exception):
    """Ctrl-C or SIGTERM, after the state was saved; exit status 128 + the signal."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal_number = signal_number
