# SPDX-License-Identifier: Apache-2.0
"""Clocks: the PLL of each FPGA family, from a board's oscillator to the frequency that is wanted."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Const, Instance, IOValue, Signal, Value


class ClockError(ValueError):
    """A frequency that the PLL cannot make; one sentence for the user."""


@dataclass(frozen=True)
class Pll:
    """Dividers of a PLL, whose oscillator is `post` times faster than its output.

    Of the two, that which is fed back runs at `source * feedback / reference`: the output, unless `inside`. All in MHz.
    """

    source: float
    reference: int
    feedback: int
    post: int
    inside: bool = False

    @property
    def output(self) -> float:
        """The frequency that comes out."""
        fed_back = self.source * self.feedback / self.reference
        return fed_back / self.post if self.inside else fed_back

    @property
    def oscillator(self) -> float:
        """The frequency inside."""
        return self.output * self.post


@dataclass(frozen=True)
class PllLimits:
    """What a family's PLL can do, in MHz; the dividers are inclusive.

    comparison: of the frequencies that are compared, `source / reference`. posts: dividers behind the oscillator.
    inside: the oscillator is fed back, not the output. pad: it has the board's oscillator from the pin itself, with no
    input buffer between.
    """

    comparison: tuple[float, float]
    oscillator: tuple[float, float]
    reference: int
    feedback: int
    posts: tuple[int, ...]
    output: tuple[float, float] = (0, math.inf)
    inside: bool = False
    pad: bool = False

    def settings(self, source: float) -> Iterator[Pll]:
        """Every setting within the limits."""
        for reference in range(1, self.reference + 1):
            if not self.comparison[0] <= source / reference <= self.comparison[1]:
                continue
            for feedback in range(1, self.feedback + 1):
                for post in self.posts:
                    setting = Pll(source, reference, feedback, post, self.inside)
                    if (
                        self.oscillator[0] <= setting.oscillator <= self.oscillator[1]
                        and self.output[0] <= setting.output <= self.output[1]
                    ):
                        yield setting

    def choose(self, source: float, wanted: float) -> Pll:
        """The setting whose output comes closest from below, of those the one with the fewest divisions.

        Raises ClockError when none comes within a tenth.
        """
        below = [setting for setting in self.settings(source) if 0.9 * wanted <= setting.output <= wanted + 1e-6]
        if not below:
            raise ClockError(f"the PLL cannot make {wanted:g} MHz from {source:g} MHz")
        return max(below, key=lambda setting: (round(setting.output, 6), -setting.reference, setting.oscillator))


ECP5_LIMITS = PllLimits((10, 400), (400, 800), 128, 128, tuple(range(1, 129)))
"""EHXPLLL. Lattice FPGA-DS-02012, ECP5 Family Data Sheet, section 3.17, "sysCLOCK PLL Timing"."""
GOWIN_LIMITS = PllLimits((3, 500), (500, 1250), 64, 64, (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128))
"""rPLL of the GW2A at speed grade C8/I7. Gowin DS102, GW2A series of FPGA Products, "PLL Switching Characteristics"."""
ICE40_LIMITS = PllLimits(
    (10, 133), (533, 1066), 16, 128, (2, 4, 8, 16, 32, 64), output=(16, 275), inside=True, pad=True
)
"""SB_PLL40_PAD. Lattice FPGA-DS-02008, iCE40 UltraPlus Family Data Sheet, "sysCLOCK PLL Timing".

