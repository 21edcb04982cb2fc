# SPDX-License-Identifier: Apache-2.0
"""Random models are valid, the same for the same seed, as small as promised, and not trivial."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers import CORNERS, GRAPHS, KINDS, LAYERS, Case, cases, random_case
from tests.oracle import run_tflite_micro

SEEDS = 50


@pytest.mark.parametrize("kind", KINDS)
def test_every_seed_runs_in_tflite_micro(kind):
    distinct = []
    for seed in range(SEEDS):
        case = random_case(seed, kind)
        assert sum(array.size for array in case.inputs) <= 2 * 4096
        assert len(case.model_bytes) < 64_000, case.name
        (result,) = run_tflite_micro(case.model_bytes, case.inputs)
        distinct.append(len(np.unique(result)))
    assert np.mean([n > 2 for n in distinct]) > 0.3, "too many outputs are constant: such cases find no errors"


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_stands_for_one_case(kind):
    first, again, other = random_case(3, kind), random_case(3, kind), random_case(4, kind)
    assert first.model_bytes == again.model_bytes
    assert all(np.array_equal(a, b) for a, b in zip(first.inputs, again.inputs, strict=True))
    assert first.name == again.name
    assert first.name != other.name


def test_kinds_are_disjoint():
    assert len(KINDS) == len(LAYERS) + len(GRAPHS) + len(CORNERS)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(KINDS)).flatmap(cases))
def test_hypothesis_draws_valid_cases(case: Case):
    run_tflite_micro(case.model_bytes, case.inputs)
