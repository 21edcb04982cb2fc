# SPDX-License-Identifier: Apache-2.0
"""Dynamic dimensions: the batch becomes 1, anything else is asked for."""

import pytest

from loomwork.compiler.quantization import QuantizeError
from loomwork.compiler.quantization.shapes import fix_shapes, shape_of
from tests.compiler.quantization.graphs import model, node


def relu(shape: list[int | str]):
    return model([node("Relu", "x", "y")], {"x": shape}, {"y": shape})


def test_a_dynamic_batch_is_1():
    fixed = fix_shapes(relu(["N", 3, 4, 5]), {})
    assert shape_of(fixed.graph.input[0]) == (1, 3, 4, 5)
    assert shape_of(fixed.graph.output[0]) == (1, 3, 4, 5)


def test_a_given_shape_is_used():
    fixed = fix_shapes(relu(["N", 3, "H", "W"]), {"x": (2, 3, 8, 9)})
    assert shape_of(fixed.graph.input[0]) == (2, 3, 8, 9)
    assert shape_of(fixed.graph.output[0]) == (2, 3, 8, 9)


def test_one_name_is_one_size():
    network = model([node("Add", "a b", "y")], {"a": ["N", "L"], "b": ["N", "L"]}, {"y": ["N", "L"]})
    fixed = fix_shapes(network, {"a": (1, 7)})
    assert shape_of(fixed.graph.input[1]) == (1, 7)


def test_the_model_itself_is_not_changed():
    network = relu(["N", 3])
    before = network.SerializeToString()
    fix_shapes(network, {})
    assert network.SerializeToString() == before


@pytest.mark.parametrize(
    ("shape", "given", "sentence"),
    [
        (
            ["N", 3, "height", 4],
            {},
            r"dimension 2 \(height\) of input x, \[N, 3, height, 4\], is dynamic: .*--shape x=1,3,\?,4 with numbers",
        ),
        ([1, 3], {"z": (1, 3)}, "there is no input z to give a shape: inputs are x$"),
        ([1, 3], {"x": (1, 3, 4)}, r"input x has 2 dimensions, \[1, 3\], and the given shape has 3: 1x3x4$"),
        (
            [1, 3],
            {"x": (1, 4)},
            "dimension 1 of input x is 3 in the model and 4 in the given shape: leave the shape out, or export",
        ),
        (["N", 3], {"x": (0, 3)}, "a size in the shape of input x must be 1 or more, not 0$"),
    ],
)
def test_what_does_not_fit_is_named(shape: list[int | str], given: dict[str, tuple[int, ...]], sentence: str):
    with pytest.raises(QuantizeError, match=sentence):
        fix_shapes(relu(shape), given)


def test_an_input_without_a_shape_needs_one():
    network = relu([1, 3])
    network.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(QuantizeError, match="input x has no shape in the model: give its shape, such as --shape x="):
        fix_shapes(network, {})
    assert shape_of(fix_shapes(network, {"x": (1, 3)}).graph.input[0]) == (1, 3)
