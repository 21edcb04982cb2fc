/* SPDX-License-Identifier: Apache-2.0 */
/* Driver of a Loomwork core for bare metal: C99 without a library (but for memcpy), without allocation and recursion.
 *
 * A program file (.lwb) is used where it lies in memory; nothing in it needs an alignment, and the processor may be of
 * either byte order. `size_t` must have 32 bits at least. Nothing is kept in static variables: one `loomwork_core` per
 * core, each for one caller at a time.
 *
 *     loomwork_open, loomwork_accepts              once per program
 *     loomwork_program_step, loomwork_prepare      once per step
 *     loomwork_place, loomwork_run, loomwork_take  once per image
 */
#ifndef LOOMWORK_DRIVER_H
#define LOOMWORK_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loomwork.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Windows begin at multiples of this many bytes (registers of the windows). */
#define LOOMWORK_PAGE_BYTES 4096u
#define LOOMWORK_WINDOWS (LOOMWORK_WINDOW_WORKSPACE + 1)
/* Bytes of the widest bus; a power of two, as every bus is. */
#define LOOMWORK_MAX_BUS_BYTES 64u

/* Cycles without progress after which the core gives up, unless `watchdog` says otherwise: 10 ms at 100 MHz. */
#ifndef LOOMWORK_WATCHDOG_CYCLES
#define LOOMWORK_WATCHDOG_CYCLES 1000000u
#endif

/* How often STATUS is read before a soft reset that does not end is given up: the bus does not answer. */
#ifndef LOOMWORK_RESET_POLLS
#define LOOMWORK_RESET_POLLS 1000000u
#endif

/* What a function returns, and what `loomwork_result_text` says of it. */
#define LOOMWORK_RESULTS(X)                                                                      \
    X(OK, "no error")                                                                            \
    /* The program file. */                                                                      \
    X(NOT_A_PROGRAM, "this is not a Loomwork program: it does not begin with LOOMWORK")          \
    X(TRUNCATED, "the program is truncated: there are fewer bytes than its header says")         \
    X(TOO_LONG, "the program is too long: there are more bytes than its header says")            \
    X(DAMAGED_HEADER, "the program is damaged: the checksum of its header does not match")       \
    X(DAMAGED, "the program is damaged: the checksum of its body does not match")                \
    X(WRONG_FORMAT, "the program has a format version that this driver does not read")           \
    X(WRONG_DRIVER, "the program was compiled for another command set than this driver's")       \
    X(MALFORMED, "the program's metadata is not as the format describes it")                     \
    X(NO_SUCH_ITEM, "the program has no step, input, output or tensor of this number or name")   \
    /* The core. */                                                                              \
    X(NO_CORE, "there is no Loomwork core at this address")                                      \
    X(WRONG_VERSION, "the core has a register map that this driver does not know")               \
    X(WRONG_ISA, "the core has another command set than the program was compiled for")           \
    X(WRONG_CONFIG, "the core has another configuration than the program was compiled for")      \
    /* Running. */                                                                               \
    X(HOST_STEP, "the step runs on the host processor, not on the core")                         \
    X(MEMORY_UNALIGNED, "the memory for the windows does not begin at a multiple of 4096 bytes") \
    X(MEMORY_TOO_SMALL, "the memory for the windows is too small for the step")                  \
    X(MEMORY_ADDRESS, "the memory for the windows ends beyond the addresses of the core")        \
    X(WRONG_SIZE, "the tensor has another number of values")                                     \
    X(BUSY, "the core runs a program already")                                                   \
    X(ENGINE_ERROR, "the core stopped with an error")                                            \
    X(TIMEOUT, "the program did not end in time and was stopped")                                \
    X(INTERRUPTED, "the core was reset while the program ran")                                   \
    X(RESET_FAILED, "the core does not come back from a soft reset: the bus does not answer")

enum loomwork_result {
#define LOOMWORK_RESULT_NAME(name, text) LOOMWORK_RESULT_##name,
    LOOMWORK_RESULTS(LOOMWORK_RESULT_NAME)
#undef LOOMWORK_RESULT_NAME
};

