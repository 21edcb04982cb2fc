/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the steps of a program on a core (docs/driving.md). */
#include "loomwork_driver.h"

/* The only function that the driver takes from elsewhere; freestanding compilers have no <string.h>. */
void *memcpy(void *target, const void *source, size_t length);

#define EVENTS (LOOMWORK_IRQ_STATUS_DONE | LOOMWORK_IRQ_STATUS_ERROR)

const char *loomwork_result_text(enum loomwork_result result)
{
    switch (result) {
#define LOOMWORK_RESULT_TEXT(name, text) \
    case LOOMWORK_RESULT_##name:         \
        return text;
        LOOMWORK_RESULTS(LOOMWORK_RESULT_TEXT)
#undef LOOMWORK_RESULT_TEXT
    }
    return "unknown result";
}

const char *loomwork_error_text(uint32_t code)
{
    switch ((enum loomwork_error)code) {
    case LOOMWORK_ERROR_NONE:
        return "NONE";
    case LOOMWORK_ERROR_ILLEGAL_OPCODE:
        return "ILLEGAL_OPCODE";
    case LOOMWORK_ERROR_ILLEGAL_OPERAND:
        return "ILLEGAL_OPERAND";
    case LOOMWORK_ERROR_WINDOW:
        return "WINDOW";
    case LOOMWORK_ERROR_SCRATCHPAD:
        return "SCRATCHPAD";
    case LOOMWORK_ERROR_BUS_READ:
        return "BUS_READ";
    case LOOMWORK_ERROR_BUS_WRITE:
        return "BUS_WRITE";
    case LOOMWORK_ERROR_WATCHDOG:
        return "WATCHDOG";
    }
    return "unknown error";
}

uint32_t loomwork_read(const struct loomwork_core *core, uint32_t offset)
{
    return core->registers ? core->registers[offset / 4] : core->read(core->context, offset);
}

void loomwork_write(const struct loomwork_core *core, uint32_t offset, uint32_t value)
{
    if (core->registers)
        core->registers[offset / 4] = value;
    else
        core->write(core->context, offset, value);
}

static void barrier(const struct loomwork_core *core)
{
#ifdef __GNUC__
    __asm__ __volatile__("" ::: "memory"); /* the compiler keeps the order too */
#endif
    if (core->barrier)
        core->barrier(core->context);
}

static void clean(const struct loomwork_core *core, const struct loomwork_region *window)
{
    if (core->clean && window->length)
        core->clean(core->context, window->bytes, window->length);
}

static void invalidate(const struct loomwork_core *core, const struct loomwork_region *window)
{
    if (core->invalidate && window->length)
        core->invalidate(core->context, window->bytes, window->length);
}

enum loomwork_result loomwork_accepts(const struct loomwork_core *core, const struct loomwork_program *program)
{
    if (loomwork_read(core, LOOMWORK_REG_ID) != LOOMWORK_ID)
        return LOOMWORK_RESULT_NO_CORE;
    if (loomwork_read(core, LOOMWORK_REG_VERSION) != LOOMWORK_VERSION)
        return LOOMWORK_RESULT_WRONG_VERSION;
    if (loomwork_read(core, LOOMWORK_REG_ISA_HASH) != program->isa_hash)
        return LOOMWORK_RESULT_WRONG_ISA;
    if (loomwork_read(core, LOOMWORK_REG_CONFIG_HASH_LOW) != (uint32_t)program->config_hash
        || loomwork_read(core, LOOMWORK_REG_CONFIG_HASH_HIGH) != (uint32_t)(program->config_hash >> 32))
        return LOOMWORK_RESULT_WRONG_CONFIG;
    return LOOMWORK_RESULT_OK;
}

/* multiple: a power of two. */
static uint64_t round_up(uint64_t bytes, uint32_t multiple)
{
    return (bytes + multiple - 1) & ~(uint64_t)(multiple - 1);
}

/* Bytes of each window without padding. */
static void contents_bytes(const struct loomwork_step *step, uint64_t bytes[LOOMWORK_WINDOWS])
{
    bytes[LOOMWORK_WINDOW_COMMANDS] = (uint64_t)(step->commands.end - step->commands.begin);
    bytes[LOOMWORK_WINDOW_CONSTANTS] = (uint64_t)(step->constants.end - step->constants.begin);
    bytes[LOOMWORK_WINDOW_INPUTS] = step->input_bytes;
    bytes[LOOMWORK_WINDOW_OUTPUTS] = step->output_bytes;
    bytes[LOOMWORK_WINDOW_WORKSPACE] = step->workspace_bytes;
}

