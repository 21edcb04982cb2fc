# SPDX-License-Identifier: Apache-2.0
"""Layers that the command set or a configuration cannot express, and networks of which nothing can be accelerated."""

from loomwork.compiler.graph import CompileError, Layer
from loomwork.compiler.names import readable


class UnsupportedLayerError(CompileError):
    """One layer has to stay on the host. name: of the layer; reason: why, to follow a colon."""

    def __init__(self, layer: Layer, reason: str) -> None:
        super().__init__(f"layer {readable(layer.name)} ({layer.operator}): {reason}")
        self.name = layer.name
        self.reason = reason


class NothingAcceleratedError(CompileError):
    """A network of which no operator runs on the accelerator. operators: each one, and why."""

    def __init__(self, sentence: str, operators: tuple[tuple[str, str], ...]) -> None:
        super().__init__(sentence)
        self.operators = operators
