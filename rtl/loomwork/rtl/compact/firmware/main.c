/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of the host, and the order in which the units run. */
#include "firmware.h"

static u32 started, last_progress;

static void update_interrupt(void)
{
    MAILBOX(VALUE) = (REGISTER(LOOMWORK_REG_IRQ_STATUS) & REGISTER(LOOMWORK_REG_IRQ_ENABLE)) != 0;
}

static void end(u32 status, u32 event)
{
    REGISTER(LOOMWORK_REG_STATUS) = status;
    REGISTER(LOOMWORK_REG_IRQ_STATUS) |= event;
    update_interrupt();
}

static void control(u32 bits)
{
    if (bits & LOOMWORK_CONTROL_RESET)
        REGISTER(LOOMWORK_REG_STATUS) = REGISTER(LOOMWORK_REG_IRQ_STATUS) = REGISTER(LOOMWORK_REG_ERROR_CODE) =
            REGISTER(LOOMWORK_REG_ERROR_COMMAND) = 0;
    else if (!(bits & LOOMWORK_CONTROL_START) || REGISTER(LOOMWORK_REG_STATUS) & ~LOOMWORK_STATUS_DONE)
        return;
    for (u32 offset = FIRST_COUNTER; offset < FIRST_COUNTER + 4 * COUNTERS; offset += 4)
        REGISTER(offset) = 0;
    if (bits & LOOMWORK_CONTROL_RESET)
        return;
    reset_program();
    REGISTER(LOOMWORK_REG_STATUS) = LOOMWORK_STATUS_BUSY;
    started = last_progress = MAILBOX(CYCLES);
}

/* Carries out what the host writes. */
static void serve_host(void)
{
    u32 posted = MAILBOX(OFFSET);
    if (!posted)
        return;
    u32 offset = posted - 1, value = MAILBOX(VALUE);
    switch (offset) {
    case LOOMWORK_REG_CONTROL:
        control(value);
        break;
    case LOOMWORK_REG_IRQ_STATUS:
        REGISTER(offset) &= ~value;
        break;
    case LOOMWORK_REG_IRQ_ENABLE:
        REGISTER(offset) = value & (LOOMWORK_IRQ_ENABLE_DONE | LOOMWORK_IRQ_ENABLE_ERROR);
        break;
    case LOOMWORK_REG_WATCHDOG:
        REGISTER(offset) = value;
        break;
    default:
        /* Windows lie within 32 bits of address; what else there is cannot be written. */
        if (offset - FIRST_WINDOW < WINDOW_BYTES * WINDOWS) {
            u32 part = offset % WINDOW_BYTES;
            if (part == LOOMWORK_REG_WINDOW_BASE_LOW(0) % WINDOW_BYTES)
                REGISTER(offset) = value & ~(u32)(WINDOW_ALIGNMENT - 1);
            else if (part == LOOMWORK_REG_WINDOW_SIZE(0) % WINDOW_BYTES)
                REGISTER(offset) = value;
        }
    }
    update_interrupt();
    MAILBOX(OFFSET) = 0;
}

_Noreturn void fail_at(u32 offset, u32 code)
{
    REGISTER(LOOMWORK_REG_ERROR_CODE) = code;
    REGISTER(LOOMWORK_REG_ERROR_COMMAND) = offset;
    COUNTER(CYCLES) = MAILBOX(CYCLES) - started;
    end(LOOMWORK_STATUS_ERROR, LOOMWORK_IRQ_STATUS_ERROR);
    __asm__ volatile("j restart");
    __builtin_unreachable();
}

_Noreturn void fail(enum unit unit, u32 code)
{
    fail_at(offset_of(unit), code);
}

/* Runs a unit, and counts the time. */
#define RUN(function, counter)                           \
    do {                                                 \
        u32 before = MAILBOX(CYCLES);                    \
        if (function) {                                  \
            COUNTER(counter) += MAILBOX(CYCLES) - before; \
            progress = 1;                                \
        }                                                \
    } while (0)

int run_others(void)
{
    int progress = fetch() | stream();
    RUN(transfer(UNIT_LOAD), LOAD_BUSY);
    RUN(drain(), DRAIN_BUSY);
    RUN(transfer(UNIT_STORE), STORE_BUSY);
    return progress;
}

/* Nothing can go on. */
_Noreturn void stuck(void)
{
    u32 offset = has_ended ? next_offset - LOOMWORK_COMMAND_BYTES : next_offset;
    for (enum unit unit = UNIT_LOAD; unit < UNITS; unit++)
        if (queues[unit].count && offset_of(unit) < offset)
            offset = offset_of(unit);
    for (;;) {
        u32 limit = REGISTER(LOOMWORK_REG_WATCHDOG);
        if (limit && MAILBOX(CYCLES) - last_progress >= limit)
            fail_at(offset, LOOMWORK_ERROR_WATCHDOG);
        serve_host();
        if (!(REGISTER(LOOMWORK_REG_STATUS) & LOOMWORK_STATUS_BUSY)) {
            __asm__ volatile("j restart");
            __builtin_unreachable();
        }
    }
}

static void step(void)
{
    int progress = run_others();
    RUN(execute(), EXECUTE_BUSY);
    if (progress) {
        last_progress = MAILBOX(CYCLES);
        return;
    }
    for (enum unit unit = UNIT_LOAD; unit < UNITS; unit++)
        if (queues[unit].count)
            stuck();
    if (!has_ended || !stream_is_empty() || halves_filled != halves_taken)
        stuck();
    COUNTER(CYCLES) = MAILBOX(CYCLES) - started;
    end(LOOMWORK_STATUS_DONE, LOOMWORK_IRQ_STATUS_DONE);
}

/* From here on after every error. */
void run(void)
{
    for (;;) {
        serve_host();
        if (REGISTER(LOOMWORK_REG_STATUS) & LOOMWORK_STATUS_BUSY)
            step();
    }
}

void power_on(void)
{
    for (u32 offset = 0; offset < REGISTER_BYTES; offset += 4)
        REGISTER(offset) = 0;
    REGISTER(LOOMWORK_REG_ID) = LOOMWORK_ID;
    REGISTER(LOOMWORK_REG_VERSION) = LOOMWORK_VERSION;
    REGISTER(LOOMWORK_REG_ISA_HASH) = LOOMWORK_ISA_HASH;
    REGISTER(LOOMWORK_REG_CONFIG_HASH_LOW) = CONFIG_HASH_LOW;
    REGISTER(LOOMWORK_REG_CONFIG_HASH_HIGH) = CONFIG_HASH_HIGH;
}
