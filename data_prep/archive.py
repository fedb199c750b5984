"""Unpacking what came from outside: zip and tar archives and plain folders behind one small
interface.

Nothing in an archive is trusted: names that leave the target folder, links and devices, encrypted
or doubled members, and contents that are far larger than the archive itself are refused before
anything is written. Every file is written under a temporary name and moved into place, so an
unpacking that was killed goes on where it stopped.
"""

import contextlib
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.errors import KitError

MAX_RATIO = 50
RATIO_FLOOR = 64 << 20
SPARE = 64 << 20
BLOCK = 1 << 20
READ_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


class CorruptArchive(KitError):
    """The archive cannot be read to its end."""


class UnsafeArchive(KitError):
    """The archive tries to write outside its folder, or unpacks to far more than it should."""


class NoSpace(KitError):
    """The disk has not enough room."""


@dataclass(frozen=True)
class Member:
    """One regular file of an archive: posix name, length in bytes, CRC-32 where the archive stores
    one.
    """

    name: str
    size: int
    crc: int | None = None


class Source:
    """What the three kinds have in common; `path` is the archive or folder."""

    # each kind has its own
    _list: Callable[[], Iterator[Member]]
    each: Callable[[set[str]], Iterator[tuple[Member, Iterator[bytes]]]]

    def __init__(self, path: Path | str, max_bytes: int = 64 << 30) -> None:
        self.path, self.max_bytes = Path(path), max_bytes
        self.members = {member.name: member for member in self._checked()}

    def _checked(self):
        seen, total = set(), 0
        limit = min(self.max_bytes, max(RATIO_FLOOR, MAX_RATIO * self._packed()))
        with self._reading():
            for member in self._list():
                total += member.size
                if total > limit:
                    raise UnsafeArchive(
                        f"{self.path} unpacks to more than {limit / 1e6:,.0f} MB, far more than "
                        "the data set holds; "
                        "it is not the archive that is meant."
                    )
                if member.name in seen:
                    raise UnsafeArchive(f"{self.path} holds {member.name} twice; fetch it again.")
                if any(0xD800 <= ord(letter) <= 0xDFFF or letter < " " for letter in member.name):
                    raise UnsafeArchive(
                        f"{self.path} holds a file whose name cannot be written ({member.name!r}); "
                        "rename it."
                    )
                seen.add(member.name)
                yield member

    @contextlib.contextmanager
    def _reading(self):
        try:
            yield
        except READ_ERRORS as error:
            raise CorruptArchive(
                f"{self.path} is damaged or incomplete "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); fetch it "
                "again."
            ) from error

    def _blocks(self, stream):
        with self._reading():
            while block := stream.read(BLOCK):
                yield block

    def _packed(self) -> int:
        return self.path.stat().st_size

    def read(self, name: str) -> bytes:
        """Content of one member."""
        return next(b"".join(blocks) for _, blocks in self.each({name}))


class ZipSource(Source):
    """A ZIP file; encrypted ones and ones that hold links are refused."""

    def _list(self):
        with zipfile.ZipFile(self.path) as file:
            for info in file.infolist():
                name = safe_name(info.filename, self.path)
                if info.flag_bits & 1:
                    raise CorruptArchive(
                        f"{self.path} is encrypted; unpack it yourself and give the folder with "
                        "--archive."
                    )
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise UnsafeArchive(
                        f"{self.path} holds a link ({name}); it is not the archive that is meant."
                    )
                if not info.is_dir():
                    yield Member(name, info.file_size, info.CRC)

    def each(self, wanted: set[str]) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Yield (member, blocks of bytes) for the `wanted` names in the archive's order."""
        with self._reading(), zipfile.ZipFile(self.path) as file:
            for info in file.infolist():
                name = safe_name(info.filename, self.path)
                if name in wanted and not info.is_dir():
                    with file.open(info) as stream:
                        yield self.members[name], self._blocks(stream)


class TarSource(Source):
    """A tar file, compressed or not; ones that hold links or devices are refused."""

    def _list(self):
        with tarfile.open(self.path, "r:*") as file:
            for info in file:
                name = safe_name(info.name, self.path)
                if info.isdir():
                    continue
                if not info.isreg():
                    raise UnsafeArchive(
                        f"{self.path} holds a link or device ({name}); it is not the archive that "
                        "is meant."
                    )
                yield Member(name, info.size)

    def each(self, wanted: set[str]) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Yield (member, blocks of bytes) for the `wanted` names in the archive's order."""
        with self._reading(), tarfile.open(self.path, "r:*") as file:
            for info in file:
                name = safe_name(info.name, self.path)
                if name in wanted and info.isreg():
                    stream = file.extractfile(info)
                    yield self.members[name], self._blocks(stream)


