# SPDX-License-Identifier: Apache-2.0
"""Dividing networks: few parts, every tensor where it is wanted, reshapes for nothing."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomwork.compiler.graph import CompileError, Graph, HostPart, Partition
from loomwork.compiler.importers.tflite import import_tflite
from loomwork.compiler.partition import Node, divide
from loomwork.compiler.tflite_file import Tensor
from loomwork.compiler.tflite_writer import ModelBuilder
from tests.oracle import Oracle
from tests.reference import run_partition

RNG = np.random.default_rng(12)


def int8(*shape: int) -> np.ndarray:
    return RNG.integers(-128, 128, shape, dtype=np.int8)


def conv(m: ModelBuilder, x: Tensor, channels: int = 4, name: str = "conv") -> Tensor:
    return m.conv_2d(
        x, int8(channels, 3, 3, x.shape[3]), weight_scale=0.01, scale=0.1, zero_point=3, padding="SAME", name=name
    )


def kinds(partition: Partition) -> str:
    """One letter per part: accelerator or host."""
    return "".join("A" if isinstance(part, Graph) else "H" for part in partition.parts)


def build(make: Callable[[ModelBuilder, Tensor], list[Tensor]], shape: tuple[int, ...] = (1, 4, 6, 4)) -> Partition:
    """Import the model that `make` builds on one input, and compare all of its outputs with tflite-micro's."""
    m = ModelBuilder()
    x = m.input("x", shape, scale=0.05, zero_point=-4)
    m.output(*make(m, x))
    model = m.build()
    partition = import_tflite(model, "model")
    for _ in range(2):
        image = int8(*shape)
        expected = Oracle(model).run([image])
        values = run_partition(partition, {"x": image})
        for name, output in zip(partition.outputs, expected, strict=True):
            assert values[name].shape == output.shape
            np.testing.assert_array_equal(values[name], output, err_msg=name)
    check_borders(partition)
    return partition


def check_borders(partition: Partition) -> None:
    """What a part reads was given or written before, in the sizes of the tensor table."""
    tensors = {tensor.name: tensor for tensor in partition.tensors}
    present = set(partition.inputs)
    for part in partition.parts:
        assert set(part.inputs) <= present
        assert not set(part.outputs) & present
        present |= set(part.outputs)
        if isinstance(part, Graph):
            for name in (*part.inputs, *part.outputs):
                found = part.maps[name]
                assert found.height * found.row_bytes == np.prod(tensors[name].shape)
    assert set(partition.outputs) <= present
    assert set(tensors) == present


def test_a_host_branch_does_not_cut_the_accelerators_work():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        a = conv(m, x)
        gate = m.softmax(a)
        b = conv(m, conv(m, a))
        return [m.mul(gate, b, scale=0.1)]

    assert kinds(build(make)) == "AH"


def test_the_host_may_begin():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        return [m.add(conv(m, x), conv(m, m.softmax(x)))]

    assert kinds(build(make)) == "HA"


def test_reasons_name_operator_and_condition():
    partition = build(lambda m, x: [m.add(conv(m, x), m.mean(x, (1,), keep_dims=True), scale=0.2, name="sum")])
    host = partition.parts[-1]
    assert isinstance(host, HostPart)
    reasons = dict(host.operators)
    assert "the accelerator needs operands of the same shape" in reasons["ADD sum"]
    assert any("goes over axes [1]" in reason for reason in reasons.values())


def test_reshape_to_the_host_is_free():
    partition = build(lambda m, x: [m.softmax(m.reshape(conv(m, x, name="conv"), (1, 96), name="flat"))])
    assert kinds(partition) == "AH"
    assert partition.parts[0].outputs == ("flat",)
    host = partition.parts[1]
    assert isinstance(host, HostPart)
    assert len(host.operators) == 1
    assert Oracle(host.model).input_shapes == [(1, 96)]


def test_reshaped_output_is_free():
    partition = build(lambda m, x: [m.reshape(conv(m, x), (1, 96), name="flat")])
    assert kinds(partition) == "A"
    assert partition.outputs == ("flat",)
    assert next(t.shape for t in partition.tensors if t.name == "flat") == (1, 96)


