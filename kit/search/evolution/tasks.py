"""Names of what searches call: the kit's functions under ids that outlive moves of modules.

A search folder keeps the name of its function and of its space, and the folder's own name ends in
a digest of them. An id stands for the place where the thing is found today; searches of the time
before the ids hold that time's "module:name" instead, which is read like the id. Digests are taken
with the old name, so that an old search keeps its folder.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A function or class that searches call.

    Attributes
    ----------
    place : str
        "module:name" of today; moves with the module.
    stored : str
        "module:name" below ``kit.`` in stored searches and in digests; never changes.
    """

    place: str
    stored: str

    @property
    def historic(self) -> str:
        """The name in stored searches of the time before the ids."""
        return f"kit.{self.stored}"


TASKS = {
    "gencnn.fitness": Task("kit.studies.gencnn.runs:evaluate", "gencnn_runs:evaluate"),
    "pbcnas.proxy": Task("kit.search.nas3d.proxy:evaluate", "nas.proxy3d:evaluate"),
    "pbcnas.space": Task("kit.search.nas3d.space:Space", "nas.cells3d:Space"),
    "box": Task("kit.search.evolution.opposition_settings:Box", "evolution.ode_settings:Box"),
    "benchmark.training": Task("kit.benchmarks.evolution:train", "evolution.benchmark:train"),
}
_IDS = {name: key for key, task in TASKS.items() for name in (task.place, task.historic)}
FIELDS = ("evaluate", "space")  # of a plan, that hold such names


def name(given: str) -> str:
    """The id of an id, a place or an old name; any other "module:name" stays as it is."""
    return _IDS.get(given, given)


def unknown(given: str) -> bool:
    """Whether a name is neither an id nor of the form "module:name"."""
    return given not in TASKS and given.count(":") != 1


def place(given: str) -> str:
    """The "module:name" to import."""
    return TASKS[name(given)].place if name(given) in TASKS else given


def historic(plan: dict) -> dict:
    """A plan as a dictionary, with the old names, which digests are taken of, in place of ids, and
    without the choice `infeasible` where it is what it was before there was one.
    """
    known = {field: name(plan[field]) for field in FIELDS if field in plan}
    told = {**plan, **{f: TASKS[k].historic for f, k in known.items() if k in TASKS}}
    settings = told.get("settings")
    if isinstance(settings, dict) and settings.get("infeasible") == "kept":
        told["settings"] = {k: v for k, v in settings.items() if k != "infeasible"}
    return told
