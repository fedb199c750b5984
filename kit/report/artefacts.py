"""The artefacts of a run: every table and figure of a publication, written once, merged into one
list, each saying what it was made from.

A notebook makes one `Artefacts` object and hands it tables, figures and values as it goes. Each
call is on disk when it returns, so a crash leaves what came before it as "written" and the rest as
"missing". All bytes are a function of the inputs: no date is embedded in a PNG or PDF, and two
equal runs write equal files.

What was measured on embedded data, with a stand-in, or with reduced settings says so in the caption
of the Markdown and LaTeX table, in the last column of the CSV table, and under the figure: a file
that is copied out of the results folder keeps its caveat.
"""

import difflib
import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from kit import files as files_module
from kit import paths, rehearsal
from kit.data import registry
from kit.errors import KitError
from kit.evaluation.stats import Interval
from kit.published import papers
from kit.report import cells, entries, style

ORDER = ("br35h", "cad", "lease", "gencnn", "astrocytes", "gensoup", "pbcnas")
KINDS = {"table": ("csv", "md", "tex"), "figure": ("png", "pdf")}


class UnknownArtefact(KitError):
    """No publication, and no notebook's metadata, lists an artefact or value of that id."""


def all_papers() -> list:
    """Every publication as `kit.published.papers.Paper`, in the order of the README."""
    order = {key: place for place, key in enumerate(ORDER)}
    return [
        papers.load(key)
        for key in sorted(papers.keys(), key=lambda key: (order.get(key, len(order)), key))
    ]


def _declared(notebook: str) -> list[dict]:
    """Artefacts that a notebook outside the publications declares in its own metadata."""
    path = paths.notebooks_dir() / f"{notebook}.ipynb"
    if not path.exists():
        return []
    kit = json.loads(path.read_text(encoding="utf-8")).get("metadata", {}).get("kit", {})
    return [
        {
            "paper": kit["folder"],
            "id": key,
            "kind": "figure" if key.startswith("figure") else "table",
            "title": title,
            "notebook": notebook,
        }
        for key, title in kit.get("artefacts", {}).items()
    ]


def all_expected() -> list[dict]:
    """Every artefact that the kit promises: ``{"paper", "id", "kind", "title", "notebook"}``, audit
    first, then the publications, then the summary.
    """
    own = [
        entry
        for path in sorted(paths.notebooks_dir().glob("*.ipynb"))
        for entry in _declared(path.stem)
    ]
    listed = [
        {
            "paper": paper.key,
            "id": entry.id,
            "kind": entry.kind,
            "title": entry.title,
            "notebook": entry.notebook,
        }
        for paper in all_papers()
        for entry in paper.artefacts
    ]
    return (
        [e for e in own if e["paper"] != "summary"]
        + listed
        + [e for e in own if e["paper"] == "summary"]
    )


def expected(notebook: str) -> list[dict]:
    """The artefacts that `notebook` has to write, in the publication's order; empty for a notebook
    that declares none.
    """
    return [entry for entry in all_expected() if entry["notebook"] == notebook]


def data_facts(name: str | None) -> dict:
    """What a result must say about its data set.

    Returns
    -------
    dict
        ``data`` (registry name), ``embedded`` (bool), ``fingerprint`` (hex or None),
        ``stand_in_for`` (name of the set it replaces, or None) and ``incomplete`` (ids of images
        that are missing), read from the set's ``dataset.json``.
    """
    stored = (
        files_module.read_json(registry.root(name) / "dataset.json", default={}) if name else {}
    )
    embedded = (
        stored["embedded"]
        if "embedded" in stored
        else name is not None and registry.get(name).embedded
    )
    return {
        "data": name,
        "embedded": bool(embedded),
        "fingerprint": stored.get("fingerprint"),
        "stand_in_for": stored.get("stand_in_for"),
        "incomplete": list(stored.get("incomplete") or []),
    }


def resized(name: str | None, fingerprint: str | None) -> str:
    """The size of a data set's images, e.g. "224 px", if it is a copy that was resized before it
    got here; else "".
    """
    if not (name and fingerprint and name in registry.names()):
        return ""
    copies = registry.get(name).source.get("copies") or []
    return next((c.get("resized", "") for c in copies if c.get("fingerprint") == fingerprint), "")


