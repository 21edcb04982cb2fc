# SPDX-License-Identifier: Apache-2.0
"""docs/pruning.md: accuracy against cycles."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

INTRO = """# Pruning

What pruning brings on the RTL. Made by

    python -m examples.pruning.train build/pruning --mnist mnist.npz --cifar10 cifar10.npz
    python -m examples.pruning.measure build/pruning --mnist mnist.npz --cifar10 cifar10.npz --markdown docs/pruning.md

- **channels**: whole channels are removed, with all that depends on them, in multiples of the array's columns.
- **blocks**: weight tiles of the array, {rows} x {cols} weights, are zero; a tile that is zero is neither loaded nor
  computed (`block_sparsity`, [decision 0014](decisions/0014-block-sparsity.md)). First and last layer are spared.
- **accuracy** before quantization and in int8, after fine-tuning. **cycles**: of one image, start to done, on the RTL
  in Verilator (configuration `{config}` with block sparsity); its outputs equal those of the golden model.
  **pruned layers**: cycles of all layers but the first and the last, by the cycle model. **faster**: against the
  network that is not pruned.
"""


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page, from the rows of `table.json`."""
    lines = [INTRO.format(rows=16, cols=16, config=rows[0]["config"])]
    for network, group in groupby(rows, key=lambda row: row["network"]):
        points = list(group)
        whole = points[0]
        lines += [
            f"## {network}",
            "",
            f"{whole['classes']} classes, {whole['test_images']} test images.",
            "",
            (
                "| mode | sparsity | zero tiles | parameters | accuracy | int8 | cycles | faster | pruned layers "
                "| faster |"
            ),
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for row in points:
            zero = f"{row['zero_tiles'] / row['tiles']:.0%}" if row["mode"] == "blocks" else "-"
            lines.append(
                f"| {row['mode']} | {row['sparsity']:.0%} | {zero} | {row['parameters']:,} | {row['accuracy']:.2%} "
                f"| {row['int8_accuracy']:.2%} | {row['cycles']:,} | {whole['cycles'] / row['cycles']:.2f}x "
                f"| {row['pruned_cycles']:,} | {whole['pruned_cycles'] / row['pruned_cycles']:.2f}x |"
            )
        lines.append("")
    return "\n".join(lines)
