# SPDX-License-Identifier: Apache-2.0
"""`loomwork prune`: a network loses what the accelerator then need not compute."""

import importlib.util
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from loomwork.arch.config import Config, load_config
from loomwork.cli.options import ConfigOption, config_files
from loomwork.cli.output import UsageError, check_destination, console, print_table, status, write_file

if TYPE_CHECKING:
    import onnx
    import torch

    from loomwork.compiler.pruning.training import Epoch
    from loomwork.compiler.pruning.training_data import Batches

_TRY_CLASSES = "a factory is FILE.py:NAME, where NAME is called without arguments and returns a torch.nn.Module"


class Mode(StrEnum):
    """What is removed."""

    blocks = "blocks"
    channels = "channels"


class Scope(StrEnum):
    """Where the sparsity of blocks is reached."""

    network = "network"
    layer = "layer"


def prune(
    model: Annotated[
        str, typer.Argument(metavar="MODEL.onnx|MODULE.py:FACTORY", help="A float network, or what makes one.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.onnx", help="Where the pruned network goes.")],
    sparsity: Annotated[float, typer.Option(help="Share of weight tiles, or of channels, to remove.")],
    mode: Annotated[Mode, typer.Option(help="Zero weight tiles, or remove whole channels.")] = Mode.blocks,
    config: ConfigOption = "base",
    scope: Annotated[
        Scope, typer.Option(help="Blocks: the weakest tiles of the whole network, or of each layer.")
    ] = Scope.network,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="NAME", help="A layer (of ONNX: its weights) to leave alone; repeatable."),
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(metavar="C,H,W", help="What the module takes, without batch; --data tells it, too.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="TRAIN.npz", help="Arrays x and y (class numbers) to fine-tune a module with."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 3,
    learning_rate: Annotated[float, typer.Option(min=0, help="At the beginning of the fine-tuning.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Of the order of the data.")] = 0,
) -> None:
    """Prune a float network so that the array has less to do.

    Blocks: the weight tiles with the smallest weights become zero, which an array that skips them does not compute.
    Channels: whole channels go, in multiples of the array's columns. Both cost accuracy; a PyTorch module gets it back
    by fine-tuning with --data. The result is ONNX, float, with a batch of 1.

    Example: `loomwork prune net.py:make -o net.onnx --sparsity 0.5 --mode blocks --data train.npz --epochs 3`
    """
    from loomwork.compiler.graph import CompileError
    from loomwork.compiler.pruning.onnx_blocks import count_onnx_tiles
    from loomwork.compiler.pruning.tiles import check_sparsity

    source, factory = _source(model)
    inputs = [source, *config_files(config), *([data] if data is not None else [])]
    check_destination(output, inputs=inputs)
    shape = load_config(config)
    try:
        check_sparsity(sparsity)
        if factory is None:
            pruned = _prune_onnx(source, sparsity, mode, shape, scope, ignore or [], data)
        else:
            module = _module(source, factory)
            batches, example = _examples(module, data, input_shape)
            pruned = _prune_module(
                module, example, batches, sparsity, mode, shape, scope, ignore or [], epochs, learning_rate, seed
            )
        counts = count_onnx_tiles(pruned, shape)
    except CompileError as error:
        raise UsageError(f"{model}: {error}") from error
    write_file(output, pruned.SerializeToString())
    table = Table("weights")
    for heading in ("tiles", "zero"):
        table.add_column(heading, justify="right")
    for count in counts:
        table.add_row(count.name, f"{count.tiles:,}", f"{count.zero:,}")
    table.add_row("total", f"{sum(c.tiles for c in counts):,}", f"{sum(c.zero for c in counts):,}")
    print_table(table)
    console.print(f"wrote {output}: {shape.rows}x{shape.cols} weight tiles as in the table")


def _source(model: str) -> tuple[Path, str | None]:
    """The file, and the name of the factory in it if it is Python."""
    file, colon, name = model.rpartition(":")
    if colon and file.endswith(".py"):
        path, factory = Path(file), name
    elif model.endswith(".py"):
        raise UsageError(f"{model}: which function makes the network? {_TRY_CLASSES}")
    elif model.lower().endswith(".onnx"):
        path, factory = Path(model), None
    else:
        raise UsageError(f"{model} is neither an ONNX file (.onnx) nor a factory; {_TRY_CLASSES}")
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    return path, factory


