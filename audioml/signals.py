"""Being asked to stop: by Ctrl-C, or by SIGTERM."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the process was asked to stop."""

    def __init__(self) -> None:
        self.is_made = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Take note of a first SIGINT or SIGTERM; a second one has its usual effect."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in signals}

        def note(number: int, frame: FrameType | None) -> None:
            self.is_made = True
            for each, handler in before.items():
                signal.signal(each, handler)

        for number in signals:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
