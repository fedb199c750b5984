"""The records of a publication's file: numbers as printed, tables and figures, claims."""

from dataclasses import dataclass, field

from kit.errors import KitError

VALUE_KINDS = ("result", "cost", "count", "setting", "citation", "axis", "repeat")
RELATIONS = ("=", ">", "<")
STATISTICS = ("", "mean", "variance")
CONCLUSION_FIELDS = {
    "id",
    "text",
    "compares",
    "direction",
    "test",
    "unit",
    "margin",
    "notebook",
    "printed",
}
CONCLUSION_NEEDED = CONCLUSION_FIELDS - {"printed", "margin"}
RATIO = "ratio"


class UnknownValue(KitError):
    """A value id names nothing in the publication's file."""


@dataclass(frozen=True)
class Published:
    """One number as printed.

    Attributes
    ----------
    value : float or int
        Exactly as printed, in `unit`.
    unit : str
        "%", "fraction", "count", "min", "ms", "M" (millions), "" (none) ...
    decimals : int
        Digits after the point in print; the rounding range is half a unit of the last one.
    n : int or None
        Number of test cases behind the value, where the publication fixes it.
    artefact, row, column : str
        Where it stands; prose has the artefact "claims" and an empty column.
    note : str
        Doubt about the printed value or its reading.
    kind : str
        "result": measured on images; "cost": time or memory; "count": of data, parameters or
        operations; "setting": chosen by the authors or found by their search; "citation": quoted
        from another publication, nothing here regenerates it; "axis": what a picture shows beside
        results; "repeat": follows from other printed values or is the quantity of a conclusion.
        Only results are judged by an experiment, counts by an exact check. Empty for `recorded`.
    statistic : {"", "mean", "variance"}
        What the value is of the printed values `of` (id patterns); `test_over_train` is the size
        of a test part over that of its training part, 0 where the parts do not overlap.
    """

    value: float
    unit: str
    decimals: int
    n: int | None
    artefact: str
    row: str
    column: str
    note: str = ""
    kind: str = ""
    statistic: str = ""
    of: tuple[str, ...] = ()
    test_over_train: float = 0.0

    @property
    def literature(self) -> bool:
        """Whether the publication quotes the value from another one."""
        return self.kind == "citation"

    @property
    def id(self) -> str:
        """``artefact/row/column`` or ``claims/id``."""
        return "/".join(part for part in (self.artefact, self.row, self.column) if part)

    @property
    def printed(self) -> str:
        """The value with its published number of decimals, as text."""
        return f"{self.value:.{self.decimals}f}"


@dataclass(frozen=True)
class Artefact:
    """A table or figure of a publication (or, under ``records``, a piece of evidence)."""

    id: str
    kind: str
    title: str
    notebook: str = ""
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A number in prose; `value` is None where the claim is about an order or a picture.

    `relation` is ">" or "<" where the text only says on which side of the value a quantity lies.
    """

    id: str
    text: str
    value: float | None = None
    unit: str = ""
    decimals: int | None = None
    notebook: str = ""
    n: int | None = None
    note: str = ""
    kind: str = ""
    relation: str = "="


@dataclass(frozen=True)
class Conclusion:
    """One claim of a publication.

    Attributes
    ----------
    id, text : str
        What is claimed, in one sentence of ours.
    compares : tuple of str
        The first quantity and the second one, in words.
    direction : {"equal", "above", "below", "different"}
        Where the first quantity lies, seen from the second.
    test : str
        How it is tested, in words: the estimate, its interval, what is repeated.
    unit : str
        Of the difference; "ratio" for first over second, whose neutral value is 1.
    margin : float
        What counts as no difference, in `unit`.
    notebook : str
        That stores the evidence.
    printed : tuple of (str, str)
        Ids of printed values that are compared.
    """

    id: str
    text: str
    compares: tuple[str, ...]
    direction: str
    test: str
    unit: str
    notebook: str
    margin: float = 1.0
    printed: tuple[tuple[str, str], ...] = ()

    @property
    def neutral(self) -> float:
        """The value of no difference."""
        return 1.0 if self.unit == RATIO else 0.0


@dataclass(frozen=True)
class Paper:
    """One publication.

    Attributes
    ----------
    artefacts : tuple of Artefact
        In the order of the publication.
    values : dict of str to Published
        Every printed number, prose included.
    texts : dict of str to str
        Printed cells that are words (model names, citations), same ids.
    records : tuple of Artefact
        Sources of `recorded`.
    recorded : dict of str to Published
        Numbers that the authors' code, logs or weights show; not published values.
    conclusions : tuple of kit.published.conclusions.Conclusion
        What the publication claims, and how each claim is tested.
    checks, slips : tuple of dict
        Input of `kit.published.forensics`; errors in prose with keys where, issue, use.
    """

    key: str
    title: str
    authors: tuple
    venue: str
    year: int
    doi: str
    data: tuple
    notebooks: tuple
    hyperparameters: dict
    artefacts: tuple
    claims: tuple
    checks: tuple
    slips: tuple
    values: dict = field(repr=False)
    texts: dict = field(repr=False)
    records: tuple = ()
    recorded: dict = field(default_factory=dict, repr=False)
    conclusions: tuple = ()
    note: str = ""

    def number(self, value_id: str) -> Published:
        """The `Published` number of an id, printed or recorded; raises UnknownValue."""
        found = self.values.get(value_id) or self.recorded.get(value_id)
        if found is None:
            raise UnknownValue(
                f"papers/{self.key}.yml has no number {value_id!r}; ids read artefact/row/column "
                "or claims/id."
            )
        return found

    def artefact(self, artefact_id: str) -> Artefact:
        """The `Artefact` of an id; raises UnknownValue."""
        for item in self.artefacts:
            if item.id == artefact_id:
                return item
        raise UnknownValue(
            f"papers/{self.key}.yml has no artefact {artefact_id!r}; it has "
            f"{', '.join(a.id for a in self.artefacts)}."
        )
