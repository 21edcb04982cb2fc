# SPDX-License-Identifier: Apache-2.0
"""From a PyTorch module to an ONNX model, by PyTorch's own exporter (`torch.export`, then translation)."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loomwork.compiler.graph import CompileError
from loomwork.compiler.torch_extra import require_torch

if TYPE_CHECKING:
    import onnx
    import torch

LONGEST_REASON = 300
"""Characters that are quoted of an error of PyTorch's, which may go on for pages."""


def export(
    module: "torch.nn.Module", example_inputs: "torch.Tensor | tuple[torch.Tensor, ...]", *, opset: int | None = None
) -> "onnx.ModelProto":
    """Translate a module as it behaves in evaluation mode; its parameters are in the model, as float32 initializers.

    example_inputs: what `forward` takes, e.g. `torch.zeros(1, 3, 32, 32)`; their shapes, the batch among them, become
    those of the model. opset: version of ONNX's operators, by default the exporter's own. The module is not changed:
    it is put into evaluation mode and each part then into the mode it was in.

    Raises CompileError when PyTorch is missing, when `forward` fails on the example, or when the module does something
    that cannot be exported.
    """
    require_torch("onnx", "onnxscript")
    import torch

    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    # One tensor given for two inputs would become one input of the model.
    inputs = tuple(tensor.clone() for tensor in inputs)
    check_forward(module, inputs)
    with evaluating(module), _quiet():
        try:
            program = torch.onnx.export(module, inputs, dynamo=True, opset_version=opset, verbose=False)
        except Exception as error:  # the exporter wraps whatever the module's code raises
            raise CompileError(
                f"module {type(module).__name__} cannot be exported to ONNX: {reason(error.__cause__ or error)}; "
                "write forward without branches and loops that depend on values of tensors "
                "(torch.export.export has to accept it)"
            ) from error
    if program is None:
        raise CompileError(f"module {type(module).__name__}: PyTorch's exporter returned no model")
    model = program.model_proto
    _forget_sources(model)
    return model


def check_forward(module: "torch.nn.Module", example_inputs: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
    """Run a module once in evaluation mode and return its output.

    Raises CompileError when `forward` fails on the example or returns anything but one tensor.
    """
    import torch

    with evaluating(module), torch.no_grad():
        try:
            output = module(*example_inputs)
        except Exception as error:  # any code of the user's may run here
            shapes = ", ".join(str(list(tensor.shape)) for tensor in example_inputs)
            raise CompileError(
                f"module {type(module).__name__} fails on example inputs of shape {shapes}: {reason(error)}; "
                "give inputs of the shape that forward takes"
            ) from error
    if not isinstance(output, torch.Tensor):
        raise CompileError(
            f"module {type(module).__name__} returns a {type(output).__name__}; forward has to return one tensor"
        )
    return output


def reason(error: BaseException) -> str:
    """The first line of an error that is not empty, with the error's type, and no longer than a sentence should be."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "").rstrip(".")
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


@contextmanager
def evaluating(module: "torch.nn.Module") -> Generator[None]:
    """Evaluation mode for a while; afterwards each part is in the mode it was in, be they mixed."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _quiet() -> Generator[None]:
    """Neither warnings about PyTorch's own code nor its log: what matters of them is in the error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _forget_sources(model: "onnx.ModelProto") -> None:
    """Drop the notes of where in the user's files each node came from: equal modules give equal models."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:]
    graph.ClearField("doc_string")
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.ClearField("doc_string")
