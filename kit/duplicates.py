"""Copies in anyone's folder of pictures: ``python -m kit.duplicates DIR [--against DIR]``.

Writes into ``--out`` (default: a folder beside DIR) ``groups.csv`` (one row an image, a group
number at each level), ``pairs.csv`` (copies with the symmetry that lays one upon the other),
``split.csv`` (a suggested training and test part that no group straddles) and ``pairs-1.html`` and
so on: each pair side by side, 50 a page, to be looked at without a network. With ``--against``
there are only pairs: for each picture of DIR the best twin in the other folder. Exit code 0: no
copies, 1: copies, 2: the folder cannot be used. A search that was stopped goes on where it was when
it is started again with the same ``--out``.
"""

import argparse
import base64
import html
import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kit import files
from kit.data import contents, duplicates, folders, planted, split
from kit.errors import KitError

PAIRS_A_PAGE = 50
SHOWN = 224  # pixels of a picture on a page
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.4 system-ui,sans-serif;margin:1.5rem;max-width:60rem;
color-scheme:light dark}}
figure{{display:inline-block;margin:.5rem;vertical-align:top;max-width:28rem}}
figcaption{{overflow-wrap:anywhere}}img{{width:13.5rem}}</style>
<h1>{title}</h1><p>{lead}</p>{links}{figures}</html>
"""


def copies_within(groups: pd.DataFrame, pairs: pd.DataFrame, level: str) -> pd.DataFrame:
    """Every copy beside the first of its group, with the symmetry where one was found.

    Parameters
    ----------
    groups, pairs : pandas.DataFrame
        Of :class:`kit.data.duplicates.Found`.
    level : {"twin", "near", "pixel", "byte"}

    Returns
    -------
    pandas.DataFrame
        image_id, other, level (the strictest that joins them), symmetry, structure.
    """
    column = duplicates.COLUMN[level]
    table = groups.merge(groups.drop_duplicates(column), on=column, suffixes=("", "_first"))
    table = table[table["image_id"] != table["image_id_first"]]
    strictest = pd.Series(level, table.index)
    for name in reversed(duplicates.LEVELS[: duplicates.LEVELS.index(level)]):
        strictest[table[duplicates.COLUMN[name]] == table[f"{duplicates.COLUMN[name]}_first"]] = (
            name
        )
    joined = pd.DataFrame(
        {"image_id": table["image_id"], "other": table["image_id_first"], "level": strictest}
    )
    if level != "twin":
        return joined.assign(symmetry="same", structure=np.nan).reset_index(drop=True)
    exact = joined[joined["level"] != "twin"].assign(symmetry="same", structure=np.nan)
    seen = pairs.assign(level="twin")[list(exact.columns)]
    return pd.concat([exact, seen], ignore_index=True)


def suggested_split(groups: pd.DataFrame, level: str) -> pd.DataFrame:
    """image_id and part, train or test (a fifth), no group in both; all train where every picture
    is of one group.
    """
    index = groups[["image_id"]].assign(label=0)
    try:
        _, test = split.holdout(index, groups, test_size=0.2, grouped=True, level=level)
    except split.ImpossibleSplit:
        test = []
    part = np.where(index["image_id"].isin(test), "test", "train")
    return pd.DataFrame({"image_id": index["image_id"], "part": part})


def _shown(path: Path, symmetry: str = "same") -> str:
    """A picture as an img element that holds its own pixels."""
    pixels = contents.read_grey(path)
    pixels = np.ascontiguousarray(planted.turn(pixels, planted.SYMMETRIES.index(symmetry)))
    picture, stream = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((SHOWN, SHOWN))
    picture.save(stream, "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{html.escape(path.name)}" src="data:image/jpeg;base64,{data}">'


def write_sheets(out: Path, pairs: pd.DataFrame, folder: Path, other: Path) -> list[Path]:
    """Pages of pairs, each beside its copy laid as it lies; returns their paths."""
    for old in out.glob("pairs-*.html"):
        old.unlink()
    pages = [pairs.iloc[n : n + PAIRS_A_PAGE] for n in range(0, len(pairs), PAIRS_A_PAGE)]
    names = [f"pairs-{number}.html" for number in range(1, len(pages) + 1)]
    links = " ".join(f'<a href="{name}">{n}</a>' for n, name in enumerate(names, 1))
    for number, (name, page) in enumerate(zip(names, pages, strict=True), 1):
        figures = [
            f"<figure>{_shown(folder / row.image_id)}{_shown(other / row.other, row.symmetry)}"
            f"<figcaption>{html.escape(row.image_id)} and {html.escape(row.other)}: {row.level}, "
            f"{row.symmetry}</figcaption></figure>"
            for row in page.itertuples()
        ]
        text = PAGE.format(
            title=f"Copies, page {number} of {len(pages)}",
            lead=f"{len(pairs)} pairs; the second picture is drawn as it lies upon the first.",
            links=f"<nav>{links}</nav>" if len(pages) > 1 else "",
            figures="".join(figures),
        )
        files.write_text(out / name, text)
    return [out / name for name in names]


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kit.duplicates", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path, help="another folder: where do pictures come from?")
    parser.add_argument("--level", choices=duplicates.LEVELS, default=duplicates.LEVEL)
    parser.add_argument("--out", type=Path, help="default: <folder>-duplicates beside it")
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    out = given.out or folder.with_name(f"{folder.name}-duplicates")
    try:
        index = folders.index_of(folder)
        if given.against:
            other = given.against.resolve()
            pairs = duplicates.sources(
                index, folder, folders.index_of(other), other, folders.Console()
            )
            pairs = pairs.assign(level="twin")
        else:
            other = folder
            level = "twin" if given.level == "twin" else "near"
            work = out / "unfinished"
            found = duplicates.find(
                index, folder, level=level, progress=folders.Console(), keep=work
            )
            pairs = copies_within(found.groups, found.pairs, given.level)
            files.write_csv(out / "groups.csv", found.groups)
            files.write_csv(out / "split.csv", suggested_split(found.groups, given.level))
        files.write_csv(out / "pairs.csv", pairs)
        write_sheets(out, pairs, folder, other)
        shutil.rmtree(out / "unfinished", ignore_errors=True)
    except KitError as error:
        print(error, file=sys.stderr)
        return 2
    if given.against:
        print(f"{len(pairs)} of {len(index)} pictures have a twin in {other}: {out}")
    else:
        distinct = found.groups[duplicates.COLUMN[given.level]].nunique()
        print(f"{len(index)} pictures, {distinct} distinct at the level {given.level}: {out}")
    return int(len(pairs) > 0)


if __name__ == "__main__":
    sys.exit(main())
