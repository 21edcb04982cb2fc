# SPDX-License-Identifier: Apache-2.0
"""What a program must write, according to the golden model."""

import numpy as np

from loomwork.arch.command import encode
from loomwork.arch.program import AcceleratorStep
from loomwork.sim.golden import Golden
from loomwork.sim.testbench.programs import TestProgram


def golden_outputs(program: TestProgram) -> bytes:
    """Contents of the OUTPUTS window after the program."""
    step = AcceleratorStep(
        commands=b"".join(map(encode, program.commands)), constants=program.constants, inputs=(), outputs=()
    )
    window = np.frombuffer(program.inputs, dtype=np.uint8)[np.newaxis]
    return Golden(program.config).run(step, window, program.output_bytes).tobytes()
