# SPDX-License-Identifier: Apache-2.0
"""Which operators of an ONNX model the accelerator executes, and where the numbers of their tensors lie in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from loomwork.compiler.graph import CompileError, FeatureMap, Graph, Table
from loomwork.compiler.importers.onnx_codes import CodeFinder, Codes, Index, natural, root_quantizations
from loomwork.compiler.importers.onnx_forms import (
    VALUES,
    Freedom,
    LayoutError,
    MisfitError,
    Shape,
    Want,
    channels_last,
    map_shape,
)
from loomwork.compiler.importers.onnx_model import Model, Node, Value
from loomwork.compiler.importers.onnx_operators import COPY, RULES, Rule, variant
from loomwork.compiler.importers.onnx_sight import Built, Sight
from loomwork.compiler.importers.onnx_units import Unit, copy_of_view, find_unit, stretched
from loomwork.compiler.verify import verify

Proposal = Callable[[tuple[int, ...]], Index]
"""Where the numbers of a tensor of some shape shall lie."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A unit that the accelerator executes.

    wants: the maps it reads; places: where their numbers lie. result: where those of the operator's own result do.
    """

    unit: Unit
    rule: Rule
    wants: tuple[Want, ...]
    places: tuple[Index, ...]
    result: Index

    @property
    def roots(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        return tuple(source.root for source in self.unit.read)

    def made(self, read: tuple[Shape, ...]) -> Shape:
        """Shape of the map that it writes."""
        if self.rule is COPY:
            return map_shape(self.result)
        return self.rule.form.made(self.unit, self.places, read)

    def build(self, inputs: tuple[FeatureMap, ...], output: FeatureMap) -> Built:
        """Its layers. Raises MisfitError."""
        return self.rule.build(self.unit, Sight(inputs=inputs, places=self.places, output=output, result=self.result))


class Placing:
    """Walks over a model once.

    units: what the accelerator executes, by the index of its operator. reasons: why the others, by index, stay on the
    host. free: operators that compute nothing, or constants. index: for each 8-bit tensor that the accelerator reads or
    writes, the byte offset of each number.
    """

    def __init__(self, model: Model, on_host: Mapping[str, str]) -> None:
        self.model = model
        self.find = CodeFinder(model)
        self.units: dict[int, Placed] = {}
        self.reasons: dict[int, str] = {}
        self.free: set[int] = set()
        self.index: dict[str, Index] = {}
        self.shapes: dict[str, Shape] = {}
        self.known = root_quantizations(model, self.find)
        self._functions: dict[str, Codes] = {}
        self._constants = {name for name, value in model.values.items() if value.data is not None}
        self._on_host = on_host
        claimed: set[int] = set()
        needed = _needed(model)
        for node in model.nodes:
            if node.index in claimed or node.index not in needed:
                continue
            if self._computes_nothing(node):
                self.free.add(node.index)
                continue
            placed = self._place(node)
            if isinstance(placed, Placed):
                self.units[node.index] = placed
                claimed.update(follower.index for follower in placed.unit.follow)
            else:
                self.reasons[node.index] = placed
        self.computed = {placed.unit.output for placed in self.units.values()}

    def zero_point(self, root: str) -> int:
        """Zero point of a tensor's int8 form; 0 where it does not matter."""
        return self.known[root].zero_point if root in self.known else 0

    def feature_map(self, root: str, name: str, shape: Shape) -> FeatureMap:
        """The map of a tensor."""
        height, width, channels = shape
        return FeatureMap(name=name, height=height, width=width, channels=channels, zero_point=self.zero_point(root))

    def _computes_nothing(self, node: Node) -> bool:
        reads = [name for name in (*node.inputs, *node.captured) if name]
        if reads and all(name in self._constants for name in reads) and node.op != "QuantizeLinear":
            self._constants.update(node.outputs)
            return True
        return self.find.free(node)

    def _place(self, node: Node) -> Placed | str:
        rule = RULES.get(node.op) if not node.domain else None
        if rule is None:
            return "the accelerator has no such operation"
        # Some units are several layers, all named after them.
        for name, reason in self._on_host.items():
            if name == node.name or name.startswith(f"{node.name}/"):
                return reason
        unit = find_unit(self.model, node, self.find)
        if isinstance(unit, str):
            return unit
        if any(source is not None for source in unit.sources[rule.activations :]):
            return "its weights are computed; the accelerator needs constants"
        for source in unit.read:
            if source.quantization is not None and source.quantization != self.known.get(source.root):
                return f"it reads {source.root!r} with another scale than it was written with"
        if rule.function:
            unit = self._of_one_tensor(unit)
        rule = variant(unit, rule)
        if rule.form is VALUES and len(unit.read) > 1:
            unit = stretched(unit)
        try:
            return self._fitted(unit, rule)
        except LayoutError as error:
            return self._arranged(unit, rule) or str(error)
        except (MisfitError, CompileError) as error:
            return str(error)

    def _of_one_tensor(self, unit: Unit) -> Unit:
        """A unit whose sources are all functions of one tensor, such as `x * sigmoid(x)`, reading just that."""
        found = [self._functions.get(source.root, source) for source in unit.read]
        plain = all(
            np.array_equal(source.index, natural(self.model.values[source.root].shape))
            for source in (*unit.read, *found)
        )
        if not plain or len(unit.read) < 2 or len({source.root for source in found}) > 1:
            return unit
        joined = iter(
            replace(source, root=below.root, index=below.index, table=below.table)
            for source, below in zip(unit.read, found, strict=True)
        )
        return replace(unit, sources=tuple(source and next(joined) for source in unit.sources))

    def _remember(self, unit: Unit, built: Built) -> None:
        """Keep of which tensor the unit's result is a function, number by number."""
        match built.layers:
            case (Table(table=entries),) if all(
                np.array_equal(index, natural(index.shape)) for index in (unit.read[0].index, unit.result_index)
            ):
                source = unit.read[0]
                below = None if source.table is not None else self._functions.get(source.root)
                if below is not None and below.table is not None:
                    entries, source = entries[below.table.astype(np.int64) + 128], below
                self._functions[unit.output] = replace(source, table=entries, index=natural(unit.result_index.shape))
            case _:
                pass

    def _arranged(self, unit: Unit, rule: Rule) -> Placed | None:
        """The unit behind layers that put the numbers of its sources where it wants them; None where that is no help.

        Each such layer stands for the last layout operator in front of the unit.
        """
        arranged: dict[int, Placed] = {}
        sources = list(unit.sources)
        target = self._target(unit, rule)
        for position, source in enumerate(unit.sources):
            if source is None:
                continue
            node = self.model.producers.get(unit.node.inputs[position])
            if node is None or np.array_equal(source.index, natural(self.model.values[source.root].shape)):
                continue
            moved = f"{unit.node.inputs[position]}/moved"
            if source.index.shape != self.model.values[unit.node.inputs[position]].shape:
                moved = f"{unit.node.inputs[position]}/{'x'.join(map(str, source.index.shape))}"
            if moved in self._on_host:
                return None
            if moved not in self.index:
                shape = source.index.shape
                self.model.values[moved] = Value(name=moved, shape=shape, dtype=self.model.values[source.root].dtype)
                copy = copy_of_view(self.model, node, source, moved)
                try:
                    arranged[node.index] = self._fitted(copy, COPY, target)
                except (MisfitError, CompileError):
                    return None
                if source.root in self.known:
                    self.known[moved] = self.known[source.root]
            sources[position] = replace(source, root=moved, index=natural(source.index.shape))
        try:
            placed = self._fitted(replace(unit, sources=tuple(sources)), rule)
        except (MisfitError, CompileError):
            return None
        if any(index in self.units for index in arranged):
            return None
        self.units.update(arranged)
        return placed

    def _target(self, unit: Unit, rule: Rule) -> Proposal:
        """Where copies of the unit's sources shall have their numbers: where another one has them that stays."""
        for source in unit.read if rule.form.alike else ():
            place = self.index.get(source.root)
            if place is not None and np.array_equal(source.index, natural(place.shape)):
                return lambda _, place=place: place
        return rule.form.default

    def _fitted(self, unit: Unit, rule: Rule, result: Proposal | None = None) -> Placed:
        """The unit, its sources placed as it wants them where nothing has placed them yet.

        result: how its own result is placed, for a unit that can do it in any way. Raises MisfitError.
        """
        last: MisfitError | None = None
        for proposal in (rule.form.default, natural, channels_last):
            places, new = self._places(unit, proposal)
            try:
                wants = rule.form.wants(unit, places)
            except MisfitError as error:
                last = last or error
                continue
            if not rule.form.alike:
                roots = (source.root for source in unit.read)
                wants = tuple(self._as_made(want, root) for want, root in zip(wants, roots, strict=True))
            own = rule.form.result(unit, places) if result is None else result(unit.result_shape)
            placed = Placed(unit=unit, rule=rule, wants=wants, places=places, result=own)
            self._remember(unit, self._try(placed))
            self.index.update(new)
            for root, want in zip(placed.roots, wants, strict=True):
                self.shapes.setdefault(root, want.shape)
            self.index[unit.output] = own.reshape(-1)[unit.result_index]
            self.shapes[unit.output] = placed.made(tuple(want.shape for want in wants))
            return placed
        assert last is not None
        raise last

    def _as_made(self, want: Want, root: str) -> Want:
        """The same wish for the map that the tensor is already, where that makes no difference."""
        made = self.shapes.get(root)
        return replace(want, shape=made) if made is not None and want.freedom is Freedom.ALL else want

    def _places(self, unit: Unit, proposal: Proposal) -> tuple[tuple[Index, ...], dict[str, Index]]:
        """Where the numbers of each source lie, and the tensors that are placed for the first time."""
        new: dict[str, Index] = {}
        places: list[Index] = []
        for source in unit.read:
            if source.root not in self.index and source.root not in new:
                new[source.root] = proposal(self.model.values[source.root].shape)
            index = self.index.get(source.root, new.get(source.root))
            assert index is not None
            places.append(index.reshape(-1)[source.index])
        return tuple(places), new

    def _try(self, placed: Placed) -> Built:
        """Build the layers once, alone, to see whether they can be. Raises MisfitError or VerifyError."""
        shapes = tuple(want.shape for want in placed.wants)
        inputs = tuple(self.feature_map(root, root, shape) for root, shape in zip(placed.roots, shapes, strict=True))
        output = self.feature_map(placed.unit.output, placed.unit.output, placed.made(shapes))
        built = placed.build(inputs, output)
        maps = {feature_map.name: feature_map for feature_map in (*inputs, *built.maps, output)}
        verify(
            Graph(
                maps=maps,
                layers=built.layers,
                inputs=tuple(dict.fromkeys(feature_map.name for feature_map in inputs)),
                outputs=(output.name,),
            )
        )
        return built


def _needed(model: Model) -> set[int]:
    """Operators that an output depends on."""
    wanted = set(model.outputs)
    needed: set[int] = set()
    for node in reversed(model.nodes):
        if any(name in wanted for name in node.outputs):
            needed.add(node.index)
            wanted.update((*node.inputs, *node.captured))
    return needed


def is_plain(index: Index, dtype: str) -> bool:
    """Whether the accelerator stores a tensor byte by byte as the network means it."""
    return dtype == "int8" and bool(np.array_equal(index.reshape(-1), np.arange(index.size)))
