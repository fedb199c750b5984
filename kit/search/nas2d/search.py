"""Architecture searches: one configuration in, one finished run folder with the searched cells out;
seeded, resumable, never repeated.

The loop is that of the reference codes: an architecture step on a batch of the second half, then a
weight step on a batch of the first, and for LeaSE a step of the audience. It differs from them in
what surrounds it: the halves are stratified and drawn with a logged seed (theirs are the first and
the second half by index, which is fatal on folders sorted by class); batches, perturbations and
dropout follow from (seed, epoch, step), so that a killed search goes on bit-identically; cells and
skip connections are kept for every epoch, and a collapse is warned of. The accuracy on the second
half is measured with the statistics of the batches, since the supernet keeps no moving ones.
"""

import time
from collections.abc import Iterable

import numpy as np
import pandas as pd

from kit import compat, files, paths, record
from kit.data import inputs as data_inputs
from kit.data import split
from kit.search.nas2d import genotype, gradient_check, memory, search_loop, search_state, uniformity

# the usual way in
from kit.search.nas2d.search_config import BadSearch, SearchConfig, seeds  # noqa: F401
from kit.search.nas2d.search_state import State
from kit.training import predictions
from kit.training.train import Diverged, OutOfMemory

CELLS, SNAPSHOTS, ARCH, STATE = "genotype.json", "genotypes.json", "arch.npz", "state.npz"


