// SPDX-License-Identifier: Apache-2.0
// Runs a verilated board system, from the pins of its UART on, behind a C interface that Python calls through ctypes.
//
// Bytes that are to be sent become bits on `rx`, bits on `tx` become bytes: the model sees nothing but its pins.
// Defined on the compiler's command line: MODEL (class of the verilated design), MODEL_HEADER, DIVISOR (clock cycles
// per bit).

#include <cstdint>
#include <deque>
#include <memory>

#include MODEL_HEADER
#include "verilated.h"

namespace {

constexpr unsigned kBits = 10;  // start, eight of data, stop

struct Board {
    VerilatedContext context;
    std::unique_ptr<MODEL> top;
    std::deque<uint8_t> to_board, from_board;
    unsigned out_bits = 0, out_left = 0, out_timer = 0;
    unsigned in_bits = 0, in_left = 0, in_timer = 0;

    Board() : top(std::make_unique<MODEL>(&context, "board")) { reset(); }

    ~Board() { top->final(); }

    void reset() {
        top->rx = 1;
        top->rst = 1;
        for (int i = 0; i < 4; ++i) clock();
        top->rst = 0;
    }

    void clock() {
        top->clk = 0;
        top->eval();
        top->clk = 1;
        top->eval();
    }

    void drive_rx() {
        if (!out_left && !to_board.empty()) {
            out_bits = 1u << (kBits - 1) | unsigned(to_board.front()) << 1;
            to_board.pop_front();
            out_left = kBits;
            out_timer = 0;
        }
        if (out_left && out_timer-- == 0) {
            top->rx = out_bits & 1;
            out_bits >>= 1;
            --out_left;
            out_timer = DIVISOR - 1;
        }
    }

    void watch_tx() {
        if (!in_left) {
            if (top->tx) return;
            in_left = kBits;
            in_timer = DIVISOR / 2;
        } else if (in_timer-- == 0) {
            in_bits = in_bits >> 1 | unsigned(top->tx) << (kBits - 1);
            in_timer = DIVISOR - 1;
            if (--in_left == 0 && in_bits >> (kBits - 1)) from_board.push_back(uint8_t(in_bits >> 1));
        }
    }

    void cycle() {
        // The last bit must stay as long as the others.
        if (out_left || !to_board.empty() || out_timer) {
            if (!out_left && out_timer)
                --out_timer;
            else
                drive_rx();
        }
        clock();
        watch_tx();
    }
};

}  // namespace

extern "C" {

Board *board_create() { return new Board(); }

void board_destroy(Board *board) { delete board; }

void board_reset(Board *board) { board->reset(); }

void board_send(Board *board, const uint8_t *bytes, uint64_t count) {
    board->to_board.insert(board->to_board.end(), bytes, bytes + count);
}

void board_step(Board *board, uint64_t cycles) {
    while (cycles--) board->cycle();
}

uint64_t board_receive(Board *board, uint8_t *bytes, uint64_t room) {
    uint64_t count = 0;
    for (; count < room && !board->from_board.empty(); ++count) {
        bytes[count] = board->from_board.front();
        board->from_board.pop_front();
    }
    return count;
}

}  // extern "C"
