"""data_prep: archives in, verified data sets out; everything that can go wrong leaves one sentence
and nothing else.
"""

import errno
import gzip
import http.server
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import requests
from conftest import shared_data
from PIL import Image

from data_prep import __main__ as command
from data_prep import archive, fetch, folder, ingest, layout, sources, stand_in, verify
from kit import files as files_module
from kit import paths, record
from kit.data import registry

COUNTS = {"Training/a": 3, "Training/b": 2, "Testing/a": 1, "Testing/b": 2}


def data_set(name="tiny", **facts):
    given = {
        "title": "Tiny",
        "task": "binary",
        "kind": "images",
        "classes": ("a", "b"),
        "display": ("a", "b"),
        "layout": {"train": "Training", "test": "Testing"},
        "counts": COUNTS,
        "source": {},
    }
    return registry.DataSet(name=name, **given | facts)


def jpeg(seed, size=16):
    stream = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    ).save(stream, "JPEG")
    return stream.getvalue()


def tiny_files(top=""):
    names = [
        f"{top}{key}/{key[-1]}{i}.jpg" for key, number in COUNTS.items() for i in range(number)
    ]
    return {name: jpeg(i) for i, name in enumerate(names)}


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def quiet(*_):
    pass


def left(to):
    """Everything below `to` but lock files."""
    return (
        sorted(p.relative_to(to).as_posix() for p in Path(to).rglob("*") if ".locks" not in p.parts)
        if Path(to).exists()
        else []
    )


@pytest.fixture
def tiny_zip(tmp_path):
    return write_zip(tmp_path / "tiny.zip", tiny_files("wrapped-1.0/"))


# ---- the way it should go


def test_a_set_is_laid_out_with_manifest_and_facts(tmp_path):
    extra = {
        "top/README.md": b"hi",
        "top/Testing/a/.ipynb_checkpoints/a0-checkpoint.jpg": jpeg(1),
        "top/Training/a/Thumbs.db": b"x",
        "__MACOSX/top/Training/a/._a0.jpg": b"x",
    }
    source = write_zip(tmp_path / "x.zip", tiny_files("top/") | extra)
    facts = ingest.prepare(data_set(), tmp_path / "to", [source], say=quiet)
    root = tmp_path / "to" / "tiny"
    manifest = pd.read_csv(root / "manifest.csv")
    assert list(manifest.columns) == ["image_id", "split", "label", "class_name", "sha256", "bytes"]
    assert list(manifest.image_id) == sorted(tiny_files())
    assert facts["counts"] == COUNTS
    row = manifest.set_index("image_id").loc["Testing/b/b1.jpg"]
    assert (row.split, row.label, row.class_name, row.bytes) == (
        "test",
        1,
        "b",
        len(tiny_files()["Testing/b/b1.jpg"]),
    )
    assert facts == files_module.read_json(root / "dataset.json")
    assert facts["fingerprint"] == record.fingerprint(manifest)
    assert {
        "name",
        "title",
        "embedded",
        "source",
        "fingerprint",
        "counts",
        "incomplete",
        "made_by",
        "stand_in_for",
    } <= set(facts)
    assert facts["skipped"] == [
        "Testing/a/.ipynb_checkpoints/a0-checkpoint.jpg",
        "Training/a/Thumbs.db",
    ]
    assert {p.name for p in root.iterdir()} == {
        "Training",
        "Testing",
        "manifest.csv",
        "dataset.json",
    }
    assert {p.name for p in (tmp_path / "to").iterdir()} == {"tiny", ".locks"}


def test_zip_tar_and_folder_give_the_same_set(tmp_path, tiny_zip):
    origins = [
        tiny_zip,
        write_tar(tmp_path / "x.tar.gz", tiny_files("./deep/er/")),
        write_folder(tmp_path / "f", tiny_files()),
    ]
    facts = [
        ingest.prepare(data_set(), tmp_path / f"to{i}", [origin], say=quiet)
        for i, origin in enumerate(origins)
    ]
    assert len({f["fingerprint"] for f in facts}) == 1
    assert len({(tmp_path / f"to{i}/tiny/manifest.csv").read_bytes() for i in range(3)}) == 1
    assert len(left(tmp_path / "f")) == 8 + 6  # the folder is untouched


def test_a_finished_set_is_not_made_again(tmp_path, tiny_zip):
    first = ingest.prepare(data_set(), tmp_path / "to", [tiny_zip], say=quiet)
    lines = []
    assert (
        ingest.prepare(data_set(), tmp_path / "to", [tmp_path / "gone.zip"], say=lines.append)
        == first
    )
    assert "already" in lines[0]


def test_nested_class_folders_like_breakhis(tmp_path):
    data = data_set(
        "nested",
        layout={"all": ""},
        counts={"a": 1, "b": 2},
        source={"nested": True, "class_folders": {"a": "benign/SOB/a", "b": "malignant/SOB/b"}},
    )
    names = [
        "v1/breast/benign/SOB/a/s1/40X/1.png",
        "v1/breast/malignant/SOB/b/s2/40X/1.png",
        "v1/breast/malignant/SOB/b/s2/100X/1.png",
    ]
    facts = ingest.prepare(
        data,
        tmp_path / "to",
        [write_tar(tmp_path / "b.tar.gz", {n: jpeg(i) for i, n in enumerate(names)})],
        say=quiet,
    )
    assert facts["counts"] == {"a": 1, "b": 2}
    assert (tmp_path / "to/nested/malignant/SOB/b/s2/100X/1.png").is_file()


