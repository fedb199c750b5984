"""The architectures of the thesis by name: what each needs, and which of them its two
tables list.
"""

from dataclasses import dataclass

from kit.errors import KitError

TABLE_3_1 = (
    "convnext_tiny",
    "efficientnetv2_s",
    "regnety_400mf",
    "regnetx_400mf",
    "mobilenetv3_small",
    "mobilenetv3_large",
    "shufflenetv2_x1.0",
    "shufflenetv2_x1.5",
    "shufflenetv2_x2.0",
)


TABLE_5_2 = (
    "regnety_400mf",
    "regnetx_400mf",
    "mobilenetv3_large",
    "shufflenetv2_x2.0",
    "mnasnet_1.0",
    "squeezenet_1.1",
)


# Mean and standard deviation of ImageNet's red, green and blue in [0, 1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


HEAD = "logits"


# Codings of RGB images as (scale, offset) a channel: coded = scale * (0..255) + offset
CODINGS = {
    "imagenet": (
        tuple(1 / (255 * s) for s in STD),
        tuple(-m / s for m, s in zip(MEAN, STD, strict=True)),
    ),
    "0..1": ((1 / 255,) * 3, (0.0,) * 3),
    "0..255": ((1.0,) * 3, (0.0,) * 3),
    "tf": ((1 / 127.5,) * 3, (-1.0,) * 3),
    "tf128": ((1 / 128,) * 3, (-1.0,) * 3),
    "lite": ((1 / 128,) * 3, (-127 / 128,) * 3),
}


class UnknownArchitecture(KitError):
    """An architecture that is not in the registry."""


class UnsuitableInput(KitError):
    """A number of channels, classes or pixels that a network cannot be built for."""


@dataclass(frozen=True)
class Architecture:
    """What a caller needs to know of an architecture.

    Attributes
    ----------
    name, title : str
        Key of the registry, and the name as the thesis prints it.
    coding : str
        Key of `CODINGS` that the ImageNet weights were trained with.
    flops : str
        What the thesis' Table 3.1 prints; empty where it prints nothing.
    parameters, buffers : int
        Trainable parameters and moving statistics of BatchNormalization with 1,000 classes,
        counted on torchvision's definitions.
    macs : int
        Multiply-accumulates of convolutions and dense layers at 224 pixels with 1,000 classes.
    dropout : float
        Rate before the head.
    hidden : int
        Units of a dense layer with hard swish before the head; 0 for none.
    factory : str
        Function of ``keras.applications``; empty otherwise.
    feature : str
        Layer whose output, averaged over space, the thesis compares by PWCCA: the last feature map,
        for ShuffleNet that of stage 4.
    in_thesis : bool
    """

    name: str
    title: str
    coding: str
    flops: str
    parameters: int
    buffers: int
    macs: int
    dropout: float = 0.0
    hidden: int = 0
    factory: str = ""
    feature: str = "features"
    in_thesis: bool = True

    @property
    def label(self) -> str:
        """Title for tables, which marks what the thesis does not have."""
        return self.title if self.in_thesis else f"{self.title} (not in the thesis)"


ARCHITECTURES = {
    entry.name: entry
    for entry in (
        Architecture(
            "convnext_tiny",
            "ConvNext-Tiny",
            coding="imagenet",
            flops="4.5 G",
            parameters=28_589_128,
            buffers=0,
            macs=4_455_531_264,
            factory="ConvNeXtTiny",
        ),
        Architecture(
            "efficientnetv2_s",
            "EfficientNet-V2-Small",
            coding="tf128",
            flops="8.8 G",
            parameters=21_458_488,
            buffers=153_872,
            macs=2_849_895_872,
            dropout=0.2,
            factory="EfficientNetV2S",
        ),
        Architecture(
            "regnety_400mf",
            "RegNet-Y-400MF",
            coding="imagenet",
            flops="400 M",
            parameters=4_344_144,
            buffers=27_152,
            macs=401_842_848,
        ),
        Architecture(
            "regnetx_400mf",
            "RegNet-X-400MF",
            coding="imagenet",
            flops="400 M",
            parameters=5_495_976,
            buffers=37_856,
            macs=413_812_608,
        ),
        Architecture(
            "mobilenetv3_small",
            "MobileNet-V3-Small",
            coding="tf",
            flops="59 M",
            parameters=2_542_856,
            buffers=12_112,
            macs=56_510_400,
            dropout=0.2,
            hidden=1024,
            factory="MobileNetV3Small",
        ),
        Architecture(
            "mobilenetv3_large",
            "MobileNet-V3-Large",
            coding="tf",
            flops="225 M",
            parameters=5_483_032,
            buffers=24_400,
            macs=216_589_760,
            dropout=0.2,
            hidden=1280,
            factory="MobileNetV3Large",
        ),
        Architecture(
            "shufflenetv2_x1.0",
            "Shufflenet-v2-x1_0",
            coding="imagenet",
            flops="146 M",
            parameters=2_278_604,
            buffers=16_180,
            macs=144_907_992,
            feature="stage4",
        ),
        Architecture(
            "shufflenetv2_x1.5",
            "Shufflenet-v2-x1_5",
            coding="imagenet",
            flops="299 M",
            parameters=3_503_624,
            buffers=23_440,
            macs=295_759_392,
            feature="stage4",
        ),
        Architecture(
            "shufflenetv2_x2.0",
            "Shufflenet-v2-x2_0",
            coding="imagenet",
            flops="591 M",
            parameters=7_393_996,
            buffers=33_716,
            macs=583_253_464,
            feature="stage4",
        ),
        Architecture(
            "mnasnet_1.0",
            "Mnasnet-1_0",
            coding="imagenet",
            flops="",
            parameters=4_383_312,
            buffers=37_920,
            macs=314_415_872,
            dropout=0.2,
        ),
        Architecture(
            "squeezenet_1.1",
            "Squeezenet-1_1",
            coding="imagenet",
            flops="",
            parameters=1_235_496,
            buffers=0,
            macs=349_151_936,
            dropout=0.5,
        ),
        Architecture(
            "efficientnet_lite0",
            "EfficientNet-Lite0",
            coding="lite",
            flops="",
            parameters=4_652_008,
            buffers=42_016,
            macs=385_187_552,
            dropout=0.2,
            in_thesis=False,
        ),
    )
}


# Architecture genes in the order that decoding needs: Table 3.1 in the released code's order, Table
# 5.2, and the three of chapter 4
SPACES = {
    "table-3-1": TABLE_3_1,
    "table-5-2": TABLE_5_2,
    "chapter-4": ("shufflenetv2_x1.5", "mobilenetv3_large", "regnety_400mf"),
}


def entry(name: str) -> Architecture:
    """Return the registry entry of an architecture.

    Raises
    ------
    UnknownArchitecture
    """
    if name not in ARCHITECTURES:
        raise UnknownArchitecture(
            f"There is no architecture {name!r}; choose one of {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[name]


def feature_layer(name: str) -> str:
    """Name of the layer whose output the thesis averages over space and compares by PWCCA."""
    return entry(name).feature
