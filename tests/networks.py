# SPDX-License-Identifier: Apache-2.0
"""Random int8 networks of up to 25 layers in the styles that people use, to compare implementations on.

    case = random_network(seed=7)                     # styles take turns
    case = random_network(seed=7, style="resnet")     # the same seed gives the same model and inputs

Sizes are small (feature maps of up to about 6,000 values) and odd: channel counts from 1 to 300 beside the multiples of
any array, maps that are tall, flat or a single pixel, kernels larger than the image, strides larger than the kernel.
"""

from collections.abc import Callable

import numpy as np

from loomwork.compiler.tflite_file import Tensor
from tests.layers import Case, Choices
from tests.network_sketch import Network


def random_network(seed: int, style: str | None = None, *, dead_filters: float = 0) -> Case:
    """The network and the inputs of one inference that `seed` stands for; `style` is one of `STYLES`.

    dead_filters: which share of the filters of every layer is made zero.
    """
    names = list(STYLES)
    style = style or names[seed % len(names)]
    noise = np.random.default_rng([seed, *style.encode()])
    network = Network(Choices(lambda low, high: int(noise.integers(low, high, endpoint=True))), dead_filters)
    STYLES[style](network)
    return Case(f"{style}[{seed}]: {'; '.join(network.layers)}", network.model.build(), network.inputs)


def _mobilenet_v1(n: Network) -> None:
    c = n.choose
    x = n.image(c.integer(9, 40), c.integer(9, 40), c.pick((3, 1, 4)))
    x = n.conv(x, n.channels(), stride=2, activation=n.relu)
    for _ in range(c.integer(2, 8)):
        x = n.depthwise(x, c.pick((3, 3, 5)), stride=c.pick((1, 1, 2)), activation=n.relu)
        x = n.conv(x, n.channels(), 1, activation=n.relu)
    n.output(n.classify(n.global_average(x)))


def _mobilenet_v2(n: Network) -> None:
    c = n.choose
    x = n.image(c.integer(8, 32), c.integer(8, 32), 3)
    x = n.conv(x, n.channels(40), stride=2, activation=n.relu)
    for _ in range(c.integer(1, 5)):
        stride = c.pick((1, 1, 2))
        y = n.conv(x, x.shape[3] * c.pick((1, 2, 6)), 1, activation=n.relu)
        y = n.depthwise(y, 3, stride=stride, activation=n.relu)
        y = n.conv(y, x.shape[3] if c.once_in(2) else n.channels(48), 1)
        x = n.add(x, y) if y.shape == x.shape else y
    n.output(n.classify(n.global_average(n.conv(x, n.channels(), 1, activation=n.relu))))


def _resnet(n: Network) -> None:
    c = n.choose
    x = n.image(c.integer(6, 32), c.integer(6, 32), 3)
    x = n.conv(x, n.channels(24), c.pick((3, 7)), stride=c.pick((1, 2)), activation=n.relu)
    for _ in range(c.integer(1, 4)):
        stride, channels = c.pick(((1, x.shape[3]), (2, n.channels(64))))
        y = n.conv(x, channels, 3, stride=stride, activation=n.relu)
        y = n.conv(y, y.shape[3], 3)
        shortcut = x if y.shape == x.shape else n.conv(x, y.shape[3], 1, stride=stride)
        same = shortcut.shape == y.shape
        x = n.add(*((y, shortcut) if c.once_in(2) else (shortcut, y)), n.relu) if same else n.relu_layer(y)
    pooled = n.pool(x, "average", (min(x.shape[1], 8), min(x.shape[2], 8)))
    n.output(n.classify(n.model.reshape(pooled, (1, int(np.prod(pooled.shape))))))


def _streaming(n: Network) -> None:
    """Wake words: convolutions along time only, dilated ones too."""
    c = n.choose
    length, features, along_width = c.integer(10, 60), c.pick((1, 10, 20, 40)), c.once_in(2)

    def shape(size: int) -> tuple[int, int]:
        return (1, size) if along_width else (size, 1)

    x = n.image(*shape(length), features)
    for depth in range(c.integer(2, 8)):
        kernel, dilation = c.pick((3, 5, 2, 9)), c.pick((1, 2**depth % 31, 4))
        size = max(x.shape[1:3])
        padding = "VALID" if (kernel - 1) * dilation < size and c.once_in(2) else "SAME"
        stride = c.pick((1, 2)) if dilation == 1 else 1
        if c.once_in(2):
            strides = (stride, stride) if c.once_in(2) else shape(stride)
            x = n.depthwise(x, shape(kernel), dilation=shape(dilation), padding=padding, stride=strides)
            x = n.conv(x, n.channels(64), 1, activation=n.relu)
        else:
            x = n.conv(x, n.channels(64), shape(kernel), dilation=shape(dilation), padding=padding, activation=n.relu)
    n.output(n.classify(x))