def test_a_second_published_count_is_accepted(tmp_path):
    data = data_set(
        layout={"all": ""}, counts={"a": 1, "b": 3}, source={"counts_also": {"a": 2, "b": 2}}
    )
    origin = write_folder(tmp_path / "f", {f"{c}/{i}.jpg": jpeg(i) for c in "ab" for i in range(2)})
    assert ingest.prepare(data, tmp_path / "to", [origin], say=quiet)["incomplete"] == []


def test_labels_from_a_table_like_isic(tmp_path):
    data = data_set(
        "isic",
        layout={"all": "Input"},
        counts={"Input/a": 2, "Input/b": 1},
        source={"format": "table", "table": "GroundTruth.csv"},
    )
    table = tmp_path / "GroundTruth.csv"
    table.write_text("image,b,a,UNK\nI1,0.0,1.0,0\nI2_downsampled,0,1,0\nI3,1.0,0,0\nI4,0,0,1\n")
    images = write_zip(
        tmp_path / "Input.zip",
        {f"Input/{n}.jpg": jpeg(i) for i, n in enumerate(["I1", "I2_downsampled", "I3", "I4"])},
    )
    facts = ingest.prepare(data, tmp_path / "to", [images, table], say=quiet)
    manifest = pd.read_csv(tmp_path / "to/isic/manifest.csv").set_index("image_id")
    assert manifest.label.to_dict() == {
        "Input/I1.jpg": 0,
        "Input/I2_downsampled.jpg": 0,
        "Input/I3.jpg": 1,
    }
    assert facts["skipped"] == ["Input/I4.jpg"]
    with pytest.raises(layout.WrongArchive, match="both files"):
        ingest.prepare(data, tmp_path / "other", [images], say=quiet)


def test_cifar_records_become_lossless_images(tmp_path):
    data = data_set(
        "cifar",
        classes=("a", "b", "c"),
        layout={"train": "train", "test": "test"},
        counts={},
        source={
            "format": "records",
            "label_bytes": 2,
            "records": {"train": ["train.bin"], "test": ["test.bin"]},
            "each": {"train": 2, "test": 1},
        },
    )
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (9, 3072), dtype=np.uint8)
    fine = np.array([2, 0, 1, 1, 0, 2, 0, 1, 2], np.uint8)
    records = np.concatenate([np.full((9, 1), 77, np.uint8), fine[:, None], pixels], axis=1)
    packed = write_tar(
        tmp_path / "c.tar.gz",
        {"c/train.bin": records[:6].tobytes(), "c/test.bin": records[6:].tobytes()},
    )
    facts = ingest.prepare(data, tmp_path / "to", [packed], say=quiet)
    assert facts["incomplete"] == []
    assert facts["counts"]["train/b"] == 2
    stored = np.asarray(Image.open(tmp_path / "to/cifar/train/b/00003.bmp"))
    assert (stored == pixels[3].reshape(3, 32, 32).transpose(1, 2, 0)).all()
    short = write_tar(
        tmp_path / "s.tar.gz",
        {"c/train.bin": records[:6].tobytes()[:-5], "c/test.bin": records[6:].tobytes()},
    )
    with pytest.raises(archive.CorruptArchive, match="odd length"):
        ingest.prepare(data, tmp_path / "o", [short], say=quiet)


# ---- volumes


def volume_set(edge=6, **facts):
    return data_set(
        "vol",
        kind="volumes",
        layout={"train": "train", "val": "val", "test": "test"},
        counts={"train": 4, "val": 2, "test": 3},
        source={"format": "volumes", "edge": edge, "files": [{"file": "vol.npz"}]},
        **facts,
    )


def write_volumes(path, edge=6, train=4, **more):
    random, arrays = np.random.default_rng(0), {}
    for split, number in (("train", train), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = random.integers(
            0, 256, (number, edge, edge, edge), dtype=np.uint8
        )
        arrays[f"{split}_labels"] = (np.arange(number) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(path, **arrays | more)
    return arrays | more


def test_volumes_stay_in_their_file_with_one_row_each(tmp_path):
    arrays = write_volumes(tmp_path / "any-name.npz")
    facts = ingest.prepare(volume_set(), tmp_path / "to", [tmp_path / "any-name.npz"], say=quiet)
    manifest = pd.read_csv(tmp_path / "to/vol/manifest.csv").set_index("image_id")
    assert facts["counts"] == {"train": 4, "val": 2, "test": 3}
    assert len(manifest) == 9
    assert (tmp_path / "to/vol/vol.npz").is_file()
    row = manifest.loc["val/000001"]
    assert (row.split, row.label, row.bytes, row.sha256) == (
        "val",
        1,
        216,
        sources.hashlib.sha256(arrays["val_images"][1].tobytes()).hexdigest(),
    )
    assert verify.check_prepared(volume_set(), tmp_path / "to/vol") == 9


def test_volumes_of_another_kind_are_refused(tmp_path):
    write_volumes(tmp_path / "edge.npz", edge=4)
    write_volumes(tmp_path / "few.npz", train=3)
    write_volumes(tmp_path / "pickle.npz", val_labels=np.array([{}, {}], object))
    write_volumes(tmp_path / "labels.npz", test_labels=np.array([0, 1, 9], np.uint8))
    write_volumes(tmp_path / "large.npz", train_images=np.zeros((4, 200, 200, 200), np.uint8))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "few.npz").read_bytes()[:-300])
    for name, error, words in (
        ("edge", layout.WrongArchive, "6 voxels"),
        ("few", verify.IncompleteSet, "1 of 4 absent"),
        ("pickle", archive.CorruptArchive, "pickle"),
        ("labels", archive.CorruptArchive, "damaged"),
        ("large", layout.WrongArchive, "another file"),
        ("cut", archive.CorruptArchive, "damaged"),
    ):
        with pytest.raises(error, match=words):
            ingest.prepare(volume_set(), tmp_path / "to", [tmp_path / f"{name}.npz"], say=quiet)
        assert left(tmp_path / "to") == []