def _prune_onnx(
    path: Path, sparsity: float, mode: Mode, config: Config, scope: Scope, ignored: list[str], data: Path | None
) -> "onnx.ModelProto":
    from loomwork.compiler.pruning.onnx_blocks import prune_onnx_blocks
    from loomwork.compiler.torch_extra import require_onnx

    if mode is Mode.channels:
        raise UsageError(
            f"{path}: channels are removed from PyTorch modules only; prune the module (MODULE.py:FACTORY), "
            "or use --mode blocks"
        )
    if data is not None:
        raise UsageError(
            f"{path}: only a PyTorch module can be fine-tuned; give MODULE.py:FACTORY, or leave --data out"
        )
    require_onnx()
    import onnx
    from google.protobuf.message import DecodeError

    try:
        loaded = onnx.load(path)
        onnx.checker.check_model(loaded)
    except (DecodeError, onnx.checker.ValidationError) as error:
        first = str(error).strip().split("\n")[0]
        raise UsageError(f"{path} is not a valid ONNX file: {first}") from error
    return prune_onnx_blocks(loaded, sparsity, config, scope=scope.value, ignored=ignored)


def _module(path: Path, factory: str) -> "torch.nn.Module":
    """Execute the file and call its factory."""
    from loomwork.compiler.importers.torch_module import reason
    from loomwork.compiler.torch_extra import require_torch

    require_torch()
    import torch

    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file; {_TRY_CLASSES}")
    code = importlib.util.module_from_spec(spec)
    # As `python FILE.py` has it: what lies beside the file can be imported.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        try:
            spec.loader.exec_module(code)
        except Exception as error:
            raise UsageError(f"{path} cannot be executed: {reason(error)}") from error
        make: Any = getattr(code, factory, None)
        if make is None:
            raise UsageError(f"{path} has no {factory!r}; {_TRY_CLASSES}")
        if not callable(make):
            raise UsageError(f"{path}: {factory!r} is no function but a {type(make).__name__}; {_TRY_CLASSES}")
        try:
            module = make()
        except Exception as error:
            raise UsageError(f"{path}: {factory}() fails: {reason(error)}; {_TRY_CLASSES}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{path}: {factory}() returns a {type(module).__name__}; {_TRY_CLASSES}")
    return module


def _examples(
    module: "torch.nn.Module", data: Path | None, input_shape: str | None
) -> "tuple[Batches | None, torch.Tensor]":
    """What to train with, if that was given, and an input of one example."""
    import torch

    from loomwork.cli.arrays import load_arrays
    from loomwork.compiler.importers.torch_module import check_forward
    from loomwork.compiler.pruning.training_data import Batches

    shape = None if input_shape is None else _shape(input_shape)
    if data is None:
        if shape is None:
            raise UsageError("give --data TRAIN.npz or --input-shape C,H,W, so that the module's input is known")
        return None, torch.zeros(1, *shape)
    if data.suffix != ".npz":
        raise UsageError(f"{data} must be a .npz file with arrays x (examples) and y (class numbers)")
    arrays = load_arrays(data, ["x"])
    if missing := [name for name in ("x", "y") if name not in arrays]:
        raise UsageError(
            f"{data} has no array {missing[0]}, only {', '.join(arrays) or 'none'}; "
            "it has to hold x (examples) and y (class numbers)"
        )
    x, y = arrays["x"], arrays["y"]
    example = torch.zeros(1, *(x.shape[1:] if shape is None else shape))
    Batches(x, y, shape=shape)  # the file's mistakes before those that follow from them
    scores = check_forward(module, (example,))
    if scores.ndim != 2:
        raise UsageError(
            f"the module returns shape {list(scores.shape)}; to be fine-tuned it has to return [batch, classes]"
        )
    return Batches(x, y, shape=shape, classes=scores.shape[1]), example


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(extent) for extent in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(f"--input-shape takes positive whole numbers with commas between them, not {text!r}: 3,32,32")
    return shape


def _prune_module(
    module: "torch.nn.Module",
    example: "torch.Tensor",
    batches: "Batches | None",
    sparsity: float,
    mode: Mode,
    config: Config,
    scope: Scope,
    ignored: list[str],
    epochs: int,
    learning_rate: float,
    seed: int,
) -> "onnx.ModelProto":
    from loomwork.compiler.importers.torch_module import export
    from loomwork.compiler.pruning.blocks import prune_blocks
    from loomwork.compiler.pruning.channels import prune_channels
    from loomwork.compiler.pruning.training import fine_tune

    masks = None
    if mode is Mode.channels:
        module = prune_channels(module, example, sparsity, round_to=config.cols, ignored=ignored)
    else:
        masks = prune_blocks(module, example, sparsity, config, scope=scope.value, ignored=ignored)
    if batches is not None:

        def progress(epoch: "Epoch") -> None:
            status.print(f"epoch {epoch.number} of {epochs}: loss {epoch.loss:.4f}, accuracy {epoch.accuracy:.2%}")

        fine_tune(module, batches, epochs, masks=masks, learning_rate=learning_rate, seed=seed, progress=progress)
    return export(module, example)