def test_reshaped_input_is_free():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        return [conv(m, m.reshape(x, (1, 4, 6, 4)))]

    partition = build(make, (1, 96))
    (part,) = partition.parts
    assert isinstance(part, Graph)
    assert (part.maps["x"].height, part.maps["x"].width, part.maps["x"].channels) == (4, 6, 4)


def test_two_shapes_of_one_output():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        y = conv(m, x)
        return [m.reshape(y, (1, 96)), y, m.reshape(y, (4, 24))]

    assert kinds(build(make)) == "AH"


def test_reshaped_input_as_output():
    assert kinds(build(lambda m, x: [m.reshape(x, (1, 96)), conv(m, x)])) in ("AH", "HA")


def test_reshape_between_host_operators():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        y = m.reshape(m.softmax(conv(m, x)), (1, 96))
        return [m.softmax(y), y, m.reshape(y, (96, 1))]

    assert kinds(build(make)) == "AH"


def test_reshape_that_changes_rows_passes_through_memory():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        return [conv(m, m.reshape(conv(m, x, name="first"), (1, 6, 4, 4)))]

    partition = build(make)
    assert kinds(partition) == "AA"
    first, second = partition.parts
    assert first.outputs == second.inputs == ("first",)


def test_rescaling_keeps_the_rows_of_its_input():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        y = m.reshape(conv(m, x), (1, 96))
        y = m.relu(y, scale=0.2)
        return [conv(m, m.reshape(y, (1, 4, 6, 4)))]

    assert kinds(build(make)) == "A"


def test_tall_image_under_a_fully_connected_operator():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        y = m.reshape(m.max_pool_2d(x, 1), (1, 600))
        return [m.fully_connected(y, int8(3, 600), weight_scale=0.01, scale=0.3)]

    assert kinds(build(make, (1, 300, 1, 2))) == "AA"


def test_output_that_is_read_again():
    partition = build(lambda m, x: [y := conv(m, x), conv(m, y)])
    assert kinds(partition) == "A"
    assert len(partition.outputs) == 2


def test_input_that_is_an_output():
    partition = build(lambda m, x: [x, conv(m, x)])
    assert partition.outputs[0] == "x"


def test_output_given_twice():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        y = conv(m, x)
        return [y, y]

    partition = build(make)
    assert len(partition.outputs) == 2
    assert len(partition.parts[0].outputs) == 1


def test_operators_without_a_reader_are_dropped():
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        m.softmax(x)
        conv(m, x)
        return [conv(m, x)]

    (part,) = build(make).parts
    assert isinstance(part, Graph)
    assert len(part.layers) == 1


