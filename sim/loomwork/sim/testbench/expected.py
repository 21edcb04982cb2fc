"""What a program must write, according to the golden model."""

from loomwork.arch.config import Config
from loomwork.sim.testbench.programs import TestProgram


def golden_outputs(config: Config, program: TestProgram) -> bytes:
    """Contents of the OUTPUTS window after the program."""
    raise RuntimeError
