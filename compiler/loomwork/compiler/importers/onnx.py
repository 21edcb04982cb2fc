# SPDX-License-Identifier: Apache-2.0
"""Import of ONNX models.

    partition = import_onnx(onnx.load("net.onnx"), "net")

Reading is in `onnx_prepare` and `onnx_model`, the older form of quantized operators in `onnx_qoperator`, what counts as
one operator in `onnx_units`, what runs where in `onnx_placing` and `onnx_operators`, the arithmetic in `onnx_layers`
and `onnx_weighted`, cutting out what the host executes in `onnx_host`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from loomwork.arch.program import HostRuntime
from loomwork.arch.program import Tensor as ProgramTensor
from loomwork.arch.program_file import DTYPES
from loomwork.compiler.graph import CompileError, FeatureMap, Graph, HostPart, Layer, Partition
from loomwork.compiler.importers.onnx_codes import offset
from loomwork.compiler.importers.onnx_forms import MisfitError, Shape
from loomwork.compiler.importers.onnx_host import Device, HostModel, refusal
from loomwork.compiler.importers.onnx_model import Model, Node, multiplications, read_model
from loomwork.compiler.importers.onnx_placing import Placed, Placing, is_plain
from loomwork.compiler.partition import Group, divide
from loomwork.compiler.partition import Node as Placeable
from loomwork.compiler.passes import simplify
from loomwork.compiler.unsupported import NothingAcceleratedError, UnsupportedLayerError

LAYOUT_REASON = "its bytes lie in another order or have another sign for the accelerator"
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
OUTPUT_REASON = "the network's result is wanted as it is in the model"


def import_onnx(
    model: onnx.ModelProto,
    name: str,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    on_host: Mapping[str, str] | None = None,
) -> Partition:
    """Divide an ONNX model between accelerator and host.

    name: what to call the model in messages. shapes: of inputs whose dimensions the model leaves open. on_host: reasons
    by operator name (that of its first output) for operators that shall stay on the host, whatever the accelerator
    could do. Raises UnsupportedLayerError for an operator that has to be among those, and CompileError, one sentence,
    for a model that is damaged or cannot be run: NothingAcceleratedError when nothing runs on the accelerator.
    """
    try:
        return _Network(read_model(model, shapes), on_host or {}).partition()
    except UnsupportedLayerError:
        raise
    except NothingAcceleratedError as error:
        raise NothingAcceleratedError(f"{name}: {error}", error.operators) from error
    except CompileError as error:
        raise CompileError(f"{name}: {error}") from error


@dataclass(frozen=True)
class _Turn:
    """Turning a tensor over into the bytes that the accelerator reads."""

    root: str


@dataclass(frozen=True)
class _Return:
    """Making a result of the network out of what is there."""

    name: str


_Item = Placed | Node | _Turn | _Return


class _Admission:
    """Feature maps of one accelerator part, by tensor; asked for each unit whether it can join."""

    def __init__(self) -> None:
        self._shapes: dict[str, Shape] = {}

    def __call__(self, item: _Item) -> bool:
        """Whether the operator sees its tensors as the part has them; notes its feature maps if so."""
        if not isinstance(item, Placed):
            return False
        wants = dict(zip(item.roots, item.wants, strict=True))
        shapes = {root: self._shapes.get(root, want.shape) for root, want in wants.items()}
        if item.rule.form.alike:
            present = {self._shapes[root] for root in wants if root in self._shapes}
            if len(present) > 1:
                return False
            shapes = dict.fromkeys(wants, next(iter(present), item.wants[0].shape))
        if any(not want.accepts(shapes[root]) for root, want in wants.items()):
            return False
        self._shapes |= shapes
        self._shapes[item.unit.output] = item.made(tuple(shapes[root] for root in item.roots))
        return True

    def shape(self, root: str) -> Shape:
        """Shape of a tensor's map in this part."""
        return self._shapes[root]


