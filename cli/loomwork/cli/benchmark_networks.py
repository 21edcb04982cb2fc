# SPDX-License-Identifier: Apache-2.0
"""The networks that `loomwork bench` runs, and the cycles they have to reach."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loomwork.cli.resnet50 import resnet50_shaped


@dataclass(frozen=True)
class Network:
    """A network to measure: its name, and what reads or makes its `.tflite` file.

    keep_dead: execute also the channels that no output depends on.
    """

    name: str
    load: Callable[[], bytes]
    keep_dead: bool = False

    @property
    def title(self) -> str:
        """The name in tables and files."""
        return f"{self.name} (dead channels kept)" if self.keep_dead else self.name


@dataclass(frozen=True)
class Target:
    """Cycles on configuration `base`, with the default memory latency: the most that may be, and what is aimed at."""

    required: int
    aim: int


BUILT_IN = (Network("resnet50_shaped", resnet50_shaped),)
"""Networks that come with the command."""

TARGETS = {
    "ic_resnet8_int8": Target(56_000, 51_000),
    "kws_dscnn_int8": Target(14_500, 12_400),
    "vww_mbv1_025_int8": Target(46_000, 39_500),
    "ad_autoencoder_int8": Target(18_500, 17_100),
    "tf2_mobilenet_v2_1.0_224_ptq": Target(1_900_000, 1_450_000),
    "resnet50_shaped": Target(18_500_000, 16_800_000),
}
"""By name, for all MACs of the network."""
TARGETS_WITHOUT_DEAD_CHANNELS = {"vww_mbv1_025_int8": Target(27_000, 22_000)}
"""By name, where channels that no output depends on are not executed."""


def find_target(name: str, *, all_executed: bool) -> Target | None:
    """The target of a network, None when it has none. all_executed: whether all its MACs are."""
    return (TARGETS if all_executed else {**TARGETS, **TARGETS_WITHOUT_DEAD_CHANNELS}).get(name)


def find_networks(folder: Path | None, select: Sequence[str] = ()) -> list[Network]:
    """All `.tflite` files below a folder, by path, and the built-in networks.

    select: only those in whose name one of these texts occurs. A name that several files have is told apart by folder.
    """
    paths = [] if folder is None else sorted(folder.rglob("*.tflite"))
    count = Counter(path.stem for path in paths)
    found = [
        Network(
            path.stem if count[path.stem] == 1 else str(path.relative_to(folder or "").with_suffix("")), path.read_bytes
        )
        for path in paths
    ]
    return [network for network in (*found, *BUILT_IN) if not select or any(text in network.name for text in select)]
