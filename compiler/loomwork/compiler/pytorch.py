# SPDX-License-Identifier: Apache-2.0
"""From a PyTorch module to a program: exported to ONNX, quantized with calibration data, compiled."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import BASE, Config
from loomwork.arch.program import Program
from loomwork.compiler.driver import Progress, compile_model
from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.torch_module import export

if TYPE_CHECKING:
    import torch


def compile_module(
    module: "torch.nn.Module",
    example_inputs: "torch.Tensor | tuple[torch.Tensor, ...]",
    config: Config = BASE,
    *,
    calibration: "torch.Tensor | NDArray[np.generic] | Sequence[torch.Tensor | NDArray[np.generic]]",
    name: str | None = None,
    require_accelerator: bool = False,
    progress: Progress | None = None,
) -> Program:
    """Compile a module as it behaves in evaluation mode.

    example_inputs: what `forward` takes, with a batch of 1, e.g. `torch.zeros(1, 3, 32, 32)`. calibration: typical
    inputs, `[samples, ...]`; one tensor for each input of `forward` where it takes several. name: of the network in the
    report; the module's class when absent. The other arguments are those of `compile_model`.

    Raises CompileError when PyTorch is missing, for a module that cannot be exported, and for data that do not fit.
    """
    model = export(module, example_inputs)
    names = [value.name for value in model.graph.input]
    given = [calibration] if hasattr(calibration, "shape") else list(calibration)
    if len(given) != len(names):
        raise CompileError(
            f"module {type(module).__name__} takes {len(names)} inputs, calibration data are given for {len(given)}"
        )
    samples = {name: _array(data) for name, data in zip(names, given, strict=True)}
    return compile_model(
        model,
        config,
        name=name or type(module).__name__,
        calibration=samples,
        require_accelerator=require_accelerator,
        progress=progress,
    )


def _array(data: object) -> NDArray[np.generic]:
    """A tensor, on whatever device it is, as an array."""
    detach = getattr(data, "detach", None)
    return np.asarray(detach().cpu().numpy() if detach is not None else data)
