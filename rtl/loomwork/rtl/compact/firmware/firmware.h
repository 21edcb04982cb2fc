/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the firmware share. `loomwork.h` is the programmer's view (arch/c_header.py), `layout.h` the
   compact core's own (compact/layout.py, compact/build.py). */
#ifndef FIRMWARE_H
#define FIRMWARE_H

#include <stdint.h>

#include "layout.h"
#include "loomwork.h"

typedef uint32_t u32;
typedef int32_t i32;
typedef const i32 *command; /* operands, the header's first */

/* A command, and where it is in the COMMANDS window. */
struct entry {
    u32 offset;
    i32 operands[MAX_OPERANDS];
};

/* The commands of a unit: the one that it runs and those that wait. */
struct queue {
    struct entry *entries;
    u32 room, first, count;
};

/* One half of the accumulators. */
struct half {
    u32 params; /* LOOMWORK_PARAMS_ */
    /* What came behind the weights. */
    i32 words[PARAMETER_WORDS(LOOMWORK_PARAMS_PER_CHANNEL) << ROW_SHIFT >> 2];
};

/* Image rows of a tensor, from one of them on. `address` is its word in the memory. */
struct rows {
    u32 address, bank, left;
    i32 row;
    u32 wrap, ring_wrap;
};

extern struct queue queues[UNITS];
extern struct half halves[2];
extern u32 halves_filled, halves_taken; /* counts of all blocks so far */

#define REGISTER(offset) (((volatile u32 *)REGISTERS)[(offset) / 4])
#define ENGINE(name) (((volatile u32 *)ENGINE_BASE)[ENGINE_##name])
#define RESULT(name) (((volatile u32 *)ENGINE_BASE)[RESULT_##name])
/* A part of a register of the engine. */
#define PART(register, name, value) ((u32)(value) << ENGINE_##register##_##name##_LOW)
#define MAILBOX(name) (((volatile u32 *)MAILBOX_BASE)[MAILBOX_##name])
#define COUNTER(name) REGISTER(LOOMWORK_REG_COUNT_##name)
#define FIELD(command, mnemonic, name) ((u32)(command)[mnemonic##_##name])
#define SIGNED_FIELD(command, mnemonic, name) ((command)[mnemonic##_##name])
/* Whether a second stage has an operand tensor. */
#define HAS_OPERAND(kind) ((kind) & 1)
_Static_assert(HAS_OPERAND(LOOMWORK_COMBINE_ADD) && HAS_OPERAND(LOOMWORK_COMBINE_MULTIPLY) &&
                   !HAS_OPERAND(LOOMWORK_COMBINE_NONE) && !HAS_OPERAND(LOOMWORK_COMBINE_TABLE),
               "the lowest bit no longer says it");

/* What the engine gets once per command: registers of these names. */
struct settings {
    u32 wrap, height, x_step, size, pixel, pad;
};

/* common.c */
void set_engine(const struct settings *settings);
extern const struct settings *engine_settings; /* the ones it has */
void wait_for_engine(void);
/* Rows from `row` on. Stops the engine when byte `last` of row `highest` is not in the scratchpad. */
struct rows rows_of(enum unit unit, u32 base, u32 pitch, u32 ring, i32 row, i32 highest, u32 last);
void next_row(struct rows *rows);
void point_engine(const struct rows *rows, i32 x);
/* Stops with an error of the command of a unit. */
_Noreturn void fail(enum unit unit, u32 code);
_Noreturn void fail_at(u32 offset, u32 code);
/* The current command of a unit, 0 when it has none that may begin. */
command current(enum unit unit);
void done(enum unit unit);
u32 offset_of(enum unit unit);
/* An address of external memory: `bytes` from `offset` of a window on. */
u32 external(enum unit unit, u32 window, u32 offset, u32 bytes, u32 bus_error);

/* Each in the file of its name. All return whether anything has happened. */
int fetch(void);               /* the next command into its queue */
int stream(void);              /* a STREAM into the list of parts */
int transfer(enum unit unit);  /* a LOAD or STORE */
int execute(void);             /* a block of a CONVOLVE or DEPTHWISE, a SKIP */
int drain(void);               /* a block of a DRAIN, another command */
/* stream.c: the address of words that lie one behind the other: `most`, or fewer but whole tiles, or `least`. */
u32 take(u32 least, u32 most, u32 *words);
int stream_is_empty(void);
/* main.c: everything but EXECUTE; what follows when nothing can go on; where the processor goes from `_start`. */
int run_others(void);
_Noreturn void stuck(void);
__attribute__((used)) void power_on(void);
__attribute__((used)) void run(void);

extern u32 next_offset, has_ended;
void reset_program(void);
void reset_stream(void);
void reset_execute(void);
void reset_drain(void);

#endif
