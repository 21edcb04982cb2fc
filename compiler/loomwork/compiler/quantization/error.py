# SPDX-License-Identifier: Apache-2.0
"""What cannot be quantized, and why."""

from loomwork.compiler.graph import CompileError


class QuantizeError(CompileError):
    """A model or calibration data that cannot be used: a sentence that names node or tensor, and what to do."""
