# SPDX-License-Identifier: Apache-2.0
"""Import of TensorFlow Lite models.

    partition = import_tflite(Path("net.tflite").read_bytes(), "net.tflite")

Reading and checking the file is in `tflite_model` and `tflite_shapes`, what runs where in `tflite_operators`, the
arithmetic in `tflite_layers`, cutting out what the host executes in `tflite_cut`.
"""

from collections.abc import Mapping
from dataclasses import replace

from loomwork.arch.program import Tensor as ProgramTensor
from loomwork.compiler.constraints import violation
from loomwork.compiler.graph import CompileError, FeatureMap, Graph, HostPart, Layer, Partition
from loomwork.compiler.importers.tflite_constraints import activations
from loomwork.compiler.importers.tflite_cut import Cut
from loomwork.compiler.importers.tflite_host import check_host
from loomwork.compiler.importers.tflite_model import NUMPY_TYPES, Model, Operator, Tensor, read_model
from loomwork.compiler.importers.tflite_operators import BY_CODE
from loomwork.compiler.importers.tflite_shapes import FREE, check_shapes, multiplications
from loomwork.compiler.importers.tflite_views import Views
from loomwork.compiler.partition import Group, Node, divide
from loomwork.compiler.passes import simplify

SECOND_SHAPE = "its result is wanted under two shapes at once"


def import_tflite(data: bytes, name: str, *, on_host: Mapping[str, str] | None = None) -> Partition:
    """Read a `.tflite` model and divide it between accelerator and host.

    name: what to call the model in messages. on_host: reasons by operator name (that of its first output) for operators
    that shall stay on the host, whatever the accelerator could do.
    Raises CompileError, one sentence, for a file that is damaged, or a model that cannot be run exactly or of which
    nothing runs on the accelerator.
    """
    model = read_model(data, name)
    try:
        return _Network(model, on_host or {}).partition()
    except CompileError as error:
        raise CompileError(f"{name}: {error}") from error


