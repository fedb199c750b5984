"""Volumes of MedMNIST3D and their phantoms as inputs of networks: uint8 cubes, resized once and
cached.

The publication trains on the official 28-voxel files, divided by 255 and nothing else. Where a file
has another edge, here its volumes are sampled trilinearly at the centres of the new voxels. Sets
that are binary masks (AdrenalMNIST3D, VesselMNIST3D) are cut at one half afterwards: left grey,
they keep the AUC of the released networks and lose their accuracy (AdrenalMNIST3D: 85 % becomes 75
%).
"""

import numpy as np

from kit import files, paths
from kit.data import registry, voxels
from kit.data.images import indexed
from kit.data.inputs import Inputs


def load(name: str, edge: int) -> Inputs:
    """A registered set of volumes with one channel, decoded once.

    Parameters
    ----------
    name : str
    edge : int
        Voxels along each axis; see :func:`resized`.

    Returns
    -------
    kit.data.inputs.Inputs
        x is uint8 (n, edge, edge, edge, 1), scale 1/255; index has the split and the duplicate
        group of each volume.

    Raises
    ------
    NoVolumes, registry.DatasetMissing
    """
    index = indexed(name)
    facts = {
        "name": name,
        "fingerprint": registry.facts(name)["fingerprint"],
        "edge": edge,
        "resizing": "trilinear, masks cut at one half",
        "incomplete": registry.facts(name).get("incomplete") or [],
    }
    file = paths.cache_dir() / "decoded" / f"{name}-{files.digest(facts)[:16]}.npy"
    if not file.exists():
        with files.atomic_write(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, voxels.resized(voxels.stored(name), edge)[..., None])
    return Inputs(name, index, np.load(file, mmap_mode="r"), 1 / 255, facts)
