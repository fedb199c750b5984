"""How well the search for twins works: ``python -m kit.benchmarks.twins recall DIR``.

Four questions, one command each; each prints a Markdown table and writes ``--out`` as CSV.

``recall DIR``
    Planted copies of every kind (:mod:`kit.data.planted`) at four strengths are looked for among
    the pictures of a folder: what share is a candidate, what share is found.
``apart DIR [--groups FILE]``
    Pairs that are known to differ: every two pictures of the folder but those of one group of the
    file (columns image_id and group: a patient, a lesion). How many are called the same?
``peers DIR``
    The same copies and pairs as perceptual hashes see them (packages imagehash, imagededup and
    cleanvision, whichever are installed: they are no dependencies of this kit).
``scale``
    Seconds and memory for 1,000, 10,000 and 100,000 generated pictures.

The threshold :data:`kit.data.twins.SAME` was chosen from the first two (docs/twins.md): the highest
at which every kind is found at full strength in 99 of 100 copies.
"""

import argparse
import importlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from statsmodels.stats.proportion import proportion_confint

from kit import files
from kit.data import contents, duplicates, folders, overlays, planted, thumbnails, twins

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
LEVELS = np.round(np.arange(0.8, 0.991, 0.01), 2)  # thresholds of the curve


def recall(
    pictures: Sequence[np.ndarray],
    strengths: Sequence[float] = STRENGTHS,
    count: int = 100,
    seed: int = 0,
    kinds: Sequence[str] = tuple(planted.KINDS),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Planted copies looked for among the pictures that they were made of.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray
        uint8, (H, W), no two of them the same picture.
    strengths : sequence of float
    count : int
        Copies a kind and strength.
    seed : int
        Draws the pictures that are copied.
    kinds : sequence of str

    Returns
    -------
    (table, structures)
        kind, strength, copies, candidates and found (shares), low and high (95 % Clopper-Pearson
        interval of `found`); and one row a copy: kind, strength, structure (0 where the original
        was no candidate).
    """
    drawn = np.random.default_rng(seed).permutation(len(pictures))[:count]
    base, rows, every = thumbnails.looks(iter(pictures)), [], []
    for kind in kinds:
        for strength in strengths:
            copies = [planted.plant(pictures[i], kind, strength, int(i)) for i in drawn]
            structure = _structures(copies, pictures, base, drawn)
            found = int((structure >= twins.SAME).sum())
            low, high = proportion_confint(found, len(drawn), method="beta")
            rows.append(
                {
                    "kind": kind,
                    "strength": strength,
                    "copies": len(drawn),
                    "candidates": float((structure > 0).mean()),
                    "found": found / len(drawn),
                    "low": low,
                    "high": high,
                }
            )
            every.append(pd.DataFrame({"kind": kind, "strength": strength, "structure": structure}))
    return pd.DataFrame(rows), pd.concat(every, ignore_index=True)


def _structures(copies, pictures, base: thumbnails.Looks, drawn: np.ndarray) -> np.ndarray:
    """Structure of each copy laid over its original; 0 where that is none of its candidates."""
    looks = thumbnails.looks(iter(copies))
    pairs = thumbnails.candidates(looks, base)
    chosen = pairs.at(pairs.second == drawn[pairs.first])
    said = twins.verify(
        looks, chosen, copies.__getitem__, (base, pictures.__getitem__), all_pairs=True
    )
    out = np.zeros(len(copies), np.float32)
    out[said.first] = said.structure
    return out


def apart(
    pictures: Sequence[np.ndarray], groups: Sequence | None = None
) -> tuple[int, np.ndarray, pd.DataFrame]:
    """Pairs that are known to differ, compared.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray
        uint8, (H, W).
    groups : sequence, optional
        Pictures of one group may be the same; by default each is a group of its own.

    Returns
    -------
    (pairs, structures, table)
        Number of pairs of different groups; the structure of those of them that were candidates,
        float32; and threshold, false (pairs called the same), per_million with its 95 %
        Clopper-Pearson interval low and high.
    """
    group = pd.factorize(np.arange(len(pictures)) if groups is None else np.asarray(groups))[0]
    count = len(group) * (len(group) - 1) // 2 - sum(
        int(n) * (int(n) - 1) // 2 for n in np.bincount(group)
    )
    looks = thumbnails.looks(iter(pictures))
    pairs = thumbnails.candidates(looks)
    pairs = pairs.at(group[pairs.first] != group[pairs.second])
    structure = twins.verify(looks, pairs, pictures.__getitem__, all_pairs=True).structure
    return count, structure, false_matches(structure, count)


def false_matches(structure: np.ndarray, pairs: int) -> pd.DataFrame:
    """The third part of :func:`apart`, from the structures of the candidates."""
    rows = []
    for threshold in (*LEVELS, twins.SAME):
        false = int((structure >= threshold).sum())
        low, high = proportion_confint(false, pairs, method="beta")
        rows.append((threshold, false, 1e6 * false / pairs, 1e6 * low, 1e6 * high))
    table = pd.DataFrame(rows, columns=["threshold", "false", "per_million", "low", "high"])
    return table.drop_duplicates("threshold").sort_values("threshold", ignore_index=True)


# --- peers ----------------------------------------------------------------------------------------


def hashes() -> dict[str, tuple[Callable[[Path], np.ndarray], int]]:
    """Perceptual hashes of the installed packages: name -> (bits of a file, largest distance that
    the package's own search takes by default).
    """
    found: dict[str, tuple[Callable[[Path], np.ndarray], int]] = {}
    if _there("imagehash"):
        package = importlib.import_module("imagehash")
        for name in ("phash", "dhash", "whash", "average_hash"):
            function = getattr(package, name)
            found[f"imagehash {name}, distance 10"] = (
                lambda path, function=function: np.asarray(function(Image.open(path)).hash).ravel(),
                10,
            )
        found["cleanvision (phash equal)"] = (
            lambda path: np.asarray(package.phash(Image.open(path), hash_size=8).hash).ravel(),
            0,
        )
    if _there("imagededup"):
        methods = importlib.import_module("imagededup.methods")
        for name in ("PHash", "DHash", "WHash", "AHash"):
            coder = getattr(methods, name)()
            found[f"imagededup {name}, distance 10"] = (
                lambda path, coder=coder: _bits(coder.encode_image(str(path))),
                10,
            )
    return found


def _there(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _bits(digits: str) -> np.ndarray:
    """Hexadecimal digits as booleans, four a digit."""
    return np.array([bit == "1" for digit in digits for bit in f"{int(digit, 16):04b}"])


def peers(
    pictures: Sequence[np.ndarray], count: int = 100, seed: int = 0, strength: float = 1.0
) -> pd.DataFrame:
    """Share of planted copies found, false matches and time of each hash and of this kit.

    Returns
    -------
    pandas.DataFrame
        One row a method: a column a kind (share found), all, false_per_million (of all pairs of
        the pictures), ms an image (encoding, or reading and comparing for this kit).
    """
    drawn = np.random.default_rng(seed).permutation(len(pictures))[:count]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        originals = _saved(Path(folder), "original", pictures)
        copies = {
            kind: _saved(
                Path(folder),
                kind,
                [planted.plant(pictures[i], kind, strength, int(i)) for i in drawn],
            )
            for kind in planted.KINDS
        }
        for name, (encode, distance) in hashes().items():
            started = time.perf_counter()
            own = np.stack([encode(path) for path in originals])
            per_image = 1000 * (time.perf_counter() - started) / len(originals)
            line: dict[str, object] = {"method": name}
            for kind, paths in copies.items():
                bits = np.stack([encode(path) for path in paths])
                line[kind] = float(((bits != own[drawn]).sum(1) <= distance).mean())
            line |= {"false_per_million": 1e6 * _close(own, distance), "ms": per_image}
            rows.append(line)
    started = time.perf_counter()
    pairs, structure, _ = apart(pictures)
    seconds = time.perf_counter() - started
    table, _ = recall(pictures, (strength,), count, seed)
    rows.append(
        {
            "method": "this kit, twin",
            **dict(zip(table["kind"], table["found"], strict=True)),
            "false_per_million": 1e6 * (structure >= twins.SAME).sum() / pairs,
            "ms": 1000 * seconds / len(pictures),
        }
    )
    out = pd.DataFrame(rows)
    out.insert(1, "all", out[list(planted.KINDS)].mean(axis=1))
    return out


def _saved(folder: Path, name: str, pictures: Sequence[np.ndarray]) -> list[Path]:
    paths = [folder / f"{name}-{number:06d}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path, compress_level=1)
    return paths


def _close(bits: np.ndarray, distance: int) -> float:
    """Share of all pairs of rows (n, b) that differ in at most `distance` bits."""
    signs, close = np.where(bits, 1, -1).astype(np.float32), 0
    for start in range(0, len(signs), 512):
        differ = (signs.shape[1] - signs[start : start + 512] @ signs[start:].T) / 2
        close += int(np.triu(differ <= distance, k=1).sum())
    return close / (len(signs) * (len(signs) - 1) / 2)


# --- scale ----------------------------------------------------------------------------------------


def generated(count: int, seed: int = 0, size: int = 128, copied: int = 20) -> Iterator[np.ndarray]:
    """Head-like pictures, uint8 (size, size), every `copied`-th one a planted copy of the last."""
    last, kinds = np.zeros((size, size), np.uint8), list(planted.KINDS)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    for number in range(count):
        random = np.random.default_rng([seed, number])
        if number % copied == copied - 1:
            yield planted.plant(last, kinds[number // copied % len(kinds)], 0.8, number)
            continue
        radius = np.hypot(rows / random.uniform(0.36, 0.46), columns / random.uniform(0.3, 0.42))
        noise = sum(
            weight * zoom(random.normal(size=(cells, cells)), size / cells, order=1)
            for cells, weight in ((8, 1.0), (16, 0.7), (32, 0.5))
        )
        picture = np.where(radius < 0.9, 90 + 30 * noise, np.where(radius < 1, 210, 4))
        last = np.uint8(np.clip(gaussian_filter(picture, 0.7), 0, 255))
        yield last


def scale(folder: Path, count: int, progress: duplicates.Progress) -> dict:
    """Seconds and peak memory of the search in a folder of `count` generated pictures, which are
    written if they are not there.
    """
    place = folder / str(count)
    place.mkdir(parents=True, exist_ok=True)
    if len(list(place.iterdir())) < count:
        for number, picture in enumerate(generated(count)):
            Image.fromarray(picture).save(place / f"{number:06d}.png", compress_level=1)
    index = folders.index_of(place)
    started = time.perf_counter()
    found = duplicates.find(index, place, progress=progress)
    seconds = time.perf_counter() - started
    group = found.groups["twin_group"].to_numpy()
    copies = np.arange(19, count, 20)
    sizes = np.bincount(group)[group]
    return {
        "pictures": count,
        "seconds": seconds,
        "ms_a_picture": 1000 * seconds / count,
        "peak_GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "copies_found": float((group[copies] == group[copies - 1]).mean()),
        "others_in_groups": int((sizes > 1).sum() - 2 * (group[copies] == group[copies - 1]).sum()),
    }


# --- the command ----------------------------------------------------------------------------------


def read_folder(folder: Path, most: int) -> tuple[list[str], list[np.ndarray]]:
    """Names and grey pixels (224 pixels a side at most) of up to `most` pictures of a folder."""
    names = folders.index_of(folder)["image_id"].tolist()
    if most and most < len(names):
        chosen = np.sort(np.random.default_rng(0).permutation(len(names))[:most])
        names = [names[k] for k in chosen]
    pictures = []
    for name in names:
        picture = Image.fromarray(contents.read_grey(folder / name))
        picture.thumbnail((2 * overlays.SIDE, 2 * overlays.SIDE), Image.Resampling.BOX)
        pictures.append(np.asarray(picture))
    return names, pictures


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kit.benchmarks.twins", description=__doc__)
    parser.add_argument("question", choices=("recall", "apart", "peers", "scale"))
    parser.add_argument("folder", type=Path, help="pictures; for scale, where they are written")
    parser.add_argument("--groups", type=Path, help="CSV with image_id and group")
    parser.add_argument("--one-each", action="store_true", help="one picture of each group only")
    parser.add_argument("--count", type=int, default=100, help="copies a kind and strength")
    parser.add_argument("--most", type=int, default=0, help="pictures to read; 0: all")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, help="CSV file")
    given = parser.parse_args(arguments)
    if given.question == "scale":
        table = pd.DataFrame(scale(given.folder, n, folders.Console()) for n in given.sizes)
    else:
        names, pictures = read_folder(given.folder, given.most)
        group = None
        if given.groups:
            known = pd.read_csv(given.groups, dtype=str, keep_default_na=False)
            group = known.set_index("image_id")["group"].reindex(names).tolist()
        if given.one_each and group is not None:
            first = ~pd.Series(group).duplicated().to_numpy()
            pictures = [picture for picture, one in zip(pictures, first, strict=True) if one]
            group = None
        if given.question == "recall":
            table, every = recall(pictures, count=given.count)
            if given.out:
                files.write_csv(given.out.with_suffix(".structures.csv"), every)
        elif given.question == "apart":
            pairs, structure, table = apart(pictures, group)
            table.insert(0, "pairs", pairs)
            if given.out:
                values = np.sort(structure[structure >= LEVELS[0] / 2])[::-1]
                files.write_csv(
                    given.out.with_suffix(".structures.csv"), pd.DataFrame({"structure": values})
                )
        else:
            table = peers(pictures, given.count)
    print(table.to_markdown(index=False, floatfmt=".3f"))
    if given.out:
        files.write_csv(given.out, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
