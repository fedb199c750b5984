"""Downloads: pinned, resumable, checksummed; and one sentence with manual instructions when the
network says no.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import requests
from tqdm import tqdm

from data_prep import sources
from data_prep.archive import check_space
from kit.data import registry
from kit.errors import KitError
from kit.files import read_json, write_json

BLOCK = 1 << 16
TIMEOUT = (10, 60)
ATTEMPTS = 4
PAUSE = 2.0


class DownloadFailed(KitError):
    """The network or the server said no; the text ends with what to do by hand."""


class Interrupted(Exception):
    """A transfer broke off and may be continued."""


def obtain(
    data: registry.DataSet,
    to: Path,
    say: Callable[[str], object] = print,
    via: str | None = None,
) -> tuple[list[Path], Path | None]:
    """Files of a data set, from ``<to>/downloads`` or from the network.

    Parameters
    ----------
    data : kit.data.registry.DataSet
    to : Path
    say : callable
    via : {"files", "kaggle"}, optional
        The only route to take: the files of the source's own site, which need no account, or
        Kaggle. By default the former and, where that fails, the latter.

    Returns
    -------
    paths : list of Path
        Archives, or one folder that kagglehub has unpacked.
    temporary : Path or None
        Folder to remove once the set is made.

    Raises
    ------
    DownloadFailed
        With the manual instructions.
    """
    folder = Path(to) / "downloads"
    lying = [path for name in _file_names(data) if (path := folder / name).is_file()]
    if lying and len(lying) == max(1, len(data.source.get("files", []))):
        say(f"using {', '.join(str(path) for path in lying)}")
        return lying, None
    failed: list[str] = []
    for route in _routes(data, via):
        try:
            if route == "kaggle":
                return _kaggle(data.source["kaggle"], folder, say)
            return [_download(file, folder, say) for file in data.source["files"]], None
        except DownloadFailed as error:
            failed.append(str(error))
    _prune(folder)
    raise DownloadFailed("\n".join([*failed, sources.instructions(data, to)]))


def _routes(data: registry.DataSet, via: str | None) -> list[str]:
    known = [route for route in ("files", "kaggle") if data.source.get(route)]
    if via and via not in known:
        raise DownloadFailed(
            f"{data.name} cannot be had by way of {via}; known is {' and '.join(known)}."
        )
    return [via] if via else known


def _prune(folder: Path) -> None:
    """Remove the empty folders that a failed download leaves."""
    for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()


def _file_names(data) -> list[str]:
    files = [file["file"] for file in data.source.get("files", [])]
    return files or [copy["file"] for copy in data.source.get("copies", [])][:1]


def _download(file: dict, folder: Path, say) -> Path:
    if not file.get("url"):
        raise DownloadFailed(f"{file['file']} cannot be fetched automatically.")
    return download(file["url"], folder / file["file"], known=file, say=say)


def download(
    url: str,
    target: Path,
    known: dict,
    say: Callable[[str], object] = print,
    attempts: int = ATTEMPTS,
    pause: float = PAUSE,
) -> Path:
    """Fetch `url` into `target`, going on where an earlier attempt or an earlier process broke off.

    Parameters
    ----------
    url : str
    target : Path
        Written as ``<target>.part`` and renamed when it is whole and its checksum right; a target
        that is there is not fetched again.
    known : dict
        May hold bytes, md5, sha256.
    attempts : int
        How often to try again after a broken transfer.
    pause : float
        Seconds before the second attempt; doubled each time.

    Raises
    ------
    DownloadFailed
        If the server cannot be reached, has no such file, or sends something else.
    """
    target = Path(target)
    if target.is_file() and sources.same_file(sources.checksums(target), known) is not False:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    say(f"downloading {url}")
    for attempt in range(attempts):
        try:
            _transfer(url, part, known.get("bytes"))
            break
        except Interrupted as error:
            if attempt == attempts - 1:
                raise DownloadFailed(
                    f"{url} broke off {attempts} times ({error}); run the command again to go on "
                    "from there."
                ) from error
            time.sleep(pause * 2**attempt)
    found = sources.checksums(part)
    if sources.same_file(found, known) is False:
        part.unlink()
        kind = "sha256" if known.get("sha256") else "md5"
        raise DownloadFailed(
            f"{url} came with {kind.upper()} {found[kind]} instead of {known[kind]}; it was thrown "
            "away."
        )
    part.replace(target)
    _mark(part).unlink(missing_ok=True)
    return target


def _mark(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _transfer(url: str, part: Path, length: int | None) -> None:
    """One attempt. The server's ETag, kept beside the part, makes sure that both halves are of the
    same file.
    """
    start = part.stat().st_size if part.exists() else 0
    if start and start == length:
        return
    tag = read_json(_mark(part), default={}).get("etag")
    headers = (
        {"Accept-Encoding": "identity"}
        | ({"Range": f"bytes={start}-"} if start else {})
        | ({"If-Range": tag} if start and tag else {})
    )
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:
                part.unlink()
                raise Interrupted("the part on disk is longer than the file")
            _refuse(answer, url)
            resumed = answer.status_code == 206 and answer.headers.get(
                "Content-Range", ""
            ).startswith(f"bytes {start}-")
            write_json(_mark(part), {"url": url, "etag": answer.headers.get("ETag")})
            _receive(answer, part, start if resumed else 0, length)
    except requests.exceptions.ChunkedEncodingError as error:
        raise Interrupted("the connection was closed") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        if part.exists() and part.stat().st_size > start:
            raise Interrupted("the connection was lost") from error
        raise DownloadFailed(
            f"{requests.utils.urlparse(url).hostname} cannot be reached ({_cause(error)})."
        ) from error
    except requests.RequestException as error:
        raise DownloadFailed(f"{url} cannot be fetched ({_cause(error)}).") from error


def _refuse(answer, url: str) -> None:
    if answer.status_code in (429, 500, 502, 503, 504):
        raise Interrupted(f"the server answered {answer.status_code}")
    if answer.status_code not in (200, 206):
        raise DownloadFailed(
            f"{url} answered {answer.status_code} {answer.reason}; the address may have moved."
        )


def _receive(answer, part: Path, start: int, length: int | None) -> None:
    announced = int(answer.headers.get("Content-Length") or 0)
    total = length or (start + announced if announced else None)
    check_space(part.parent, (total or start) - start)
    with (
        part.open("ab" if start else "wb") as file,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for block in answer.iter_content(BLOCK):
            file.write(block)
            bar.update(len(block))
        written = file.tell()
    if total and written > total:
        part.unlink()
        raise DownloadFailed(
            f"{answer.url} sent {written:,} bytes where {total:,} were expected; it is another "
            "file."
        )
    if total and written < total:
        raise Interrupted(f"{written:,} of {total:,} bytes arrived")


def _cause(error: Exception) -> str:
    text = str(error)
    for sign, words in {
        "resolve": "no network or no name service",
        "refused": "connection refused",
        "timed out": "timed out",
        "unreachable": "network unreachable",
        "CERTIFICATE": "its certificate is not trusted here",
    }.items():
        if sign in text:
            return words
    return text.splitlines()[0][:120] if text else type(error).__name__


def _kaggle(handle: str, folder: Path, say):
    """Download through kagglehub into ``<downloads>/kagglehub`` (its own cache layout, which
    resumes); public sets need no account.
    """
    cache = folder / "kagglehub"
    say(f"downloading {handle} from Kaggle")
    before = os.environ.get("KAGGLEHUB_CACHE")
    os.environ["KAGGLEHUB_CACHE"] = str(cache)
    try:
        import kagglehub

        return [Path(kagglehub.dataset_download(handle))], cache
    except (requests.ConnectionError, requests.Timeout) as error:
        raise DownloadFailed(f"www.kaggle.com cannot be reached ({_cause(error)}).") from error
    except Exception as error:
        raise DownloadFailed(f"Kaggle did not give {handle} ({_cause(error)}).") from error
    finally:
        os.environ.pop("KAGGLEHUB_CACHE") if before is None else os.environ.update(
            KAGGLEHUB_CACHE=before
        )