uint64_t loomwork_memory_bytes(const struct loomwork_step *step)
{
    uint64_t bytes[LOOMWORK_WINDOWS];
    uint64_t sum = 0;
    contents_bytes(step, bytes);
    for (unsigned number = 0; number < LOOMWORK_WINDOWS; number++)
        sum += round_up(bytes[number], LOOMWORK_PAGE_BYTES);
    return sum;
}

/* Copy into a window and fill its last bus beat with zeros. */
static void fill(const struct loomwork_core *core, const struct loomwork_region *window, struct loomwork_span contents)
{
    static const uint8_t zeros[LOOMWORK_MAX_BUS_BYTES] = {0};
    const size_t length = (size_t)(contents.end - contents.begin);
    if (!length)
        return;
    memcpy(window->bytes, contents.begin, length);
    memcpy(window->bytes + length, zeros, window->length - length);
    clean(core, window);
}

enum loomwork_result loomwork_prepare(const struct loomwork_core *core, const struct loomwork_step *step,
                                      const struct loomwork_memory *memory, struct loomwork_job *job)
{
    uint64_t bytes[LOOMWORK_WINDOWS];
    uint64_t place = 0;
    const uint64_t needed = loomwork_memory_bytes(step);
    if (step->kind != LOOMWORK_KIND_ACCELERATOR)
        return LOOMWORK_RESULT_HOST_STEP;
    if (memory->address % LOOMWORK_PAGE_BYTES)
        return LOOMWORK_RESULT_MEMORY_UNALIGNED;
    if (needed > memory->length)
        return LOOMWORK_RESULT_MEMORY_TOO_SMALL;
    if (needed - 1 > UINT64_MAX >> (64 - step->program->address_bits)
        || memory->address > (UINT64_MAX >> (64 - step->program->address_bits)) - (needed - 1))
        return LOOMWORK_RESULT_MEMORY_ADDRESS;
    contents_bytes(step, bytes);
    for (unsigned number = 0; number < LOOMWORK_WINDOWS; number++) {
        const uint64_t padded = round_up(bytes[number], step->program->bus_bytes);
        if (padded > UINT32_MAX)
            return LOOMWORK_RESULT_MALFORMED;
        job->windows[number].bytes = memory->bytes + (size_t)place;
        job->windows[number].address = memory->address + place;
        job->windows[number].length = (uint32_t)padded;
        place += round_up(bytes[number], LOOMWORK_PAGE_BYTES);
    }
    job->step = *step;
    fill(core, &job->windows[LOOMWORK_WINDOW_COMMANDS], step->commands);
    fill(core, &job->windows[LOOMWORK_WINDOW_CONSTANTS], step->constants);
    return LOOMWORK_RESULT_OK;
}

enum loomwork_result loomwork_place(const struct loomwork_job *job, size_t index, const int8_t *values, size_t count)
{
    struct loomwork_placement placement;
    const enum loomwork_result result = loomwork_step_input(&job->step, index, &placement);
    if (result != LOOMWORK_RESULT_OK)
        return result;
    if (count != placement.tensor.values)
        return LOOMWORK_RESULT_WRONG_SIZE;
    uint8_t *row = job->windows[LOOMWORK_WINDOW_INPUTS].bytes + placement.offset;
    for (uint32_t number = 0; number < placement.rows; number++) {
        memcpy(row, values, placement.row_bytes);
        row += placement.row_stride;
        values += placement.row_bytes;
    }
    return LOOMWORK_RESULT_OK;
}

enum loomwork_result loomwork_take(const struct loomwork_job *job, size_t index, int8_t *values, size_t count)
{
    struct loomwork_placement placement;
    const enum loomwork_result result = loomwork_step_output(&job->step, index, &placement);
    if (result != LOOMWORK_RESULT_OK)
        return result;
    if (count != placement.tensor.values)
        return LOOMWORK_RESULT_WRONG_SIZE;
    const uint8_t *row = job->windows[LOOMWORK_WINDOW_OUTPUTS].bytes + placement.offset;
    for (uint32_t number = 0; number < placement.rows; number++) {
        memcpy(values, row, placement.row_bytes);
        row += placement.row_stride;
        values += placement.row_bytes;
    }
    return LOOMWORK_RESULT_OK;
}

