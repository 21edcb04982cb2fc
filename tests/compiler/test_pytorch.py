# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules to programs: what they compute, and what cannot be compiled."""

import numpy as np
import pytest
import torch
from torch import nn

from loomwork.arch.config import SMALL, TINY
from loomwork.arch.program import AcceleratorStep, HostStep, Program
from loomwork.arch.program_file import write_program
from loomwork.compiler import compile_module
from loomwork.compiler.graph import CompileError
from loomwork.sim.backend import run_program
from loomwork.sim.golden import GoldenBackend
from tests.tutorial import tutorial_code

LEAST_SNR = 20.0
"""dB; int8 weights and activations of a network of three layers come to about 30."""


class SeedNet(nn.Module):
    """Convolution, ReLU, pooling, two dense layers: docs/pytorch.md begins with it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(32 * 8 * 8, 40)
        self.scores = nn.Linear(40, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv(x)))
        return self.scores(torch.relu(self.hidden(torch.flatten(x, 1))))


@pytest.fixture(scope="module")
def seed_net() -> SeedNet:
    torch.manual_seed(3)
    return SeedNet()


def images(count: int, seed: int) -> torch.Tensor:
    return torch.rand((count, 3, 16, 16), generator=torch.Generator().manual_seed(seed))


def result(program: Program, inputs: torch.Tensor) -> np.ndarray:
    (name,) = program.inputs
    (output,) = run_program(program, {name: inputs.numpy()}, GoldenBackend()).outputs.values()
    return output


def test_a_module_computes_nearly_what_pytorch_computes(seed_net: SeedNet) -> None:
    program = compile_module(seed_net, torch.zeros(1, 3, 16, 16), SMALL, calibration=images(32, 1))
    fresh = images(16, 2)
    expected = seed_net(fresh).detach().numpy()
    error = result(program, fresh) - expected
    assert 10 * np.log10(expected.var() / error.var()) > LEAST_SNR
    # Nothing but the conversion of input and output is left to the host.
    assert [type(step) for step in program.steps] == [HostStep, AcceleratorStep, HostStep]
    assert program.report["model"] == "SeedNet"


def test_arrays_calibrate_as_tensors_do_and_the_same_module_gives_the_same_bytes(seed_net: SeedNet) -> None:
    example, samples = torch.zeros(1, 3, 16, 16), images(8, 1)
    programs = [compile_module(seed_net, example, TINY, calibration=data) for data in (samples, samples.numpy())]
    assert write_program(programs[0]) == write_program(programs[1])


def test_several_inputs_have_calibration_data_each() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 1)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.conv(a) + self.conv(b)

    torch.manual_seed(5)
    module, examples = Sum(), (torch.zeros(1, 4, 6, 6), torch.ones(1, 4, 6, 6))
    a, b = torch.rand(8, 4, 6, 6), torch.rand(8, 4, 6, 6)
    program = compile_module(module, examples, TINY, calibration=[a, b])
    inputs = {name: data.numpy() for name, data in zip(program.inputs, (a, b), strict=True)}
    (output,) = run_program(program, inputs, GoldenBackend()).outputs.values()
    expected = module(a, b).detach().numpy()
    assert 10 * np.log10(expected.var() / (output - expected).var()) > LEAST_SNR
    with pytest.raises(CompileError, match="Sum takes 2 inputs, calibration data are given for 1"):
        compile_module(module, examples, TINY, calibration=a)


@pytest.mark.parametrize(
    ("calibration", "sentence"),
    [
        (torch.rand(4, 3, 8, 8), r"16"),
        (torch.rand(0, 3, 16, 16), r"(?i)no sample|empty"),
        (torch.full((4, 3, 16, 16), torch.nan), r"(?i)nan|finite"),
    ],
)
def test_data_that_do_not_fit_are_refused(seed_net: SeedNet, calibration: torch.Tensor, sentence: str) -> None:
    with pytest.raises(CompileError, match=sentence):
        compile_module(seed_net, torch.zeros(1, 3, 16, 16), TINY, calibration=calibration)


def test_a_module_that_branches_on_values_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CompileError, match="Branching cannot be exported to ONNX"):
        compile_module(Branching(), torch.zeros(1, 3), TINY, calibration=torch.rand(4, 3))


def test_the_tutorial_runs(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(tutorial_code("pytorch.md"), "pytorch.md", "exec"), {"__name__": "__main__"})
    assert "SNR" in capsys.readouterr().out