/* A sentence without a full stop. */
const char *loomwork_result_text(enum loomwork_result result);

/* Name of an error code of the core (LOOMWORK_ERROR_...), such as "WINDOW". */
const char *loomwork_error_text(uint32_t code);

/* The program file. */

struct loomwork_span {
    const uint8_t *begin; /* in the file */
    const uint8_t *end;   /* behind the last byte */
};

struct loomwork_program {
    uint32_t isa_hash;
    uint64_t config_hash;
    uint32_t bus_bytes;
    uint32_t address_bits;
    size_t steps, inputs, outputs, tensors; /* how many */
    struct loomwork_span step_list, input_list, output_list, tensor_list, data; /* for the driver */
};

struct loomwork_tensor {
    struct loomwork_span name;  /* text, see loomwork_text_is */
    struct loomwork_span dtype; /* text such as int8 */
    uint32_t values;            /* product of the shape */
    size_t dimensions;
    struct loomwork_span scale; /* the number as text, or null: real value = scale * (value - zero_point) */
    bool quantized;             /* whether scale and zero_point say something */
    int32_t zero_point;
    struct loomwork_span shape; /* for the driver */
};

enum loomwork_kind {
    LOOMWORK_KIND_ACCELERATOR,
    LOOMWORK_KIND_HOST,
};

struct loomwork_step {
    const struct loomwork_program *program;
    enum loomwork_kind kind;
    struct loomwork_span commands;  /* accelerator */
    struct loomwork_span constants; /* accelerator; may be empty */
    uint32_t input_bytes, output_bytes, workspace_bytes; /* accelerator: sizes of these windows */
    struct loomwork_span model;     /* host: a .tflite file */
    size_t inputs, outputs;         /* how many */
    struct loomwork_span input_list, output_list; /* for the driver */
};

struct loomwork_placement {
    struct loomwork_tensor tensor;
    /* Of an accelerator step: where the tensor lies in window INPUTS or OUTPUTS, in bytes. Else 0. */
    uint32_t offset, row_stride, rows, row_bytes;
};

/* Check a program file and all its metadata; then the functions below can read it. It stays where it is and must not
   change. Only whether commands are legal is left to the core, which stops at one that is not. */
enum loomwork_result loomwork_open(struct loomwork_program *program, const void *file, size_t length);

enum loomwork_result loomwork_program_step(const struct loomwork_program *program, size_t index,
                                           struct loomwork_step *step);
enum loomwork_result loomwork_program_input(const struct loomwork_program *program, size_t index,
                                            struct loomwork_tensor *tensor);
enum loomwork_result loomwork_program_output(const struct loomwork_program *program, size_t index,
                                             struct loomwork_tensor *tensor);
enum loomwork_result loomwork_program_tensor(const struct loomwork_program *program, size_t index,
                                             struct loomwork_tensor *tensor);
enum loomwork_result loomwork_find_tensor(const struct loomwork_program *program, const char *name,
                                          struct loomwork_tensor *tensor);
enum loomwork_result loomwork_tensor_dimension(const struct loomwork_tensor *tensor, size_t index, uint32_t *size);
enum loomwork_result loomwork_step_input(const struct loomwork_step *step, size_t index,
                                         struct loomwork_placement *placement);
enum loomwork_result loomwork_step_output(const struct loomwork_step *step, size_t index,
                                          struct loomwork_placement *placement);

/* Text of the file is JSON: quotes and characters outside of ASCII are escaped there. */
bool loomwork_text_is(struct loomwork_span text, const char *utf8);
/* Decode into a buffer, ended by a zero byte and cut where it is full; returns the bytes before the zero byte. */
size_t loomwork_text_copy(struct loomwork_span text, char *buffer, size_t size);

/* The core. What a system does not need stays NULL. */

