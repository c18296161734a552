"""A command that is asked to end does end, and clears away what is half done."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Self, final


class Interrupted(BaseException):
    """Ctrl-C, or the system asked the process to end. Not `KeyboardInterrupt`, of which Typer makes an end without
    words.
    """


@final
class Interruption:
    """SIGINT and SIGTERM as `Interrupted`, for as long as the context lasts.

    What a handler raises can be lost on its way: while a compiled module is imported, its loader may drop the
    exception, or make an ImportError of it. So it is raised anew every `seconds` until the context ends, but for the
    time in which an `Interrupted` is on its way and clears up.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.asked = False
        """Whether the process was asked to end, whatever became of the exception."""
        self._reminded = False
        self._over = threading.Event()
        self._reminder = threading.Thread(target=self._remind, daemon=True)

    def __enter__(self) -> Self:
        # elsewhere (a test, a notebook's worker) signals are not ours, and Python would not let us take them
        ours = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if ours else ()
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._reminder.is_alive():
            self._reminder.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        reminded, self._reminded = self._reminded, False
        if reminded and (self._over.is_set() or _on_its_way(sys.exception())):
            return
        if not self.asked:
            self.asked = True
            self._reminder.start()
        raise Interrupted

    def _remind(self) -> None:
        while not self._over.wait(self.seconds):
            self._reminded = True
            if sys.platform == "win32":
                _thread.interrupt_main(signal.SIGINT)
            else:  # a true signal also ends what the main thread waits for
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _on_its_way(error: BaseException | None) -> bool:
    """Whether what is handled just now is an `Interrupted`, or came up while one was handled."""
    while error is not None:
        if isinstance(error, Interrupted):
            return True
        error = error.__context__
    return False
