# SPDX-License-Identifier: Apache-2.0
"""From a model file to a program: the order of passes, readable at a glance."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from loomwork.arch.command import encode
from loomwork.arch.config import Config
from loomwork.arch.isa import IsaError, Window, isa_hash
from loomwork.arch.program import AcceleratorStep, HostStep, Program
from loomwork.compiler.allocate import place_external, place_parts
from loomwork.compiler.cuts import choose_cuts
from loomwork.compiler.divide import divide
from loomwork.compiler.graph import CompileError, Graph, HostPart, Partition
from loomwork.compiler.importers.onnx import import_onnx
from loomwork.compiler.importers.onnx_model import parse_model
from loomwork.compiler.importers.tflite import import_tflite
from loomwork.compiler.importers.tflite_model import is_tflite
from loomwork.compiler.lower import lower
from loomwork.compiler.passes.eliminate_dead_channels import eliminate_dead_channels
from loomwork.compiler.passes.fuse_combination import fuse_combination
from loomwork.compiler.passes.fuse_pool import fuse_pool
from loomwork.compiler.passes.fuse_table import fuse_table
from loomwork.compiler.quantization import quantize
from loomwork.compiler.report import CompiledGraph, build_report
from loomwork.compiler.schedule import External, schedule
from loomwork.compiler.storage import plan_storage
from loomwork.compiler.synchronize import synchronize
from loomwork.compiler.task import Task
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.verify import verify
from loomwork.compiler.weights import ConstantPool

Progress = Callable[[str], None]


def compile_model(
    model: Path | str | bytes | onnx.ModelProto,
    config: Config,
    *,
    name: str | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    calibration: Mapping[str, NDArray[np.generic]] | None = None,
    require_accelerator: bool = False,
    progress: Progress | None = None,
    eliminate_dead: bool = True,
) -> Program:
    """Compile a `.tflite` or `.onnx` file, its contents, or an ONNX model for one configuration.

    name: of the network in the report; the file's name when absent. shapes: of inputs of an ONNX model whose dimensions
    it leaves open. calibration: `[samples, ...]` of each input of a float ONNX model, by name, with which it is
    quantized first (quantization/quantize.py has more ways). require_accelerator: refuse a network of which anything
    but conversions of inputs and outputs would run on the host. progress: called with what is done next.
    eliminate_dead: False executes channels that no output depends on too, with the same results, for comparison.
    The same model gives the same program, byte for byte. Raises CompileError with a sentence for the user.
    """
    name = name or (Path(model).stem if isinstance(model, Path | str) else "model")
    divide_up = _importer(model, name, shapes, calibration, progress)
    on_host: dict[str, str] = {}
    while True:
        _tell(progress, "reading the model")
        try:
            partition = divide_up(on_host)
            if require_accelerator:
                _refuse_host(partition, name)
            return compile_partition(partition, config, name=name, progress=progress, eliminate_dead=eliminate_dead)
        except UnsupportedLayerError as error:
            # It may still run on the host, which only the importer can arrange.
            if error.name in on_host:
                raise
            on_host[error.name] = error.reason


CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear", "layout")
"""Operators that turn a network's inputs and outputs into what the accelerator reads and back."""


def _refuse_host(partition: Partition, name: str) -> None:
    """Raise CompileError when the host has something to compute."""
    found = [
        (operator, reason)
        for part in partition.parts
        if isinstance(part, HostPart)
        for operator, reason in part.operators
        if operator.split()[0] not in CONVERSIONS
    ]
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise CompileError(f"{name}: {found[0][0]} would run on the host{more}: {found[0][1]}")


def _importer(
    model: Path | str | bytes | onnx.ModelProto,
    name: str,
    shapes: Mapping[str, tuple[int, ...]] | None,
    calibration: Mapping[str, NDArray[np.generic]] | None,
    progress: Progress | None,
) -> Callable[[Mapping[str, str]], Partition]:
    """The import of a model in whichever format it is, waiting for what shall stay on the host."""
    if isinstance(model, onnx.ModelProto):
        proto = model
    else:
        data = model if isinstance(model, bytes) else _read(Path(model))
        # Only ONNX files have no mark at their beginning, so that a name decides where the contents do not.
        if is_tflite(data) or (not isinstance(model, bytes) and Path(model).suffix.lower() != ".onnx"):
            if calibration is not None:
                raise CompileError(f"{name}: only float ONNX models take calibration data, not .tflite files")
            return lambda on_host: import_tflite(data, name, on_host=on_host)
        try:
            proto = parse_model(data, None if isinstance(model, bytes) else Path(model).parent)
        except CompileError as error:
            raise CompileError(f"{name}: {error}") from error
    if calibration is not None:
        try:
            proto = quantize(proto, calibration, shapes=shapes, progress=lambda step: _tell(progress, step)).model
        except CompileError as error:
            raise CompileError(f"{name}: {error}") from error
        shapes = None
    return lambda on_host: import_onnx(proto, name, shapes=shapes, on_host=on_host)


