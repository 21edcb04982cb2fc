# SPDX-License-Identifier: Apache-2.0
"""Names of layers and tensors as messages show them."""

LONGEST = 60
"""Characters of a name in a sentence."""


def readable(name: str) -> str:
    """A name, quoted: of a long one its end, which says more than its scopes.

    Of several, which TensorFlow joins with semicolons when it fuses operators, only the first.
    """
    first = name.split(";", maxsplit=1)[0] or name
    return repr(first if len(first) <= LONGEST else f"…{first[1 - LONGEST :]}")
