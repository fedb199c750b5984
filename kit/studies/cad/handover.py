"""What notebook 20 leaves for the application: one trained model with its card and the statistics
of its training images.

The authors' repository names weights files that it does not hold; here the run that was evaluated
is the model that is served.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from kit import files as files_module
from kit import paths, record
from kit.data import registry
from kit.evaluation import metrics
from kit.models import backbone_catalog, backbones, saved
from kit.serving import classifier
from kit.serving.info import Measured, ModelInfo
from kit.studies.cad import plan as cad_plan
from kit.studies.cad import runs, tables

if TYPE_CHECKING:
    import keras


def leave(
    plan: cad_plan.Plan, run: record.Run, name: str, free_ids: Collection[str], images: int = 600
) -> Path:
    """Write ``results/<profile>/cad/model`` from a finished run, unless it is there already.

    Parameters
    ----------
    plan : kit.studies.cad.plan.Plan
    run : kit.record.Run
        Of :func:`kit.studies.cad.runs.run`, with its weights kept.
    name : str
        Key of ``kit.models.backbone_catalog.BACKBONES``.
    free_ids : collection of str
        Test images without a copy in the training folder.
    images : int
        Most training images that the statistics of familiar images are taken from; half as many
        validation images.
    """
    folder = paths.results_dir() / plan.profile / "cad" / "model"
    if files_module.read_json(folder / classifier.CARD, default={}).get("run") == run.folder.name:
        return folder
    model = saved.load(run.folder / "model.keras")
    info, parts, root = (
        card(plan, run, name, model, free_ids),
        plan.parts(),
        registry.root(plan.dataset),
    )
    files = (
        [root / i for i in parts[part][:most]]
        for part, most in (("train", images), ("val", images // 2))
    )
    return classifier.save_model(
        folder, model, info, classifier.familiarity_statistics(model, info, *files)
    )


def card(
    plan: cad_plan.Plan, run: record.Run, name: str, model: "keras.Model", free_ids: Collection[str]
) -> ModelInfo:
    """The model card: what the application needs to use the model, and what its user needs
    to know.
    """
    data, table = registry.get(plan.dataset), runs.tested(run)
    free = table[table["image_id"].isin(set(free_ids))]
    return {
        "backbone": name,
        "title": backbone_catalog.entry(name).label,
        "classes": list(data.classes),
        "display": list(data.display),
        "preprocess": {
            "size": plan.size(name),
            "mode": plan.crop,
            "jpeg_round_trip": True,
            "upsample": plan.upsample or None,
        },
        "gradcam_layer": backbones.gradcam_layer(model, name),
        "stages": backbones.stage_layers(model, name),
        "profile": plan.profile,
        "data": plan.dataset,
        "data_fingerprint": registry.facts(plan.dataset)["fingerprint"],
        "stand_in": cad_plan.stand_in(plan, name),
        "reductions": cad_plan.notes(plan, name),
        "run": run.folder.name,
        "metrics": {"test": _summary(table), "leak_free": _summary(free)},
        "code": record.code_digest()[:12],
    }


def _summary(table) -> Measured:
    found = tables.accuracy(table)
    return (
        {
            "accuracy": found.estimate / 100,
            "interval": [found.low / 100, found.high / 100],
            "n": len(table),
            "macro_f1": metrics.multiclass_metrics(table)["macro_f1"],
        }
        if found
        else {}
    )