enum loomwork_result loomwork_reset(const struct loomwork_core *core)
{
    loomwork_write(core, LOOMWORK_REG_CONTROL, LOOMWORK_CONTROL_RESET);
    for (uint32_t polls = 0; polls < LOOMWORK_RESET_POLLS; polls++)
        if (!loomwork_busy(core))
            return LOOMWORK_RESULT_OK;
    return LOOMWORK_RESULT_RESET_FAILED;
}

bool loomwork_busy(const struct loomwork_core *core)
{
    return (loomwork_read(core, LOOMWORK_REG_STATUS) & LOOMWORK_STATUS_BUSY) != 0;
}

enum loomwork_result loomwork_start(const struct loomwork_core *core, const struct loomwork_job *job)
{
    const uint32_t status = loomwork_read(core, LOOMWORK_REG_STATUS);
    if (status & LOOMWORK_STATUS_BUSY)
        return LOOMWORK_RESULT_BUSY;
    if (status & LOOMWORK_STATUS_ERROR) {
        /* Left by whoever used the core before; START would be ignored. */
        const enum loomwork_result result = loomwork_reset(core);
        if (result != LOOMWORK_RESULT_OK)
            return result;
    }
    for (unsigned number = 0; number < LOOMWORK_WINDOWS; number++) {
        const struct loomwork_region *window = &job->windows[number];
        loomwork_write(core, LOOMWORK_REG_WINDOW_BASE_LOW(number), (uint32_t)window->address);
        loomwork_write(core, LOOMWORK_REG_WINDOW_BASE_HIGH(number), (uint32_t)(window->address >> 32));
        loomwork_write(core, LOOMWORK_REG_WINDOW_SIZE(number), window->length);
    }
    loomwork_write(core, LOOMWORK_REG_WATCHDOG, core->watchdog ? core->watchdog : LOOMWORK_WATCHDOG_CYCLES);
    loomwork_write(core, LOOMWORK_REG_IRQ_STATUS, EVENTS);
    loomwork_write(core, LOOMWORK_REG_IRQ_ENABLE,
                   core->interrupt ? LOOMWORK_IRQ_ENABLE_DONE | LOOMWORK_IRQ_ENABLE_ERROR : 0);
    clean(core, &job->windows[LOOMWORK_WINDOW_INPUTS]);
    /* A line of these that the cache still holds changed would be written over what the core writes. */
    invalidate(core, &job->windows[LOOMWORK_WINDOW_OUTPUTS]);
    invalidate(core, &job->windows[LOOMWORK_WINDOW_WORKSPACE]);
    barrier(core);
    loomwork_write(core, LOOMWORK_REG_CONTROL, LOOMWORK_CONTROL_START);
    return LOOMWORK_RESULT_OK;
}

enum loomwork_result loomwork_finish(const struct loomwork_core *core, const struct loomwork_job *job,
                                     struct loomwork_failure *failure)
{
    const uint32_t status = loomwork_read(core, LOOMWORK_REG_STATUS);
    if (status & LOOMWORK_STATUS_BUSY)
        return LOOMWORK_RESULT_BUSY;
    if (status & LOOMWORK_STATUS_ERROR) {
        if (failure) {
            failure->code = loomwork_read(core, LOOMWORK_REG_ERROR_CODE);
            failure->command = loomwork_read(core, LOOMWORK_REG_ERROR_COMMAND);
        }
        const enum loomwork_result result = loomwork_reset(core);
        return result == LOOMWORK_RESULT_OK ? LOOMWORK_RESULT_ENGINE_ERROR : result;
    }
    loomwork_write(core, LOOMWORK_REG_IRQ_STATUS, EVENTS);
    if (!(status & LOOMWORK_STATUS_DONE))
        return LOOMWORK_RESULT_INTERRUPTED;
    barrier(core);
    invalidate(core, &job->windows[LOOMWORK_WINDOW_OUTPUTS]);
    return LOOMWORK_RESULT_OK;
}

enum loomwork_result loomwork_run(const struct loomwork_core *core, const struct loomwork_job *job,
                                  struct loomwork_failure *failure)
{
    enum loomwork_result result = loomwork_start(core, job);
    if (result != LOOMWORK_RESULT_OK)
        return result;
    while (loomwork_busy(core)) {
        if (core->wait && !core->wait(core->context)) {
            result = loomwork_reset(core);
            return result == LOOMWORK_RESULT_OK ? LOOMWORK_RESULT_TIMEOUT : result;
        }
    }
    return loomwork_finish(core, job, failure);
}
