# SPDX-License-Identifier: Apache-2.0
"""What the command set has room for, read from its table."""

from loomwork.arch.isa import BY_MNEMONIC


def largest(mnemonic: str, operand: str) -> int:
    """Largest legal value of an operand."""
    return next(field.high for field in BY_MNEMONIC[mnemonic].operands if field.name == operand)
