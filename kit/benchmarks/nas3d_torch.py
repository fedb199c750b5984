"""The 3D networks of PBC-NAS in PyTorch, for `kit.benchmarks.nas3d` alone: a program that times a
training step and an evaluation whenever it is told to.

Written from the description of the search space with PyTorch's own modules; it shares no code with
the kit and needs nothing but PyTorch. A line read from standard input asks for one of each; a line
of JSON with the times is the answer. Network and settings come as JSON in the first argument.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional

STEPS = (
    ("conv", "norm", nn.ReLU),
    ("conv", "norm", nn.Mish),
    ("norm", nn.Mish, "conv"),
    (nn.ReLU, "conv"),
    (nn.Mish, "conv"),
)


def operation(index: int, channels: int) -> nn.Sequential:
    """One of the 15 operations: three kernel sizes of five sequences."""
    size = 3 + 2 * (index % 3)
    make = {
        "conv": lambda: nn.Conv3d(channels, channels, size, padding="same"),
        "norm": lambda: nn.InstanceNorm3d(channels, affine=True),
    }
    return nn.Sequential(*(make.get(step, step)() for step in STEPS[index // 3]))


class Cell(nn.Module):
    """Vertices sum what enters them; the input is added to the output."""

    def __init__(self, network: dict, entering: int, channels: int, first: bool) -> None:
        super().__init__()
        self.matrix = network["matrix"]
        self.entry = nn.Identity() if first else nn.Conv3d(entering, channels, 1)
        self.nodes = nn.ModuleList(operation(index, channels) for index in network["operations"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = [self.entry(x)]
        for vertex in range(1, len(self.matrix)):
            total = sum(outputs[source] for source in range(vertex) if self.matrix[source][vertex])
            outputs.append(
                self.nodes[vertex - 1](total) if vertex <= len(self.nodes) else outputs[0] + total
            )
        return outputs[-1]


class Network(nn.Module):
    """Stem, stacks of cells with poolings between, mean, linear layer."""

    def __init__(self, network: dict, classes: int) -> None:
        super().__init__()
        width = entering = network["filters"]
        layers = [nn.Conv3d(1, width, 3, padding="same"), nn.BatchNorm3d(width), nn.ReLU()]
        for stack in range(network["stacks"]):
            layers += [nn.MaxPool3d(2)] if stack else []
            width = network["filters"] * 2**stack
            for _ in range(network["cells"]):
                layers.append(Cell(network, entering, width, stack == 0))
                entering = width
        self.body, self.head = nn.Sequential(*layers), nn.Linear(entering, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3, 4)))


class Side:
    """A network, its optimiser and one batch."""

    def __init__(self, settings: dict) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(settings["threads"])
        self.network = Network(settings["network"], settings["classes"])
        self.forward = torch.compile(self.network) if settings["compiled"] else self.network
        self.optimiser = torch.optim.Adam(self.network.parameters(), 1e-3)
        self.x = torch.rand(settings["batch"], 1, *[settings["edge"]] * 3)
        self.y = torch.randint(settings["classes"], (settings["batch"],))

    def step(self) -> dict[str, float]:
        """Seconds of a training step and of an evaluation with its loss, each told by a number that
        is read.
        """
        start = time.perf_counter()
        self.network.train()
        self.optimiser.zero_grad()
        loss = functional.cross_entropy(self.forward(self.x), self.y)
        loss.backward()
        self.optimiser.step()
        loss.item()
        middle = time.perf_counter()
        self.network.eval()
        with torch.no_grad():
            functional.cross_entropy(self.forward(self.x), self.y).item()
        return {"train": middle - start, "evaluate": time.perf_counter() - middle}


def main() -> None:
    """Answer every line with the times."""
    side = Side(json.loads(sys.argv[1]))
    print(
        json.dumps(
            {
                "version": torch.__version__,
                "parameters": sum(weight.numel() for weight in side.network.parameters()),
            }
        ),
        flush=True,
    )
    for _ in sys.stdin:
        print(json.dumps(side.step()), flush=True)


if __name__ == "__main__":
    main()
