# SPDX-License-Identifier: Apache-2.0
"""Train, prune and quantize a small network that reads handwritten digits, and write it as an int8 `.tflite` file.

    python examples/digits/train.py --output build/digits

The data are the 1,797 images of scikit-learn's digits: 8x8 pixels, 17 grey levels. The network is

    image [8, 8, 1] -> convolution 3x3, 16 filters -> ReLU -> max-pool 2x2 -> dense, 10 units -> softmax

and all that is done to it is done here in plain NumPy, in four steps: train in float64; set the smaller half of the
weights to zero and train what is left (pruning); choose scales from the training images and round everything to
integers (post-training quantization, https://ai.google.dev/edge/litert/conversion/tensorflow/quantization); write the
file. It takes some seconds. The program gives the same bytes again, on another processor too: sums whose order is the
linear algebra library's business differ there in the last bits only, and no decision below hangs on those.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from tflite_micro.python.tflite_micro import runtime

from loomwork.compiler.tflite_writer import ModelBuilder

CLASSES = 10
FILTERS = 16
TEST_IMAGES = 360
PRUNED = 0.5
EPOCHS, FINE_TUNING_EPOCHS = 40, 20
BATCH = 32
LEARNING_RATE, MOMENTUM, DECAY = 0.05, 0.9, 5e-4

# A pixel p of 0..16 becomes the int8 number 15 p - 128, which stands for p / 16 exactly.
STEPS_PER_GREY_LEVEL = 15
INPUT_SCALE, INPUT_ZERO_POINT = 1 / (16 * STEPS_PER_GREY_LEVEL), -128


@dataclass
class Network:
    """Weights, and which of them may differ from zero.

    `kernel` [3, 3, filters]; `kernel_bias` [filters]; `dense` [4 * 4 * filters, classes]; `dense_bias` [classes].
    """

    kernel: np.ndarray
    kernel_bias: np.ndarray
    dense: np.ndarray
    dense_bias: np.ndarray

    def features(self, images: np.ndarray) -> np.ndarray:
        """Convolution with a border of zeros, and ReLU: images [n, 8, 8] to [n, 8, 8, filters]."""
        # One tap after the other, so that equal patches give equal sums whatever the processor.
        total = np.zeros((*images.shape, FILTERS))
        for (y, x), patch in taps(images):
            total += patch[..., None] * self.kernel[y, x]
        return np.maximum(total + self.kernel_bias, 0)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Inputs of the softmax, [n, classes]."""
        return flatten(pool(self.features(images))) @ self.dense + self.dense_bias

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of the images that get their label."""
        return float(np.mean(self.logits(images).argmax(axis=1) == labels))

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, list[np.ndarray]]:
        """Mean cross-entropy of a batch, and its derivative by each of the four arrays."""
        features = self.features(images)
        pooled = pool(features)
        logits = flatten(pooled) @ self.dense + self.dense_bias
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        n = np.arange(len(labels))
        loss = -np.log(probabilities[n, labels]).mean()

        d_logits = probabilities
        d_logits[n, labels] -= 1
        d_logits /= len(labels)
        d_pooled = (d_logits @ self.dense.T).reshape(pooled.shape)
        # The gradient goes to the largest element of each 2x2 window, if ReLU let it pass.
        d_features = spread(d_pooled) * ((features == spread(pooled)) & (features > 0))
        d_kernel = np.array([np.tensordot(patch, d_features, 3) for _, patch in taps(images)]).reshape(3, 3, FILTERS)
        return loss, [d_kernel, d_features.sum(axis=(0, 1, 2)), flatten(pooled).T @ d_logits, d_logits.sum(axis=0)]


def taps(images: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """For each tap (y, x) of a 3x3 kernel, the images as it sees them, [n, 8, 8]."""
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1)])
    for y, x in np.ndindex(3, 3):
        yield (y, x), padded[:, y : y + 8, x : x + 8]


def pool(features: np.ndarray) -> np.ndarray:
    """Maximum of each 2x2 window."""
    n, height, width, channels = features.shape
    return features.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def spread(pooled: np.ndarray) -> np.ndarray:
    """Each element repeated over the 2x2 window it came from."""
    return pooled.repeat(2, axis=1).repeat(2, axis=2)


def flatten(features: np.ndarray) -> np.ndarray:
    """All that belongs to an image in one row."""
    return features.reshape(len(features), -1)


def initial_network(noise: np.random.Generator) -> Network:
    """Random weights of a variance that keeps that of the activations; https://arxiv.org/abs/1502.01852."""

    def uniform(*shape: int, fan_in: int) -> np.ndarray:
        return (2 * noise.random(shape) - 1) * np.sqrt(6 / fan_in)

    return Network(
        kernel=uniform(3, 3, FILTERS, fan_in=9),
        kernel_bias=np.zeros(FILTERS),
        dense=uniform(16 * FILTERS, CLASSES, fan_in=16 * FILTERS),
        dense_bias=np.zeros(CLASSES),
    )


