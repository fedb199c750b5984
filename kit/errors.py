"""The root of every error that the kit foresees."""


class KitError(Exception):
    """A foreseeable failure, told in one sentence that names the thing and the fix.

    Every module derives its own classes from this one; the command-line entry points print its text
    without a traceback.
    """
