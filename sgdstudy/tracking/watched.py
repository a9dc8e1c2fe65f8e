"""A command that ends when its parent does, killed or not: `python watched.py COMMAND...`.

Standard input is a pipe that the parent holds: it ends with the parent. Nothing of ours is
imported, so that it is up before the parent may be gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import FrameType

import psutil

END_SECONDS = 5.0


def main() -> int:
    """Run the command until it ends, or until the parent is gone; return its exit code."""
    process = psutil.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def end(number: int = 0, frame: FrameType | None = None) -> None:
        try:
            family = [*process.children(recursive=True), process]
        except psutil.NoSuchProcess:
            return
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.terminate()
        for one in psutil.wait_procs(family, END_SECONDS)[1]:
            with suppress(psutil.NoSuchProcess):
                one.kill()

    def watch() -> None:
        with suppress(OSError):  # it was closed
            while os.read(0, 2**16):  # `sys.stdin` holds a lock that Python wants at its end
                pass
        end()

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=watch, daemon=True).start()
    return int(process.wait() or 0)


if __name__ == "__main__":
    sys.exit(main())
