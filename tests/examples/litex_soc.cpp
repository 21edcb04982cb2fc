// SPDX-License-Identifier: Apache-2.0
// The SoC of examples/litex behind its AXI4-Lite port, for ctypes.

#include <cstdint>
#include <memory>

#include "Vsoc.h"
#include "verilated.h"

namespace {

VerilatedContext context;
std::unique_ptr<Vsoc> top;

void edge() {
    top->sys_clk = 1;
    top->eval();
    top->sys_clk = 0;
    top->eval();
}

}  // namespace

extern "C" {

void soc_start() {
    top = std::make_unique<Vsoc>(&context, "soc");
    top->sys_rst = 1;
    for (int cycle = 0; cycle < 8; ++cycle) edge();
    top->sys_rst = 0;
    top->host_bready = top->host_rready = 1;
    top->host_wstrb = 15;
    edge();
}

void soc_clock(unsigned cycles) {
    while (cycles--) edge();
}

bool soc_irq() { return top->irq; }

// Returns the response.
unsigned soc_write(uint32_t address, uint32_t value) {
    top->host_awaddr = address;
    top->host_wdata = value;
    top->host_awvalid = top->host_wvalid = 1;
    top->eval();
    while (!top->host_bvalid) {
        const bool addressed = top->host_awready, written = top->host_wready;
        edge();
        if (addressed) top->host_awvalid = 0;
        if (written) top->host_wvalid = 0;
        top->eval();
    }
    const unsigned response = top->host_bresp;
    edge();
    return response;
}

uint32_t soc_read(uint32_t address) {
    top->host_araddr = address;
    top->host_arvalid = 1;
    top->eval();
    while (!top->host_rvalid) {
        const bool addressed = top->host_arready;
        edge();
        if (addressed) top->host_arvalid = 0;
        top->eval();
    }
    const uint32_t value = top->host_rdata;
    edge();
    return value;
}

}  // extern "C"
