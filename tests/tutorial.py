# SPDX-License-Identifier: Apache-2.0
"""The Python code of a page of docs/, as a reader would type it."""

import re

from tests.models import CHECKOUT


def tutorial_code(page: str) -> str:
    """All Python blocks of a page, one behind the other."""
    blocks = re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks, f"docs/{page} has no Python"
    return "\n".join(blocks)
