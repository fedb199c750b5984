"""``python -m data_prep <name> --to DIR [--archive FILE ...]``: fetch or unpack one data set,
verify it, lay it out.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep import folder, ingest, stand_in, verify
from kit import files, paths
from kit.data import registry
from kit.errors import KitError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 refused with one sentence)."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except KitError as error:
        print(f"data_prep: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"data_prep: {ingest.disk_error(error, options.to)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("data_prep: stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep", description="Prepare real data sets; `--list` shows them."
    )
    parser.add_argument("name", nargs="?", help="data set, or `folder` for one's own")
    parser.add_argument(
        "--to",
        default=str(paths.data_dir()),
        metavar="DIR",
        help="folder of all data sets (KIT_DATA; default %(default)s)",
    )
    parser.add_argument(
        "--archive",
        nargs="+",
        default=[],
        metavar="FILE",
        help="use these files, or one unpacked folder, instead of the network",
    )
    parser.add_argument(
        "--via",
        choices=["files", "kaggle"],
        help="take only this route: the files of the source's own site, or Kaggle",
    )
    parser.add_argument(
        "--accept-incomplete",
        action="store_true",
        help="go on with a copy that lacks images; every result says so",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the data sets and what is prepared"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare a prepared set with its manifest"
    )
    parser.add_argument(
        "--from", dest="origin", metavar="DIR", help="with `folder`: the images, one folder a class"
    )
    parser.add_argument(
        "--name", dest="own", metavar="NAME", help="with `folder`: what to call the data set"
    )
    return parser


def _run(options) -> None:
    to = Path(options.to).expanduser().resolve()
    if options.list or not options.name:
        return print(listing(to))
    if options.check:
        data = known(options.name, to)
        return print(
            f"{data.name}: {verify.check_prepared(data, to / data.name)} {data.kind} are as they "
            "were prepared"
        )
    if options.name == "folder":
        facts = folder.register(options.origin, options.own, to, options.accept_incomplete)
    else:
        facts = make(options.name, to, options.archive, options.accept_incomplete, via=options.via)
    print(f"ready: {to / facts['name']} (fingerprint {facts['fingerprint'][:12]})")
    if to != paths.data_dir():
        print(
            f"the notebooks look into {paths.data_dir()}; set KIT_DATA={to} or pass --data {to} to "
            "run_all.sh"
        )


def known(name: str, to: Path) -> registry.DataSet:
    """A prepared data set of the folder `to`, registered or one's own.

    Raises
    ------
    kit.data.registry.DatasetMissing
        If it is not prepared there.
    """
    facts = files.read_json(to / name / "dataset.json", default=None)
    if facts is None:
        raise registry.DatasetMissing(
            f"{name} is not prepared in {to}; run the command without --check."
        )
    return folder.from_entry(name, facts["entry"]) if "entry" in facts else ingest.data_set(name)


def make(
    name: str,
    to: Path | str,
    archives: Sequence[Path | str] = (),
    accept_incomplete: bool = False,
    say: Callable[[str], object] = print,
    via: str | None = None,
) -> dict:
    """Prepare the registered data set `name`; see :func:`data_prep.ingest.prepare`."""
    data = ingest.data_set(name)
    if data.source.get("derived_from"):
        return stand_in.make(data, to, archives, accept_incomplete, say)
    return ingest.prepare(data, to, archives, accept_incomplete, say, via=via)


def listing(to: Path) -> str:
    """One line a data set: name, whether it is prepared, title; one's own sets at the end."""
    prepared = {
        path.parent.name: files.read_json(path) for path in sorted(to.glob("*/dataset.json"))
    }
    titles = {name: registry.get(name).title for name in ingest.real_names()}
    titles |= {name: "one's own" for name, facts in prepared.items() if "entry" in facts}
    state = {
        name: "incomplete" if facts["incomplete"] else "ready" for name, facts in prepared.items()
    }
    return "\n".join(
        f"{name:20} {state.get(name, '-'):11} {title}" for name, title in titles.items()
    )


if __name__ == "__main__":
    sys.exit(main())
