"""Being asked to stop: SIGINT (Ctrl-C) and SIGTERM (a scheduler that takes the machine)."""

import contextlib
import os
import signal
import threading

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: failed for now, try again


class Interrupted(KeyboardInterrupt):
    """The work was asked to stop by `signal`, and what was done is saved."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


class StopSignals:
    """SIGINT and SIGTERM are noted instead of ending the process; the second one ends it.

    with StopSignals() as stop:
        while not stop.signal: ...

    In another thread than the main one, where no signal arrives, it notes nothing.
    """

    def __init__(self):
        self.signal = None
        self.previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self.hear)
        return self

    def hear(self, number, frame):
        """Notes the signal, and leaves the next one to its default: to end at once."""
        self.signal = number
        self.__exit__()
        with contextlib.suppress(OSError):  # whoever reads us may be gone
            os.write(2, b"\nstopping, and keeping what is done; once more to stop at once\n")

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def exit_status(error: KeyboardInterrupt) -> int:
    """What the process should end with: REQUEUE where a scheduler asked it to stop, 128 + n
    for another signal n."""
    number = getattr(error, "signal", signal.SIGINT)
    return REQUEUE if number == signal.SIGTERM else 128 + number