def _keywords(n: Network) -> None:
    c = n.choose
    x = n.image(c.integer(20, 60), c.integer(8, 40), 1)
    kernel = (c.integer(3, 20), c.integer(3, 10))
    multiplier = c.pick((8, 3, 64, 10, 17))
    if c.once_in(2):
        x = n.depthwise(x, kernel, multiplier, stride=c.pick((2, (1, 2), (2, 3), 4)), activation=n.relu)
    else:
        x = n.conv(x, multiplier, kernel, stride=c.pick((2, (1, 2), (2, 3))), activation=n.relu)
    for _ in range(c.integer(0, 3)):
        x = n.conv(x, n.channels(40), c.pick((3, (4, 10), 1)), stride=c.pick((1, 2)), activation=n.relu)
        if min(x.shape[1:3]) >= 2 and c.once_in(2):
            x = n.pool(x, "max")
    n.output(n.classify(x))


def _autoencoder(n: Network) -> None:
    c = n.choose
    size = c.pick((640, 100, 33, 257, 8))
    x = n.image(1, 1, size)
    x = n.model.reshape(x, (1, size)) if c.once_in(2) else x
    for _ in range(c.integer(3, 10)):
        x = n.dense(x, c.pick((128, 64, 8, 1, n.channels())), activation=n.relu)
    n.output(n.dense(x, size))


def _vgg(n: Network) -> None:
    c = n.choose
    x = n.image(c.integer(8, 44), c.integer(8, 44), c.pick((1, 3)))
    for _ in range(c.integer(2, 4)):
        for _ in range(c.integer(1, 2)):
            x = n.conv(x, n.channels(64), c.pick((3, 5)), activation=n.relu)
        kind, size, stride = c.pick(("max", "max", "average")), c.pick((2, 3, 3)), c.pick((2, 2, 3, 1))
        fits = size <= min(x.shape[1:3])
        x = n.pool(x, kind, size, stride=stride, padding="VALID" if fits and c.once_in(2) else "SAME")
    x = n.dense(x, n.channels(), activation=n.relu)
    n.output(n.classify(x))


def _detector(n: Network) -> None:
    """Two or three outputs, from branches at different depths."""
    c = n.choose
    x = n.image(c.integer(12, 40), c.integer(12, 40), 3)
    x = n.conv(x, n.channels(20), stride=2, activation=n.relu)
    outputs: list[Tensor] = []
    for _ in range(c.integer(2, 3)):
        x = n.conv(n.depthwise(x, stride=2, activation=n.relu), n.channels(), 1, activation=n.relu)
        boxes, scores = n.conv(x, 4 * c.integer(1, 3), c.pick((1, 3))), n.conv(x, c.integer(1, 21), 1)
        outputs += [boxes, n.model.logistic(scores) if c.once_in(3) else scores][: c.integer(1, 2)]
    if c.once_in(3):
        flat = [n.model.reshape(t, (1, int(np.prod(t.shape)), 1)) for t in outputs]
        outputs = [n.concatenate(flat, axis=1), *([x] if c.once_in(2) else [])]
    elif c.once_in(2):
        outputs.append(x)  # it is consumed too
    n.output(*outputs)


def _unet(n: Network) -> None:
    c = n.choose
    x = n.image(c.integer(6, 32), c.integer(6, 32), c.pick((1, 3)))
    skips: list[Tensor] = []
    for _ in range(c.integer(1, 3)):
        x = n.conv(x, n.channels(24), activation=n.relu)
        if min(x.shape[1:3]) < 2:
            break
        skips.append(x)
        x = n.pool(x, "max") if c.once_in(2) else n.conv(x, n.channels(24), stride=2, activation=n.relu)
    for skip in reversed(skips):
        x = n.upsample(x, skip.shape[1], skip.shape[2])
        x = n.conv(n.concatenate([skip, x]), n.channels(24), activation=n.relu)
    n.output(n.conv(x, c.integer(1, 4), 1))


def _squeeze_excite(n: Network) -> None:
    c = n.choose
    x = n.conv(n.image(c.integer(6, 24), c.integer(6, 24), 3), n.channels(40), stride=2, activation=n.relu)
    for _ in range(c.integer(1, 3)):
        y = n.depthwise(n.conv(x, n.channels(64), 1, activation=n.relu), c.pick((3, 5)))
        squeezed = n.model.mean(y, (1, 2), keep_dims=True)
        if c.once_in(2):
            gate = n.conv(n.conv(squeezed, n.channels(16), 1, activation=n.relu), y.shape[3], 1)
        else:
            gate = n.dense(n.dense(squeezed, n.channels(16), activation=n.relu), y.shape[3])
            gate = n.model.reshape(gate, (1, 1, 1, y.shape[3]))
        y = n.mul(y, n.model.logistic(gate))
        y = n.conv(y, x.shape[3], 1)
        x = n.add(x, y)
    n.output(n.classify(n.global_average(x)))


