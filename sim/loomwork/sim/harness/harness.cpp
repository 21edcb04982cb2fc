// SPDX-License-Identifier: Apache-2.0
// Runs a verilated core against a model of external memory, behind a C interface that Python calls through ctypes.
//
// The harness knows the AXI protocol and nothing else: which registers there are and what they mean stays in Python.
// Defined on the compiler's command line: MODEL (class of the verilated core), MODEL_HEADER, BUS_BYTES,
// TRACE_UNITS (an X-macro list of the units with trace ports, in the order of their numbers).

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include MODEL_HEADER
#include "verilated.h"

namespace {

constexpr unsigned kOkay = 0, kSlaveError = 2, kDecodeError = 3;

struct Region {
    uint64_t base, size;
    uint8_t *bytes;
    bool writable;
    unsigned response;  // answered instead of OKAY, to try out errors
};

struct Burst {
    uint64_t address, due;
    unsigned id, beats;
};

struct Response {
    uint64_t due;
    unsigned id, code;
};

struct WriteBeat {
    uint8_t data[BUS_BYTES];
    uint64_t strobe;
    bool last;
};

struct Event {
    uint64_t cycle;
    uint32_t unit, kind, offset;  // kind: 0 = start, 1 = done
};

struct Harness {
    VerilatedContext context;
    std::unique_ptr<MODEL> top;
    std::vector<Region> regions;
    std::deque<Burst> reads, writes;
    std::deque<WriteBeat> write_beats;
    std::deque<Response> responses;
    std::vector<Event> events;
    std::mt19937 random;
    uint64_t now = 0, latency = 40;
    unsigned stall_percent = 0;
    bool tracing = false;

    Harness() : top(std::make_unique<MODEL>(&context, "core")) {
        idle_inputs();
        top->rst = 1;
        for (int i = 0; i < 4; ++i) cycle();
        top->rst = 0;
        cycle();
    }

    ~Harness() { top->final(); }

    void idle_inputs() {
        top->clk = 0;
        top->s_axil_awvalid = top->s_axil_wvalid = top->s_axil_arvalid = 0;
        top->s_axil_bready = top->s_axil_rready = 0;
        top->s_axil_awprot = top->s_axil_arprot = 0;
        top->m_axi_rvalid = top->m_axi_bvalid = 0;
        top->m_axi_arready = top->m_axi_awready = top->m_axi_wready = 0;
    }

    bool stalls() { return stall_percent && random() % 100 < stall_percent; }

    const Region *region_of(uint64_t address) const {
        for (const Region &region : regions)
            if (address >= region.base && address + BUS_BYTES <= region.base + region.size) return &region;
        return nullptr;
    }

    // With stalls, beats of different ids may overtake and interleave each other, as AXI4 allows.
    std::deque<Burst>::iterator next_read() {
        if (reads.empty() || !stall_percent) return reads.begin();
        auto chosen = reads.begin() + random() % reads.size();
        for (auto earlier = reads.begin(); earlier != chosen; ++earlier)
            if (earlier->id == chosen->id) return earlier;
        return chosen;
    }

    void drive() {
        top->m_axi_arready = !stalls();
        top->m_axi_awready = !stalls();
        top->m_axi_wready = !stalls();
        if (!top->m_axi_rvalid) {
            auto burst = next_read();
            if (burst != reads.end() && burst->due <= now && !stalls()) {
                uint8_t beat[BUS_BYTES] = {};
                const Region *region = region_of(burst->address);
                if (region) std::memcpy(beat, region->bytes + (burst->address - region->base), BUS_BYTES);
                std::memcpy(&top->m_axi_rdata, beat, BUS_BYTES);
                top->m_axi_rvalid = 1;
                top->m_axi_rid = burst->id;
                top->m_axi_rresp = region ? region->response : kDecodeError;
                burst->address += BUS_BYTES;
                top->m_axi_rlast = --burst->beats == 0;
                if (!burst->beats) reads.erase(burst);
            }
        }
        if (!top->m_axi_bvalid && !responses.empty() && responses.front().due <= now && !stalls()) {
            top->m_axi_bvalid = 1;
            top->m_axi_bid = responses.front().id;
            top->m_axi_bresp = responses.front().code;
            responses.pop_front();
        }
    }

    void finish_writes() {
        while (!writes.empty() && write_beats.size() >= writes.front().beats) {
            Burst burst = writes.front();
            writes.pop_front();
            unsigned code = kOkay;
            for (; burst.beats; --burst.beats, burst.address += BUS_BYTES) {
                const WriteBeat &beat = write_beats.front();
                const Region *region = region_of(burst.address);
                if (!region)
                    code = kDecodeError;
                else if (!region->writable)
                    code = kSlaveError;
                else if (region->response != kOkay)
                    code = region->response;
                else
                    for (unsigned i = 0; i < BUS_BYTES; ++i)
                        if (beat.strobe >> i & 1) region->bytes[burst.address - region->base + i] = beat.data[i];
                write_beats.pop_front();
            }
            responses.push_back({now + latency, burst.id, code});
        }
    }