class _Network:
    """One model on its way to a partition.

    root: for every tensor, the one with the same bytes that an operator computes (reshapes compute nothing).
    reasons: why an operator, by its index, stays on the host.
    """

    def __init__(self, model: Model, on_host: Mapping[str, str]) -> None:
        self._model = model
        self._root = _roots(model)
        self._operators = _needed(model, self._root)
        self._reasons: dict[int, str] = {}
        for operator in self._operators:
            check_shapes(operator)
            reason = self._reason(operator, on_host)
            if reason is not None:
                check_host(operator)
                self._reasons[operator.index] = reason
        self._public = self._public_tensors()
        self._names = _unique_names(model)

    def partition(self) -> Partition:
        """Divide and build everything. Raises CompileError."""
        if len(self._reasons) == len(self._operators):
            raise CompileError(self._nothing_accelerated())
        views: list[Views] = []

        def new_admission() -> Views:
            views.append(Views(self._root))
            return views[-1]

        groups = divide(self._nodes(), {tensor.index for tensor in self._model.inputs}, new_admission)
        parts = [self._graph(group, groups) if group.accelerated else self._host(group, groups) for group in groups]
        inputs, outputs = self._edge_names(self._model.inputs), self._edge_names(self._model.outputs)
        used = {*inputs, *outputs, *(name for part in parts for name in (*part.inputs, *part.outputs))}
        tensors = tuple(
            _program_tensor(tensor, self._names[tensor.index])
            for tensor in self._model.tensors
            if self._names[tensor.index] in used
        )
        return Partition(parts=tuple(parts), tensors=tensors, inputs=inputs, outputs=outputs)

    def _edge_names(self, tensors: tuple[Tensor, ...]) -> tuple[str, ...]:
        return tuple(self._names[tensor.index] for tensor in tensors)

    def _reason(self, operator: Operator, on_host: Mapping[str, str]) -> str | None:
        """Why the operator stays on the host, None when the accelerator executes it."""
        rule = BY_CODE.get(operator.code)
        if rule is None:
            return "the accelerator has no such operation"
        reason = violation(rule.constraints, operator)
        if reason is None and any(self._root[t.index].data is not None for t in activations(operator)):
            reason = "its input is constant"
        return reason or on_host.get(operator.name)

    def _nothing_accelerated(self) -> str:
        if not self._operators:
            return "the model computes nothing"
        # Of several, the one that a reader would expect on the accelerator: rules are in order of importance.
        order = list(BY_CODE)
        operator = min(self._operators, key=lambda op: order.index(op.code) if op.code in order else len(order))
        return f"no operator can run on the accelerator, for example {operator}: {self._reasons[operator.index]}" + (
            " (quantize the model to int8)" if any(t.dtype == "float32" for t in activations(operator)) else ""
        )

    def _public_tensors(self) -> dict[int, Tensor]:
        """For each tensor that is computed or given, the one whose name and shape stand for it outside of parts."""
        public = {tensor.index: tensor for tensor in self._model.inputs}
        # What the host reads or the model returns, by root, the outputs first: the accelerator can write it as it is.
        wanted: dict[int, list[Tensor]] = {}
        host = [operator for operator in self._operators if operator.index in self._reasons]
        for tensor in (*self._model.outputs, *(t for operator in host for t in operator.inputs if t is not None)):
            wanted.setdefault(self._root[tensor.index].index, []).append(tensor)
        for operator in self._operators:
            for tensor in operator.outputs:
                forms = wanted.get(tensor.index, [tensor])
                plain = operator.index in self._reasons or tensor in forms
                public[tensor.index] = tensor if plain else forms[0]
        return public

    def _nodes(self) -> list[Node[Operator | Tensor]]:
        """Operators, and model outputs that need a reshape of their own."""
        nodes: list[Node[Operator | Tensor]] = []
        for operator in self._operators:
            accelerated = operator.index not in self._reasons
            reads = activations(operator)[:-1] if accelerated else [t for t in operator.inputs if t is not None]
            roots = [self._root[tensor.index] for tensor in reads]
            nodes.append(
                Node(
                    operator,
                    frozenset(root.index for root in roots if root.data is None),
                    frozenset(tensor.index for tensor in operator.outputs),
                    accelerated,
                )
            )
        for tensor in dict.fromkeys(self._model.outputs):
            root = self._root[tensor.index]
            if root.data is not None:
                raise CompileError(f"the output {tensor.name!r} is constant")
            if self._public[root.index] is not tensor:
                nodes.append(Node(tensor, frozenset((root.index,)), frozenset((tensor.index,)), False))
        return nodes

    def _crossing(self, group: Group[Operator | Tensor], groups: list[Group[Operator | Tensor]]) -> list[Tensor]:
        """Public tensors that the group computes and something outside of it reads."""
        read = {t for other in groups if other is not group for node in other.nodes for t in node.reads}
        outputs = {tensor.index for tensor in self._model.outputs}
        found = [
            self._public.get(t, self._model.tensors[t])
            for t in group.writes
            if t in read or self._public.get(t, self._model.tensors[t]).index in outputs
        ]
        return list(dict.fromkeys(found))

    def _graph(self, group: Group[Operator | Tensor], groups: list[Group[Operator | Tensor]]) -> Graph:
        """The accelerator part of a group."""
        views = Views(self._root)
        layers: list[Layer] = []
        maps: dict[str, FeatureMap] = {}
        for node in group.nodes:
            assert isinstance(node.item, Operator)
            views(node.item)
            inputs, output = views.of(node.item)
            roots = [self._root[tensor.index].index for tensor in activations(node.item)]
            named = [replace(m, name=self._map_name(r)) for m, r in zip((*inputs, output), roots, strict=True)]
            maps.update((feature_map.name, feature_map) for feature_map in named)
            layers.append(BY_CODE[node.item.code].layer(node.item, tuple(named[:-1]), named[-1].name))
        return simplify(
            Graph(
                maps=maps,
                layers=tuple(layers),
                inputs=tuple(self._map_name(t) for t in group.reads),
                outputs=self._edge_names(tuple(self._crossing(group, groups))),
            )
        )

    def _map_name(self, root: int) -> str:
        return self._names[self._public[root].index]

    def _host(self, group: Group[Operator | Tensor], groups: list[Group[Operator | Tensor]]) -> HostPart:
        """The host part of a group."""
        outside = set(group.reads)
        cut = Cut(
            available=lambda tensor: tensor.index in {self._public[root].index for root in outside},
            source=lambda tensor: self._public[self._root[tensor.index].index],
        )
        operators: list[tuple[str, str]] = []
        macs: list[int] = []
        for node in group.nodes:
            macs.append(multiplications(node.item) if isinstance(node.item, Operator) else 0)
            if isinstance(node.item, Operator):
                cut.add(node.item)
                operators.append((f"{node.item.code} {node.item.name}", self._reasons[node.item.index]))
            else:
                operators.append((f"RESHAPE {node.item.name}", SECOND_SHAPE))
        outputs = self._crossing(group, groups)
        model = cut.build(outputs)
        if not cut.inputs:
            raise CompileError(f"{operators[0][0]!r} computes a constant; fold it before the conversion")
        return HostPart(
            model=model,
            inputs=self._edge_names(tuple(cut.inputs)),
            outputs=self._edge_names(tuple(outputs)),
            operators=tuple(operators),
            macs=tuple(macs),
        )


def _roots(model: Model) -> dict[int, Tensor]:
    """For every tensor, the one behind its reshapes."""
    root = {tensor.index: tensor for tensor in model.tensors}
    for operator in model.operators:
        if operator.code in FREE:
            check_shapes(operator)
            source = operator.inputs[0]
            assert source is not None
            root[operator.outputs[0].index] = root[source.index]
    return root


def _needed(model: Model, root: Mapping[int, Tensor]) -> list[Operator]:
    """Operators that an output depends on, without reshapes."""
    needed = {root[tensor.index].index for tensor in model.outputs}
    kept: list[Operator] = []
    for operator in reversed(model.operators):
        if operator.code not in FREE and any(tensor.index in needed for tensor in operator.outputs):
            kept.append(operator)
            needed |= {root[tensor.index].index for tensor in operator.inputs if tensor is not None}
    return kept[::-1]


def _unique_names(model: Model) -> dict[int, str]:
    """Names by tensor index; converters may give one name twice."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for tensor in model.tensors:
        name = tensor.name if tensor.name not in taken else f"{tensor.name}#{tensor.index}"
        taken.add(name)
        names[tensor.index] = name
    return names


def _program_tensor(tensor: Tensor, name: str) -> ProgramTensor:
    if tensor.dtype not in NUMPY_TYPES:
        raise CompileError(f"tensor {tensor.name!r} of type {tensor.dtype} cannot pass between host and accelerator")
    if len(tensor.scale) != 1:
        return ProgramTensor(name=name, shape=tensor.shape, dtype=tensor.dtype)
    return ProgramTensor(
        name=name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        scale=float(tensor.scale[0]),
        zero_point=int(tensor.zero_point[0]),
    )
