/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of values in a DRAIN: stages.c. */
#ifndef STAGES_H
#define STAGES_H

#include "firmware.h"

#define VALUES 256

/* How a value is rescaled: bits of the engine's register SCALE, and its multiplier. */
struct scale {
    u32 multiplier, bits;
};

/* Values that lie so many bytes apart. */
struct line {
    const int8_t *value, *operand;
    int8_t *out;
    u32 value_step, operand_step, out_step;
};

extern struct scale requant_scale, combine_scale;
extern i32 requant_bias, combine[COMBINE_OPERANDS];
extern int8_t requantized[VALUES];

void reset_stages(void);
void set_requant(command c);
void set_combine(command c);
void set_table(command c);
/* The engine's scale: by itself, or that of a channel of a half. */
void set_scale(i32 bias, struct scale scale);
void set_channel(const struct half *half, u32 channel);
/* By the engine, with the scale it has. */
i32 finish(i32 value);
void make_requantized(void);
void make_addends(void);
i32 second_stage(u32 kind, i32 value, i32 operand);
void finish_line(u32 kind, struct line line, u32 count, const int8_t *first_stage);

#endif