def _several_inputs(n: Network) -> None:
    c = n.choose
    first = n.image(c.integer(4, 16), c.integer(4, 16), n.channels(16))
    branches = [n.conv(first, n.channels(33), activation=n.relu)]
    for _ in range(c.integer(1, 2)):
        other = n.image(first.shape[1], first.shape[2], n.channels(16))
        branches.append(n.conv(other, branches[0].shape[3], c.pick((1, 3))))
    x = branches[0]
    for branch in branches[1:]:
        x = n.add(x, branch) if branch.shape == x.shape else n.concatenate([x, branch])
    n.output(n.add(n.dense(x, 10), n.dense(n.image(1, 1, n.channels()), 10)), x)


def _reused(n: Network) -> None:
    """One tensor with many readers, which may be an output too."""
    c = n.choose
    x = n.image(c.integer(3, 14), c.integer(3, 14), n.channels(30))
    trunk = n.conv(x, n.channels(40), activation=n.relu)
    readers: list[Callable[[], Tensor]] = [
        lambda: n.conv(trunk, trunk.shape[3], 3),
        lambda: n.depthwise(trunk, 5),
        lambda: n.pool(trunk, "max", 3, stride=1, padding="SAME"),
        lambda: n.pool(trunk, "average", 3, stride=1, padding="SAME"),
        lambda: n.relu_layer(trunk),
        lambda: n.rescale(trunk),
        lambda: n.add(trunk, trunk),
    ]
    x = trunk
    for _ in range(c.integer(3, 7)):
        branch = c.pick(readers)()
        if branch.shape == x.shape:
            x = n.add(x, branch)
    n.output(n.global_average(x), *([trunk] if c.once_in(2) else []), *([x] if c.once_in(3) else []))


def _odd_shapes(n: Network) -> None:
    """Tall, flat or tiny maps; large kernels, also larger than the image; strides larger than the kernel."""
    c = n.choose
    height, width = c.pick(((1, 1), (90, 1), (1, 90), (61, 3), (2, 77), (300, 2), (1, 700), (5, 5), (2, 2)))
    x = n.image(height, width, n.channels(17))
    for _ in range(c.integer(3, 9)):
        kernel = c.pick((1, 3, 7, 11, (1, 9), (9, 1), (2, 4), (11, 5), 4, 6))
        stride = c.pick((1, 1, 1, 2, 3, (1, 2), (3, 1), 5))
        match c.pick(("conv", "conv", "depthwise", "pool", "pad", "relu", "add")):
            case "conv":
                x = n.conv(x, n.channels(), kernel, stride=stride, activation=n.relu)
            case "depthwise":
                multiplier = c.pick((1, 1, 2, 3, 8)) if x.shape[3] <= 40 else 1
                x = n.depthwise(x, kernel, multiplier, stride=stride)
            case "pool":
                x = n.pool(x, c.pick(("max", "average")), kernel, stride=stride, padding="SAME")
            case "pad":
                edges = [(c.integer(0, 3), c.integer(0, 3)) for _ in range(2)]
                x = n.model.pad(x, [(0, 0), *edges, (0, 0)])
                if min(x.shape[1:3]) >= 3:
                    x = n.conv(x, n.channels(), 3, padding="VALID", stride=c.pick((1, 2)))
            case "relu":
                x = n.relu_layer(x)
            case _:
                x = n.add(x, n.conv(x, x.shape[3], 1)) if x.shape[3] < 190 else n.rescale(x)
    n.output(x)


def _rows(n: Network) -> None:
    """Dense layers over the last axis (`keep_num_dims`), as in mixers and transformers."""
    c = n.choose
    x = n.image(c.integer(2, 12), c.integer(1, 6), n.channels(40))
    if c.once_in(2):
        x = n.model.reshape(x, (1, x.shape[1] * x.shape[2], x.shape[3]))
    for _ in range(c.integer(2, 5)):
        y = n.dense(x, n.channels(64), keep_num_dims=True, activation=n.relu)
        y = n.dense(y, x.shape[-1], keep_num_dims=True)
        x = n.add(x, y) if y.shape == x.shape else y
    n.output(n.classify(x) if c.once_in(2) else x)


STYLES: dict[str, Callable[[Network], None]] = {
    "mobilenet_v1": _mobilenet_v1,
    "mobilenet_v2": _mobilenet_v2,
    "resnet": _resnet,
    "streaming": _streaming,
    "keywords": _keywords,
    "autoencoder": _autoencoder,
    "vgg": _vgg,
    "detector": _detector,
    "unet": _unet,
    "squeeze_excite": _squeeze_excite,
    "several_inputs": _several_inputs,
    "reused": _reused,
    "odd_shapes": _odd_shapes,
    "rows": _rows,
}
