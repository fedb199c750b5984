"""Work in a process of its own, started for one function of this package.

Two ways. `running` runs a function beside the caller, for work that one process cannot spread over
two cores: tracing and building large networks is Python, one thread of it. Its results are files;
the process ends with the one that started it, even if that one is killed. For processors only: on a
GPU two processes would fight for its memory.

`peaks` measures the peak memory of pieces of work. An allocator keeps what it once got, so a second
measurement of resident memory in one process sees too little: libraries are imported once, and the
measuring processes are split off from there. What is measured is what the work adds to a process
that has imported its module. On a GPU TensorFlow's allocator counts what is in use, and this
process can ask it.
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
from collections.abc import Callable, Iterator
from pathlib import Path

from kit import paths

FIELDS = Path("/proc/self/status")

over = threading.Event()  # in the second process: set once the block of the first has ended


@contextlib.contextmanager
def running(function: str, **arguments: object) -> Iterator[subprocess.Popen]:
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
        "beside",
        function,
        json.dumps(arguments),
        str(os.getpid()),
    ]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        process = subprocess.Popen(
            command, cwd=paths.ROOT, stdin=subprocess.PIPE, stdout=said, stderr=complained
        )
        assert process.stdin is not None  # a pipe, as asked for
        try:
            yield process
            process.stdin.close()  # see `over`
            process.wait()
        finally:
            process.kill()
            process.stdin.close()
            failed = process.wait() > 0
            # libraries chatter on the error stream while all is well
            for file in [said, complained] if failed else [said]:
                file.seek(0)
                print(file.read(), end="", flush=True)


def peaks(function: str, arguments: list[dict]) -> list[int | None]:
    """Run a function with each of several arguments, one after the other, and measure its memory.

    Parameters
    ----------
    function : str
        "module:name".
    arguments : list of dict
        Keyword arguments that JSON can hold.

    Returns
    -------
    list of (int or None)
        Bytes; None where the work failed or was killed, and without a GPU on systems other than
        Linux, which do not tell.
    """
    if arguments and _gpu():
        return [_peak_on_gpu(named(function), one) for one in arguments]
    if not arguments or not FIELDS.exists():
        return [None] * len(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "peaks.json"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "kit.processes",
                "peaks",
                function,
                json.dumps(arguments),
                str(found),
            ],
            cwd=paths.ROOT,
            capture_output=True,
        )
        return json.loads(found.read_text()) if found.exists() else [None] * len(arguments)


def end_with(parent: int) -> None:
    """End this process as soon as `parent` is no longer its parent."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _watch() -> None:
    sys.stdin.read()
    over.set()


def named(function: str) -> Callable:
    """The function "module:name"."""
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


def main(way: str, function: str, arguments: str, last: str) -> None:
    """What the second process does.

    Parameters
    ----------
    way : {"beside", "peaks"}
        For `running` or for `peaks`.
    function : str
        "module:name".
    arguments : str
        JSON: its keyword arguments; for "peaks" a list of them.
    last : str
        The number of the process to end with; for "peaks" the file to write the bytes to.
    """
    if way == "peaks":
        import tensorflow  # noqa: F401  what it takes to load is no part of the work

        call = named(function)
        Path(last).write_text(json.dumps([_peak(call, one) for one in json.loads(arguments)]))
        return
    threading.Thread(target=end_with, args=[int(last)], daemon=True).start()
    threading.Thread(target=_watch, daemon=True).start()
    named(function)(**json.loads(arguments))


def _gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _peak(call: Callable, arguments: dict) -> int | None:
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            before = _resident("VmRSS")
            call(**arguments)
            os.write(theirs, str(_resident("VmHWM") - before).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    return int(said) if os.waitpid(child, 0)[1] == 0 else None


def _peak_on_gpu(call: Callable, arguments: dict) -> int | None:
    import tensorflow as tf

    tf.config.experimental.reset_memory_stats("GPU:0")
    before = tf.config.experimental.get_memory_info("GPU:0")["current"]
    try:
        call(**arguments)
    except tf.errors.ResourceExhaustedError:
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] - before


def _resident(field: str) -> int:
    with FIELDS.open() as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    # the module that the work imports, not a second copy of it
    importlib.import_module("kit.processes").main(*sys.argv[1:])
