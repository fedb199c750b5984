"""What the crop does to each image of a set: how many keep their whole frame, because it failed.

The published chain crops by the outline of what is brighter than 45. Where there is no outline its
code fails, and where the outline is a speck it goes on with the speck; the article says neither how
often this happens nor that it can. With ``crop: safe`` such images keep their whole frame, with
``faithful`` they are what the published code makes of them: this module counts both.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from kit import files, paths
from kit.data import preprocess, registry
from kit.studies.cad.plan import Plan


def frames(plan: Plan) -> pd.DataFrame:
    """Share of the frame that the crop leaves, image by image; measured once and cached.

    Parameters
    ----------
    plan : kit.studies.cad.plan.Plan

    Returns
    -------
    pandas.DataFrame
        image_id, split, class_name and share (area of the crop through area of the image, 0 to 1;
        NaN where there is no outline).
    """
    facts = {
        "name": plan.dataset,
        "fingerprint": registry.facts(plan.dataset)["fingerprint"],
        "upsample": plan.upsample or None,
    }
    file = paths.cache_dir() / "frames" / f"{plan.dataset}-{files.digest(facts)[:16]}.csv"
    index = registry.index(plan.dataset)
    if not file.exists():
        root = registry.root(plan.dataset)
        with ThreadPoolExecutor() as pool:  # Pillow and OpenCV release the interpreter lock
            shares = list(
                pool.map(lambda i: _share(root / i, plan.upsample or None), index["image_id"])
            )
        files.write_csv(file, pd.DataFrame({"image_id": index["image_id"], "share": shares}))
    measured = pd.read_csv(file, dtype={"image_id": str})
    return index[["image_id", "split", "class_name"]].merge(
        measured, on="image_id", validate="one_to_one"
    )


def _share(path, upsample: int | None) -> float:
    pixels = preprocess.read(path)
    pixels = pixels if upsample is None else preprocess.enlarge(pixels, upsample)
    box = preprocess.crop_box(pixels)
    return np.nan if box is None else box.area / (pixels.shape[0] * pixels.shape[1])


def frame_table(plan: Plan) -> pd.DataFrame:
    """How often the crop fails, a row for each folder and class, and all together.

    Parameters
    ----------
    plan : kit.studies.cad.plan.Plan

    Returns
    -------
    pandas.DataFrame
        Index "folder/class" or "all"; images, no_outline, small_crop (below 5 % of the frame),
        whole_frame (images that kept it) and median_share of the crop in percent.
    """
    found = frames(plan)
    found["row"] = found["split"] + "/" + found["class_name"]
    table = pd.DataFrame(
        {row: _counts(group["share"], plan.crop) for row, group in found.groupby("row")}
        | {"all": _counts(found["share"], plan.crop)}
    ).T
    counts = [name for name in table.columns if name != "median_share"]
    return table.astype(dict.fromkeys(counts, int)).rename_axis("row")


def _counts(shares: pd.Series, mode: str) -> dict:
    failed, small = shares.isna(), shares < preprocess.SMALLEST_CROP
    return {
        "images": len(shares),
        "no_outline": int(failed.sum()),
        "small_crop": int(small.sum()),
        "whole_frame": int((failed | small).sum()) if mode == "safe" else 0,
        "median_share": 100 * float(shares.median()),
    }
