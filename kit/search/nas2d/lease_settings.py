"""The twenty questions that the LeaSE paper leaves open, as settings; each default is the reading
under which the printed equations work, or what the base method does.
"""

from dataclasses import dataclass

from kit.errors import KitError
from kit.search.nas2d.hypergradient import RADIUS

CHOICES = {
    "sign": (1, -1),
    "initial": ("uniform", "kept", "zero"),
    "step": ("linf", "raw", "sign"),
    "target": ("soft", "soft_constant", "predicted", "label"),
    "product": ("scaled", "raw", "absolute", "normalised"),
    "pixels": ("unit", "standardised"),
    "reduction": ("sum", "mean"),
    "arch_step": ("adam", "descent"),
    "validation": ("clean", "explained"),
    "through": ("weights", "total"),
    "batches": ("same", "separate"),
    "order": ("architecture_first", "architecture_last"),
    "explainer_order": (None, 1, 2),
}


class BadLease(KitError):
    """A setting of LeaSE is out of range."""


@dataclass(frozen=True)
class LeaseSettings:
    """Answers to what the paper leaves open, in the order of its equations.

    Attributes
    ----------
    sign : {1, -1}
        Ascent on the change of the prediction, or the printed descent.
    initial : {"uniform", "kept", "zero"}
        Perturbation before the step: uniform, drawn anew each time; kept an image over the
        epochs (Algorithm 1); zero, where the gradient of the soft target vanishes. See
        :func:`initial_delta`.
    initial_fraction : float
        Half width of the uniform draw in units of `tau`.
    step : {"linf", "raw", "sign"}
        Step an image: its gradient over its largest entry (a constant) times `tau`; the
        gradient; the gradient's sign times `tau`, which has no derivative.
    step_rate : float
        Factor of that step.
    tau : float
        Largest perturbation of a pixel in [0, 1].
    clip : bool
        Clip delta' to it (derivative 0 outside); without, delta' exceeds it by at most the
        initial fraction.
    target : {"soft", "soft_constant", "predicted", "label"}
        What the perturbed prediction is compared with: the clean prediction, differentiated as
        well or held constant; its class; the true class.
    product : {"scaled", "raw", "absolute", "normalised"}
        Factor of the images for the audience: delta / tau, delta, abs(delta) / tau, abs(delta)
        over its largest entry in the image.
    pixels : {"unit", "standardised"}
        Images that are multiplied: as they come, or (x - pixel_mean) / pixel_deviation.
    pixel_mean, pixel_deviation : float
        Of the standardised images.
    reduction : {"sum", "mean"}
        Of the prediction's change over the batch; no matter for "linf".
    virtual_explainer_lr, virtual_audience_lr : float or None
        Rates of the virtual steps; None for the current rates.
    virtual_momentum : bool
        Add momentum and weight decay to the explainer's virtual step, as DARTS does; False for
        the bare equation (7).
    arch_step : {"adam", "descent"}
        Optimiser of the architecture; read by the search loop.
    audience_lr, audience_lr_min, audience_momentum, audience_decay, audience_clip : float
        SGD of the audience, cosine over the search; read by the search loop.
    validation : {"clean", "explained"}
        The audience's validation images, as they are, or multiplied like the training images
        (by perturbations that count as constants).
    through : {"weights", "total"}
        Whether delta' depends on the architecture by way of the explainer's weights only, as
        the printed chain, or also directly.
    batches : {"same", "separate"}
        Whether the perturbation and the audience's step take the batch of the explainer's
        step; read by the search loop.
    order : {"architecture_first", "architecture_last"}
        Of a step; read by the search loop.
    explainer_order : {None, 1, 2}
        Order of the explainer's term; None for the base method's, so that gamma 0 is the base
        method.
    quiet_explanations : bool
        No skip dropout in the explainer that makes perturbations (P-DARTS); False: the same
        masks as in its training step.
    warm_up_audience : bool
        Train the audience while the architecture is frozen; read by the search loop.
    radius : float
        Length of the step of the central difference of equation 12, in the finite mode.

    The network of the audience and its stem, also left open, are chosen in the search's
    configuration; see :mod:`kit.search.nas2d.audience`.

    Raises
    ------
    BadLease
    """

    sign: int = 1
    initial: str = "uniform"
    initial_fraction: float = 0.1
    step: str = "linf"
    step_rate: float = 1.0
    tau: float = 8 / 255
    clip: bool = True
    target: str = "soft"
    product: str = "scaled"
    pixels: str = "unit"
    pixel_mean: float = 0.0
    pixel_deviation: float = 1.0
    reduction: str = "sum"
    virtual_explainer_lr: float | None = None
    virtual_audience_lr: float | None = None
    virtual_momentum: bool = True
    arch_step: str = "adam"
    audience_lr: float = 0.025
    audience_lr_min: float = 0.0
    audience_momentum: float = 0.9
    audience_decay: float = 3e-4
    audience_clip: float = 5.0
    validation: str = "clean"
    through: str = "weights"
    batches: str = "same"
    order: str = "architecture_first"
    explainer_order: int | None = None
    quiet_explanations: bool = True
    warm_up_audience: bool = True
    radius: float = RADIUS

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise BadLease(
                    f"{name} is {getattr(self, name)!r}; choose one of "
                    f"{', '.join(map(str, choices))}."
                )
        for name in (
            "step_rate",
            "tau",
            "pixel_deviation",
            "audience_lr",
            "audience_clip",
            "radius",
        ):
            if not getattr(self, name) > 0:
                raise BadLease(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.initial == "uniform" and not 0 < self.initial_fraction <= 1:
            raise BadLease(
                f"initial_fraction is {self.initial_fraction}; it must be above 0 and at most 1, "
                "or set initial to 'zero'."
            )
