# SPDX-License-Identifier: Apache-2.0
"""Channel pruning of a PyTorch module: a smaller module without its weakest channels.

Which channels of several layers have to go together (both sides of an addition, a normalization, the inputs of what
follows) is found by torch-pruning, Fang et al., https://arxiv.org/abs/2301.12900. How many go is decided here:
torch-pruning rounds down, which takes all channels of a layer that has no more than `round_to`.
"""

from collections.abc import Collection
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.torch_module import check_forward, evaluating
from loomwork.compiler.pruning.tiles import check_sparsity
from loomwork.compiler.pruning.torch_layers import check_ignored, torch_layers
from loomwork.compiler.torch_extra import require_torch

if TYPE_CHECKING:
    import torch


def prune_channels(
    module: "torch.nn.Module",
    example_inputs: "torch.Tensor | tuple[torch.Tensor, ...]",
    sparsity: float,
    *,
    round_to: int,
    ignored: Collection[str] = (),
) -> "torch.nn.Module":
    """Remove about `sparsity` of the channels of each group of layers that belong together; returns a new module.

    What is left is the multiple of `round_to` nearest to it, at least `round_to`: give `config.cols`, so that each
    removed channel saves cycles. Channels with the smallest L2 norm of their weights, over all layers that share them,
    go first. The last layer keeps its outputs, as do layers named in `ignored`, and what convolutions in groups or a
    GroupNorm take part in; depthwise convolutions follow the layer in front of them.

    Raises CompileError when PyTorch or torch-pruning is missing, sparsity is not in [0, 1), round_to is not positive,
    `forward` fails on the example, a name in `ignored` is unknown, or no layer has channels to spare.
    """
    require_torch("torch_pruning")
    import torch
    import torch_pruning

    check_sparsity(sparsity)
    if round_to < 1:
        raise CompileError(f"round_to must be 1 or more, the columns of the array, not {round_to}")
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    layers = torch_layers(module, inputs)
    check_ignored(layers, ignored)
    shape = check_forward(module, inputs).shape
    pruned = deepcopy(module)
    kept = [pruned.get_submodule(name) for name in (*ignored, *(layer.name for layer in layers[-1:]))]
    weights = [parameter.requires_grad for parameter in pruned.parameters()]
    with evaluating(pruned), torch.enable_grad():  # the graph is found by following gradients
        pruned.requires_grad_(True)
        graph = torch_pruning.DependencyGraph().build_dependency(pruned, example_inputs=inputs)
        plans = _plan(graph, kept, sparsity, round_to)
        if not plans:
            raise CompileError(
                f"module {type(module).__name__} has no layer to prune: none whose outputs may go has more than "
                f"{round_to} channels, which is what one block of the array takes; prune blocks instead"
            )
        for root, function, channels in plans:
            graph.get_pruning_group(root, function, idxs=channels).prune()
    for parameter, before in zip(pruned.parameters(), weights, strict=True):
        parameter.requires_grad_(before)
    if (after := check_forward(pruned, inputs).shape) != shape:
        raise CompileError(
            f"module {type(module).__name__} would return shape {list(after)} instead of {list(shape)}: "
            "name the layers that make its outputs among those to leave alone"
        )
    return pruned


def _plan(
    graph: Any, kept: "list[torch.nn.Module]", sparsity: float, round_to: int
) -> list[tuple[Any, Any, list[int]]]:
    """What to prune: a layer, how (a function of torch-pruning's), and the channels that go, maybe none of them."""
    import torch
    import torch_pruning

    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    types = [torch.nn.Conv2d, torch.nn.Linear]
    plans: list[tuple[Any, Any, list[int]]] = []
    for group in graph.get_all_groups(ignored_layers=kept, root_module_types=types):
        root, function = group[0].dep.target.module, group[0].dep.handler
        channels = int(graph.get_out_channels(root))
        norms = importance(group)
        if norms is None or len(norms) != channels or channels <= round_to or _divided(group):
            continue
        left = max(round_to, int(channels * (1 - sparsity) / round_to + 0.5) * round_to)
        removed = max(0, channels - left)
        plans.append((root, function, torch.argsort(norms, stable=True)[:removed].tolist()))
    return plans


def _divided(group: Any) -> bool:
    """Whether a layer of the group computes in groups of channels, which would have to stay equal in size."""
    import torch

    for dep, _ in group:
        layer = dep.target.module
        if isinstance(layer, torch.nn.Conv2d) and layer.groups not in (1, layer.out_channels):
            return True
        if isinstance(layer, torch.nn.GroupNorm):
            return True
    return False
