"""Seeds that hold for building one model and leave the program's own random state as it was."""

import contextlib
import random


@contextlib.contextmanager
def _seeded(seed):
    """Seed Python's generator, from which Keras draws the seeds of unseeded initialisers, and put
    its state back afterwards.
    """
    if seed is None:
        yield
        return
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
