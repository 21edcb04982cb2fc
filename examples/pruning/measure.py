# SPDX-License-Identifier: Apache-2.0
"""Quantizes what `examples.pruning.train` made, compiles it and counts its cycles on the RTL.

    python -m examples.pruning.measure build/pruning --mnist mnist.npz --cifar10 cifar10.npz --markdown docs/pruning.md

Adds to each row of `table.json`: accuracy in int8, cycles of the whole network on the RTL, cycles of the layers that
were pruned (by the cycle model, which gives each layer's share), weight tiles that are left out. A row that has them is
not measured again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from examples.pruning.datasets import Dataset, load
from examples.pruning.pruning_page import page
from examples.pruning.train import EXPERIMENTS, Experiment
from loomwork.arch.config import Config, load_config
from loomwork.compiler.driver import compile_model
from loomwork.compiler.quantization import quantize
from loomwork.sim.backend import run_program
from loomwork.sim.cycles import with_predicted_cycles
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.host import onnx_session
from loomwork.sim.verilator import VerilatorBackend

CALIBRATION_IMAGES = 100
METHOD = "percentile"


def measured(model: onnx.ModelProto, experiment: Experiment, data: Dataset, config: Config) -> dict[str, Any]:
    """What one network comes to. Raises AssertionError when the RTL's result differs from the golden model's."""
    name = model.graph.input[0].name
    samples = next(iter(data.train))[0].numpy()[:CALIBRATION_IMAGES]
    quantized = quantize(model, {name: samples}, method=METHOD).model
    program = with_predicted_cycles(compile_model(quantized, config, name="net"))
    image = {name: next(iter(data.test))[0].numpy()[:1]}
    result = run_program(program, image, VerilatorBackend())
    golden = run_program(program, image, GoldenBackend())
    for output, values in golden.outputs.items():
        assert np.array_equal(values, result.outputs[output]), f"{output} differs between RTL and golden model"
    layers = [layer for layer in program.report["layers"] if layer["where"] == "accelerator"]
    # The spared ones are the first and the last, by the order of the network.
    pruned = layers[1:-1] if experiment.spared else layers
    return {
        "int8_accuracy": _accuracy(quantized, data),
        "cycles": result.cycles_per_image[0],
        "pruned_cycles": sum(layer["predicted_cycles"] for layer in pruned),
        "executed_macs": program.report["totals"]["executed_macs"],
        "config": config.name,
    }


def _accuracy(model: onnx.ModelProto, data: Dataset) -> float:
    """Share of the test images that a quantized network puts into the right class, by ONNX Runtime."""
    session = onnx_session(model.SerializeToString())
    name = session.get_inputs()[0].name
    right, count = 0, 0
    for images, labels in data.test:
        for image, label in zip(images.numpy(), labels.numpy(), strict=True):
            (scores, *_) = session.run(None, {name: image[np.newaxis]})
            right += int(np.asarray(scores).argmax() == label)
            count += 1
    return right / count


def run(rows: Sequence[dict[str, Any]], folder: Path, options: argparse.Namespace, config: Config) -> None:
    """Measure each row that has not been, and write the table after each."""
    loaded: dict[str, Dataset] = {}
    for row in rows:
        if "cycles" in row:
            continue
        experiment = EXPERIMENTS[row["network"]]
        if experiment.data not in loaded:
            images: Path = getattr(options, experiment.data)
            loaded[experiment.data] = load(
                images, held_out=experiment.held_out, most=experiment.most, augmented=experiment.augmented
            )
        model = onnx.load_model(folder / row["onnx"])
        row.update(measured(model, experiment, loaded[experiment.data], config))
        print(f"{row['onnx']}: {row['cycles']:,} cycles, int8 accuracy {row['int8_accuracy']:.4f}", flush=True)
        (folder / "table.json").write_text(json.dumps(rows, indent=2) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="where models and table are")
    parser.add_argument("--mnist", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--cifar10", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--config", default="base", help="what to run on; block sparsity is added to it")
    parser.add_argument("--markdown", type=Path, metavar="PAGE.md", help="write the page of results")
    options = parser.parse_args()
    config = replace(load_config(options.config), block_sparsity=True)
    rows = json.loads((options.folder / "table.json").read_text())
    run(rows, options.folder, options, config)
    if options.markdown:
        options.markdown.write_text(page(rows))


if __name__ == "__main__":
    main()
