"""Peak memory of pieces of work, measured, each in a process of its own.

An allocator keeps what it once got, so a second measurement of resident memory in one process sees
too little: libraries are imported once, and the measuring processes are split off from there. What
is measured is what the work adds to a process that has imported its module. On a GPU TensorFlow's
allocator counts what is in use, and this process can ask it.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kit import compat, paths, processes

FIELDS = "/proc/self/status"


def of_each(function: str, arguments: list) -> list:
    """Run a function with each of several arguments, one after the other.

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
    if arguments and compat.use_xla():
        return [_on_gpu(processes.named(function), one) for one in arguments]
    if not arguments or not os.path.exists(FIELDS):
        return [None] * len(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "peaks.json"
        subprocess.run(
            [sys.executable, "-m", "kit.peak", function, json.dumps(arguments), str(found)],
            cwd=paths.ROOT,
            capture_output=True,
        )
        return json.loads(found.read_text()) if found.exists() else [None] * len(arguments)


def main(function: str, arguments: str, found: str) -> None:
    """Measure and write the peaks, a JSON list, to the file `found`."""
    call = processes.named(function)
    Path(found).write_text(json.dumps([_one(call, one) for one in json.loads(arguments)]))


def _one(call, arguments: dict) -> int | None:
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


def _on_gpu(call, arguments: dict) -> int | None:
    import tensorflow as tf

    tf.config.experimental.reset_memory_stats("GPU:0")
    before = tf.config.experimental.get_memory_info("GPU:0")["current"]
    try:
        call(**arguments)
    except tf.errors.ResourceExhaustedError:
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] - before


def _resident(field: str) -> int:
    with open(FIELDS) as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main(*sys.argv[1:])