# ---- incomplete, foreign, empty


def test_absent_images_are_named_refused_and_recorded(tmp_path, monkeypatch):
    files = tiny_files()
    monkeypatch.setattr(sources, "expected", lambda data: dict.fromkeys(tiny_files()))
    for name in ("Training/a/a1.jpg", "Testing/b/b0.jpg"):
        del files[name]
    origin = write_zip(tmp_path / "x.zip", files)
    with pytest.raises(
        verify.IncompleteSet, match=r"Testing/b/b0\.jpg, Training/a/a1\.jpg.*--accept-incomplete"
    ):
        ingest.prepare(data_set(), tmp_path / "to", [origin], say=quiet)
    assert left(tmp_path / "to") == []
    facts = ingest.prepare(data_set(), tmp_path / "to", [origin], accept_incomplete=True, say=quiet)
    assert facts["incomplete"] == ["Testing/b/b0.jpg", "Training/a/a1.jpg"]


def test_many_absent_images_are_counted_not_listed(monkeypatch):
    names = {f"Training/a/{i:03d}.jpg": None for i in range(60)} | {
        f"Training/b/{i}.jpg": None for i in range(3)
    }
    monkeypatch.setattr(sources, "expected", lambda data: names)
    data = data_set(counts={"Training/a": 60, "Training/b": 3})
    labels = {name: ("train", name.split("/")[1]) for name in names if name.endswith("0.jpg")}
    assert verify.absent(data, labels) == [
        "Training/b/1.jpg",
        "Training/b/2.jpg",
        "Training/a: 54 of 60 absent",
    ]
    monkeypatch.setattr(sources, "expected", lambda data: {})
    assert verify.absent(data, labels) == [
        "Training/a: 54 of 60 absent",
        "Training/b: 2 of 3 absent",
    ]


def test_other_versions_and_other_sets_are_refused(tmp_path, monkeypatch):
    more = write_zip(tmp_path / "more.zip", tiny_files() | {"Training/a/new.jpg": jpeg(99)})
    with pytest.raises(layout.WrongArchive, match="Training/a holds 4 images where tiny has 3"):
        ingest.prepare(data_set(), tmp_path / "to", [more], say=quiet)
    monkeypatch.setattr(
        sources, "expected", lambda data: dict.fromkeys(tiny_files()) | {"Training/b/x.jpg": None}
    )
    renamed = {name.replace("a2", "zz"): content for name, content in tiny_files().items()}
    assert (
        verify.absent(
            data_set(),
            {
                name: ("train" if "Train" in name else "test", name.split("/")[1])
                for name in renamed
            },
        )
        == []
    )
    del renamed["Training/a/a0.jpg"]
    with pytest.raises(layout.WrongArchive, match=r"Training/a/zz\.jpg"):
        ingest.prepare(
            data_set(), tmp_path / "to", [write_zip(tmp_path / "r.zip", renamed)], say=quiet
        )
    with pytest.raises(layout.WrongArchive, match="no folders Training/a"):
        ingest.prepare(
            data_set(),
            tmp_path / "to",
            [write_zip(tmp_path / "o.zip", {"yes/1.jpg": jpeg(1)})],
            say=quiet,
        )
    assert left(tmp_path / "to") == []


def test_empty_classes_are_refused_even_when_incomplete_is_accepted(tmp_path):
    lacking = {
        name: content for name, content in tiny_files().items() if not name.startswith("Testing/b")
    }
    with pytest.raises(verify.EmptyClass, match="no image of b in Testing"):
        ingest.prepare(
            data_set(),
            tmp_path / "to",
            [write_zip(tmp_path / "x.zip", lacking)],
            accept_incomplete=True,
            say=quiet,
        )
    assert left(tmp_path / "to") == []


