# SPDX-License-Identifier: Apache-2.0
"""The convolutions and dense layers of a PyTorch module, in the order in which it executes them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.torch_module import check_forward

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchLayer:
    """One `Conv2d` or `Linear`.

    name: as in `named_modules`. flattened: channels, height and width of the feature map that a `Linear` sees as one
    row, None if it sees another thing. macs: multiply-accumulates that it takes for one example.
    """

    name: str
    module: "torch.nn.Conv2d | torch.nn.Linear"
    flattened: tuple[int, int, int] | None
    macs: int

    @property
    def grouped(self) -> bool:
        """Whether it is a convolution in groups, such as a depthwise one."""
        return getattr(self.module, "groups", 1) > 1


def torch_layers(module: "torch.nn.Module", example_inputs: "tuple[torch.Tensor, ...]") -> list[TorchLayer]:
    """Execute a module once in evaluation mode and list its layers; one that it calls several times comes once.

    Raises CompileError when it fails on the example.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    maps: dict[int, tuple[torch.Tensor, tuple[int, int, int]]] = {}
    """By identity, the tensors that are flattened feature maps; they are kept, so that the identity stays theirs."""
    found: dict[str, TorchLayer] = {}

    class Follow(TorchFunctionMode):
        """Notes which tensors are feature maps laid out in rows, and what elementwise functions make of them."""

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            source = args[0] if args else None
            if isinstance(source, torch.Tensor) and isinstance(result, torch.Tensor) and result.ndim == 2:
                if source.ndim == 4 and result.shape == (source.shape[0], source[0].numel()):
                    maps[id(result)] = result, (source.shape[1], source.shape[2], source.shape[3])
                elif id(source) in maps and result.shape == source.shape and "linear" not in str(func):
                    maps[id(result)] = result, maps[id(source)][1]
            return result

    def hook_of(name: str) -> Callable[[Any, tuple[Any, ...], Any], None]:
        def hook(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
            weights_per_output = prod(layer.weight.shape[1:])
            macs = output.numel() // max(1, output.shape[0]) * weights_per_output
            _, flattened = maps.get(id(inputs[0]), (None, None))
            if name in found:
                macs += found.pop(name).macs
            found[name] = TorchLayer(name=name, module=layer, flattened=flattened, macs=macs)

        return hook

    handles = [
        part.register_forward_hook(hook_of(name))
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)
    ]
    try:
        with Follow():
            check_forward(module, example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def check_ignored(layers: list[TorchLayer], ignored: Collection[str]) -> None:
    """Raise CompileError when a layer to leave alone does not exist."""
    names = [layer.name for layer in layers]
    unknown = [name for name in ignored if name not in names]
    if unknown:
        raise CompileError(
            f"there is no layer {unknown[0]!r} to leave alone; the convolutions and dense layers are {', '.join(names)}"
        )
