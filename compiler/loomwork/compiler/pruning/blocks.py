# SPDX-License-Identifier: Apache-2.0
"""Block pruning of a PyTorch module: the weakest weight tiles become zero, and stay so while it is trained."""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.compiler.graph import CompileError
from loomwork.compiler.pruning.tiles import (
    Scope,
    TileCount,
    TiledWeights,
    check_sparsity,
    convolution_tiles,
    count_tiles,
    dense_tiles,
    smallest_tiles,
)
from loomwork.compiler.pruning.torch_layers import TorchLayer, check_ignored, torch_layers
from loomwork.compiler.torch_extra import require_torch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockMasks:
    """What pruning left of a module. masks: for each pruned weight 1 where it stays and 0 where not, as float tensors
    of the weight's shape. counts: the tiles of each layer and how many of them are zero.
    """

    masks: "tuple[tuple[torch.Tensor, torch.Tensor], ...]"
    counts: tuple[TileCount, ...]

    def apply(self) -> None:
        """Set the pruned weights to zero again."""
        import torch

        with torch.no_grad():
            for weight, mask in self.masks:
                weight.mul_(mask)

    @contextmanager
    def kept(self, optimizer: "torch.optim.Optimizer") -> Generator[None]:
        """As long as it lasts, each step of the optimizer is followed by `apply`."""

        def after(*_: Any) -> None:
            self.apply()

        handle = optimizer.register_step_post_hook(after)
        try:
            yield
        finally:
            handle.remove()


def prune_blocks(
    module: "torch.nn.Module",
    example_inputs: "torch.Tensor | tuple[torch.Tensor, ...]",
    sparsity: float,
    config: Config,
    *,
    scope: Scope = "network",
    ignored: Collection[str] = (),
) -> BlockMasks:
    """Set the weakest `sparsity` of a module's weight tiles to zero, in place; returns masks for the training after it.

    Tiles are those of the layers as they are, so prune channels first if both is wanted. Convolutions in groups are
    left alone, for the accelerator skips no tile of theirs, and so are the layers named in `ignored`. example_inputs:
    what `forward` takes; it tells which dense layers see a flattened feature map. scope: see `Scope`.

    Raises CompileError when PyTorch is missing, sparsity is not in [0, 1), `forward` fails on the example, a name in
    `ignored` is unknown, or no layer is left.
    """
    require_torch()
    import torch

    check_sparsity(sparsity)
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    layers = torch_layers(module, inputs)
    check_ignored(layers, ignored)
    chosen = [layer for layer in layers if not layer.grouped and layer.name not in ignored]
    if not chosen:
        raise CompileError(
            f"module {type(module).__name__} has no layer to prune: it needs a Conv2d without groups or a Linear that "
            "is not left alone"
        )
    keep = smallest_tiles([_tiled(layer, config) for layer in chosen], sparsity, scope)
    masks = tuple(
        (layer.module.weight, torch.from_numpy(mask.copy()).to(layer.module.weight))
        for layer, mask in zip(chosen, keep, strict=True)
    )
    BlockMasks(masks=masks, counts=()).apply()
    return BlockMasks(masks=masks, counts=tuple(count_tiles(_tiled(layer, config)) for layer in chosen))


def _tiled(layer: TorchLayer, config: Config) -> TiledWeights:
    import torch

    weights: NDArray[np.floating] = layer.module.weight.detach().cpu().numpy()
    if isinstance(layer.module, torch.nn.Conv2d):
        outputs, inputs, height, width = weights.shape
        rows, columns = layer.module.dilation
        tiles = convolution_tiles((outputs, inputs, height, width), config, (rows, columns))
    else:
        outputs, inputs = weights.shape
        tiles = dense_tiles(outputs, inputs, config, layer.flattened)
    return TiledWeights(name=layer.name, weights=weights, tiles=tiles)
