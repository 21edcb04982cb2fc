// SPDX-License-Identifier: Apache-2.0
// Runs a verilated compact core behind a C interface: single accesses of its host, and clock cycles.

#include <cstdint>
#include <memory>

#include MODEL_HEADER
#include "verilated.h"

namespace {

struct Core {
    VerilatedContext context;
    std::unique_ptr<MODEL> top;

    Core() : top(std::make_unique<MODEL>(&context, "core")) {
        top->request = 0;
        top->rst = 1;
        for (int i = 0; i < 4; ++i) clock();
        top->rst = 0;
    }

    ~Core() { top->final(); }

    void clock() {
        top->clk = 0;
        top->eval();
        top->clk = 1;
        top->eval();
    }
};

}  // namespace

extern "C" {

Core *core_create() { return new Core(); }

void core_destroy(Core *core) { delete core; }

void core_step(Core *core, uint64_t cycles) {
    while (cycles--) core->clock();
}

uint32_t core_irq(Core *core) { return core->top->irq; }

// Returns what was read; -1 when the core does not answer.
int64_t core_access(Core *core, uint32_t of_registers, uint32_t write, uint32_t address, uint32_t value) {
    auto &top = *core->top;
    top.request = 1;
    top.of_registers = of_registers;
    top.write = write;
    top.address = address;
    top.write_data = value;
    for (uint64_t cycle = 0; cycle < 100'000'000; ++cycle) {
        core->clock();
        if (top.done) {
            const uint32_t found = top.read_data;
            top.request = 0;
            core->clock();
            return found;
        }
    }
    return -1;
}

}  // extern "C"
