# SPDX-License-Identifier: Apache-2.0
"""The seam itself, and the technology of no device in particular: synthesis finds the multipliers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.memory import Memory


@dataclass(frozen=True)
class Operand:
    """An operand of a multiplication with its register, which a device's cell may take over.

    d: what the register takes. q: the register, of the same shape, in domain `sync`, not reset; the component has it
    anyway. What has not changed since the cycle before needs none: it is its own `q`.
    enable: one bit, whether the register takes `d` in this cycle; None = always.
    """

    d: Value
    q: Value
    enable: Value | None = None

    def __post_init__(self) -> None:
        if self.d.shape() != self.q.shape():
            raise ValueError(
                f"an operand must have the same shape before and behind its register, not {self.d.shape()!r} and "
                f"{self.q.shape()!r}"
            )

    def __getitem__(self, bits: slice) -> "Operand":
        """Some of the bits; those at the top keep the sign."""
        d, q = self.d[bits], self.q[bits]
        if self.d.shape().signed and bits.stop in (None, len(self.d)):
            d, q = d.as_signed(), q.as_signed()
        return Operand(d, q, self.enable)


class Multiplier(ABC):
    """Makes multiplications in one module.

    latency: cycles from `d` of both operands to the product, which has a register too.
    """

    latency = 2

    @staticmethod
    def model(a: int, b: int) -> int:
        """The product, `latency` cycles after `d` of its operands."""
        return a * b

    @abstractmethod
    def __call__(self, a: Operand, b: Operand, *, name: str, enable: Value | None = None) -> Value:
        """The product of `a` and `b`, of the shape of `a.q * b.q`.

        name: of the product, unique in the module. enable: whether its register, which is not reset, is loaded in this
        cycle; None = always.
        Raises ValueError for operands that the device's cell does not hold.
        """


class SinglePortMemory:
    """Signals of a memory that reads or writes one word per cycle.

    address: of the word. enable: in this cycle. lanes: bytes of write_data that are written; none = the word is read
    and is in read_data in the next cycle.
    """

    def __init__(self, words: int, word_bytes: int) -> None:
        self.address = Signal(range(words), name="memory_address")
        self.enable = Signal(name="memory_enable")
        self.lanes = Signal(word_bytes, name="memory_lanes")
        self.write_data = Signal(8 * word_bytes, name="memory_write_data")
        self.read_data = Signal(8 * word_bytes, name="memory_read_data")


@dataclass(frozen=True, kw_only=True)
class Technology:
    """Of no device in particular; those of devices override what pays there.

    logic_columns, logic_elsewhere: so many of the array's columns, the last ones, and all other multiplications, leave
    the device's multipliers alone: for devices that have too few of them.
    single_port_bytes: of memory that has one port, beside the block RAM; 0 = there is none.
    """

    logic_columns: int = 0
    logic_elsewhere: bool = False
    single_port_bytes: int = 0

    def in_cells(self, m: Module) -> Multiplier:
        """One for a module that takes the device's multipliers."""
        return PortableMultiplier(m)

    def in_logic(self, m: Module) -> Multiplier:
        """One that takes lookup tables. Where that is the portable one, synthesis must be told to infer no others."""
        return PortableMultiplier(m)

    def multiplier(self, m: Module) -> Multiplier:
        """The multiplier for a module other than the array."""
        return self.in_logic(m) if self.logic_elsewhere else self.in_cells(m)

    def single_port_memory(self, m: Module, words: int, word_bytes: int) -> SinglePortMemory:
        """A memory without initial contents."""
        port = SinglePortMemory(words, word_bytes)
        m.submodules.memory = memory = Memory(shape=8 * word_bytes, depth=words, init=[])
        read, write = memory.read_port(), memory.write_port(granularity=8)
        m.d.comb += [
            *(read.addr.eq(port.address), read.en.eq(port.enable & ~port.lanes.any())),
            *(write.addr.eq(port.address), write.en.eq(port.lanes & port.enable.replicate(word_bytes))),
            *(write.data.eq(port.write_data), port.read_data.eq(read.data)),
        ]
        return port

    def array_multipliers(self, m: Module, columns: int) -> list[Multiplier]:
        """The multiplier for each column of the array."""
        in_cells, in_logic = self.in_cells(m), self.in_logic(m)
        return [in_cells if column < columns - self.logic_columns else in_logic for column in range(columns)]


class PortableMultiplier(Multiplier):
    """A multiplication sign, which the synthesis tool maps to what the device has."""

    def __init__(self, m: Module) -> None:
        self._m = m

    def __call__(self, a: Operand, b: Operand, *, name: str, enable: Value | None = None) -> Value:
        return product_register(self._m, a.q * b.q, name, enable)


def product_register(m: Module, value: Value, name: str, enable: Value | None) -> Signal:
    """A register for a product, or a part of it, in logic."""
    product = Signal(value.shape(), name=name, reset_less=True)
    if enable is None:
        m.d.sync += product.eq(value)
    else:
        with m.If(enable):
            m.d.sync += product.eq(value)
    return product


PORTABLE = Technology()


def technology_of(platform: object) -> Technology:
    """What the platform that `elaborate` got says, or PORTABLE."""
    return getattr(platform, "technology", PORTABLE)