def compile_partition(
    partition: Partition,
    config: Config,
    *,
    name: str,
    progress: Progress | None = None,
    eliminate_dead: bool = True,
) -> Program:
    """Compile an imported network; arguments as of `compile_model`. Raises CompileError."""
    steps: list[AcceleratorStep | HostStep] = []
    parts: list[CompiledGraph | HostPart] = []
    for number, part in enumerate(partition.parts):
        _tell(progress, f"compiling part {number + 1} of {len(partition.parts)}")
        if isinstance(part, HostPart):
            steps.append(
                HostStep(
                    model=part.model,
                    inputs=part.inputs,
                    outputs=part.outputs,
                    operators=part.operators,
                    runtime=part.runtime,
                )
            )
            parts.append(part)
        else:
            step, compiled = compile_graph(part, config, eliminate_dead=eliminate_dead)
            steps.append(step)
            parts.append(compiled)
    return Program(
        config=config,
        isa_hash=isa_hash(),
        tensors=partition.tensors,
        inputs=partition.inputs,
        outputs=partition.outputs,
        steps=tuple(steps),
        report=build_report(name, config, parts, partition.tensors),
    )


def compile_graph(
    graph: Graph, config: Config, *, fuse: bool = True, eliminate_dead: bool = True
) -> tuple[AcceleratorStep, CompiledGraph]:
    """Compile the layers of one accelerator step.

    fuse: False leaves every layer by itself, eliminate_dead: False every channel in place, for comparison.
    Raises CompileError.
    """
    verify(graph)
    given = graph
    if eliminate_dead:
        graph = eliminate_dead_channels(graph)
        verify(graph)
    if fuse:
        graph = fuse_combination(graph, config)
        if config.activation_table:
            graph = fuse_table(graph)
        graph = fuse_pool(graph, config)
    constants = ConstantPool()
    works = lower(graph, config, constants)
    if (divided := divide(graph, works, config)) is not graph:
        graph, constants = divided, ConstantPool()
        works = lower(graph, config, constants)
    storage = plan_storage(works, graph, config)
    cuts = choose_cuts(works, storage, graph.inputs, config)
    elsewhere = {*storage.streamed, *graph.inputs, *graph.outputs}
    between = sorted({graph.maps[name].whole for _, name in storage.bands} - elsewhere)
    places = {
        Window.INPUTS: place_external(graph, graph.inputs, config),
        Window.OUTPUTS: place_external(graph, graph.outputs, config),
        Window.WORKSPACE: place_external(graph, between, config),
    }
    external = {p.tensor: External(window, p) for window, placements in places.items() for p in placements}
    for part in place_parts(graph, {name: place.placement for name, place in external.items()}):
        external[part.tensor] = External(external[graph.maps[part.tensor].whole].window, part)
    tasks = schedule(works, cuts, graph, storage, external, config)
    step = AcceleratorStep(
        commands=_encode(tasks, graph, config),
        constants=bytes(constants),
        inputs=places[Window.INPUTS],
        outputs=places[Window.OUTPUTS],
        workspace_bytes=max((p.offset + p.rows * p.row_stride for p in places[Window.WORKSPACE]), default=0),
    )
    return step, CompiledGraph(given=given, graph=graph, storage=storage, tasks=tasks)


def _encode(tasks: list[Task], graph: Graph, config: Config) -> bytes:
    commands = bytearray()
    for task, command in zip(tasks, synchronize(tasks, config), strict=True):
        try:
            commands += encode(command)
        except IsaError as error:
            raise UnsupportedLayerError(graph.layers[task.layer], str(error)) from error
    return bytes(commands)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CompileError(f"cannot read the model {path}: {error.strerror}") from error


def _tell(progress: Progress | None, text: str) -> None:
    if progress is not None:
        progress(text)
