"""The tables of PBC-NAS in 3D about size and speed of networks: Table 5, the rows of Figure 3."""

import numpy as np
import pandas as pd

from kit.data import registry
from kit.evaluation import timing
from kit.report.artefacts import Artefacts
from kit.search.nas3d import resnet as nas3d_resnet
from kit.search.nas3d import space
from kit.search.nas3d.released import RELEASED
from kit.studies.pbcnas.plan import RESNETS, Plan
from kit.studies.pbcnas.runs import network_of, ranked
from kit.studies.pbcnas.tables import data_title, title


def complexity_table(chosen: dict, plan: Plan) -> pd.DataFrame:
    """Table 5: parameters with and without dead weights, multiply-adds and reductions against the
    benchmark's 3D ResNets, at the published volume size.

    Parameters
    ----------
    chosen : dict
        (published data set, row) -> (network, ...), from
        :func:`kit.studies.pbcnas.runs.contestants`.
    """
    rows, names = [], dict(plan.datasets)
    entries = [
        (data_title(key, names[key]), row, network, len(registry.get(names[key]).classes))
        for (key, row), (network, _) in chosen.items()
        if row not in RELEASED
    ]
    entries += [
        ("as published", name, released.network, released.classes)
        for name, released in RELEASED.items()
    ]
    for where, row, network, classes in entries:
        parameters, macs = space.parameters(network, classes), space.macs(network, classes)
        line = {
            "data": where,
            "network": title(row),
            "parameters": space.parameters(network, classes, dead=False),
            "parameters, with dead weights": parameters,
            "GMACs": macs / 1e9,
            "2 × GMACs": 2 * macs / 1e9,
        }
        for name in ("resnet18", "resnet50"):
            full = nas3d_resnet.costs(name, "3d", classes)
            line |= {
                f"times fewer parameters than {nas3d_resnet.title(name, '3d')}": full[0]
                / parameters,
                f"times fewer MACs than {nas3d_resnet.title(name, '3d')}": full[1] / macs,
            }
        rows.append(line)
    for name, (network, variant) in RESNETS.items():
        parameters, macs = nas3d_resnet.costs(network, variant)
        rows.append(
            {
                "data": "two classes",
                "network": title(name),
                "parameters": parameters,
                "parameters, with dead weights": parameters,
                "GMACs": macs / 1e9,
                "2 × GMACs": 2 * macs / 1e9,
            }
        )
    return pd.DataFrame(rows)


def speed_table(times: dict, peaks: dict, plan: Plan) -> pd.DataFrame:
    """What was measured of the networks, beside Table 5: network, device, voxels, median, lowest
    and highest milliseconds for a volume, megabytes that a training step adds.

    Parameters
    ----------
    times, peaks : dict
        From :func:`kit.studies.pbcnas.costs.latency` and :func:`kit.studies.pbcnas.costs.memory`.
    """
    table = timing.timing_table(times).rename(
        columns={
            "model": "network",
            "median": "volume (ms)",
            "min": "fastest (ms)",
            "max": "slowest (ms)",
        }
    )
    table = table.assign(
        **{
            "voxels": " × ".join([str(plan.edge)] * 3),
            f"training step of {plan.final.batch_size} (MB)": [
                np.nan if peaks[name] is None else peaks[name] / 1e6 for name in table["network"]
            ],
        }
    )
    return table[
        [
            "network",
            "device",
            "voxels",
            "volume (ms)",
            "fastest (ms)",
            "slowest (ms)",
            table.columns[-1],
        ]
    ]


def store_reductions(out: Artefacts) -> None:
    """Put the largest reductions of the released networks that the text may mean beside its claims:
    ResNet-18 3D over adrenal-90, ResNet-50 3D over synapse-223.
    """
    adrenal, synapse = RELEASED["adrenal-90"], RELEASED["synapse-223"]
    out.value(
        "claims/flops-reduction",
        nas3d_resnet.costs("resnet18", "3d")[1] / space.macs(adrenal.network, 2),
        exact=True,
    )
    out.value(
        "claims/parameter-reduction",
        nas3d_resnet.costs("resnet50", "3d")[0] / space.parameters(synapse.network, 2),
        exact=True,
    )


def trade_off_rows(searched: dict, long: pd.DataFrame, chosen: dict, plan: Plan) -> pd.DataFrame:
    """Rows of Figure 3: data, title, kind, accuracy (percent; of candidates the proxy's validation
    accuracy) with low and high, parameters, macs, all at this run's volume size.
    """
    rows, names = [], dict(plan.datasets)
    for key, methods in searched.items():
        classes, result = len(registry.get(names[key]).classes), next(iter(methods["ode"].values()))
        where = data_title(key, names[key])
        rows += [
            {
                "data": where,
                "title": f"candidate {c.number}",
                "kind": "candidate",
                "accuracy": 100 * c.fitness,
                **network_size(network_of(result, c), classes, plan.edge),
            }
            for c in ranked(result)
        ]
        for row, cells in long[long["key"] == key].groupby("row", sort=False):
            line, resnet = (
                cells.set_index("metric").loc["accuracy"],
                RESNETS.get(row.removesuffix(" (pbcnas)")),
            )
            if row.endswith("(benchmark)"):
                continue
            size = (
                dict(
                    zip(
                        ("parameters", "macs"),
                        nas3d_resnet.costs(*resnet, classes, plan.edge, 1, plan.resnet_width),
                        strict=True,
                    )
                )
                if resnet
                else network_size(chosen[key, row][0], classes, plan.edge)
            )
            kind = "ResNet" if resnet else "released" if row in RELEASED else "found"
            rows.append(
                {
                    "data": where,
                    "title": title(row),
                    "kind": kind,
                    "accuracy": 100 * line["value"],
                    "low": 100 * line["low"],
                    "high": 100 * line["high"],
                    **size,
                }
            )
    return pd.DataFrame(rows)


def network_size(network: space.Network3D, classes: int, edge: int) -> dict:
    """Parameters without dead weights and multiply-adds of a network, as columns."""
    return {
        "parameters": space.parameters(network, classes, dead=False),
        "macs": space.macs(network, classes, edge),
    }
