# SPDX-License-Identifier: Apache-2.0
"""The weight loader: deals out the stream of weights and parameters."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.config import Config
from loomwork.arch.isa import Params, params_words
from loomwork.rtl.ports import PARAMS_INDEX_BITS, params_layout


class WeightLoader(Component):
    """Puts a tile of weights into the shadow registers as soon as its predecessor has become active, and passes
    parameters on to the drain.

    i: `[cols] bytes` per word, in the order of use. tiles: one `Params` per tile: what follows it in the stream; needed
    by the time of the tile's last word. params: to the drain.
    tile_comes: there will be a tile in the next cycle.
    word, load: to the array. present: the tile is in the shadow registers, or its last row gets there in this cycle;
    a register, for every pixel asks for it.
    swap: the first pixel of a pass enters the array with this tile; only when `present`.
    halt: take no words from the next cycle on.
    """

    i: stream.Interface
    tiles: stream.Interface
    tile_comes: Signal
    params: stream.Interface
    word: data.View
    load: Signal
    present: Signal
    swap: Signal
    halt: Signal

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(8, config.cols))),
                "tiles": In(stream.Signature(Params)),
                "tile_comes": In(1),
                "params": Out(stream.Signature(params_layout(config))),
                "word": Out(data.ArrayLayout(8, config.cols)),
                "load": Out(config.rows),
                "present": Out(1),
                "swap": In(1),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = self._config.rows
        halted = Signal()
        m.d.sync += halted.eq(self.halt)
        # One word is kept here, so that the next tile can begin in the cycle after the swap.
        full, taken = Signal(), Signal()
        m.d.comb += self.i.ready.eq((~full | taken) & ~halted)
        with m.If(self.i.ready):
            m.d.sync += self.word.eq(self.i.payload)

        row = Signal(rows, init=1)  # one bit for each: that of the next word is set
        complete, loads, last_row = Signal(), Signal(), Signal()
        in_params = Signal()
        index, last = Signal(PARAMS_INDEX_BITS), Signal(PARAMS_INDEX_BITS)
        m.d.comb += [
            loads.eq(full & ~in_params & ~complete & (~last_row | self.tiles.valid)),
            # Before the last row, parameters are over and the last tile has become active.
            self.tiles.ready.eq(full & last_row),
            self.load.eq(Mux(loads, row, 0)),
            self.params.valid.eq(full & in_params),
            self.params.payload.word.eq(self.word),
            self.params.payload.index.eq(index),
            self.params.payload.last.eq(index == last),
            taken.eq(loads | (self.params.valid & self.params.ready)),
        ]
        # The next cycle's word, whether it is the last one of its tile, and with that whether the tile is present.
        word_comes, last_row_comes = Signal(), Signal()
        m.d.comb += [
            word_comes.eq(Mux(self.i.ready, self.i.valid, full)),
            last_row_comes.eq(Mux(loads, row[-2], last_row)),
        ]
        m.d.sync += [
            complete.eq(self.present & ~self.swap),
            full.eq(word_comes & ~self.halt),
            self.present.eq((self.present & ~self.swap) | (word_comes & last_row_comes & self.tile_comes & ~self.halt)),
        ]
        with m.If(loads):
            m.d.sync += [row.eq(row.rotate_left(1)), last_row.eq(last_row_comes)]
            with m.If(last_row):
                m.d.sync += [index.eq(0), in_params.eq(self.tiles.payload != Params.UNIFORM)]
                with m.Switch(self.tiles.payload):
                    for kind in Params:
                        with m.Case(kind):
                            m.d.sync += last.eq(max(params_words(kind) - 1, 0))
        with m.If(self.params.valid & self.params.ready):
            m.d.sync += index.eq(index + 1)
            with m.If(self.params.payload.last):
                m.d.sync += in_params.eq(0)
        return m
