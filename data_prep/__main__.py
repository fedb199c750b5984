"""``python -m data_prep <name> --to DIR [--archive FILE ...]``: fetch or unpack one data set, verify it, lay it out."""

import argparse
import sys

from data_prep import folder, ingest, stand_in, verify
from kit import paths, record, registry
from kit.errors import KitError


def main(arguments=None) -> int:
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
    parser = argparse.ArgumentParser(prog="python -m data_prep", description="Prepare real data sets; `--list` shows them.")
    parser.add_argument("name", nargs="?", help="data set, or `folder` for one's own")
    parser.add_argument("--to", default=str(paths.data_dir()), metavar="DIR", help="folder of all data sets (KIT_DATA; default %(default)s)")
    parser.add_argument("--archive", nargs="+", default=[], metavar="FILE", help="use these files, or one unpacked folder, instead of the network")
    parser.add_argument("--accept-incomplete", action="store_true", help="go on with a copy that lacks images; every result says so")
    parser.add_argument("--list", action="store_true", help="list the data sets and what is prepared")
    parser.add_argument("--check", action="store_true", help="compare a prepared set with its manifest")
    parser.add_argument("--from", dest="origin", metavar="DIR", help="with `folder`: the images, one folder a class")
    parser.add_argument("--name", dest="own", metavar="NAME", help="with `folder`: what to call the data set")
    return parser


def _run(options) -> None:
    if options.list or not options.name:
        return print(listing(options.to))
    if options.name == "folder":
        facts = folder.register(options.origin, options.own, options.to, options.accept_incomplete)
    elif options.check:
        data, root = registry.get(options.name), ingest.Path(options.to) / options.name
        if not (root / "dataset.json").exists():
            raise registry.DatasetMissing(f"{options.name} is not prepared in {options.to}; leave --check out to prepare it.")
        return print(f"{options.name}: {verify.check_prepared(data, root)} files are as they were prepared")
    else:
        facts = make(options.name, options.to, options.archive, options.accept_incomplete)
    print(f"ready: {ingest.Path(options.to) / facts['name']} (fingerprint {facts['fingerprint'][:12]})")
    if ingest.Path(options.to).expanduser().resolve() != paths.data_dir():
        print(f"the notebooks look into {paths.data_dir()}; set KIT_DATA={options.to} or pass --data {options.to} to run_all.sh")


def make(name: str, to, archives=(), accept_incomplete: bool = False, say=print) -> dict:
    """Prepare the registered data set `name`; see :func:`data_prep.ingest.prepare`."""
    data = ingest.data_set(name)
    if data.source.get("derived_from"):
        return stand_in.make(data, to, archives, accept_incomplete, say)
    return ingest.prepare(data, to, archives, accept_incomplete, say)


def listing(to) -> str:
    """One line a data set: name, whether it is prepared, title."""
    lines = []
    for name in ingest.real_names():
        facts = record.read_json(ingest.Path(to) / name / "dataset.json", default=None)
        state = "-" if facts is None else "incomplete" if facts["incomplete"] else "ready"
        lines.append(f"{name:20} {state:11} {registry.get(name).title}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