@settings(max_examples=120, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_random_networks_of_both_sides_are_exact(random: Random, operators: int):
    def make(m: ModelBuilder, x: Tensor) -> list[Tensor]:
        tensors = [x]
        for _ in range(operators):
            tensors.append(random_operator(m, random, tensors))
        return [*random.sample(tensors, min(2, len(tensors))), m.max_pool_2d(x, (2, 1))]

    build(make)


def random_operator(m: ModelBuilder, random: Random, tensors: list[Tensor]) -> Tensor:
    """One more operator, on tensors of 96 or fewer elements that are there; every other kind stays on the host."""
    x = random.choice(tensors)
    alike = random.choice([t for t in tensors if t.shape == x.shape])
    size = int(np.prod(x.shape))
    images = [t for t in tensors if len(t.shape) == 4 and t.shape[0] == 1]
    picture = random.choice(images)
    kind = random.randrange(11)
    if kind == 0:
        return conv(m, picture, random.choice((2, 4)))
    if kind == 1:
        return m.fully_connected(x, int8(4, size), weight_scale=0.01, scale=0.2, zero_point=-1)
    if kind == 2:
        return m.add(x, alike, scale=0.1, zero_point=1)
    if kind == 3:
        return m.relu(x, scale=random.choice((x.scale[0], 0.07)), zero_point=random.choice((x.zero_point, 2)))
    if kind == 4:
        return m.max_pool_2d(picture, (1, 2), stride=1, padding="SAME")
    if kind == 5:
        return m.mean(picture, (1, 2), scale=0.05, keep_dims=random.random() < 0.5)
    if kind == 6:
        return m.logistic(x)
    if kind == 7:
        return m.mul(x, alike, scale=0.1)
    if kind == 8 and size % 24 == 0:
        return m.reshape(x, random.choice(((1, 4, 6, size // 24), (1, 6, 4, size // 24), (2, size // 2))))
    return m.reshape(x, random.choice(((1, size), (size,), (1, 1, 1, size), (1, 1, size, 1))))


def test_two_inputs():
    m = ModelBuilder()
    a = m.input("a", (1, 3, 3, 2), scale=0.05)
    b = m.input("b", (1, 3, 3, 2), scale=0.01, zero_point=5)
    m.output(m.add(b, a, scale=0.06))
    model = m.build()
    partition = import_tflite(model, "model")
    images = {"a": int8(1, 3, 3, 2), "b": int8(1, 3, 3, 2)}
    (expected,) = Oracle(model).run(list(images.values()))
    assert partition.inputs == ("a", "b")
    np.testing.assert_array_equal(run_partition(partition, images)[partition.outputs[0]], expected)


def test_operators_can_be_kept_on_the_host():
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 2), scale=0.05)
    m.output(conv(m, conv(m, x, name="first"), name="second"))
    model = m.build()
    partition = import_tflite(model, "model", on_host={"second": "it does not fit"})
    assert kinds(partition) == "AH"
    host = partition.parts[1]
    assert isinstance(host, HostPart)
    assert host.operators == (("CONV_2D second", "it does not fit"),)
    image = int8(1, 4, 4, 2)
    np.testing.assert_array_equal(run_partition(partition, {"x": image})["second"], Oracle(model).run([image])[0])


def test_constant_output_is_refused():
    m = ModelBuilder()
    x = m.input("x", (1, 4, 4, 2), scale=0.05)
    constant = m.constant("c", int8(1, 8), scale=0.1)
    m.output(conv(m, x), m.reshape(constant, (8,), name="fixed"))
    with pytest.raises(CompileError, match="'fixed' is constant"):
        import_tflite(m.build(), "model")


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 30), max_size=3)), min_size=1, max_size=14))
def test_division_is_an_order_in_which_all_can_run(drawn: list[tuple[bool, list[int]]]):
    """drawn: side of each node, and which of the earlier tensors it reads; tensor 0 is the input."""
    nodes = [
        Node(i, frozenset(r % (i + 1) for r in reads), frozenset({i + 1}), accelerated)
        for i, (accelerated, reads) in enumerate(drawn)
    ]
    groups = divide(nodes, {0}, lambda: lambda _: True)
    order = [node.item for group in groups for node in group.nodes]
    assert sorted(order) == list(range(len(nodes)))
    present = {0}
    for group in groups:
        for node in group.nodes:
            assert node.accelerated == group.accelerated
            assert node.reads <= present
            present |= node.writes
    assert all(a.accelerated != b.accelerated for a, b in pairwise(groups))
    switches = sum(a.accelerated != b.accelerated for a, b in pairwise(nodes))
    assert len(groups) <= switches + 1


def test_a_group_that_turns_a_node_away_is_closed():
    nodes = [Node(i, frozenset({i}), frozenset({i + 1}), accelerated=True) for i in range(5)]

    def at_most_two() -> Callable[[int], bool]:
        taken: list[int] = []

        def admit(item: int) -> bool:
            taken.append(item)
            return len(taken) <= 2

        return admit

    groups = divide(nodes, {0}, at_most_two)
    assert [[node.item for node in group.nodes] for group in groups] == [[0, 1], [2, 3], [4]]


def test_nodes_that_wait_for_each_other_are_refused():
    nodes = [Node(0, frozenset({2}), frozenset({1}), True), Node(1, frozenset({1}), frozenset({2}), True)]
    with pytest.raises(CompileError, match="wait for each other"):
        divide(nodes, {0}, lambda: lambda _: True)
