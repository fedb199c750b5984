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
            "tf",
            "post_relu",
            _SOURCE + "He et al. 2016",
            ("conv1_conv", *_RESNET, "post_relu"),
            "ResNet50V2",
            in_paper=False,
        ),
        Backbone(
            "efficientnet_lite0",
            "EfficientNet-Lite0",
            "lite",
            "top_relu",
            "Tan and Le 2019 without squeeze-excitation, with ReLU6",
            ("stem_relu", "block2_add", "block4_add", "block10_add", "top_relu"),
            in_paper=False,
        ),
        Backbone(
            "resnet50",
            "ResNet-50",
            "caffe",
            "conv5_block3_out",
            _SOURCE + "He et al. 2015",
            ("conv1_relu", *_RESNET, "conv5_block3_out"),
            "ResNet50",
        ),
        Backbone(
            "vgg19",
            "VGG19",
            "caffe",
            "block5_conv4",
            _SOURCE + "Simonyan and Zisserman 2014; the head reads block5_pool",
            ("block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4", "block5_conv4"),
            "VGG19",
        ),
        Backbone(
            "mobilenetv2",
            "MobileNetV2",
            "tf",
            "out_relu",
            _SOURCE + "Sandler et al. 2018",
            ("Conv1_relu", "block_2_add", "block_5_add", "block_12_add", "out_relu"),
            "MobileNetV2",
        ),
        Backbone(
            "inceptionv3",
            "InceptionV3",
            "tf",
            "mixed10",
            _SOURCE + "Szegedy et al. 2015",
            ("mixed2", "mixed7", "mixed10"),
            "InceptionV3",
            smallest=75,
        ),
        Backbone(
            "nasnetlarge",
            "NASNetLarge",
            "tf",
            "",
            _SOURCE + "Zoph et al. 2017",
            ("reduction_concat_stem_1", "normal_concat_5", "normal_concat_12", ""),
            "NASNetLarge",
            331,
        ),
        # Xception's residual sums have numbered names; these are the ReLUs that read them
        Backbone(
            "xception",
            "Xception",
            "tf",
            "block14_sepconv2_act",
            _SOURCE + "Chollet 2016",
            (
                "block1_conv2_act",
                "block3_sepconv1_act",
                "block4_sepconv1_act",
                "block13_sepconv1_act",
                "block14_sepconv2_act",
            ),
            "Xception",
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
