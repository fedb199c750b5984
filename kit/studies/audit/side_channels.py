"""Side channels: can the class be told from what should not matter, such as file size, picture
size, colour mode or brightness?

A network may learn such cues in place of the disease, above all where the classes of a set come
from different sources, as in the 7,023-image set. No publication looks for them. A random forest
sees these features only; its cross-validated accuracy is compared with the share of the largest
class. Near-duplicates stay in one fold, since a copy gives away everything.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from kit.data import duplicates, imageio, registry
from kit.evaluation import stats

CHANNELS = {
    "file size": ["kilobytes"],
    "picture size and colour mode": ["width", "height", "colour"],
    "brightness": ["mean", "deviation"],
}
_FOLDS = 3


def features(name: str) -> pd.DataFrame:
    """Side features of every image, one row each, indexed by image id.

    Returns
    -------
    pandas.DataFrame
        kilobytes (of the file), width, height (pixels), colour (1 unless stored as grey), mean and
        deviation (of the grey values, 0..255).
    """
    ids, root = registry.index(name)["image_id"], registry.root(name)
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda image_id: _of(root / image_id), ids, chunksize=16))
    return pd.DataFrame(rows, index=pd.Index(ids, name="image_id"))


def _of(path) -> dict:
    pixels = imageio.read_image(path, channels=1)
    with Image.open(path) as header:
        colour = int(header.mode != "L")
    return {
        "kilobytes": path.stat().st_size / 1000,
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "colour": colour,
        "mean": pixels.mean(),
        "deviation": pixels.std(),
    }


def recipe(name: str) -> pd.DataFrame | None:
    """What the generator of an embedded set drew besides the class (``nuisance.csv``), one-hot
    coded, or None where there is no such file.
    """
    file = registry.ensure(name) / "nuisance.csv"
    return (
        pd.get_dummies(pd.read_csv(file).set_index("image_id")).astype(float)
        if file.exists()
        else None
    )


def check(name: str, seed: int = 0) -> pd.DataFrame:
    """Accuracy of a random forest on each side channel alone and on all of them.

    Parameters
    ----------
    name : str
        Registered data set of images.
    seed : int
        Of the folds and the forest.

    Returns
    -------
    pandas.DataFrame
        One row a channel: channel, accuracy, low, high (percent, 95 % Wilson interval over images),
        chance (percent, the largest class), n.
    """
    index, groups = registry.index(name), duplicates.groups(name)
    table, drawn, columns = features(name), recipe(name), dict(CHANNELS)
    if drawn is not None:
        table, columns = table.join(drawn), columns | {"what the generator drew": list(drawn)}
    columns["all of them"] = list(table)
    truth, codes = index["label"].to_numpy(), duplicates.group_of(groups, index["image_id"])
    chance = 100 * np.bincount(truth).max() / len(truth)
    rows = []
    for channel, chosen in columns.items():
        hits = int(
            (_predict(table.loc[index["image_id"], chosen], truth, codes, seed) == truth).sum()
        )
        low, high = (100 * bound for bound in _bounds(hits, len(truth)))
        rows.append(
            {
                "channel": channel,
                "accuracy": 100 * hits / len(truth),
                "low": low,
                "high": high,
                "chance": chance,
                "n": len(truth),
            }
        )
    return pd.DataFrame(rows)


def _bounds(hits: int, n: int) -> tuple[float, float]:
    interval = stats.wilson(hits, n)
    return interval.low, interval.high


def _predict(table: pd.DataFrame, truth: np.ndarray, codes: np.ndarray, seed: int) -> np.ndarray:
    forest = RandomForestClassifier(40, max_depth=10, min_samples_leaf=5, random_state=seed)
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    return cross_val_predict(forest, table.to_numpy(float), truth, groups=codes, cv=folds)
