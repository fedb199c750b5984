"""What one run of the CAD framework trains, prepares and explains."""

from dataclasses import dataclass

from kit.data import preprocess
from kit.data.augment import affine
from kit.data.split import Parts
from kit.errors import KitError
from kit.models import backbone_catalog, weights
from kit.published import papers
from kit.studies.cad import split

CHAINS = ("cad", "original", "coloured")


EXPLAINED, SERVED = (
    "resnet50",
    "efficientnet_lite0",
)  # networks whose weights are needed even if they saw few images


class BadPlan(KitError):
    """A setting of the CAD trainings is out of range."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained, on what, and how.

    Attributes
    ----------
    profile, dataset : str
    image_size, large_size : int
        Side of the input in pixels, and NASNetLarge's; a network that needs more gets its smallest
        size.
    upsample : int
        Enlarge smaller images to this side before the crop (see :func:`kit.data.preprocess.cad`); 0
        leaves them.
    epochs, batch_size, learning_rate, dropout, seed
        As published (25, 32, 1e-4, 0.4), for networks that start from ImageNet weights.
    validation_fraction : float
        Share of the training folder whose loss is watched; 0.2 as published.
    crop : {"faithful", "safe"}
        What happens where the crop fails: as in the published code (no outline is an error, a tiny
        crop is used), or the whole frame is kept.
    rotation, width_shift, height_shift, horizontal_flip
        Ranges of the augmentation, as in :class:`kit.data.augment.affine.Augmentation`; as
        published 10 degrees, 0.05, 0.05 and True.
    initial : {"auto", "imagenet", "random"}
        Weights the paper's networks start from; the seventh has its own weights in any case. "auto"
        may take those of a quantised MobileNetV2, see :func:`kit.models.weights.initialisation`.
    random_epochs, random_learning_rate
        Of networks that start at random; 0 takes those of the others.
    images, large_images, seventh_images : int
        Training images of the paper's networks, of NASNetLarge, and of networks that are not in the
        paper; 0 takes all. Less is for looking at the machinery.
    limited_epochs : int
        Epochs of networks trained on fewer images; 0 takes those of the others.
    whole : tuple of str
        Paper's networks that are trained on all images nevertheless.
    bn_momentum : float
        Of every BatchNorm layer; 0 leaves each network's own.
    augmenter : {"keras_generator", "fused"}
        The published ImageDataGenerator, or the same transform as one warp.
    """

    profile: str
    dataset: str
    image_size: int = 200
    large_size: int = 331
    upsample: int = 0
    epochs: int = 25
    batch_size: int = 32
    learning_rate: float = 1e-4
    dropout: float = 0.4
    validation_fraction: float = 0.2
    crop: str = "faithful"
    rotation: float = 10
    width_shift: float = 0.05
    height_shift: float = 0.05
    horizontal_flip: bool = True
    initial: str = "auto"
    random_epochs: int = 0
    random_learning_rate: float = 0.0
    images: int = 0
    large_images: int = 0
    seventh_images: int = 0
    limited_epochs: int = 0
    whole: tuple = ()
    bn_momentum: float = 0.0
    augmenter: str = "keras_generator"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.initial not in ("auto", "imagenet", "random"):
            raise BadPlan(f"initial is {self.initial!r}; choose auto, imagenet or random.")
        if self.crop not in preprocess.MODES:
            raise BadPlan(f"crop is {self.crop!r}; choose {' or '.join(preprocess.MODES)}.")
        for name, below in (("dropout", 1.0), ("validation_fraction", 0.9)):
            if not 0 <= getattr(self, name) < below:
                raise BadPlan(
                    f"{name} is {getattr(self, name)}; it must be 0 or more and below {below}."
                )
        self.augmentation()
        for name in self.whole:
            backbone_catalog.entry(name)
        for name in (
            "images",
            "large_images",
            "seventh_images",
            "limited_epochs",
            "random_epochs",
            "upsample",
        ):
            if getattr(self, name) < 0:
                raise BadPlan(f"{name} is {getattr(self, name)}; it must be 0 or more.")

    def augmentation(self) -> affine.Augmentation:
        """Ranges of the augmentation.

        Raises
        ------
        kit.data.augment.affine.BadAugmentation
        """
        return affine.Augmentation(
            self.rotation, self.width_shift, self.height_shift, self.horizontal_flip
        )

    def parts(self) -> Parts:
        """Image ids of "train", "val" and "test"; see :func:`split.published_parts`."""
        return split.published_parts(self.dataset, self.validation_fraction)

    def size(self, name: str) -> int:
        """Side of a network's input in pixels."""
        return max(
            self.large_size if name == "nasnetlarge" else self.image_size,
            backbone_catalog.entry(name).smallest,
        )

    def start(self, name: str) -> weights.Initialisation:
        """What a network starts from, see :func:`kit.models.weights.initialisation`."""
        wanted = {"random": None}.get(self.initial, self.initial)
        return weights.initialisation(
            name, wanted if backbone_catalog.entry(name).in_paper else "auto"
        )

    def limit(self, name: str) -> int:
        """Most training images of a network; 0 for all."""
        if name in self.whole:
            return 0
        if not backbone_catalog.entry(name).in_paper:
            return self.seventh_images
        return self.large_images if name == "nasnetlarge" else self.images

    def schedule(self, name: str) -> tuple[int, float]:
        """Epochs and learning rate of a network."""
        pretrained = self.start(name).weights
        epochs = self.epochs if pretrained else self.random_epochs or self.epochs
        rate = self.learning_rate if pretrained else self.random_learning_rate or self.learning_rate
        return self.limited_epochs or epochs if self.limit(name) else epochs, rate


def notes(plan: Plan, name: str) -> list[str]:
    """What a network's training does otherwise than the publication states."""
    epochs, rate = plan.schedule(name)
    size_key = (
        "preprocessing_final_size_nasnetlarge"
        if name == "nasnetlarge"
        else "preprocessing_final_size"
    )
    found = papers.departures(
        papers.load("cad"),
        {
            "epochs": epochs,
            "learning_rate": rate,
            "batch_size": plan.batch_size,
            "dropout_rate": plan.dropout,
            "validation_fraction": plan.validation_fraction,
            "augmentation_rotation_range": plan.rotation,
            "augmentation_width_shift_range": plan.width_shift,
            "augmentation_height_shift_range": plan.height_shift,
            "augmentation_horizontal_flip": plan.horizontal_flip,
            size_key: plan.size(name),
        },
    )
    found += [f"trained on {plan.limit(name)} images"] * bool(plan.limit(name)) + [
        f"BatchNorm momentum {plan.bn_momentum:g}"
    ] * bool(plan.bn_momentum)
    return [
        line.replace("preprocessing final", "input").replace(" nasnetlarge", "") for line in found
    ]


def stand_in(plan: Plan, name: str) -> str | None:
    """The sentence that results must carry where a network did not start from ImageNet weights."""
    return plan.start(name).stand_in