def caveat(entry: dict) -> str:
    """One or more sentences on what keeps a result from being the published experiment; empty if
    nothing does.

    Parameters
    ----------
    entry : dict
        Keys ``data``, ``embedded``, ``stand_in_for``, ``incomplete``, ``stand_in``, ``reductions``;
        all optional.
    """
    said = []
    if entry.get("embedded"):
        place = f" in place of {entry['stand_in_for']}" if entry.get("stand_in_for") else ""
        said.append(
            f"Embedded data set {entry['data']}{place}, not the published data: no comparison with "
            "published numbers."
        )
    elif entry.get("stand_in_for"):
        said.append(f"The data set {entry['data']} stands in for {entry['stand_in_for']}.")
    if entry.get("incomplete"):
        named, more = entry["incomplete"][:4], len(entry["incomplete"]) - 4
        said.append(
            f"The data set {entry['data']} is incomplete, absent: "
            f"{', '.join(named)}{f' and {more} more entries' if more > 0 else ''}."
        )
    if entry.get("stand_in"):
        said.append(f"Stand-in: {entry['stand_in']}.")
    if entry.get("reductions"):
        said.append(f"Reduced settings: {'; '.join(entry['reductions'])}.")
    return " ".join(said)


def origin(entry: dict) -> str:
    """The data set of an artefact with its caveats as tags, e.g. "phantom4 (embedded, reduced)":
    the last column of a CSV table.
    """
    flags = {
        "embedded": "embedded",
        "stand_in_for": "stand-in data",
        "incomplete": "incomplete",
        "stand_in": "stand-in",
        "reductions": "reduced",
    }
    tags = [
        tag
        for key, tag in flags.items()
        if entry.get(key) and not (key == "stand_in_for" and entry.get("embedded"))
    ]
    return f"{entry['data']} ({', '.join(tags)})" if tags else str(entry["data"])


