/* SPDX-License-Identifier: Apache-2.0 */
/* Calls the C driver for the tests: flat functions for ctypes, and a core that is a Verilator model.
 *
 * Processor and core see different bytes, as with a cache that is written back and dropped by hand only: `clean` copies
 * from the processor's bytes to the core's, `invalidate` the other way. So an access that the driver does not announce
 * is seen. The core's bytes outside of the windows are not on the bus.
 */
#include <stdlib.h>
#include <string.h>

#include "loomwork_driver.h"

/* sim/loomwork/sim/harness/harness.cpp */
void *harness_create(void);
void harness_destroy(void *harness);
void harness_memory(void *harness, uint64_t latency, unsigned stall_percent, uint32_t seed);
void harness_clear_regions(void *harness);
void harness_add_region(void *harness, uint64_t base, uint64_t size, uint8_t *bytes, bool writable, unsigned response);
void harness_write(void *harness, uint32_t offset, uint32_t value);
uint32_t harness_read(void *harness, uint32_t offset);
bool harness_wait(void *harness, uint64_t limit);

typedef uint32_t (*read_function)(void *context, uint32_t offset);
typedef void (*write_function)(void *context, uint32_t offset, uint32_t value);

struct host {
    struct loomwork_core core;
    struct loomwork_program program;
    struct loomwork_step step;
    struct loomwork_memory memory;
    struct loomwork_job job;
    struct loomwork_failure failure;
    void *harness;
    uint8_t *seen; /* by the core */
    uint64_t cycles_per_wait;
    unsigned waits_left;
    char log[64]; /* c = clean, i = invalidate, b = barrier, each with the window's digit; S = START */
    size_t logged;
};

static void note(struct host *host, char what, const uint8_t *bytes)
{
    char digit = '-';
    for (unsigned number = 0; number < LOOMWORK_WINDOWS; number++)
        if (bytes && bytes == host->job.windows[number].bytes)
            digit = (char)('0' + number);
    if (host->logged + 2 < sizeof host->log) {
        host->log[host->logged++] = what;
        if (bytes)
            host->log[host->logged++] = digit;
    }
}

static uint32_t read_model(void *context, uint32_t offset)
{
    return harness_read(((struct host *)context)->harness, offset);
}

static void write_model(void *context, uint32_t offset, uint32_t value)
{
    struct host *host = context;
    if (offset == LOOMWORK_REG_CONTROL && value == LOOMWORK_CONTROL_START)
        note(host, 'S', NULL);
    harness_write(host->harness, offset, value);
}

static bool wait_model(void *context)
{
    struct host *host = context;
    if (!host->waits_left)
        return false;
    host->waits_left--;
    harness_wait(host->harness, host->cycles_per_wait);
    return true;
}

static void clean(void *context, const void *bytes, size_t length)
{
    struct host *host = context;
    memcpy(host->seen + ((const uint8_t *)bytes - host->memory.bytes), bytes, length);
    note(host, 'c', bytes);
}

static void invalidate(void *context, void *bytes, size_t length)
{
    struct host *host = context;
    memcpy(bytes, host->seen + ((uint8_t *)bytes - host->memory.bytes), length);
    note(host, 'i', bytes);
}

static void barrier(void *context)
{
    note(context, 'b', NULL);
}

struct host *host_create(uint64_t latency, unsigned stall_percent, uint32_t seed)
{
    struct host *host = calloc(1, sizeof *host);
    host->harness = harness_create();
    harness_memory(host->harness, latency, stall_percent, seed);
    host->core.read = read_model;
    host->core.write = write_model;
    host->core.clean = clean;
    host->core.invalidate = invalidate;
    host->core.barrier = barrier;
    host->core.context = host;
    return host;
}

void host_destroy(struct host *host)
{
    harness_destroy(host->harness);
    free(host->seen);
    free(host);
}

/* Another core instead of the model. */
void host_registers(struct host *host, read_function read, write_function write, volatile uint32_t *registers)
{
    host->core.read = read;
    host->core.write = write;
    host->core.registers = registers;
}

void host_memory(struct host *host, uint8_t *bytes, size_t length, uint64_t address, unsigned response)
{
    host->memory.bytes = bytes;
    host->memory.length = length;
    host->memory.address = address;
    free(host->seen);
    host->seen = malloc(length + 1);
    memset(host->seen, 0x5a, length);
    harness_clear_regions(host->harness);
    harness_add_region(host->harness, address, length, host->seen, true, response);
}

/* waits: how often before the program is given up; 0: no function `wait`, the driver polls. */
void host_waiting(struct host *host, uint64_t cycles_per_wait, unsigned waits)
{
    host->cycles_per_wait = cycles_per_wait;
    host->waits_left = waits;
    host->core.wait = waits ? wait_model : NULL;
    host->core.interrupt = waits != 0;
}

