# SPDX-License-Identifier: Apache-2.0
"""How a convolution is laid onto the systolic array."""

from dataclasses import dataclass
from math import ceil

from loomwork.arch.config import Config
from loomwork.arch.reduction import depthwise_columns, depthwise_passes, pass_count
from loomwork.compiler.graph import Convolution, FeatureMap
from loomwork.compiler.limits import largest
from loomwork.compiler.unsupported import UnsupportedLayerError


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """The reduction of a CONVOLVE or a DEPTHWISE; the members are its operands of the same names.

    depthwise: it is a DEPTHWISE. diagonal: a CONVOLVE with depthwise weights, each block reading just its own input
    channels. If neither, every block reads all channels.
    taps, x_stride: of DEPTHWISE; else 1. length: of CONVOLVE; else the bytes of one input column, `cols`.
    input_channels: of the feature map. blocks: of `cols` output channels, in all. passes: of all taps of one block.
    """

    depthwise: bool
    diagonal: bool
    input_channels: int
    taps: int
    x_stride: int
    length: int
    tap_count: int
    tap_step: int
    block_step: int
    row_step: int
    kernel_rows: int
    blocks: int
    passes: int

    @property
    def mnemonic(self) -> str:
        """The command."""
        return "DEPTHWISE" if self.depthwise else "CONVOLVE"

    def cycles(self, height: int, width: int, config: Config, *, shared: int = 0) -> int:
        """Cycles of the array for one block of a tile of so many output pixels, if nothing stalls."""
        if self.depthwise:
            columns = depthwise_columns(height, width, self.x_stride, self.taps, shared)
        else:
            columns = height * width
        return self.passes * max(config.rows, columns)

    def shared(self, first: int, width: int, source: FeatureMap) -> int:
        """Input columns that end one row of pixels and begin the next, all outside of the image.

        first: input column of the first tap of the first of `width` output pixels.
        """
        if not self.depthwise or self.tap_count > 1:
            return 0
        last = first + (width - 1) * self.x_stride + self.taps - 1
        return max(0, min(-first, last - source.width + 1, self.taps - 1))


def map_convolution(layer: Convolution, source: FeatureMap, config: Config) -> Mapping:
    """Choose the mapping with the fewest cycles of the array, among those that the command set can express.

    Raises UnsupportedLayerError when there is none.
    """
    candidates = [_dense(layer, source, config)]
    if layer.depthwise:
        multiplier = layer.kernel.shape[3] // source.channels
        if config.cols % multiplier == 0:
            candidates.append(_diagonal(layer, source, config, config.cols // multiplier))
        if config.depthwise and multiplier == 1 and (layer.dilation[1] == 1 or layer.kernel.shape[1] == 1):
            candidates.append(_depthwise(layer, source, config))
    fitting = [candidate for candidate in candidates if not _too_large(candidate)]
    if not fitting:
        raise UnsupportedLayerError(layer, f"it has {_too_large(candidates[0])}")
    # Tiles of whole rows, about as many as fit; padding can make the result a little larger or smaller than this.
    width = min(ceil(source.width / layer.stride[1]), config.accumulator_depth)
    height = min(ceil(source.height / layer.stride[0]), config.accumulator_depth // width)
    return min(fitting, key=lambda candidate: candidate.cycles(height, width, config))


def contiguous_taps(width: int, dilation: int) -> int:
    """Kernel columns, of `width` in all, that a dense convolution takes from an image row as one piece."""
    return width if dilation == 1 else 1


def _dense(layer: Convolution, source: FeatureMap, config: Config) -> Mapping:
    """All input channels of a kernel row at once, or those of one tap where dilation parts the taps."""
    width = layer.kernel.shape[1]
    taps = contiguous_taps(width, layer.dilation[1])
    return _convolve(layer, source, config, length=taps * source.channels, tap_count=width // taps)


def _diagonal(layer: Convolution, source: FeatureMap, config: Config, channels: int) -> Mapping:
    """Each block with the input channels it needs, tap by tap."""
    width = layer.kernel.shape[1]
    return _convolve(layer, source, config, length=channels, tap_count=width, block_step=channels, diagonal=True)


def _convolve(
    layer: Convolution,
    source: FeatureMap,
    config: Config,
    *,
    length: int,
    tap_count: int = 1,
    block_step: int = 0,
    diagonal: bool = False,
) -> Mapping:
    height, _, _, outputs = layer.kernel.shape
    blocks = ceil(outputs / config.cols)
    row_step = layer.dilation[0] if height > 1 else 1
    return Mapping(
        depthwise=False,
        diagonal=diagonal,
        input_channels=source.channels,
        taps=1,
        x_stride=1,
        length=length,
        tap_count=tap_count,
        tap_step=layer.dilation[1] * source.channels if tap_count > 1 else 0,
        block_step=block_step if blocks > 1 else 0,
        row_step=row_step,
        kernel_rows=height,
        blocks=blocks,
        passes=tap_count * pass_count(config.rows, height, length, row_step),
    )


def _depthwise(layer: Convolution, source: FeatureMap, config: Config) -> Mapping:
    """Each channel in a column of its own; a kernel wider than a pass in groups of equal width, the last one padded."""
    height, width, _, outputs = layer.kernel.shape
    tap_count = ceil(width / config.depthwise_taps)
    taps = ceil(width / tap_count)
    row_step = layer.dilation[0] if height > 1 else 1
    blocks = ceil(outputs / config.cols)
    return Mapping(
        depthwise=True,
        diagonal=False,
        input_channels=source.channels,
        taps=taps,
        x_stride=layer.stride[1],
        length=config.cols,
        tap_count=tap_count,
        tap_step=taps * source.channels if tap_count > 1 else 0,
        block_step=config.cols if blocks > 1 else 0,
        row_step=row_step,
        kernel_rows=height,
        blocks=blocks,
        passes=tap_count * sum(1 for _ in depthwise_passes(config.depthwise_groups, height, row_step)),
    )


def _too_large(mapping: Mapping) -> str | None:
    """Why the command cannot express the mapping."""
    meaning = {
        "tap_count": "kernel columns that are not contiguous",
        "tap_step": "bytes between kernel columns",
        "row_step": "image rows between kernel rows",
        "kernel_rows": "kernel rows",
        "block_step": "input channels per block",
    }
    if mapping.depthwise:
        meaning |= {"taps": "kernel columns per pass", "x_stride": "columns between output pixels"}
    else:
        meaning |= {"length": "bytes of one kernel row"}
    values = {name: (getattr(mapping, name), text) for name, text in meaning.items()}
    if mapping.depthwise:
        values["x_step"] = mapping.input_channels, "channels"
    for name, (value, text) in values.items():
        limit = largest(mapping.mnemonic, name)
        if value > limit:
            return f"{value} {text}, the command set has room for {limit}"
    return None
