# SPDX-License-Identifier: Apache-2.0
"""Trains networks, prunes them by channels and by blocks, fine-tunes them and writes each as ONNX.

    python -m examples.pruning.train build/pruning --mnist mnist.npz --cifar10 cifar10.npz

In the output folder, each network has its weights before pruning (`resnet8.pt`), each point a model
(`resnet8-blocks-50.onnx`) and what is known about it (`resnet8-blocks-50.json`). What is there is not made again, so a
run that was cut short goes on where it was. `table.json` lists all points; what later measures them on the hardware
adds to its rows. Accuracy is over the classes that a file holds, which may be fewer than ten if it is an excerpt: the
table says how many.
"""

import argparse
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from examples.pruning.datasets import Dataset, load
from examples.pruning.networks import DigitsNet, ResNet8
from loomwork.arch.config import Config, load_config
from loomwork.compiler.importers.torch_module import export
from loomwork.compiler.pruning.blocks import prune_blocks
from loomwork.compiler.pruning.channels import prune_channels
from loomwork.compiler.pruning.onnx_blocks import count_onnx_tiles
from loomwork.compiler.pruning.torch_layers import torch_layers
from loomwork.compiler.pruning.training import Epoch, accuracy, fine_tune

SPARSITIES = (0.3, 0.5, 0.7, 0.8)
MODES = ("channels", "blocks")
TUNING_RATE = 0.02


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One network. spared: layers that block pruning leaves alone: the first, which reads the image, and the last.

    data: the option that names its images. held_out, most: images of a class to test and to train with. epochs: before
    pruning; tuning_epochs: after it, also for the network that is not pruned, so that all are trained equally long.
    """

    make: Callable[[], torch.nn.Module]
    data: str
    held_out: int
    most: int
    shape: tuple[int, ...]
    spared: tuple[str, ...]
    epochs: int
    tuning_epochs: int
    learning_rate: float
    augmented: bool


def _resnet8(width: int, epochs: int) -> Experiment:
    return Experiment(
        make=lambda: ResNet8(width),
        data="cifar10",
        held_out=250,
        most=1500,
        shape=(1, 3, 32, 32),
        spared=("conv", "scores"),
        epochs=epochs,
        tuning_epochs=5,
        learning_rate=0.05,
        augmented=True,
    )


EXPERIMENTS = {
    "digits": Experiment(
        make=DigitsNet,
        data="mnist",
        held_out=200,
        most=3000,
        shape=(1, 1, 28, 28),
        spared=("conv1", "scores"),
        epochs=2,
        tuning_epochs=1,
        learning_rate=0.02,
        augmented=False,
    ),
    "resnet8": _resnet8(16, 20),
    "resnet8_wide": _resnet8(32, 10),
}


def trained(experiment: Experiment, file: Path, data: Dataset) -> torch.nn.Module:
    """The network before pruning, from its file if that is there."""
    torch.manual_seed(1)
    network = experiment.make()
    if file.exists():
        network.load_state_dict(torch.load(file, weights_only=True))
    else:
        fine_tune(
            network, data.train, experiment.epochs, learning_rate=experiment.learning_rate, seed=1, progress=_report
        )
        torch.save(network.state_dict(), partial := file.with_suffix(".part"))
        partial.replace(file)
    return network


def point(
    network: torch.nn.Module, experiment: Experiment, data: Dataset, mode: str, sparsity: float, config: Config
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Prune a copy of the network and train it again; returns the model and its row of the table."""
    example = torch.zeros(experiment.shape)
    pruned, masks = deepcopy(network), None
    if mode == "channels":
        pruned = prune_channels(network, example, sparsity, round_to=config.cols)
    elif mode == "blocks":
        masks = prune_blocks(pruned, example, sparsity, config, scope="layer", ignored=experiment.spared)
    fine_tune(
        pruned,
        data.train,
        experiment.tuning_epochs,
        masks=masks,
        learning_rate=TUNING_RATE,
        seed=2,
        progress=_report,
    )
    model = export(pruned, example)
    tiles = count_onnx_tiles(model, config)
    return model, {
        "mode": mode,
        "sparsity": sparsity,
        "accuracy": accuracy(pruned, data.test),
        "classes": len(data.test.y.unique()),
        "test_images": len(data.test.y),
        "macs": sum(layer.macs for layer in torch_layers(pruned, (example,))),
        "parameters": sum(parameter.numel() for parameter in pruned.parameters()),
        "tiles": sum(count.tiles for count in tiles),
        "zero_tiles": sum(count.zero for count in tiles),
    }


def _report(epoch: Epoch) -> None:
    print(f"  epoch {epoch.number:2}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}", flush=True)


def run(name: str, images: Path, output: Path, config: Config) -> None:
    """All points of one network that are not there yet."""
    experiment = EXPERIMENTS[name]
    data = load(images, held_out=experiment.held_out, most=experiment.most, augmented=experiment.augmented)
    network = trained(experiment, output / f"{name}.pt", data)
    for mode, sparsity in [("none", 0.0), *((mode, sparsity) for mode in MODES for sparsity in SPARSITIES)]:
        stem = f"{name}-{mode}-{round(100 * sparsity)}"
        row_file = output / f"{stem}.json"
        if row_file.exists():
            continue
        print(stem, flush=True)
        model, row = point(network, experiment, data, mode, sparsity, config)
        (output / f"{stem}.onnx").write_bytes(model.SerializeToString())
        # Written last: a row stands for a point that is complete.
        row_file.write_text(json.dumps({"network": name, **row, "onnx": f"{stem}.onnx"}, indent=2) + "\n")
        print(f"  test accuracy {row['accuracy']:.4f}", flush=True)
    write_table(output)


def write_table(output: Path) -> None:
    """Gather the rows of all points."""
    rows = [json.loads(file.read_text()) for file in sorted(output.glob("*-*-*.json"))]
    rows.sort(key=lambda row: (row["network"], ("none", *MODES).index(row["mode"]), row["sparsity"]))
    (output / "table.json").write_text(json.dumps(rows, indent=2) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", type=Path, metavar="DIR", help="where models and table go")
    parser.add_argument("--mnist", type=Path, metavar="FILE.npz", help="x_train, y_train, x_test, y_test of MNIST")
    parser.add_argument("--cifar10", type=Path, metavar="FILE.npz", help="the same of CIFAR-10")
    parser.add_argument("--network", choices=[*EXPERIMENTS], nargs="+", default=["digits", "resnet8"])
    parser.add_argument("--config", default="base", help="whose array the tiles are of")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the same sums whatever the machine
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.network:
        images: Path | None = getattr(options, EXPERIMENTS[name].data)
        if images is None:
            parser.error(f"--network {name} needs --{EXPERIMENTS[name].data} FILE.npz")
        run(name, images, options.output, load_config(options.config))


if __name__ == "__main__":
    main()