def train(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray,
    epochs: int,
    noise: np.random.Generator,
    masks: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Stochastic gradient descent with momentum, in place; with masks, the weights outside of them stay zero."""
    parameters = [network.kernel, network.kernel_bias, network.dense, network.dense_bias]
    decays = [DECAY, 0, DECAY, 0]
    velocities = [np.zeros_like(parameter) for parameter in parameters]
    for epoch in range(epochs):
        rate = LEARNING_RATE * (1 - epoch / epochs)
        batches = np.array_split(np.argsort(noise.random(len(images))), len(images) // BATCH)
        loss = 0.0
        for batch in batches:
            batch_loss, gradients = network.gradients(images[batch], labels[batch])
            loss += batch_loss / len(batches)
            for parameter, decay, velocity, gradient in zip(parameters, decays, velocities, gradients, strict=True):
                velocity *= MOMENTUM
                velocity -= rate * (gradient + decay * parameter)
                parameter += velocity
            if masks is not None:
                network.kernel *= masks[0]
                network.dense *= masks[1]
        if epoch % 10 == 9:
            accuracy = network.accuracy(images, labels)
            print(f"  epoch {epoch + 1:2}  loss {loss:.4f}  accuracy {accuracy:.4f}", flush=True)


def largest(weights: np.ndarray) -> np.ndarray:
    """Mask of those weights that pruning keeps: all but the smallest `PRUNED` part by magnitude."""
    order = np.argsort(np.abs(weights), axis=None)
    mask = np.ones(weights.size)
    mask[order[: round(PRUNED * weights.size)]] = 0
    return mask.reshape(weights.shape)


def to_int8(weights: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers of -127..127 and one scale for each index of `axis`, such that weights = integers * scale."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    peak = np.abs(weights).max(axis=others)
    scale = (np.where(peak > 0, peak, 1) / 127).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(weights.ndim)]
    return np.rint(weights / scale.reshape(shape)).astype(np.int8), scale


def to_int32(bias: np.ndarray, input_scale: float, weight_scale: np.ndarray) -> np.ndarray:
    """A bias is added to sums of input * weight, and has their scale."""
    return np.rint(bias / (np.float32(input_scale) * weight_scale)).astype(np.int32)


def quantize(network: Network, images: np.ndarray) -> bytes:
    """The int8 model; `images` show which ranges the activations take."""
    m = ModelBuilder("8x8 digits: convolution, max-pool, dense, softmax; half of the weights are zero")
    x = m.input("image", (1, 8, 8, 1), scale=INPUT_SCALE, zero_point=INPUT_ZERO_POINT)

    # After ReLU the lowest number, -128, stands for 0 and the highest for the largest value seen.
    feature_scale = float(np.float32(network.features(images).max() / 255))
    kernel, kernel_scale = to_int8(network.kernel, axis=2)
    kernel_bias = to_int32(network.kernel_bias, INPUT_SCALE, kernel_scale)
    features = m.conv_2d(
        x,
        kernel.transpose(2, 0, 1)[..., None],
        kernel_bias,
        weight_scale=kernel_scale,
        activation="RELU",
        scale=feature_scale,
        zero_point=-128,
        name="features",
    )
    pooled = m.max_pool_2d(features, 2, name="pooled")
    flat = m.reshape(pooled, (1, 16 * FILTERS), name="flat")

    # The range of the logits holds 0, which has to be a whole number of steps from both ends.
    logits = network.logits(images)
    logit_scale = float(np.float32((logits.max() - logits.min()) / 255))
    dense, dense_scale = to_int8(network.dense, axis=1)
    dense_bias = to_int32(network.dense_bias, feature_scale, dense_scale)
    scores = m.fully_connected(
        flat,
        np.ascontiguousarray(dense.T),
        dense_bias,
        weight_scale=dense_scale,
        scale=logit_scale,
        zero_point=round(-128 - logits.min() / logit_scale),
        name="logits",
    )
    m.output(m.softmax(scores, name="probabilities"))
    return m.build()


def to_input(images: np.ndarray) -> np.ndarray:
    """Images of 0..1, [n, 8, 8], as the model's int8 input, [n, 8, 8, 1]."""
    return (np.rint(images / INPUT_SCALE) + INPUT_ZERO_POINT).astype(np.int8)[..., None]


def int8_accuracy(model: bytes, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of int8 images that the model reads correctly in tflite-micro."""
    interpreter = runtime.Interpreter.from_bytes(model)
    correct = 0
    for image, label in zip(images, labels, strict=True):
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        correct += int(interpreter.get_output(0).argmax() == label)
    return correct / len(labels)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    home = Path(__file__).parent
    parser.add_argument("--output", type=Path, default=home, metavar="DIR", help="where to write (this file's folder)")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    noise = np.random.default_rng(2024)
    pixels, targets = load_digits(return_X_y=True)
    order = np.argsort(noise.random(len(pixels)))
    images, labels = pixels[order].reshape(-1, 8, 8) / 16, targets[order]
    test_images, images = np.split(images, [TEST_IMAGES])
    test_labels, labels = np.split(labels, [TEST_IMAGES])

    print(f"Training on {len(images)} images, testing on {TEST_IMAGES} others")
    network = initial_network(noise)
    train(network, images, labels, EPOCHS, noise)
    print(f"float64              test accuracy {network.accuracy(test_images, test_labels):.4f}")

    masks = largest(network.kernel), largest(network.dense)
    network.kernel *= masks[0]
    network.dense *= masks[1]
    zeros = sum(int((mask == 0).sum()) for mask in masks)
    print(f"Pruned {zeros} of {network.kernel.size + network.dense.size} weights; fine-tuning the others")
    train(network, images, labels, FINE_TUNING_EPOCHS, noise, masks)
    print(f"float64, pruned      test accuracy {network.accuracy(test_images, test_labels):.4f}")

    model = quantize(network, images)
    test_inputs = to_input(test_images)
    print(f"int8, tflite-micro   test accuracy {int8_accuracy(model, test_inputs, test_labels):.4f}")
    (output / "digits_int8.tflite").write_bytes(model)
    np.savez(output / "digits_test.npz", images=test_inputs, labels=test_labels.astype(np.uint8))
    print(f"Wrote digits_int8.tflite ({len(model)} bytes) and digits_test.npz to {output}")


if __name__ == "__main__":
    main()