class FolderSource(Source):
    """A folder of files that somebody has unpacked already."""

    def _packed(self) -> int:
        return self.max_bytes

    def _list(self):
        for path in sorted(self.path.rglob("*")):
            if path.is_file():
                yield Member(path.relative_to(self.path).as_posix(), path.stat().st_size)

    def each(self, wanted: set[str]) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Yield (member, blocks of bytes) for the `wanted` names."""
        for name in sorted(wanted & set(self.members)):
            with (self.path / name).open("rb") as stream:
                yield self.members[name], self._blocks(stream)


class FileSource(Source):
    """A single file that is no archive (an .npz, a .csv): its only member is itself."""

    def _list(self):
        yield Member(self.path.name, self.path.stat().st_size)

    def each(self, wanted: set[str]) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Yield (member, blocks of bytes) of the file."""
        if self.path.name in wanted:
            with self.path.open("rb") as stream:
                yield self.members[self.path.name], self._blocks(stream)


class Bundle(Source):
    """Several sources as one, for data sets that come in several files."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources, self.path = list(sources), sources[0].path
        self.members = {
            name: member for source in self.sources for name, member in source.members.items()
        }

    def each(self, wanted: set[str]) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Yield (member, blocks of bytes) for the `wanted` names, source by source."""
        for source in self.sources:
            yield from source.each(wanted & set(source.members))


def open_source(path: Path | str, max_bytes: int = 64 << 30) -> Source:
    """The right :class:`Source` for a folder, a zip, a tar (compressed or not) or a single .npz or
    .csv file.

    Raises
    ------
    CorruptArchive
        If the file is absent, neither of these, or damaged.
    UnsafeArchive
        If its members are not what a data set has.
    """
    path = Path(path)
    if path.is_dir():
        return FolderSource(path, max_bytes)
    if not path.is_file():
        raise CorruptArchive(f"There is no archive {path}; check the path.")
    if path.suffix in (".npz", ".csv"):
        return FileSource(path, max_bytes)
    kind = ZipSource if path.suffix == ".zip" or zipfile.is_zipfile(path) else TarSource
    return kind(path, max_bytes)


def safe_name(raw: str, archive: object) -> str:
    """A member's name as a clean posix path; refuses absolute names, drive letters and `..`."""
    name = raw.replace("\\", "/")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise UnsafeArchive(
            f"{archive} tries to write outside its folder ({raw!r}); it is not the archive that is "
            "meant, do not unpack it."
        )
    return "/".join(part for part in parts if part not in ("", "."))


def check_space(folder: Path | str, needed: int) -> None:
    """Refuse if the disk of `folder` has less than `needed` bytes and some to spare."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise NoSpace(
            f"{folder} has {free / 1e6:,.0f} MB free and needs {(needed + SPARE) / 1e6:,.0f} MB; "
            "free some space or choose another folder with --to."
        )


def unpack(source: Source, targets: dict, folder: Path | str) -> int:
    """Write members of `source` below `folder`; what already lies there complete is kept.

    Parameters
    ----------
    source : Source
    targets : dict
        Member name -> path below `folder` (posix).
    folder : path-like

    Returns
    -------
    int
        Number of files written, without those that were kept.
    """
    folder = Path(folder)
    keep = not isinstance(source, FolderSource)
    todo = {
        name
        for name, target in targets.items()
        if not (keep and _complete(folder / target, source.members[name]))
    }
    check_space(folder, sum(source.members[name].size for name in todo))
    for parent in {(folder / targets[name]).parent for name in todo}:
        parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, FolderSource):
        for name in todo:
            link_or_copy(source.path / name, folder / targets[name])
        return len(todo)
    for member, blocks in source.each(todo):
        _write(folder / targets[member.name], blocks, member, source.path)
    return len(todo)


def link_or_copy(origin: Path | str, target: Path | str) -> None:
    """Hard link `target` to `origin`, or copy where the file system cannot."""
    target = Path(target)
    temporary = target.with_name(f".tmp-{target.name}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(Path(origin).resolve(), temporary)
    except OSError:
        shutil.copyfile(origin, temporary)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)


def _complete(path: Path, member: Member) -> bool:
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    return member.crc is None or zlib.crc32(path.read_bytes()) == member.crc


def _write(path: Path, blocks, member: Member, archive) -> None:
    temporary, written = path.with_name(f".tmp-{path.name}"), 0
    with temporary.open("wb") as file:
        for block in blocks:
            file.write(block)
            written += len(block)
    if written != member.size:
        raise CorruptArchive(
            f"{archive} is damaged ({member.name} has {written} of {member.size} bytes); fetch it "
            "again."
        )
    temporary.replace(path)