def test_bad_images_are_named_refused_or_left_out(tmp_path):
    files = tiny_files() | {"Training/a/a0.jpg": b"", "Testing/b/b1.jpg": jpeg(3)[:200]}
    origin = write_zip(tmp_path / "x.zip", files)
    with pytest.raises(
        verify.BadImages, match=r"2 of 8 images.*Testing/b/b1\.jpg.*Training/a/a0\.jpg"
    ):
        ingest.prepare(data_set(), tmp_path / "to", [origin], say=quiet)
    assert left(tmp_path / "to") == []
    facts = ingest.prepare(data_set(), tmp_path / "to", [origin], accept_incomplete=True, say=quiet)
    assert facts["incomplete"] == [
        "Testing/b/b1.jpg (unreadable)",
        "Training/a/a0.jpg (unreadable)",
    ]
    assert facts["counts"]["Training/a"] == 2
    assert not (tmp_path / "to/tiny/Training/a/a0.jpg").exists()


def test_a_class_whose_only_image_is_bad_is_refused(tmp_path):
    origin = write_zip(tmp_path / "x.zip", tiny_files() | {"Testing/a/a0.jpg": b"no image"})
    with pytest.raises(verify.EmptyClass):
        ingest.prepare(data_set(), tmp_path / "to", [origin], accept_incomplete=True, say=quiet)
    assert left(tmp_path / "to") == []


# ---- hostile and damaged archives


@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "Training/a/../../../evil.jpg",
        "/tmp/evil.jpg",
        "C:\\evil.jpg",
        "Training\\..\\..\\evil.jpg",
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_names_that_leave_the_folder_are_refused(tmp_path, name, write):
    origin = write(tmp_path / "e.bin", tiny_files() | {name: jpeg(5)})
    with pytest.raises(archive.UnsafeArchive, match="outside"):
        ingest.prepare(data_set(), tmp_path / "a" / "to", [origin], say=quiet)
    assert left(tmp_path / "a" / "to") == []
    assert not list(tmp_path.rglob("evil*"))


