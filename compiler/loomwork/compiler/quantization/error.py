# SPDX-License-Identifier: Apache-2.0
"""What cannot be quantized, and why."""


class QuantizeError(ValueError):
    """A model or calibration data that cannot be used: a sentence that names node or tensor, and what to do."""
