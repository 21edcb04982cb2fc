# SPDX-License-Identifier: Apache-2.0
"""Commands as hardware sees them: the layouts that follow from the table in `arch/isa.py`."""

from amaranth.hdl import Value, signed, unsigned
from amaranth.lib import data

from loomwork.arch.isa import BY_MNEMONIC


def command_layout(mnemonic: str) -> data.StructLayout:
    """Header and operands of one kind of command, from bit 0 up: a view of the low bits of a raw command.

    Raises KeyError for an unknown mnemonic.
    """
    fields = BY_MNEMONIC[mnemonic].fields
    return data.StructLayout({item.name: signed(item.bits) if item.signed else unsigned(item.bits) for item in fields})


def view_as(mnemonic: str, command: data.View) -> data.View:
    """The bits of a command read as another kind, of which it has no fewer bits.

    Raises KeyError for an unknown mnemonic.
    """
    layout = command_layout(mnemonic)
    return data.View(layout, Value.cast(command)[: layout.size])
