"""The losses and optimisers among which the thesis's searches choose, by name."""

LOSSES = (
    "cross_entropy",
    "label_smoothing",
    "logit_penalty",
    "logit_normalization",
    "sigmoid_cross_entropy",
)


OPTIMIZERS_3 = ("adam", "sgd", "adamax", "rmsprop")


OPTIMIZERS_5 = (
    "adam",
    "adamw",
    "adamax",
    "adagrad",
    "asgd",
    "lbfgs",
    "nadam",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
)
