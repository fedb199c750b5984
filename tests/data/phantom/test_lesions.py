"""Lesions lie where the tumour types are found and are built of the parts that are published."""

import numpy as np
import pytest

from kit.data.phantom import anatomy, images, lesions

SEEDS = range(8)


def lesion_points(name, seed, **options):
    """MNI coordinates (3, N) of the lesion's pixels in one slice of 64 px."""
    _, mask, nuisance = images.slice_image([seed], name, size=64, **options)
    return images.slice_points(images.Nuisance(**nuisance), 64, [seed])[:, mask.ravel()]


def part_names(kind, seed=0):
    return [part for _, part in made(kind, seed).layers]


def made(kind, seed, grow=1.0):
    return lesions.make(kind, [seed], plane(), grow)


def plane(z=20.0):
    """Scene of the axial plane at height `z` (mm), one point every 2 mm."""
    x, y = np.meshgrid(np.arange(-80, 81, 2.0), np.arange(-110, 81, 2.0))
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, z)]).astype(np.float32)
    return images._scene(points, 2.0)


@pytest.mark.parametrize("name", ["adenoma_solid", "adenoma_cystic"])
@pytest.mark.parametrize("orientation", images.ORIENTATIONS)
def test_adenomas_are_sellar_and_grow_upwards(name, orientation):
    for seed in SEEDS:
        x, y, z = lesion_points(name, seed, orientation=orientation).mean(axis=1) - np.array(
            anatomy.SELLA
        )
        assert abs(x) < 12, seed
        assert abs(y) < 12, seed
        assert -10 < z < 25, seed


@pytest.mark.parametrize("region", ["sellar", "any"])
def test_meningiomas_sit_on_the_inner_face_of_the_skull(region):
    depths = []
    for seed in SEEDS:
        hull = anatomy.template().at("hull", lesion_points("meningioma_solid", seed, region=region))
        assert -4 < hull.max() < 4, seed  # touches the dura, does not leave the skull
        depths.append(-hull.min())
    assert np.median(depths) > 10  # mm into the head; a slice may graze the one or other


@pytest.mark.parametrize("name", ["glioma_high", "glioma_low"])
def test_gliomas_lie_in_the_brain(name):
    for seed in SEEDS:
        points = lesion_points(name, seed, region="any")
        brain, hull = (anatomy.template().at(volume, points) for volume in ("brain", "hull"))
        assert (brain > 0.5).mean() > 0.9, seed
        assert hull.max() < 1, seed


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("glioma_high", {"oedema", "rim", "core"}),
        ("glioma_low", {"oedema", "diffuse"}),
        ("metastases", {"oedema", "rim", "core"}),
        ("meningioma_solid", {"oedema", "csf", "tail", "solid"}),
        ("meningioma_calcified", {"oedema", "csf", "tail", "solid", "calcified"}),
        ("adenoma_solid", {"csf", "adenoma"}),
        ("adenoma_cystic", {"csf", "adenoma", "cyst"}),
    ],
)
def test_a_kind_is_made_of_its_parts(kind, parts):
    lesion = made(kind, 1)
    assert set(part_names(kind)) == parts
    for opacity, part in lesion.layers:
        assert opacity.shape == lesion.mask.shape, part
        assert opacity.min() >= 0, part
        assert opacity.max() <= 1, part
        assert all(part in lesions.SIGNAL[contrast] for contrast in anatomy.CONTRASTS)
    assert lesion.mask.dtype == bool
    assert lesion.shift.shape == (3, lesion.mask.size)


def test_metastases_are_several():
    assert {part_names("metastases", seed).count("core") for seed in range(12)} == {2, 3, 4}


def test_a_high_grade_glioma_has_a_bright_rim_around_a_dark_core_in_contrast_enhanced_t1():
    lesion = made("glioma_high", 2, grow=1.3)
    opacity = {part: values for values, part in lesion.layers}
    core, rim = opacity["core"] > 0.5, (opacity["rim"] > 0.5) & (opacity["core"] < 0.5)
    assert core.any()
    assert rim.any()
    assert lesions.SIGNAL["T1c"]["rim"] > 0.9 > 0.2 > lesions.SIGNAL["T1c"]["core"]
    outer = np.linalg.norm(
        plane().points[:2, rim] - plane().points[:2, core].mean(axis=1)[:, None], axis=0
    )
    inner = np.linalg.norm(
        plane().points[:2, core] - plane().points[:2, core].mean(axis=1)[:, None], axis=0
    )
    assert outer.mean() > 1.3 * inner.mean()
    assert opacity["oedema"][~lesion.mask].max() <= 0.5


def test_growing_makes_a_lesion_larger_and_the_seed_makes_it_another():
    for kind in lesions.KINDS[1:6]:
        assert made(kind, 3, grow=1.5).mask.sum() > made(kind, 3).mask.sum() > 0, kind
    assert not np.array_equal(made("glioma_low", 1).mask, made("glioma_low", 2).mask)
    assert np.array_equal(made("glioma_low", 1).mask, made("glioma_low", 1).mask)


def test_tissue_fractions_sum_to_one():
    points = plane(-30.0).points
    texture = anatomy.smooth_field(np.random.default_rng(0), points, 8)
    fractions = anatomy.tissues(points, texture, 2.0, 6.0)
    assert fractions.shape == (len(anatomy.TISSUES), points.shape[1])
    assert fractions.min() >= 0
    assert np.abs(fractions.sum(axis=0) - 1).max() < 0.02