    void cycle() {
        drive();
        top->clk = 0;
        top->eval();
        const bool ar = top->m_axi_arvalid && top->m_axi_arready;
        const bool aw = top->m_axi_awvalid && top->m_axi_awready;
        const bool w = top->m_axi_wvalid && top->m_axi_wready;
        const bool r = top->m_axi_rvalid && top->m_axi_rready;
        const bool b = top->m_axi_bvalid && top->m_axi_bready;
        if (ar)
            reads.push_back({uint64_t(top->m_axi_araddr), now + latency, unsigned(top->m_axi_arid),
                             unsigned(top->m_axi_arlen) + 1});
        if (aw)
            writes.push_back({uint64_t(top->m_axi_awaddr), now, unsigned(top->m_axi_awid),
                              unsigned(top->m_axi_awlen) + 1});
        if (w) {
            WriteBeat beat;
            std::memcpy(beat.data, &top->m_axi_wdata, BUS_BYTES);
            beat.strobe = uint64_t(top->m_axi_wstrb);
            beat.last = top->m_axi_wlast;
            write_beats.push_back(beat);
        }
        if (aw || w) finish_writes();
        if (tracing) trace();
        top->clk = 1;
        top->eval();
        if (r) top->m_axi_rvalid = 0;
        if (b) top->m_axi_bvalid = 0;
        ++now;
    }

    void trace() {
        uint32_t unit = 0;
#define X(name)                                                                                  \
    if (top->trace_##name##_start) events.push_back({now, unit, 0, top->trace_##name##_offset}); \
    if (top->trace_##name##_done) events.push_back({now, unit, 1, top->trace_##name##_offset});  \
    ++unit;
        TRACE_UNITS
#undef X
    }

    void write_register(uint32_t offset, uint32_t value) {
        top->s_axil_awaddr = offset;
        top->s_axil_wdata = value;
        top->s_axil_wstrb = 0xF;
        top->s_axil_awvalid = top->s_axil_wvalid = top->s_axil_bready = 1;
        for (bool answered = false; !answered;) {
            top->clk = 0;
            top->eval();
            const bool address = top->s_axil_awvalid && top->s_axil_awready;
            const bool data = top->s_axil_wvalid && top->s_axil_wready;
            answered = top->s_axil_bvalid;
            cycle();
            if (address) top->s_axil_awvalid = 0;
            if (data) top->s_axil_wvalid = 0;
        }
        top->s_axil_bready = 0;
    }

    uint32_t read_register(uint32_t offset) {
        uint32_t value = 0;
        top->s_axil_araddr = offset;
        top->s_axil_arvalid = top->s_axil_rready = 1;
        for (bool answered = false; !answered;) {
            top->clk = 0;
            top->eval();
            const bool address = top->s_axil_arvalid && top->s_axil_arready;
            answered = top->s_axil_rvalid;
            value = top->s_axil_rdata;
            cycle();
            if (address) top->s_axil_arvalid = 0;
        }
        top->s_axil_rready = 0;
        return value;
    }
};

}  // namespace

extern "C" {

Harness *harness_create() { return new Harness(); }

void harness_destroy(Harness *harness) { delete harness; }

void harness_memory(Harness *harness, uint64_t latency, unsigned stall_percent, uint32_t seed) {
    harness->latency = latency;
    harness->stall_percent = stall_percent;
    harness->random.seed(seed);
}

void harness_clear_regions(Harness *harness) { harness->regions.clear(); }

void harness_add_region(Harness *harness, uint64_t base, uint64_t size, uint8_t *bytes, bool writable,
                        unsigned response) {
    harness->regions.push_back({base, size, bytes, writable, response});
}

void harness_write(Harness *harness, uint32_t offset, uint32_t value) { harness->write_register(offset, value); }

uint32_t harness_read(Harness *harness, uint32_t offset) { return harness->read_register(offset); }

// Clocks until the interrupt rises or `limit` cycles are over; returns whether it rose.
bool harness_wait(Harness *harness, uint64_t limit) {
    const uint64_t end = harness->now + limit;
    while (!harness->top->irq && harness->now < end) harness->cycle();
    return harness->top->irq;
}

void harness_step(Harness *harness, uint64_t cycles) {
    while (cycles--) harness->cycle();
}

uint64_t harness_now(Harness *harness) { return harness->now; }

void harness_trace(Harness *harness, bool on) {
    harness->tracing = on;
    harness->events.clear();
}

uint64_t harness_events(Harness *harness, const Event **events) {
    *events = harness->events.data();
    return harness->events.size();
}

}  // extern "C"