struct loomwork_core {
    volatile uint32_t *registers; /* the core's registers; NULL: `read` and `write` are called instead */
    uint32_t (*read)(void *context, uint32_t offset);
    void (*write)(void *context, uint32_t offset, uint32_t value);
    /* Called again and again while the core runs, to sleep until the interrupt or to look at a clock; it may return
       early. False stops the program. NULL: STATUS is read until the core is done, which its watchdog sees to. */
    bool (*wait)(void *context);
    /* Write what the processor's caches hold of these bytes to memory. */
    void (*clean)(void *context, const void *bytes, size_t length);
    /* Forget what the caches hold of these bytes. */
    void (*invalidate)(void *context, void *bytes, size_t length);
    /* All accesses to memory before it come before all accesses to registers after it, and the other way around. */
    void (*barrier)(void *context);
    void *context;     /* given to these functions */
    bool interrupt;    /* whether the core raises its interrupt when it is done; the driver clears it */
    uint32_t watchdog; /* cycles without progress that are an error; 0: LOOMWORK_WATCHDOG_CYCLES */
};

/* Memory for the windows of a step. */
struct loomwork_memory {
    uint8_t *bytes;
    uint64_t address; /* of the same bytes as the core sees them, a multiple of LOOMWORK_PAGE_BYTES */
    size_t length;
};

struct loomwork_region {
    uint8_t *bytes;
    uint64_t address;
    uint32_t length;
};

/* A step in memory, ready to run any number of times. */
struct loomwork_job {
    struct loomwork_step step;
    struct loomwork_region windows[LOOMWORK_WINDOWS]; /* by number, LOOMWORK_WINDOW_COMMANDS first */
};

/* Why and where the core stopped. */
struct loomwork_failure {
    uint32_t code;    /* LOOMWORK_ERROR_... */
    uint32_t command; /* byte of window COMMANDS at which the command lies */
};

uint32_t loomwork_read(const struct loomwork_core *core, uint32_t offset);
void loomwork_write(const struct loomwork_core *core, uint32_t offset, uint32_t value);

/* Whether there is a core and it is the one that the program was compiled for. */
enum loomwork_result loomwork_accepts(const struct loomwork_core *core, const struct loomwork_program *program);

/* Bytes of memory that the step needs; 0 for a host step. */
uint64_t loomwork_memory_bytes(const struct loomwork_step *step);

/* Lay the windows of a step out in memory and copy its commands and constants there. */
enum loomwork_result loomwork_prepare(const struct loomwork_core *core, const struct loomwork_step *step,
                                      const struct loomwork_memory *memory, struct loomwork_job *job);

/* Copy an input tensor of the step (NHWC) into its window. count: its number of values. */
enum loomwork_result loomwork_place(const struct loomwork_job *job, size_t index, const int8_t *values, size_t count);

/* Run the step on what lies in window INPUTS: start, wait, finish. After any failure but BUSY and RESET_FAILED the core
   is ready for the next run. `failure` is set for ENGINE_ERROR, and may be NULL. */
enum loomwork_result loomwork_run(const struct loomwork_core *core, const struct loomwork_job *job,
                                  struct loomwork_failure *failure);

/* The same in parts, for those who do something else meanwhile: finish when loomwork_busy is false. */
enum loomwork_result loomwork_start(const struct loomwork_core *core, const struct loomwork_job *job);
bool loomwork_busy(const struct loomwork_core *core);
enum loomwork_result loomwork_finish(const struct loomwork_core *core, const struct loomwork_job *job,
                                     struct loomwork_failure *failure);

/* Copy an output tensor of the step out of its window, after a run. The counters of the run are in the COUNT registers
   until the next one: loomwork_read(core, LOOMWORK_REG_COUNT_CYCLES). */
enum loomwork_result loomwork_take(const struct loomwork_job *job, size_t index, int8_t *values, size_t count);

/* Soft reset: stop what runs, clear errors and counters. */
enum loomwork_result loomwork_reset(const struct loomwork_core *core);

#ifdef __cplusplus
}
#endif

#endif
