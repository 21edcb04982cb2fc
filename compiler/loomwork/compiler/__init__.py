# SPDX-License-Identifier: Apache-2.0
"""The compiler: from a trained network to a program of commands.

from loomwork.compiler import compile_model, compile_module

program = compile_model("net.tflite", load_config("small"))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loomwork.compiler.driver import compile_model as compile_model
    from loomwork.compiler.pytorch import compile_module as compile_module

_HOME = {"compile_model": "loomwork.compiler.driver", "compile_module": "loomwork.compiler.pytorch"}
"""Where the public functions are: found when they are asked for, because what they need takes a second to load."""


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
