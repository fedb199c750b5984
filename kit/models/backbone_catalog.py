"""The ImageNet backbones by name: what a caller needs to know of each, and which are the six of the
CAD paper.
"""

from dataclasses import dataclass

from kit.errors import KitError


class UnknownBackbone(KitError):
    """A backbone name that is not in the registry."""


class InputTooSmall(KitError):
    """An input below the smallest that a backbone can be built for."""


@dataclass(frozen=True)
class Backbone:
    """What a caller needs to know of an ImageNet backbone.

    Attributes
    ----------
    name, title : str
        Key of the registry (also the Keras model's name), and the name for tables.
    preprocess : str
        Scaling that the weights were trained with, a mode of `kit.models.scaling.scale`.
    last_conv_layer : str
        Layer for Grad-CAM, the last spatial activation; empty where Keras numbers its name, see
        `gradcam_layer`.
    note : str
        Where the architecture comes from.
    stages : tuple of str
        Layers that end the stages, from large maps to small; an empty name stands for the Grad-CAM
        layer.
    factory : str
        Function of ``keras.applications``; empty for `kit.models.lite0`.
    input_size, smallest : int
        Side of the input in the CAD paper, and the smallest side that works, in pixels.
    in_paper : bool
        Whether it is one of the six networks of the CAD paper.
    """

    name: str
    title: str
    preprocess: str
    last_conv_layer: str
    note: str
    stages: tuple
    factory: str = ""
    input_size: int = 200
    smallest: int = 32
    in_paper: bool = True

    @property
    def label(self) -> str:
        """Title for the CAD paper's tables, which marks networks that the paper does not have."""
        return self.title if self.in_paper else f"{self.title} (not in the paper)"


_RESNET = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out")


_SOURCE = "keras.applications, "


BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone(
            "resnet50v2",
            "ResNet50V2",
            preprocess="tf",
            last_conv_layer="post_relu",
            note=_SOURCE + "He et al. 2016",
            stages=("conv1_conv", *_RESNET, "post_relu"),
            factory="ResNet50V2",
            in_paper=False,
        ),
        Backbone(
            "efficientnet_lite0",
            "EfficientNet-Lite0",
            preprocess="lite",
            last_conv_layer="top_relu",
            note="Tan and Le 2019 without squeeze-excitation, with ReLU6",
            stages=("stem_relu", "block2_add", "block4_add", "block10_add", "top_relu"),
            in_paper=False,
        ),
        Backbone(
            "resnet50",
            "ResNet-50",
            preprocess="caffe",
            last_conv_layer="conv5_block3_out",
            note=_SOURCE + "He et al. 2015",
            stages=("conv1_relu", *_RESNET, "conv5_block3_out"),
            factory="ResNet50",
        ),
        Backbone(
            "vgg19",
            "VGG19",
            preprocess="caffe",
            last_conv_layer="block5_conv4",
            note=_SOURCE + "Simonyan and Zisserman 2014; the head reads block5_pool",
            stages=("block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4", "block5_conv4"),
            factory="VGG19",
        ),
        Backbone(
            "mobilenetv2",
            "MobileNetV2",
            preprocess="tf",
            last_conv_layer="out_relu",
            note=_SOURCE + "Sandler et al. 2018",
            stages=("Conv1_relu", "block_2_add", "block_5_add", "block_12_add", "out_relu"),
            factory="MobileNetV2",
        ),
        Backbone(
            "inceptionv3",
            "InceptionV3",
            preprocess="tf",
            last_conv_layer="mixed10",
            note=_SOURCE + "Szegedy et al. 2015",
            stages=("mixed2", "mixed7", "mixed10"),
            factory="InceptionV3",
            smallest=75,
        ),
        Backbone(
            "nasnetlarge",
            "NASNetLarge",
            preprocess="tf",
            last_conv_layer="",
            note=_SOURCE + "Zoph et al. 2017",
            stages=("reduction_concat_stem_1", "normal_concat_5", "normal_concat_12", ""),
            factory="NASNetLarge",
            input_size=331,
        ),
        # Xception's residual sums have numbered names; these are the ReLUs that read them
        Backbone(
            "xception",
            "Xception",
            preprocess="tf",
            last_conv_layer="block14_sepconv2_act",
            note=_SOURCE + "Chollet 2016",
            stages=(
                "block1_conv2_act",
                "block3_sepconv1_act",
                "block4_sepconv1_act",
                "block13_sepconv1_act",
                "block14_sepconv2_act",
            ),
            factory="Xception",
            smallest=71,
        ),
    )
}


def entry(name: str) -> Backbone:
    """Return the registry entry of a backbone.

    Raises
    ------
    UnknownBackbone
    """
    if name not in BACKBONES:
        raise UnknownBackbone(
            f"There is no backbone {name!r}; choose one of {', '.join(BACKBONES)}."
        )
    return BACKBONES[name]


def paper_networks() -> tuple:
    """Names of the six networks of the CAD paper."""
    return tuple(name for name, known in BACKBONES.items() if known.in_paper)
