"""The DARTS supernet in PyTorch, for `kit.benchmarks.nas` alone: a program that times one search
step whenever it is told to.

Written from the description of the search space, operation by operation and edge by edge as the
original networks are composed, with PyTorch's own modules; it shares no code with the kit and needs
nothing but PyTorch, so that any interpreter that has PyTorch can run it. A line read from standard
input asks for one step; a line of JSON with its times is the answer. The settings come as JSON in
the first argument.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional

DISTANCE = {
    "sep_conv_3x3": (3, 1),
    "sep_conv_5x5": (5, 1),
    "dil_conv_3x3": (3, 2),
    "dil_conv_5x5": (5, 2),
}
OPERATIONS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", *DISTANCE)


def separable(channels: int, size: int, stride: int, dilation: int) -> list[nn.Module]:
    """ReLU, depthwise convolution, pointwise convolution, BatchNorm."""
    depthwise = nn.Conv2d(
        channels,
        channels,
        size,
        stride=stride,
        padding=dilation * (size // 2),
        dilation=dilation,
        groups=channels,
        bias=False,
    )
    return [
        nn.ReLU(),
        depthwise,
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=False),
    ]


class Halve(nn.Module):
    """Factorised reduction."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even, self.odd = (nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(outputs, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))


class Zero(nn.Module):
    """No connection."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """One operation of an edge."""
    if name == "none":
        return Zero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else Halve(channels, channels)
    if name in DISTANCE:
        size, dilation = DISTANCE[name]
        again = separable(channels, size, 1, 1) if name.startswith("sep") else []
        return nn.Sequential(*separable(channels, size, stride, dilation), *again)
    pool = (
        nn.MaxPool2d(3, stride, 1)
        if name.startswith("max")
        else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    )
    return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))


class Cell(nn.Module):
    """Fourteen edges, each the weighted sum of eight operations."""

    def __init__(
        self, before_last: int, last: int, channels: int, reduction: bool, after_reduction: bool
    ) -> None:
        super().__init__()
        plain = [
            nn.ReLU(),
            nn.Conv2d(before_last, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=False),
        ]
        self.first = Halve(before_last, channels) if after_reduction else nn.Sequential(*plain)
        self.second = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(last, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=False),
        )
        strides = [
            2 if reduction and source < 2 else 1 for node in range(4) for source in range(node + 2)
        ]
        self.edges = nn.ModuleList(
            nn.ModuleList(operation(name, channels, stride) for name in OPERATIONS)
            for stride in strides
        )

    def forward(
        self, before_last: torch.Tensor, last: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        states, offset = [self.first(before_last), self.second(last)], 0
        for _ in range(4):
            mixed = [
                sum(
                    w * op(x)
                    for w, op in zip(weights[offset + j], self.edges[offset + j], strict=False)
                )
                for j, x in enumerate(states)
            ]
            offset += len(states)
            states.append(sum(mixed))
        return torch.cat(states[2:], 1)


class Supernet(nn.Module):
    """DARTS supernet; `arch` holds the alphas of the normal and of the reduction cells."""

    def __init__(self, channels: int, cells: int, classes: int) -> None:
        super().__init__()
        stem = before_last = last = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem)
        )
        self.cells, self.reductions = nn.ModuleList(), (cells // 3, 2 * cells // 3)
        for index in range(cells):
            channels *= 2 if index in self.reductions else 1
            self.cells.append(
                Cell(
                    before_last,
                    last,
                    channels,
                    index in self.reductions,
                    index - 1 in self.reductions,
                )
            )
            before_last, last = last, 4 * channels
        self.classifier = nn.Linear(last, classes)
        self.arch = [(1e-3 * torch.randn(14, 8)).requires_grad_() for _ in range(2)]

    def forward(self, x: torch.Tensor, *arch: torch.Tensor) -> torch.Tensor:
        before_last = last = self.stem(x)
        mixing = [functional.softmax(alpha, -1) for alpha in arch]
        for index, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last, mixing[index in self.reductions])
        return self.classifier(last.mean((2, 3)))


class Search:
    """Weights, architecture, their optimisers, and one step."""

    def __init__(self, settings: dict) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(settings["threads"])
        self.network = Supernet(settings["channels"], settings["cells"], settings["classes"])
        self.forward = torch.compile(self.network) if settings["compiled"] else self.network
        self.weights = torch.optim.SGD(
            self.network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4
        )
        self.arch = torch.optim.Adam(self.network.arch, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
        self.x = torch.rand(settings["batch"], 3, settings["size"], settings["size"])
        self.y = torch.randint(settings["classes"], (settings["batch"],))

    def loss(self) -> torch.Tensor:
        return functional.cross_entropy(self.forward(self.x, *self.network.arch), self.y)

    def step(self) -> dict[str, float]:
        """Seconds of a step on the weights and of one of the first order on the architecture, whose
        gradient alone is computed.
        """
        start = time.perf_counter()
        self.weights.zero_grad()
        arch = [alpha.requires_grad_(False) for alpha in self.network.arch]
        self.loss().backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5)
        self.weights.step()
        middle = time.perf_counter()
        for alpha in arch:
            alpha.requires_grad_(True)
        for alpha, gradient in zip(arch, torch.autograd.grad(self.loss(), arch), strict=True):
            alpha.grad = gradient
        self.arch.step()
        return {"weights": middle - start, "arch": time.perf_counter() - middle}


def main() -> None:
    """Answer every line with the times of a step."""
    search = Search(json.loads(sys.argv[1]))
    parameters = sum(weight.numel() for weight in search.network.parameters())
    print(json.dumps({"version": torch.__version__, "parameters": parameters}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(search.step()), flush=True)


if __name__ == "__main__":
    main()
