"""What the LeaSE paper leaves open, question by question, and how this kit answers; a table of the
notebook.

The answers are the defaults of :class:`kit.search.nas2d.lease_settings.LeaseSettings` and of the
search's configuration; a search may give others, and the table shows those of the run.
"""

import pandas as pd

from kit.search.nas2d.search_config import SearchConfig

OPEN = (  # question, settings that answer it, why so by default
    (
        "Sign of the step of the perturbation: eq. 8 prints descent, the text an argmax",
        ("sign",),
        "the text: the prediction is to change",
    ),
    (
        "Perturbation before its step",
        ("initial", "initial_fraction"),
        "at zero the gradient of eq. 8 and the audience's whole term vanish",
    ),
    (
        "Length of the perturbation's step",
        ("step", "step_rate"),
        "a constant rate leaves it where it began; an image's own brings it to tau",
    ),
    (
        "Largest perturbation tau, and whether it is enforced",
        ("tau", "clip"),
        "usual for images in [0, 1]; eqs. 13 to 15 hold no derivative of a projection",
    ),
    (
        "What the perturbed prediction is compared with",
        ("target",),
        "eq. 14 differentiates both predictions",
    ),
    (
        "Scale and sign of the perturbation in the product with the image",
        ("product",),
        "a constant scale, which a network without BatchNorm needs",
    ),
    (
        "Pixels that are multiplied",
        ("pixels", "pixel_mean", "pixel_deviation"),
        "a black background stays black",
    ),
    ("Sum or mean over a batch at level II", ("reduction",), "printed: a sum"),
    (
        "Rates of the virtual steps",
        ("virtual_explainer_lr", "virtual_audience_lr"),
        "none: the current rates, as in DARTS",
    ),
    (
        "Momentum and decay in the explainer's virtual step",
        ("virtual_momentum",),
        "as in the code of DARTS; eq. 7 has none",
    ),
    (
        "Optimizer of the architecture",
        ("arch_step", "arch_lr", "arch_betas", "arch_decay"),
        "that of the base method; eq. 10 prints descent",
    ),
    (
        "Optimizer of the audience",
        (
            "audience_lr",
            "audience_lr_min",
            "audience_momentum",
            "audience_decay",
            "audience_clip",
        ),
        "as the explainer's",
    ),
    (
        "The audience's validation images",
        ("validation",),
        "eqs. 5 and 10 have no perturbation there",
    ),
    (
        "Whether the perturbation depends on the architecture directly",
        ("through",),
        "the printed chain goes through the explainer's weights only",
    ),
    ("Batches of levels I, II and III", ("batches",), "one batch: the data sets are the same"),
    (
        "Order within a step",
        ("order",),
        "the base methods' order, so that gamma 0 is the base method",
    ),
    (
        "Order of the explainer's own term, and how eq. 12 is taken",
        ("explainer_order", "mode", "radius"),
        "none: the base method's; exact, since differences of float32 are mostly noise",
    ),
    (
        "Dropout of skip connections while perturbing (P-DARTS)",
        ("quiet_explanations",),
        "otherwise its noise enters the explanation",
    ),
    (
        "The audience while the architecture is frozen",
        ("warm_up_audience",),
        "it learns, as the explainer does",
    ),
    (
        "The audience's network, stem, width and start",
        ("audience", "audience_options"),
        "named in the paper; 3x3 stem, weights not pretrained",
    ),
)


def choice_table(config: SearchConfig) -> pd.DataFrame:
    """The twenty questions: what the paper leaves open, this run's answer, and the reason for the
    default.

    Parameters
    ----------
    config : kit.search.nas2d.search_config.SearchConfig
        Of a search with an audience.
    """
    return pd.DataFrame(
        [
            {
                "number": number,
                "open": question,
                "this run": "; ".join(f"{name} {_said(_value(config, name))}" for name in names),
                "why by default": why,
            }
            for number, (question, names, why) in enumerate(OPEN, 1)
        ]
    )


def _value(config, name):
    """A setting of LeaSE, or else of the search."""
    return getattr(config.lease if hasattr(config.lease, name) else config, name)


def _said(value) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(each)}" for key, each in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(map(_said, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