def halves(
    inputs: data_inputs.Inputs, rows: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Split training images at random into two halves of the same class proportions: row numbers,
    ascending.

    Raises
    ------
    kit.data.split.ImpossibleSplit
        If a class has too few images.
    """
    table = inputs.index.iloc[np.asarray(rows)]
    first, second = split.holdout(
        table, test_size=len(table) - len(table) // 2, seed=seed, stratified=True
    )
    return np.sort(inputs.rows(first)), np.sort(inputs.rows(second))


def search(
    config: SearchConfig, inputs: data_inputs.Inputs, rows_a: np.ndarray, rows_b: np.ndarray
) -> record.Run:
    """Search, or return the finished run of the same configuration.

    Parameters
    ----------
    config : SearchConfig
    inputs : kit.data.inputs.Inputs
        uint8 images.
    rows_a, rows_b : array-like of int
        Row numbers of the half that trains weights (explainer and audience) and of the half that
        the architecture is judged by; see :func:`halves`.

    Returns
    -------
    kit.record.Run
        Finished: genotype.json, genotypes.json, history.csv and arch.npz are in its folder.

    Raises
    ------
    kit.data.inputs.BadSplit, BadSearch, kit.training.train.Diverged,
    kit.training.train.OutOfMemory, kit.files.FolderBusy
    kit.search.nas2d.gradient_check.NotLease
        If the architecture gradient is not that of LeaSE; measured before the first step.
    """
    rows_a, rows_b = np.asarray(rows_a), np.asarray(rows_b)
    run = folder(config, inputs, rows_a, rows_b)
    if run.finished:
        return run
    _check(config, inputs, rows_a, rows_b)
    with files.FolderLock(run.folder, wait=20):
        if not run.finished:
            _search(run, config, inputs, rows_a, rows_b)
    return run


def folder(
    config: SearchConfig, inputs: data_inputs.Inputs, rows_a: np.ndarray, rows_b: np.ndarray
) -> record.Run:
    """The run of a configuration, begun, finished or not there yet."""
    return record.Run(
        paths.results_dir() / config.profile / config.paper / "runs",
        config.name,
        run_key(config, inputs, np.asarray(rows_a), np.asarray(rows_b)),
    )


def run_key(
    config: SearchConfig, inputs: data_inputs.Inputs, rows_a: np.ndarray, rows_b: np.ndarray
) -> dict:
    """What config.json records and the run is keyed by: settings, data facts and the exact images
    of both halves.
    """
    return {
        "task": "search",
        **config.key(),
        "data": inputs.facts,
        "parts": inputs.members({"a": np.sort(rows_a), "b": np.sort(rows_b)}),
    }


def _check(config, inputs, rows_a, rows_b) -> None:
    if inputs.x.dtype != np.uint8 or inputs.x.ndim != 4:
        raise BadSearch(
            f"A search needs uint8 images, not {inputs.x.dtype} of shape {inputs.x.shape[1:]}; "
            "load them with kit.data.images.load."
        )
    data_inputs.check_parts(inputs, {"training half a": rows_a, "training half b": rows_b})
    if np.intersect1d(rows_a, rows_b).size:
        raise BadSearch(
            "The two halves share images; an architecture must be judged by others than those that "
            "train its weights (see kit.search.nas2d.search.halves)."
        )


def search_all(
    configs: Iterable[SearchConfig],
    inputs: data_inputs.Inputs,
    rows_a: np.ndarray,
    rows_b: np.ndarray,
) -> dict:
    """Several searches, name -> finished run; one that diverges, runs out of memory or turns out
    not to follow LeaSE's gradient is reported and left out, the others are not touched.
    """
    finished = {}
    for config in configs:
        try:
            finished[config.name] = search(config, inputs, rows_a, rows_b)
        except (Diverged, OutOfMemory, gradient_check.NotLease) as error:
            print(f"left out: {error}", flush=True)
    return finished


def _search(run, config, inputs, rows_a, rows_b) -> None:
    run.open(config.seed)
    started = time.perf_counter()
    try:
        with predictions.memory(config.name, config.batch_size):
            state, first = _stages(run, config, inputs, rows_a, rows_b)
    except (Diverged, OutOfMemory, gradient_check.NotLease) as error:
        run.close("failed", time.perf_counter() - started, str(error))
        raise
    _write_result(run, config, state)
    run.close("finished", float(run.history()["seconds"].sum()), resumed_at=first)
    (run.folder / STATE).unlink(missing_ok=True)


def _stages(run, config, inputs, rows_a, rows_b):
    compat.same_bits()
    file, state = run.folder / STATE, None
    if file.exists():
        state = search_state.load(file)
        print(
            f"{config.name}: goes on after epoch {state.epoch} of {config.total_epochs}", flush=True
        )
    first = state.epoch if state else 0
    task = search_loop.Task(config, inputs, rows_a, rows_b)
    for epoch in range(first, config.total_epochs):
        stage, within = divmod(epoch, config.epochs)
        if within == 0:
            state = _next_stage(task, state, stage)
        space = task.space(stage, state.survivors)
        if within == 0 or epoch == first:
            _refuse_too_large(config, space, task)
        if epoch == 0:
            _check_gradient(run, task, state)
        _epoch(task, space, state, stage, within)
        search_state.save(file, state)
        files.write_csv(run.folder / "history.csv", pd.DataFrame(state.rows))
        files.write_json(run.folder / SNAPSHOTS, state.snapshots)
    return state, first


def _next_stage(task, state, stage: int) -> State:
    """The state that a stage begins with; P-DARTS drops the weakest operations of every
    edge first.
    """
    config, survivors = task.config, None
    if stage:
        before = state.survivors or (None, None)
        alphas = search_state.visible_arch(config, state)
        survivors = tuple(
            genotype.keep_operations(alpha, kept, config.keep[stage - 1])
            for alpha, kept in zip(alphas, before, strict=True)
        )
    return search_state.begin(
        config, task.space(stage, survivors), task.size, stage, earlier=state, survivors=survivors
    )


def _refuse_too_large(config, space, task) -> None:
    if compat.use_xla():
        return  # what counts is the memory of the GPU, which the estimate knows nothing of
    memory.check(
        memory.estimate(
            space,
            task.size,
            config.batch_size,
            order=config.order,
            mode=config.mode,
            lease=config.lease is not None,
            audience=config.audience,
            audience_options=config.audience_options,
        )
    )


def _check_gradient(run, task, state) -> None:
    found = gradient_check.measure(task, state)
    if found is None:
        return
    print(gradient_check.sentence(task.config.name, found), flush=True)
    files.write_json(run.folder / gradient_check.NAME, found)
    gradient_check.refuse(task.config.name, found, task.config.gamma)


def _epoch(task, space, state: State, stage: int, within: int) -> None:
    """One epoch, in place: its steps, the measurement on the second half, a row of the history and
    a snapshot of the cells.
    """
    config, started = task.config, time.perf_counter()
    rates = search_loop.learning_rates(task, stage, within)
    before = search_state.visible_arch(config, state)
    measured = search_loop.train_epoch(task, space, state, stage, within) | search_loop.measure(
        task, space, state
    )
    state.epoch += 1
    row = {
        "epoch": state.epoch,
        "stage": stage + 1,
        "learning_rate": rates["lr"],
        **measured,
        "moved": search_state.distance(before, search_state.visible_arch(config, state)),
        **_cells(config, state, stage),
    }
    state.rows.append({**row, "seconds": round(time.perf_counter() - started, 3)})
    _report(config, state.rows)


def _cells(config, state, stage: int) -> dict:
    limited, free = search_state.cells(config, state)
    skips, warning = genotype.skip_connections(free), genotype.collapse(free)
    entropy, margin = (
        uniformity.facts(search_state.visible_arch(config, state))[name]
        for name in ("entropy", "margin")
    )
    state.snapshots.append(
        {
            "epoch": state.epoch,
            "stage": stage + 1,
            "normal": limited.normal,
            "reduce": limited.reduce,
            "warning": warning,
        }
    )
    return {
        "entropy_normal": entropy[0],
        "entropy_reduce": entropy[1],
        "margin_normal": margin[0],
        "margin_reduce": margin[1],
        "updates": int(state.updates),
        "skips_normal": skips["normal"],
        "skips_reduce": skips["reduce"],
        "collapse": warning is not None,
    }


def _report(config, rows) -> None:
    last, before = rows[-1], rows[-2] if len(rows) > 1 else {"collapse": False}
    print(
        f"{config.name}  epoch {last['epoch']}/{config.total_epochs}  loss {last['loss']:.4f}  "
        f"accuracy {last['accuracy']:.4f}  val_loss {last['val_loss']:.4f}  "
        f"val_accuracy {last['val_accuracy']:.4f}  skips "
        f"{last['skips_normal']}/{last['skips_reduce']}  {last['seconds']:.1f} s",
        flush=True,
    )
    if last["collapse"] and not before["collapse"]:
        print(
            f"{config.name}: {last['skips_normal']} skip connections in the normal cell, the "
            f"search may have collapsed (see {SNAPSHOTS})",
            flush=True,
        )


def _write_result(run, config, state) -> None:
    names = ("alpha_normal", "alpha_reduce", "beta_normal", "beta_reduce")
    with files.atomic_write(run.folder / ARCH) as temporary:
        np.savez(
            temporary, **dict(zip(names, search_state.visible_arch(config, state), strict=False))
        )
    limited, free = search_state.cells(config, state)
    facts = {
        "family": config.family,
        "name": config.name,
        "seed": config.seed,
        "epoch": state.epoch,
        "lease": config.lease is not None,
        "survivors": state.survivors,
        "warning": genotype.collapse(free),
        "hypergradient": files.read_json(run.folder / gradient_check.NAME, default=None),
    }
    genotype.to_json(limited, run.folder / CELLS, **facts)


def found(run: record.Run) -> genotype.Genotype:
    """The searched cells of a finished run."""
    return genotype.from_json(run.folder / CELLS)


def snapshots(run: record.Run) -> list[tuple[int, genotype.Genotype]]:
    """(epoch, cells) for every epoch of a run, finished or not."""
    return [
        (entry["epoch"], genotype.Genotype(entry["normal"], entry["reduce"]))
        for entry in files.read_json(run.folder / SNAPSHOTS)
    ]


def spread(values: dict) -> pd.DataFrame:
    """What several search seeds say of each method.

    Parameters
    ----------
    values : dict
        Method -> list of one number a seed (an accuracy, for instance).

    Returns
    -------
    pandas.DataFrame
        Indexed by method: seeds, mean, sd (n - 1; NaN for one seed), lowest, highest.
    """
    rows = {
        m: {
            "seeds": len(v),
            "mean": np.mean(v),
            "sd": np.std(v, ddof=1) if len(v) > 1 else np.nan,
            "lowest": min(v),
            "highest": max(v),
        }
        for m, v in values.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
