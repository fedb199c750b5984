"""A second Python process for work that one process cannot spread over two cores: tracing and
building large networks is Python, one thread of it.

The other process runs one function of this package and leaves its results as files; it ends with
the process that started it, even if that one is killed. For processors only: on a GPU two processes
would fight for its memory.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

from kit import paths

over = threading.Event()  # in the second process: set once the block of the first has ended


@contextlib.contextmanager
def running(function: str, **arguments):
    """Run a function in a second process while the block runs, then wait for it and print what it
    printed.

    Parameters
    ----------
    function : str
        "module:name", for example "kit.studies.cad.runs:run_from_last".
    **arguments
        What JSON can hold.

    Notes
    -----
    A failure of the second process is printed, not raised: the caller does what is missing itself.
    """
    command = [
        sys.executable,
        "-m",
        "kit.processes",
        function,
        json.dumps(arguments),
        str(os.getpid()),
    ]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        process = subprocess.Popen(
            command, cwd=paths.ROOT, stdin=subprocess.PIPE, stdout=said, stderr=complained
        )
        try:
            yield process
            process.stdin.close()  # see `over`
            process.wait()
        finally:
            process.kill()
            process.stdin.close()
            for file in [said] + [complained] * (
                process.wait() > 0
            ):  # libraries chatter on the error stream while all is well
                file.seek(0)
                print(file.read(), end="", flush=True)


def end_with(parent: int) -> None:
    """End this process as soon as `parent` is no longer its parent."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _watch() -> None:
    sys.stdin.read()
    over.set()


def main(function: str, arguments: str, parent: str) -> None:
    """Call ``module:name`` with the arguments in `arguments` (JSON)."""
    threading.Thread(target=end_with, args=[int(parent)], daemon=True).start()
    threading.Thread(target=_watch, daemon=True).start()
    named(function)(**json.loads(arguments))


def named(function: str):
    """The function "module:name"."""
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    importlib.import_module("kit.processes").main(
        *sys.argv[1:]
    )  # the module that the work imports, not a second copy of it