void host_watchdog(struct host *host, uint32_t cycles)
{
    host->core.watchdog = cycles;
}

int host_open(struct host *host, const uint8_t *file, size_t length)
{
    return (int)loomwork_open(&host->program, file, length);
}

int host_accepts(struct host *host)
{
    return (int)loomwork_accepts(&host->core, &host->program);
}

int host_step(struct host *host, size_t index)
{
    return (int)loomwork_program_step(&host->program, index, &host->step);
}

int host_prepare(struct host *host)
{
    return (int)loomwork_prepare(&host->core, &host->step, &host->memory, &host->job);
}

int host_place(struct host *host, size_t index, const int8_t *values, size_t count)
{
    return (int)loomwork_place(&host->job, index, values, count);
}

int host_start(struct host *host)
{
    return (int)loomwork_start(&host->core, &host->job);
}

int host_busy(struct host *host)
{
    return loomwork_busy(&host->core);
}

int host_finish(struct host *host)
{
    return (int)loomwork_finish(&host->core, &host->job, &host->failure);
}

int host_run(struct host *host)
{
    return (int)loomwork_run(&host->core, &host->job, &host->failure);
}

int host_take(struct host *host, size_t index, int8_t *values, size_t count)
{
    return (int)loomwork_take(&host->job, index, values, count);
}

int host_reset(struct host *host)
{
    return (int)loomwork_reset(&host->core);
}

uint32_t host_read(struct host *host, uint32_t offset)
{
    return loomwork_read(&host->core, offset);
}

const char *host_log(struct host *host)
{
    host->log[host->logged] = 0;
    host->logged = 0;
    return host->log;
}

uint32_t host_failure(struct host *host, int part)
{
    return part ? host->failure.command : host->failure.code;
}

uint64_t host_memory_bytes(struct host *host)
{
    return loomwork_memory_bytes(&host->step);
}

/* steps, inputs, outputs, tensors of the program; inputs, outputs of the step; its kind. */
size_t host_count(struct host *host, int what)
{
    const size_t counts[] = {
        host->program.steps, host->program.inputs, host->program.outputs, host->program.tensors,
        host->step.inputs, host->step.outputs, (size_t)host->step.kind,
    };
    return counts[what];
}

const uint8_t *host_model(struct host *host, size_t *length)
{
    *length = (size_t)(host->step.model.end - host->step.model.begin);
    return host->step.model.begin;
}

/* list: 0 = inputs of the program, 1 = outputs, 2 = tensors, 3 = inputs of the step, 4 = outputs, 5 = by `name`.
   numbers: values, dimensions, quantized, zero point, then the shape. text: name, dtype and scale, 100 bytes each. */
int host_tensor(struct host *host, int list, size_t index, const char *name, int64_t *numbers, char *text)
{
    struct loomwork_placement placement;
    struct loomwork_tensor *tensor = &placement.tensor;
    uint32_t size;
    enum loomwork_result result;
    switch (list) {
    case 0:
        result = loomwork_program_input(&host->program, index, tensor);
        break;
    case 1:
        result = loomwork_program_output(&host->program, index, tensor);
        break;
    case 2:
        result = loomwork_program_tensor(&host->program, index, tensor);
        break;
    case 3:
        result = loomwork_step_input(&host->step, index, &placement);
        break;
    case 4:
        result = loomwork_step_output(&host->step, index, &placement);
        break;
    default:
        result = loomwork_find_tensor(&host->program, name, tensor);
    }
    if (result != LOOMWORK_RESULT_OK)
        return (int)result;
    numbers[0] = tensor->values;
    numbers[1] = (int64_t)tensor->dimensions;
    numbers[2] = tensor->quantized;
    numbers[3] = tensor->zero_point;
    for (size_t place = 0; loomwork_tensor_dimension(tensor, place, &size) == LOOMWORK_RESULT_OK; place++)
        numbers[4 + place] = size;
    loomwork_text_copy(tensor->name, text, 100);
    loomwork_text_copy(tensor->dtype, text + 100, 100);
    loomwork_text_copy(tensor->scale, text + 200, 100);
    return 0;
}

enum loomwork_result run_image(const struct loomwork_core *core, const struct loomwork_memory *memory,
                               const void *file, size_t file_bytes, const int8_t *input, size_t input_values,
                               int8_t *output, size_t output_values);

int host_example(struct host *host, const uint8_t *file, size_t length, const int8_t *input, size_t input_values,
                 int8_t *output, size_t output_values)
{
    return (int)run_image(&host->core, &host->memory, file, length, input, input_values, output, output_values);
}