The mode SIMPLE alone has a feedback divider above 64: Project IceStorm, icepll.cc.
"""


def ecp5_pll(setting: Pll, source: Value | IOValue, output: Signal, locked: Signal) -> Instance:
    """EHXPLLL with its output CLKOP as feedback. Lattice FPGA-TN-02200, ECP5 sysCLOCK PLL/DLL Usage Guide."""
    return Instance(
        "EHXPLLL",
        p_CLKI_DIV=setting.reference,
        p_CLKFB_DIV=setting.feedback,
        p_CLKOP_DIV=setting.post,
        p_CLKOP_CPHASE=setting.post - 1,
        p_CLKOP_FPHASE=0,
        p_CLKOP_ENABLE="ENABLED",
        p_FEEDBK_PATH="CLKOP",
        p_OUTDIVIDER_MUXA="DIVA",
        p_INTFB_WAKE="DISABLED",
        p_STDBY_ENABLE="DISABLED",
        p_DPHASE_SOURCE="DISABLED",
        p_PLLRST_ENA="DISABLED",
        a_FREQUENCY_PIN_CLKI=f"{setting.source:.6g}",
        a_FREQUENCY_PIN_CLKOP=f"{setting.output:.6g}",
        a_ICP_CURRENT="12",
        a_LPF_RESISTOR="8",
        i_CLKI=source,
        i_CLKFB=output,
        i_RST=Const(0),
        i_STDBY=Const(0),
        i_PHASESEL0=Const(0),
        i_PHASESEL1=Const(0),
        i_PHASEDIR=Const(0),
        i_PHASESTEP=Const(0),
        i_PHASELOADREG=Const(0),
        i_PLLWAKESYNC=Const(0),
        i_ENCLKOP=Const(0),
        o_CLKOP=output,
        o_LOCK=locked,
    )


def gowin_pll(setting: Pll, source: Value | IOValue, output: Signal, locked: Signal) -> Instance:
    """The rPLL of a GW2A-18. Gowin UG286, Clock User Guide, "rPLL"."""
    zeros: dict[str, Any] = {
        f"i_{name}": Const(0, width)
        for name, width in (("RESET", 1), ("RESET_P", 1), ("CLKFB", 1), ("FBDSEL", 6), ("IDSEL", 6), ("ODSEL", 6))
    }
    zeros |= {f"i_{name}": Const(0, 4) for name in ("PSDA", "DUTYDA", "FDLY")}
    return Instance(
        "rPLL",
        p_FCLKIN=f"{setting.source:g}",
        p_DEVICE="GW2A-18C",
        p_IDIV_SEL=setting.reference - 1,
        p_FBDIV_SEL=setting.feedback - 1,
        p_ODIV_SEL=setting.post,
        p_DYN_IDIV_SEL="false",
        p_DYN_FBDIV_SEL="false",
        p_DYN_ODIV_SEL="false",
        p_PSDA_SEL="0000",
        p_DUTYDA_SEL="1000",
        p_DYN_DA_EN="false",
        p_CLKFB_SEL="internal",
        i_CLKIN=source,
        o_CLKOUT=output,
        o_LOCK=locked,
        **zeros,
    )


def ice40_pll(setting: Pll, source: Value | IOValue, output: Signal, locked: Signal) -> Instance:
    """SB_PLL40_PAD in the mode SIMPLE. Lattice FPGA-TN-02052, iCE40 sysCLOCK PLL Design and Usage Guide.

    A board's oscillator is at the PLL's own pin, which is no input for the fabric as long as there is a PLL: hence no
    SB_PLL40_CORE behind an input buffer.
    """
    comparison = setting.source / setting.reference
    return Instance(
        "SB_PLL40_PAD",
        p_FEEDBACK_PATH="SIMPLE",
        p_PLLOUT_SELECT="GENCLK",
        p_DIVR=Const(setting.reference - 1, 4),
        p_DIVF=Const(setting.feedback - 1, 7),
        p_DIVQ=Const(setting.post.bit_length() - 1, 3),
        # The bandwidth of its filter, by the frequency that is compared: steps as in Project IceStorm's icepll.
        p_FILTER_RANGE=Const(1 + sum(comparison >= step for step in (17, 26, 44, 66, 101)), 3),
        io_PACKAGEPIN=source,
        i_RESETB=Const(1),
        i_BYPASS=Const(0),
        o_PLLOUTGLOBAL=output,
        o_LOCK=locked,
    )


def ecp5_gate(free: Value, enable: Value, gated: Signal) -> Instance:
    """DCCA, which stops a global clock without a glitch. Lattice FPGA-TN-02200, "Dynamic Clock Control"."""
    return Instance("DCCA", i_CLKI=free, i_CE=enable, o_CLKO=gated)


GateCell = Callable[[Value, Value, Signal], Instance]
"""Makes a clock gate: a clock, whether it runs, what comes out."""
PllCell = Callable[[Pll, Value | IOValue, Signal, Signal], Instance]
"""Makes a PLL: setting, the oscillator or its pin (`PllLimits.pad`), the clock that comes out, whether it is stable."""
