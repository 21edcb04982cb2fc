# SPDX-License-Identifier: Apache-2.0
"""`loomwork configs`: the presets."""

from rich.table import Table

from loomwork.arch.config import PRESETS
from loomwork.cli.output import print_table


def configs() -> None:
    """List the preset configurations.

    A file of your own may start from one: `{"base": "small", "scratchpad_kib": 128}`

    Example: `loomwork configs`
    """
    table = Table("name", "array", "MAC/cycle", "scratchpad", "accumulators", "bus", "requantize lanes")
    for name, config in PRESETS.items():
        table.add_row(
            name,
            f"{config.rows}x{config.cols}",
            str(config.macs_per_cycle),
            f"{config.scratchpad_kib} KiB",
            f"2 x {config.accumulator_depth} pixels",
            f"{config.bus_bytes} bytes",
            str(config.requant_lanes),
        )
    print_table(table)