class Artefacts:
    """Writer of a notebook's tables, figures and values into ``results/<profile>/<paper>/``.

    Making one lists every artefact of the paper in ``artefacts.json``; what an earlier run or
    another notebook wrote stays.

    Parameters
    ----------
    paper : str
        Key of ``papers/<key>.yml``, or the folder that the notebook's metadata declares ("audit",
        "summary").
    profile : str
        Name of the results folder.
    notebook : str
        Name without suffix, e.g. ``10_br35h_cnn_vs_resnet50v2``.
    data : str or None
        Registry name of the data set; None for tables that come from no data set. Each call can
        name another one.
    stand_in : str or None
        What replaces a published component and for what, e.g. "EfficientNet-Lite0 (ImageNet) for
        ResNet50V2".
    reductions : sequence of str
        Every setting below the published one, e.g. "2 epochs instead of 30".
    """

    def __init__(
        self,
        paper: str,
        profile: str,
        notebook: str,
        data: str | None = None,
        stand_in: str | None = None,
        reductions: Sequence[str] = (),
    ) -> None:
        self.paper, self.profile, self.notebook = paper, profile, notebook
        self.folder = paths.results_dir() / profile / paper
        said = list(reductions)
        if rehearsal.active():
            said.insert(0, "a rehearsal, one step a training: no number here is a result")
        self._data, self._own = data, {"stand_in": stand_in, "reductions": said}
        self._listed = [e for e in all_expected() if e["paper"] == paper]
        known = papers.keys()
        self._ids = papers.load(paper).values if paper in known else None
        self._merge({}, fresh=True)

    def table(
        self,
        id: str,
        dataframe: pd.DataFrame,
        note: str = "",
        *,
        data: str | None = None,
        title: str | None = None,
        decimals: int | None = None,
    ) -> pd.DataFrame:
        """Write ``tables/<id>.csv``, ``.md`` and ``.tex``; gives the data frame back so that a cell
        can show it.

        Parameters
        ----------
        id : str
            Artefact id of the paper, or one that starts with ``extra-`` for a table of our own.
        dataframe : pandas.DataFrame
            Any; an index other than 0..n-1 becomes columns. The CSV keeps full precision and gains
            a last column ``data``.
        note : str
            Printed under the caption, before the caveats.
        data : str or None
            Data set of this table where it is not the writer's.
        title : str or None
            Caption of an ``extra-`` table.
        decimals : int or None
            Places of floats in Markdown and LaTeX.
        """
        entry = self._entry(id, "table", note, data, title)
        flat = cells.flat(dataframe)
        text = cells.readable(flat, decimals)
        title, rest = (
            entry["title"].rstrip(".") + ".",
            " ".join(filter(None, [note, caveat(entry)])),
        )
        sides = ["right" if pd.api.types.is_numeric_dtype(flat[name]) else "left" for name in flat]
        full = (
            flat
            if entry["data"] is None
            else flat.assign(**{"provenance" if "data" in flat else "data": origin(entry)})
        )
        files_module.write_csv(self.folder / f"tables/{id}.csv", full)
        files_module.write_text(
            self.folder / f"tables/{id}.md",
            f"{f'**{title}** {rest}'.strip()}\n\n{cells.markdown_table(text, sides)}\n",
        )
        files_module.write_text(
            self.folder / f"tables/{id}.tex",
            cells.latex_table(text, sides, f"{title} {rest}".strip(), f"{self.paper}:{id}"),
        )
        self._merge({id: {**entry, "decimals": decimals}})
        return dataframe

    def figure(
        self,
        id: str,
        fig: Figure,
        note: str = "",
        *,
        data: str | None = None,
        title: str | None = None,
    ) -> Figure:
        """Write ``figures/<id>.png`` (200 dpi) and ``.pdf``, close the figure, and give it back so
        that a cell can show it.

        The caveats are printed under the figure. Arguments as for `table`.
        """
        entry = self._entry(id, "figure", note, data, title)
        if caveat(entry):
            fig.set_layout_engine(fig.get_layout_engine() or "constrained")
            style.note(fig, caveat(entry))
        for suffix, quiet in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            with files_module.atomic_write(self.folder / f"figures/{id}.{suffix}") as temporary:
                fig.savefig(temporary, dpi=200, bbox_inches="tight", metadata=quiet)
        plt.close(fig)
        self._merge({id: entry})
        return fig

    def value(
        self,
        value_id: str,
        ours: float | None,
        interval: entries.Ends | None = None,
        leak_free: float | None = None,
        leak_free_interval: entries.Ends | None = None,
        n: int | entries.Sample | None = None,
        *,
        data: str | None = None,
        exact: bool = False,
    ) -> None:
        """Store our number beside the published one of the same id.

        Parameters
        ----------
        value_id : str
            ``<artefact>/<row>/<column>`` or ``claims/<id>``.
        ours, leak_free : float
            In the published unit; `leak_free` on the test set without copies of training images.
        interval, leak_free_interval : (float, float) or None
            95 % intervals. A result that is a share of images has Wilson's if none is given.
        n : int, kit.report.entries.Sample or None
            Number of test images behind `ours`, or these with duplicate groups and seeds.
        data : str or None
            Data set of this value where it is not the writer's.
        exact : bool
            The value follows from the publication alone (a parameter count, a test of printed
            numbers) and depends on neither the data nor reduced settings; it is stored without
            their caveats.

        Raises
        ------
        UnknownArtefact
            If the publication prints no such number.
        """
        if self._ids is not None and value_id not in self._ids:
            raise UnknownArtefact(_unknown("value", value_id, self._ids, self.paper))
        sample = n if isinstance(n, entries.Sample) else entries.Sample(n)
        printed = self._ids[value_id] if self._ids else None
        entry = entries.value(printed, ours, interval, leak_free, leak_free_interval, sample)
        entry |= {"notebook": self.notebook, **self._facts(data, exact)}
        self._store("values.json", value_id, entry, self._ids)

    def evidence(
        self,
        conclusion_id: str,
        parts: Mapping[str, Interval] | Interval,
        *,
        seeds: int = 1,
        groups: int | None = None,
        data: str | None = None,
        exact: bool = False,
    ) -> None:
        """Store what this run found on a conclusion of the publication.

        Parameters
        ----------
        conclusion_id : str
            As listed under ``conclusions`` of the publication's file.
        parts, seeds, groups
            See :func:`kit.report.entries.evidence`.
        data, exact
            As for `value`.

        Raises
        ------
        UnknownArtefact
            If the publication draws no such conclusion.
        """
        known = [c.id for c in papers.load(self.paper).conclusions]
        if conclusion_id not in known:
            raise UnknownArtefact(_unknown("conclusion", conclusion_id, known, self.paper))
        facts = {"notebook": self.notebook, **self._facts(data, exact)}
        entry = entries.evidence(parts, seeds, groups, facts)
        self._store("evidence.json", conclusion_id, entry, known)

    def _facts(self, data, exact) -> dict:
        if exact:
            return data_facts(None) | {"stand_in": None, "reductions": []}
        return data_facts(data or self._data) | self._own

    def _store(self, file, key, entry, order):
        """Put an entry into a JSON file of the folder, sorted as the publication has its ids."""
        path = self.folder / file
        with self._lock():
            stored = files_module.read_json(path, default={}) | {key: entry}
            place = {name: i for i, name in enumerate(order or stored)}
            kept = sorted(stored, key=lambda name: (place.get(name, len(place)), name))
            files_module.write_json(path, {name: stored[name] for name in kept})

    def failed(self, id: str, reason: object) -> None:
        """List `id` as failed because of `reason` and remove what an earlier run left of it."""
        entry = self._entry(id, None, "", None, None)
        for path in self.folder.glob(f"*/{id}.*"):
            if path.parent.name in ("tables", "figures"):
                path.unlink()
        why = {"status": "failed", "files": [], "reason": " ".join(str(reason).split())}
        self._merge({id: entry | why})

    def _lock(self):
        return files_module.FolderLock(self.folder, wait=60)

    def _entry(self, id, kind, note, data, title) -> dict:
        known = next((e for e in self._listed if e["id"] == id), None)
        if known is None and self._listed and not id.startswith("extra-"):
            raise UnknownArtefact(
                _unknown("artefact", id, [e["id"] for e in self._listed], self.paper)
            )
        kind = kind or (known or {}).get("kind", "table")
        files = [f"{kind}s/{id}.{suffix}" for suffix in KINDS[kind]]
        title = title or (known or {}).get("title") or id
        return {
            "id": id,
            "title": title,
            "status": "written",
            "files": files,
            **data_facts(data or self._data),
            "reason": None,
            "notebook": self.notebook,
            "kind": kind,
            **self._own,
            "note": note,
        }

    def _merge(self, new: dict, fresh: bool = False) -> None:
        """Put `new` entries into artefacts.json, keeping the others; what is listed and not there
        is "missing".

        With `fresh`, the notebook's own tables and figures beyond the publication's are taken off
        the list, for this run may not make them.
        """
        path = self.folder / "artefacts.json"
        with self._lock():
            stored = {
                e["id"]: e for e in files_module.read_json(path, default={}).get("artefacts", [])
            } | new
            listed = {e["id"]: self._missing(e) for e in self._listed}
            dropped = {
                key
                for key, entry in stored.items()
                if fresh and key.startswith("extra-") and entry["notebook"] == self.notebook
            }
            kept = {
                key: entry
                for key, entry in stored.items()
                if key not in dropped and (entry["status"] == "failed" or self._whole(entry))
            }
            merged = listed | kept
            files_module.write_json(
                path,
                {"paper": self.paper, "profile": self.profile, "artefacts": list(merged.values())},
            )

    def _whole(self, entry) -> bool:
        return entry["status"] == "written" and all(
            (self.folder / name).exists() for name in entry["files"]
        )

    def _missing(self, expected_entry: dict) -> dict:
        notebook = expected_entry["notebook"]
        reason = (
            f"notebook {notebook} has not written it yet"
            if notebook == self.notebook
            else f"notebook {notebook} has not run"
        )
        return {
            "id": expected_entry["id"],
            "title": expected_entry["title"],
            "status": "missing",
            "files": [],
            "data": None,
            "reason": reason,
            "notebook": notebook,
            "kind": expected_entry["kind"],
            "stand_in": None,
            "reductions": [],
            "note": "",
        }


def _unknown(what, id, known, paper) -> str:
    near = difflib.get_close_matches(id, list(known), n=1)
    return (
        f"papers/{paper}.yml lists no {what} "
        f"{id!r}{f'; did you mean {near[0]!r}?' if near else '; correct the id or add it there.'}"
    )