def test_links_and_doubles_are_refused(tmp_path):
    link = zipfile.ZipInfo("Training/a/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "l.tar", "w") as file:
        info = tarfile.TarInfo("Training/a/link.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(info)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as file:
        file.writestr("Training/a/1.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("Training/a/1.jpg", b"2")
    for name, words in (("l.zip", "link"), ("l.tar", "link"), ("d.zip", "twice")):
        with pytest.raises(archive.UnsafeArchive, match=words):
            archive.open_source(tmp_path / name)


def test_bombs_are_refused_before_anything_is_written(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(8):
            file.writestr(f"Training/a/{i}.jpg", bytes(10 << 20))
    with (
        gzip.open(tmp_path / "b.tar.gz", "wb") as packed,
        tarfile.open(fileobj=packed, mode="w") as file,
    ):
        info = tarfile.TarInfo("Training/a/x.jpg")
        info.size = 80 << 20
        file.addfile(info, io.BytesIO(bytes(info.size)))
    for name in ("b.zip", "b.tar.gz"):
        with pytest.raises(archive.UnsafeArchive, match="unpacks to more than"):
            ingest.prepare(data_set(), tmp_path / "to", [tmp_path / name], say=quiet)
    with pytest.raises(archive.UnsafeArchive):
        archive.open_source(write_zip(tmp_path / "s.zip", tiny_files()), max_bytes=100)
    assert left(tmp_path / "to") == []


def test_damaged_archives_leave_nothing(tmp_path):
    whole = write_zip(tmp_path / "w.zip", tiny_files()).read_bytes()
    at = whole.index(tiny_files()["Testing/a/a0.jpg"]) + 300
    packed = write_tar(tmp_path / "w.tar.gz", tiny_files()).read_bytes()
    damaged = {
        "cut.zip": whole[: len(whole) // 2],
        "flip.zip": whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :],
        "page.zip": b"<html>",
        "none.zip": b"",
        "cut.tar.gz": packed[: len(packed) // 2],
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(archive.CorruptArchive, match=f"{name}.*fetch it again"):
            ingest.prepare(
                data_set(), tmp_path / "to", [tmp_path / name], accept_incomplete=True, say=quiet
            )
        assert left(tmp_path / "to") == []
    with pytest.raises(archive.CorruptArchive, match="no file"):
        ingest.prepare(data_set(), tmp_path / "to", [tmp_path / "absent.zip"], say=quiet)


def test_a_published_checksum_must_match(tmp_path, tiny_zip):
    found = sources.checksums(tiny_zip)
    good = data_set(source={"files": [{"file": "tiny.zip", "md5": found["md5"]}]})
    assert (
        ingest.prepare(good, tmp_path / "to", [tiny_zip], say=quiet)["archives"][0]["known"]
        == "published by the source"
    )
    bad = data_set(source={"files": [{"file": "tiny.zip", "md5": "0" * 32}]})
    with pytest.raises(ingest.ChecksumMismatch, match=found["md5"]):
        ingest.prepare(bad, tmp_path / "other", [tiny_zip], say=quiet)
    lines = []
    unknown = ingest.prepare(data_set(), tmp_path / "third", [tiny_zip], say=lines.append)
    assert unknown["archives"][0]["known"] is None
    assert found["sha256"] in lines[0]


# ---- disk, permissions, several runs, kills


def test_free_space_is_checked_first(tmp_path, tiny_zip, monkeypatch):
    monkeypatch.setattr(
        archive.shutil,
        "disk_usage",
        lambda path: SimpleNamespace(total=10**12, used=10**12, free=5000),
    )
    with pytest.raises(archive.NoSpace, match="free some space"):
        ingest.prepare(data_set(), tmp_path / "to", [tiny_zip], say=quiet)
    assert left(tmp_path / "to") == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, archive.NoSpace),
        (errno.EACCES, files_module.CannotWrite),
        (errno.EROFS, files_module.CannotWrite),
    ],
)
def test_a_disk_that_fails_midway_leaves_nothing(tmp_path, tiny_zip, monkeypatch, code, error):
    calls, replace = [], os.replace

    def failing(origin, target):
        calls.append(target)
        if len(calls) > 4:
            raise OSError(code, os.strerror(code), str(target))
        replace(origin, target)

    monkeypatch.setattr(archive.os, "replace", failing)
    with pytest.raises(error):
        ingest.prepare(data_set(), tmp_path / "to", [tiny_zip], say=quiet)
    monkeypatch.undo()
    assert left(tmp_path / "to") == []


def test_a_target_that_cannot_be_a_folder(tmp_path, tiny_zip):
    (tmp_path / "file").write_text("x")
    with pytest.raises(files_module.CannotWrite):
        ingest.prepare(data_set(), tmp_path / "file", [tiny_zip], say=quiet)
    write_folder(tmp_path / "to", {"tiny/mine.txt": b"x"})
    with pytest.raises(ingest.TargetTaken):
        ingest.prepare(data_set(), tmp_path / "to", [tiny_zip], say=quiet)
    assert (tmp_path / "to/tiny/mine.txt").exists()


def test_two_runs_at_once_are_kept_apart(tmp_path, tiny_zip):
    with (
        files_module.FolderLock(tmp_path / "to" / ".locks" / "tiny"),
        pytest.raises(ingest.PrepBusy, match="Another process"),
    ):
        ingest.prepare(data_set(), tmp_path / "to", [tiny_zip], say=quiet)
    assert ingest.prepare(data_set(), tmp_path / "to", [tiny_zip], say=quiet)["counts"] == COUNTS


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_data_prep as t
from data_prep import archive, ingest, verify, layout
module, name, calls = {module}, {name!r}, []
original = getattr(module, name)
def deadly(*given, **named):
    calls.append(1)
    if len(calls) > {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given, **named)
setattr(module, name, deadly)
ingest.prepare(t.data_set(), {to!r}, [{archive!r}], say=t.quiet)
"""


@pytest.mark.parametrize(
    ("module", "name", "after", "kept"),
    [
        ("archive", "_write", 4, 4),
        ("verify", "images_manifest", 0, 8),
        ("ingest.files", "write_json", 1, 0),
    ],
)
def test_a_killed_run_is_continued_and_ends_identically(
    tmp_path, tiny_zip, module, name, after, kept
):
    script = KILLED.format(
        tests=str(Path(__file__).parent),
        module=module,
        name=name,
        after=after,
        to=str(tmp_path / "to"),
        archive=str(tiny_zip),
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=paths.ROOT, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "to/tiny.partial").is_dir()
    assert not (tmp_path / "to/tiny").exists()
    lines = []
    ingest.prepare(data_set(), tmp_path / "to", [tiny_zip], say=lines.append)
    ingest.prepare(data_set(), tmp_path / "fresh", [tiny_zip], say=quiet)
    assert f"unpacked {8 - kept} of 8 files" in lines[1]
    assert left(tmp_path / "to") == left(tmp_path / "fresh")
    for name_ in left(tmp_path / "fresh"):
        if (tmp_path / "fresh" / name_).is_file():
            assert (tmp_path / "to" / name_).read_bytes() == (
                tmp_path / "fresh" / name_
            ).read_bytes()


def test_leftovers_of_another_archive_are_thrown_away(tmp_path, tiny_zip):
    partial = write_folder(
        tmp_path / "to/tiny.partial", {"Training/a/stray.jpg": jpeg(1), ".origin.json": b"[]"}
    )
    ingest.prepare(data_set(), tmp_path / "to", [tiny_zip], say=quiet)
    assert not partial.exists()
    assert not (tmp_path / "to/tiny/Training/a/stray.jpg").exists()


# ---- downloads


class Server(http.server.BaseHTTPRequestHandler):
    content, tag, breaks, status, ranges, seen = b"", '"v1"', 0, 200, True, []

    def do_GET(self):
        kind = type(self)
        kind.seen.append(self.headers.get("Range"))
        if kind.status != 200:
            self.send_response(kind.status)
            self.end_headers()
            kind.status = 200 if kind.status == 503 else kind.status
            return
        asked = (
            self.headers.get("Range")
            if kind.ranges and self.headers.get("If-Range") in (None, kind.tag)
            else None
        )
        start = int(asked[6:-1]) if asked else 0
        if start >= len(kind.content):
            self.send_response(416)
            self.end_headers()
            return
        body = kind.content[start:]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(kind.content) - 1}/{len(kind.content)}"
            )
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", kind.tag)
        self.end_headers()
        if kind.breaks:
            kind.breaks -= 1
            body = body[: len(body) // 3]
        self.wfile.write(body)

    def log_message(self, *given):
        pass


@pytest.fixture
def server():
    Server.content, Server.tag, Server.breaks, Server.status, Server.ranges, Server.seen = (
        os.urandom(300_000),
        '"v1"',
        0,
        200,
        True,
        [],
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/file.zip"
        running.shutdown()


def known():
    return {"bytes": len(Server.content), "md5": sources.hashlib.md5(Server.content).hexdigest()}


def get(server, tmp_path, facts=None, **options):
    return fetch.download(
        server,
        tmp_path / "d" / "file.zip",
        known() if facts is None else facts,
        say=quiet,
        pause=0.01,
        **options,
    )


def test_download_whole_and_never_twice(server, tmp_path):
    assert get(server, tmp_path).read_bytes() == Server.content
    assert left(tmp_path / "d") == ["file.zip"]
    get(server, tmp_path)
    assert len(Server.seen) == 1


def test_broken_transfers_go_on_where_they_stopped(server, tmp_path):
    Server.breaks = 3
    assert get(server, tmp_path).read_bytes() == Server.content
    starts = [int(asked[6:-1]) for asked in Server.seen[1:]]
    assert Server.seen[0] is None
    assert len(starts) == 3
    assert 0 < starts[0] <= 100_000
    assert starts == sorted(starts)


def test_a_new_process_goes_on_from_the_part(server, tmp_path):
    Server.breaks = 1
    with pytest.raises(fetch.DownloadFailed, match="run the command again"):
        get(server, tmp_path, attempts=1)
    assert left(tmp_path / "d") == ["file.zip.part", "file.zip.part.json"]
    assert get(server, tmp_path).read_bytes() == Server.content
    assert Server.seen[-1].startswith("bytes=")


def test_a_changed_file_or_a_server_without_ranges_starts_over(server, tmp_path):
    for ranges, tag in ((True, '"v2"'), (False, '"v2"')):
        Server.breaks = 1
        with pytest.raises(fetch.DownloadFailed):
            get(server, tmp_path, attempts=1)
        Server.content, Server.tag, Server.ranges = os.urandom(200_000), tag, ranges
        target = get(server, tmp_path)
        assert target.read_bytes() == Server.content
        target.unlink()
        Server.tag, Server.ranges = '"v1"', True


def test_a_part_that_is_too_long_starts_over(server, tmp_path):
    write_folder(tmp_path / "d", {"file.zip.part": bytes(400_000)})
    assert get(server, tmp_path).read_bytes() == Server.content


def test_wrong_checksum_throws_the_file_away(server, tmp_path):
    with pytest.raises(fetch.DownloadFailed, match=r"MD5.*thrown away"):
        get(server, tmp_path, {"md5": "0" * 32})
    with pytest.raises(fetch.DownloadFailed, match="another file"):
        get(server, tmp_path, {"bytes": 1000})
    assert not [name for name in left(tmp_path / "d") if not name.endswith(".json")]


def test_server_errors(server, tmp_path):
    Server.status = 503
    assert get(server, tmp_path).read_bytes() == Server.content
    Server.status = 404
    with pytest.raises(fetch.DownloadFailed, match="404"):
        fetch.download(server, tmp_path / "e" / "x", {}, say=quiet)


def test_no_network_gives_exact_instructions(tmp_path, monkeypatch):
    facts = [{"file": "v.npz", "url": "http://127.0.0.1:9/v.npz", "md5": "a" * 32, "bytes": 1234}]
    with pytest.raises(fetch.DownloadFailed) as caught:
        ingest.prepare(
            data_set(source={"page": "https://example.org/page", "files": facts}),
            tmp_path / "to",
            say=quiet,
        )
    first, *lines = str(caught.value).splitlines()
    assert first == "127.0.0.1 cannot be reached (connection refused)."
    assert left(tmp_path / "to") == []
    text = "\n".join(lines)
    for part in (
        "https://example.org/page",
        "v.npz (1,234 bytes, MD5 " + "a" * 32,
        str(tmp_path / "to" / "downloads"),
        f"python -m data_prep tiny --to {tmp_path / 'to'} --archive "
        f"{tmp_path / 'to' / 'downloads' / 'v.npz'}",
    ):
        assert part in text


def test_a_file_in_downloads_is_used(tmp_path, monkeypatch):
    (tmp_path / "to/downloads").mkdir(parents=True)
    origin = write_zip(tmp_path / "to/downloads/t.zip", tiny_files())
    monkeypatch.setattr(requests, "get", lambda *a, **k: pytest.fail("asked the network"))
    facts = ingest.prepare(
        data_set(source={"files": [{"file": "t.zip", "url": "http://127.0.0.1:9/"}]}),
        tmp_path / "to",
        say=quiet,
    )
    assert facts["counts"] == COUNTS
    assert origin.exists()


def test_kaggle_is_asked_for_the_pinned_version(tmp_path, monkeypatch):
    import kagglehub

    asked = []

    def download(handle):
        asked.append(handle)
        return str(
            write_folder(
                Path(os.environ["KAGGLEHUB_CACHE"]) / "datasets/o/d/versions/7",
                tiny_files("inner/"),
            )
        )

    monkeypatch.setattr(kagglehub, "dataset_download", download)
    monkeypatch.setenv("KAGGLEHUB_CACHE", "/elsewhere")
    data = data_set(source={"kaggle": "o/d/versions/7"})
    facts = ingest.prepare(data, tmp_path / "to", say=quiet)
    assert asked == ["o/d/versions/7"]
    assert facts["source"] == "o/d/versions/7"
    assert os.environ["KAGGLEHUB_CACHE"] == "/elsewhere"
    assert not (tmp_path / "to/downloads/kagglehub").exists()
    assert verify.check_prepared(data, tmp_path / "to/tiny") == 8

    def fails(handle):
        raise requests.ConnectionError("Failed to resolve 'api.kaggle.com'")

    monkeypatch.setattr(kagglehub, "dataset_download", fails)
    with pytest.raises(fetch.DownloadFailed, match=r"no network.*\n.*by hand") as caught:
        ingest.prepare(data, tmp_path / "other", say=quiet)
    assert "https://www.kaggle.com/datasets/o/d/versions/7" in str(caught.value)
    assert left(tmp_path / "other") == []


# ---- one's own data


def own_files(*tops):
    return {
        f"{top}{name}/{i}.png": jpeg(10 * t + i)
        for t, top in enumerate(tops)
        for name in ("cat", "dog")
        for i in range(3)
    }


def test_own_folder_becomes_a_registered_set(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_DATA", str(tmp_path / "to"))
    origin = write_folder(
        tmp_path / "pets", own_files("Train/", "validation/", "TEST/") | {"notes.txt": b"x"}
    )
    facts = folder.register(origin, "pets", tmp_path / "to", say=quiet)
    data = registry.get("pets")
    assert data.classes == ("cat", "dog")
    assert data.layout == {"train": "Train", "val": "validation", "test": "TEST"}
    assert not data.embedded
    index = registry.index("pets")
    assert list(index.split.value_counts().sort_index().items()) == [
        ("test", 6),
        ("train", 6),
        ("val", 6),
    ]
    assert facts["notes"] == {
        "named .png but JPEG": 18,
        "byte for byte another image of the set": 9,
    }
    assert registry.caveats("pets") == []
    assert command.known("pets", tmp_path / "to").classes == (
        "cat",
        "dog",
    )
    assert "pets" in command.listing(tmp_path / "to")


def test_own_folder_without_split_and_in_place(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_DATA", str(tmp_path))
    files = own_files("") | {"cat/bad.png": b"broken"}
    write_folder(tmp_path / "mine", files)
    with pytest.raises(verify.BadImages, match=r"bad\.png"):
        folder.register(tmp_path / "mine", "mine", tmp_path, say=quiet)
    facts = folder.register(tmp_path / "mine", "mine", tmp_path, accept_incomplete=True, say=quiet)
    assert facts["incomplete"] == ["cat/bad.png (unreadable)"]
    assert (tmp_path / "mine/cat/bad.png").exists()
    assert set(registry.index("mine").split) == {"all"}
    assert len(registry.index("mine")) == 6


def test_own_folder_mistakes(tmp_path):
    write_folder(tmp_path / "one", {"cat/1.jpg": jpeg(1)})
    lacking = {
        name: content
        for name, content in own_files("train/", "test/").items()
        if not name.startswith("test/dog")
    }
    write_folder(tmp_path / "lacking", lacking)
    for origin, name, error in (
        (tmp_path / "one", "x", folder.BadFolder),
        (tmp_path / "absent", "x", folder.BadFolder),
        (tmp_path / "one", "sartaj", folder.BadFolder),
        (tmp_path / "one", "../up", folder.BadFolder),
        (None, "x", folder.BadFolder),
        (tmp_path / "lacking", "x", verify.EmptyClass),
    ):
        with pytest.raises(error):
            folder.register(origin, name, tmp_path / "to", say=quiet)
    assert left(tmp_path / "to") == []


# ---- the registered sets and the command line


def test_every_registered_set_says_where_it_comes_from():
    for name in ingest.real_names():
        data = registry.get(name)
        source = data.source
        assert source.get("kaggle", "/versions/1").rsplit("/versions/", 1)[1].isdigit(), name
        assert source.get("kaggle") or source.get("files") or source.get("derived_from"), name
        assert all(
            file["file"] and file["url"].startswith("http") for file in source.get("files", [])
        ), name
        assert data.title in sources.instructions(data, "/x") or data.name in sources.instructions(
            data, "/x"
        )
        assert verify.published_counts(data), name
        assert len(set(data.classes)) == len(data.classes), name
        assert data.licence, name
        assert data.citation, name
        assert set(verify.published_counts(data)) == set(verify.count(data, [])), name
    totals = {
        "br35h": 3000,
        "sartaj": 3264,
        "nickparvar": 7023,
        "sign-digits": 2062,
        "cifar10": 60000,
        "cifar100": 60000,
        "kvasir-v2": 8000,
        "isic2019": 25331,
        "breakhis": 7909,
    }
    assert {
        name: sum(verify.published_counts(registry.get(name)).values()) for name in totals
    } == totals
    medmnist = [name for name in ingest.real_names() if "mnist3d" in name]
    assert len(medmnist) == 12
    assert sum(sum(registry.get(name).counts.values()) for name in medmnist) == 2 * 9996


@pytest.mark.parametrize("name", ["br35h", "nickparvar", "sartaj", "sign-digits"])
def test_the_lists_of_names_agree_with_the_published_counts(name):
    data = registry.get(name)
    counted = (
        pd.Series(list(sources.expected(data))).str.rpartition("/")[0].value_counts().to_dict()
    )
    assert counted == data.counts


def test_br35h_numbers_of_the_stand_in():
    names = [
        name for name in sources.expected(registry.get("nickparvar")) if stand_in.is_br35h(name)
    ]
    assert len(names) == 1500
    assert sum(name.startswith("Training/notumor") for name in names) == 1200


def test_command_line(tmp_path, capsys, monkeypatch):
    to = str(tmp_path / "to")
    assert command.main(["--list", "--to", to]) == 0
    assert "sartaj" in capsys.readouterr().out
    assert command.main(["no-such-set", "--to", to]) == 1
    assert "no-such-set" in capsys.readouterr().err
    assert command.main(["phantom4", "--to", to]) == 1
    assert "embedded" in capsys.readouterr().err
    assert command.main(["sartaj", "--check", "--to", to]) == 1
    assert "not prepared" in capsys.readouterr().err
    origin = write_folder(tmp_path / "pets", own_files(""))
    assert command.main(["folder", "--from", str(origin), "--name", "pets", "--to", to]) == 0
    assert "ready" in capsys.readouterr().out
    assert command.main(["pets", "--check", "--to", to]) == 0
    target = tmp_path / "to/pets/cat/1.png"
    target.unlink()
    target.write_bytes(jpeg(77))
    assert command.main(["pets", "--check", "--to", to]) == 1
    assert "cat/1.png" in capsys.readouterr().err
    assert (origin / "cat/1.png").read_bytes() != jpeg(77)


# ---- the real archives


REAL = {
    "br35h": ("br35h.zip", 3000),
    "sartaj": ("brain-tumor-classification-mri.zip", 3264),
    "nickparvar": ("brain-tumor-mri-dataset-224px.zip", 7019),
    "sign-digits": ("sign-language-digits-dataset.zip", 2062),
    "cifar10": ("cifar-10-images-12k.zip", 12000),
    "adrenalmnist3d-64": ("adrenalmnist3d_64.npz", 1584),
}
FOUR = [f"Training/notumor/Tr-no_{number}.jpg" for number in (1011, 1012, 1019, 1020)]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if shared_data() is None:
        pytest.skip("the real archives are not beside the checkout")
    return shared_data(), tmp_path_factory.mktemp("real")


@pytest.mark.parametrize("name", REAL)
def test_real_archives(real, name):
    archives, to = real
    file, number = REAL[name]
    if name in ("nickparvar", "cifar10"):
        with pytest.raises(verify.IncompleteSet) as caught:
            command.make(name, to, [archives / file], say=quiet)
        assert not (to / name).exists()
        assert not (to / f"{name}.partial").exists()
        assert name == "cifar10" or all(image in str(caught.value) for image in FOUR)
    facts = command.make(name, to, [archives / file], accept_incomplete=True, say=quiet)
    assert sum(facts["counts"].values()) == number
    assert facts["archives"][0]["known"]
    assert "known copy" in facts["checked"]
    assert facts["incomplete"] == {"nickparvar": FOUR}.get(
        name, facts["incomplete"] if name == "cifar10" else []
    )
    if name == "cifar10":
        assert "train/cat: 4000 of 5000 absent" in facts["incomplete"]
        assert len(facts["incomplete"]) == 20
    if name == "br35h":
        assert facts["notes"] == {
            "named .jpg but PNG": 13,
            "transparency": 3,
            "palette": 1,
            "byte for byte another image of the set": 1,
        }
        assert facts["masks"]["images"] == 801
        assert facts["masks"]["regions"] == 931
        assert verify.check_prepared(registry.get(name), to / name) == 3000
    if name == "sign-digits":
        assert facts["notes"] == {"EXIF orientation ignored": 3, "3024 x 3024 pixels": 3}
    if name == "nickparvar":
        assert facts["skipped"] == [
            "Testing/meningioma/.ipynb_checkpoints/Te-me_0011-checkpoint.jpg"
        ]


def test_stand_in_for_br35h(real):
    archives, to = real
    facts = command.make(
        "br35h-like", to, [archives / REAL["nickparvar"][0]], accept_incomplete=True, say=quiet
    )
    assert facts["counts"] == {"no": 1496, "yes": 1500}
    assert facts["stand_in_for"] == "br35h"
    assert facts["title"] == "Br35H-like (no = Br35H, yes = figshare/SARTAJ)"
    assert facts["incomplete"] == [f"no/{Path(image).name}" for image in FOUR]
    manifest = pd.read_csv(to / "br35h-like/manifest.csv")
    yes, no = manifest[manifest.class_name == "yes"], manifest[manifest.class_name == "no"]
    assert yes.sha256.is_unique
    assert no.sha256.nunique() == 1495
    assert set(yes.label) == {1}
    assert yes.image_id.str.extract(r"/T[re]-(gl|me|pi)")[0].value_counts().to_dict() == {
        "gl": 500,
        "me": 500,
        "pi": 500,
    }
    assert "known copy" in facts["checked"]
    assert json.loads((to / "br35h-like/dataset.json").read_text()) == facts
