# SPDX-License-Identifier: Apache-2.0
"""How a convolution is laid onto the systolic array."""

from dataclasses import dataclass
from math import ceil

from loomwork.arch.config import Config
from loomwork.arch.reduction import pass_count
from loomwork.compiler.graph import Convolution, FeatureMap
from loomwork.compiler.limits import largest
from loomwork.compiler.unsupported import UnsupportedLayerError


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """The reduction of a CONVOLVE; the members are its operands of the same names.

    diagonal: depthwise weights, each block reading just its own input channels; else every block reads all channels.
    input_channels: of the feature map. blocks: of `cols` output channels, in all. passes: of all taps of one block.
    """

    diagonal: bool
    input_channels: int
    length: int
    tap_count: int
    tap_step: int
    block_step: int
    row_step: int
    kernel_rows: int
    blocks: int
    passes: int


def map_convolution(layer: Convolution, source: FeatureMap, config: Config) -> Mapping:
    """Choose the mapping with the fewest passes that the command set can express.

    Raises UnsupportedLayerError when there is none.
    """
    kernel_height, kernel_width, _, outputs = layer.kernel.shape
    blocks = ceil(outputs / config.cols)
    row_step = layer.dilation[0] if kernel_height > 1 else 1

    def mapping(length: int, taps: int, block_step: int, *, diagonal: bool) -> Mapping:
        return Mapping(
            diagonal=diagonal,
            input_channels=source.channels,
            length=length,
            tap_count=taps,
            tap_step=layer.dilation[1] * source.channels if taps > 1 else 0,
            block_step=block_step if blocks > 1 else 0,
            row_step=row_step,
            kernel_rows=kernel_height,
            blocks=blocks,
            passes=taps * pass_count(config.rows, kernel_height, length, row_step),
        )

    contiguous = layer.dilation[1] == 1 or kernel_width == 1
    candidates = [
        mapping(kernel_width * source.channels, 1, 0, diagonal=False)
        if contiguous
        else mapping(source.channels, kernel_width, 0, diagonal=False)
    ]
    if layer.depthwise:
        multiplier = outputs // source.channels
        if config.cols % multiplier == 0:
            per_block = config.cols // multiplier
            candidates.append(mapping(per_block, kernel_width, per_block, diagonal=True))
    fitting = [candidate for candidate in candidates if not _too_large(candidate)]
    if not fitting:
        raise UnsupportedLayerError(layer, f"it has {_too_large(candidates[0])}")
    return min(fitting, key=lambda candidate: candidate.passes)


def _too_large(mapping: Mapping) -> str | None:
    """Why a CONVOLVE cannot express the mapping."""
    meaning = {
        "length": "bytes of one kernel row",
        "tap_count": "kernel columns that are not contiguous",
        "tap_step": "bytes between kernel columns",
        "row_step": "image rows between kernel rows",
        "kernel_rows": "kernel rows",
        "block_step": "input channels per block",
    }
    for name, text in meaning.items():
        value = getattr(mapping, name)
        limit = largest("CONVOLVE", name)
        if value > limit:
            return f"{value} {text}, the command set has room for {limit}"
    return None
