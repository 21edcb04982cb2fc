# SPDX-License-Identifier: Apache-2.0
"""The register map."""

import itertools

from loomwork.arch.isa import Window, isa_hash
from loomwork.arch.registers import (
    BY_NAME,
    COUNTERS,
    CSR_BYTES,
    ID_VALUE,
    INTERFACE_VERSION,
    REGISTERS,
    Access,
    ErrorCode,
)


def test_registers_lie_apart_and_inside_the_space():
    offsets = sorted(register.offset for register in REGISTERS)
    assert all(offset % 4 == 0 for offset in offsets)
    assert len(set(offsets)) == len(offsets)
    assert 0 <= offsets[0] < offsets[-1] <= CSR_BYTES - 4


def test_names_are_unique():
    assert len(BY_NAME) == len(REGISTERS)
    assert len({name for name, _ in COUNTERS}) == len(COUNTERS)


def test_bits_do_not_overlap():
    for register in REGISTERS:
        for one, other in itertools.combinations(register.bits, 2):
            assert one.name != other.name
            assert one.low + one.width <= other.low or other.low + other.width <= one.low
        assert all(bits.low >= 0 and bits.width > 0 and bits.low + bits.width <= 32 for bits in register.bits)


def test_every_window_and_counter_has_its_registers():
    for window in Window:
        low = BY_NAME[f"{window.name}_BASE_LOW"]
        assert BY_NAME[f"{window.name}_BASE_HIGH"].offset == low.offset + 4
        assert BY_NAME[f"{window.name}_SIZE"].offset == low.offset + 8
        assert low.access is Access.READ_WRITE
    for name, doc in COUNTERS:
        register = BY_NAME[f"COUNT_{name.upper()}"]
        assert register.access is Access.READ
        assert doc in register.doc


def test_pulses_and_events_name_their_bits():
    """Of such registers only named bits do something."""
    assert all(register.bits for register in REGISTERS if register.access in (Access.WRITE_PULSE, Access.STICKY))


def test_id_reads_as_text():
    assert ID_VALUE.to_bytes(4, "big") == b"LOOM"


def test_identity_registers_reset_to_what_they_identify():
    """Only those of the configuration differ from core to core."""
    resets = {register.name: register.reset for register in REGISTERS if register.reset}
    assert resets == {"ID": ID_VALUE, "VERSION": INTERFACE_VERSION, "ISA_HASH": isa_hash()}


def test_error_codes_fit_and_zero_is_none():
    assert ErrorCode.NONE == 0
    assert len(set(ErrorCode)) == max(ErrorCode) + 1 <= 8


def test_every_irq_event_can_be_enabled():
    assert [(b.name, b.low) for b in BY_NAME["IRQ_ENABLE"].bits] == [
        (b.name, b.low) for b in BY_NAME["IRQ_STATUS"].bits
    ]