class _Network:
    """One model on its way to a partition. Tensors have numbers, so that `divide` can order what reads them."""

    def __init__(self, model: Model, on_host: Mapping[str, str]) -> None:
        self._model = model
        self._placing = Placing(model, on_host)
        self._numbers: dict[str, int] = {}
        self._devices = {root: self._device(root) for root in self._placing.index}

    def partition(self) -> Partition:
        """Divide and build everything. Raises CompileError."""
        model, placing = self._model, self._placing
        if not placing.units:
            reasons = placing.reasons
            operators = tuple(
                (f"{node.op} {node.name}", reasons[node.index]) for node in model.nodes if node.index in reasons
            )
            raise NothingAcceleratedError(self._nothing_accelerated(), operators)
        items = self._items()
        groups = divide(items, {self._number(name) for name in model.inputs}, _Admission)
        parts = [self._graph(group, groups) if group.accelerated else self._host(group, groups) for group in groups]
        used = {*model.inputs, *model.outputs, *(name for part in parts for name in (*part.inputs, *part.outputs))}
        return Partition(
            parts=tuple(parts),
            tensors=tuple(self._tensor(name) for name in sorted(used)),
            inputs=model.inputs,
            outputs=model.outputs,
        )

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def _name(self, number: int) -> str:
        return next(name for name, other in self._numbers.items() if other == number)

    def _device(self, root: str) -> Device:
        index = self._placing.index[root]
        plain = is_plain(index, self._model.values[root].dtype)
        return Device(name=root if plain else f"{root}/int8", index=index)

    def _nothing_accelerated(self) -> str:
        reasons = self._placing.reasons
        if not reasons:
            return "the model computes nothing"
        left = [node for node in self._model.nodes if node.index in reasons]
        heavy = [node for node in left if node.op in ("Conv", "Gemm", "MatMul")]
        node = next(iter(heavy or [node for node in left if node.op not in CONVERSIONS] or left))
        quantized = any(other.op in CONVERSIONS for other in self._model.nodes)
        remedy = "" if quantized else " (quantize the model first: loomwork quantize)"
        return f"no operator can run on the accelerator, for example {node}: {reasons[node.index]}{remedy}"

    def _items(self) -> list[Placeable[_Item]]:
        placing, items = self._placing, list[Placeable[_Item]]()

        def append(item: _Item, reads: set[str], writes: tuple[str, ...], accelerated: bool = False) -> None:
            items.append(
                Placeable(
                    item,
                    frozenset(self._number(name) for name in reads),
                    frozenset(self._number(name) for name in writes if name),
                    accelerated,
                )
            )

        turned: set[str] = set()

        def turn(root: str) -> None:
            """What the accelerator reads, but does not compute, is turned over once."""
            name = self._devices[root].name
            if root not in placing.computed and name != root and root not in turned:
                turned.add(root)
                append(_Turn(root), self._origins(root), (name,))

        for node in self._model.nodes:
            placed = placing.units.get(node.index)
            if placed is not None:
                for root in placed.roots:
                    turn(root)
                reads = {self._devices[root].name for root in placed.roots}
                append(placed, reads, (self._devices[placed.unit.output].name,), accelerated=True)
            elif node.index in placing.reasons:
                reads = {origin for name in (*node.inputs, *node.captured) for origin in self._origins(name)}
                append(node, reads, node.outputs)
        for name in dict.fromkeys(self._model.outputs):
            origins = self._origins(name)
            if not origins:
                raise CompileError(f"the output {name!r} is constant")
            if origins != {name}:
                append(_Return(name), origins, (name,))
        return items

    def _origins(self, name: str) -> set[str]:
        """Tensors from which this one follows without computing: given, computed by the host, or by the accelerator."""
        model, placing = self._model, self._placing
        if not name or model.values[name].data is not None:
            return set()
        if name in placing.computed:
            return {self._devices[name].name}
        node = model.producers.get(name)
        if node is None or node.index not in placing.free:
            return {name}
        return {origin for read in (*node.inputs, *node.captured) for origin in self._origins(read)}

    def _crossing(self, group: Group[_Item], groups: list[Group[_Item]]) -> list[str]:
        """Tensors that the group computes and something outside of it reads."""
        read = {tensor for other in groups if other is not group for node in other.nodes for tensor in node.reads}
        read |= {self._number(name) for name in self._model.outputs}
        return [self._name(tensor) for tensor in group.writes if tensor in read]

    def _graph(self, group: Group[_Item], groups: list[Group[_Item]]) -> Graph:
        """The accelerator part of a group."""
        admission, placing = _Admission(), self._placing
        maps: dict[str, FeatureMap] = {}
        layers: list[Layer] = []

        def feature_map(root: str) -> FeatureMap:
            return placing.feature_map(root, self._devices[root].name, admission.shape(root))

        for node in group.nodes:
            assert isinstance(node.item, Placed)
            admission(node.item)
            inputs, output = tuple(map(feature_map, node.item.roots)), feature_map(node.item.unit.output)
            try:
                built = node.item.build(inputs, output)
            except MisfitError as error:
                unit = node.item.unit
                layer = Layer(name=unit.name, operator=unit.node.op, input=inputs[0].name, output=output.name)
                raise UnsupportedLayerError(layer, str(error)) from error
            maps.update((m.name, m) for m in (*inputs, *built.maps, output))
            layers += built.layers
        return simplify(
            Graph(
                maps=maps,
                layers=tuple(layers),
                inputs=tuple(self._name(tensor) for tensor in group.reads),
                outputs=tuple(self._crossing(group, groups)),
            )
        )

    def _host(self, group: Group[_Item], groups: list[Group[_Item]]) -> HostPart:
        """The host part of a group."""
        outside = {self._name(tensor) for tensor in group.reads}
        computed = {root: device for root, device in self._devices.items() if root in self._placing.computed}
        host = HostModel(self._model, lambda name: name in outside, computed)
        operators: list[tuple[str, str]] = []
        macs: list[int] = []
        turned: dict[str, Device] = {}
        for node in group.nodes:
            macs.append(multiplications(self._model, node.item) if isinstance(node.item, Node) else 0)
            match node.item:
                case Node():
                    host.add(node.item)
                    operators.append((f"{node.item.op} {node.item.name}", self._placing.reasons[node.item.index]))
                case _Turn(root):
                    device = self._devices[root]
                    host.to_device(root, device)
                    turned[device.name] = device
                    operators.append((f"layout {root}", LAYOUT_REASON))
                case _Return(name):
                    producer = self._model.producers[name]
                    host.need(name)
                    # What the accelerator computed is only put in order here; it does not run a second time.
                    step = producer.op if producer.op in CONVERSIONS else "layout"
                    operators.append((f"{step} {name}", OUTPUT_REASON))
                case Placed():
                    raise AssertionError("an accelerated operator among those of the host")
        crossing = self._crossing(group, groups)
        outputs = [name for name in crossing if name not in turned]
        devices = [turned[name] for name in crossing if name in turned]
        model = host.build(outputs, devices)
        if not host.inputs:
            raise CompileError(f"{operators[0][0]!r} computes a constant; fold it before the conversion")
        if (why := refusal(model)) is not None:
            names = ", ".join(name for name, _ in operators[:3]) + (", ..." if len(operators) > 3 else "")
            raise CompileError(f"the host would run {names}, but ONNX Runtime cannot: {why}")
        return HostPart(
            model=model,
            inputs=tuple(host.inputs),
            outputs=(*outputs, *(device.name for device in devices)),
            operators=tuple(operators),
            runtime=HostRuntime.ONNX_RUNTIME,
            macs=tuple(macs),
        )

    def _tensor(self, name: str) -> ProgramTensor:
        """A tensor of the program: as the model has it, or as the accelerator does."""
        for root, device in self._devices.items():
            if device.name == name and name != root:
                height, width, channels = self._placing.shapes[root]
                rule = self._placing.known.get(root)
                return ProgramTensor(
                    name=name,
                    shape=(1, height, width, channels),
                    dtype="int8",
                    scale=rule.scale if rule else None,
                    zero_point=rule.zero_point if rule else None,
                )
        value, rule = self._model.values[name], self._placing.known.get(name)
        if value.dtype not in DTYPES:
            kind = "string" if value.dtype == "object" else value.dtype
            raise CompileError(f"the tensor {name!r} is {kind}; a program takes and gives {', '.join(DTYPES)}")
        return ProgramTensor(
            name=name,
            shape=value.shape,
            dtype=value.dtype,
            scale=rule.scale if rule else None,
            zero_point=rule.zero_point + offset(value.dtype) if rule else None,
        )
