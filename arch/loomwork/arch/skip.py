# SPDX-License-Identifier: Apache-2.0
"""The mask of a SKIP: from passes to operands and back."""

from collections.abc import Mapping, Sequence

from loomwork.arch.isa import BY_MNEMONIC, MASK_PASSES, MASK_WORD_BITS, MASK_WORDS


def skip_operands(executed: Sequence[bool]) -> dict[str, int]:
    """The operands of a SKIP that leaves out the passes of a block that are not to be executed.

    executed: for each pass of a block, in order. Raises ValueError when there is none, or when the command cannot say
    it: a pass from MASK_PASSES on is left out only behind the last executed one, which has a number of its own.
    """
    numbers = [number for number, is_executed in enumerate(executed) if is_executed]
    limit = next(item.high for item in BY_MNEMONIC["SKIP"].operands if item.name == "last")
    if not numbers or numbers[-1] > limit or not all(executed[MASK_PASSES : numbers[-1]]):
        raise ValueError(
            f"a SKIP leaves out any of the first {MASK_PASSES} passes and all behind a last one, at most number {limit}"
        )
    mask = sum(1 << number for number in range(min(numbers[-1], MASK_PASSES)) if not executed[number])
    words = {f"mask_{word}": mask >> word * MASK_WORD_BITS & (1 << MASK_WORD_BITS) - 1 for word in range(MASK_WORDS)}
    return {"last": numbers[-1], **words}


def executed_passes(skip: Mapping[str, int] | None, passes: int) -> tuple[int, ...]:
    """The numbers of the passes of each block that a command executes.

    skip: the operands of the SKIP in front of it, None when there is none. passes: of one block.
    Raises ValueError when `last` is none of them.
    """
    if skip is None:
        return tuple(range(passes))
    last = skip["last"]
    if last >= passes:
        raise ValueError(f"pass {last} is to be the last of a block, which has {passes}")
    mask = sum(skip[f"mask_{word}"] << word * MASK_WORD_BITS for word in range(MASK_WORDS))
    return tuple(number for number in range(last + 1) if number == last or not mask >> number & 1)
