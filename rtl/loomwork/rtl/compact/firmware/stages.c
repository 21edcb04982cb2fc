/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of REQUANT, COMBINE and TABLE, and what becomes of values by them. Of an int8 there are so few that what
   becomes of each is kept in a table. */
#include "stages.h"

struct scale requant_scale, combine_scale;
i32 requant_bias, combine[COMBINE_OPERANDS];
int8_t requantized[VALUES];         /* of REQUANT, for values of the scratchpad */
static int8_t table[TABLE_ENTRIES]; /* of TABLE */
static i32 addends[2][VALUES];      /* of COMBINE, for ADD */
static u32 requantized_are_made, addends_are_made;

/* The bits of SCALE, of the operands from `shift` on: in both commands they follow each other. */
static u32 scale_bits(const i32 *shift)
{
    u32 bits = 0;
    for (u32 place = ENGINE_SCALE_ZERO_POINT_LOW; place < 32; place += 8)
        bits |= ((u32)*++shift & 0xFF) << place;
    return bits | PART(SCALE, ROUNDING, shift[1]);
}

void set_requant(command c)
{
    requant_scale.multiplier = FIELD(c, REQUANT, MULTIPLIER);
    requant_scale.bits = scale_bits(&c[REQUANT_SHIFT]) | (FIELD(c, REQUANT, SHIFT) & ENGINE_SCALE_SHIFT_MAX);
    requant_bias = SIGNED_FIELD(c, REQUANT, BIAS);
    requantized_are_made = 0;
}

void set_combine(command c)
{
    for (u32 operand = 0; operand < COMBINE_OPERANDS; operand++)
        combine[operand] = c[operand];
    combine_scale.multiplier = FIELD(c, COMBINE, MULTIPLIER);
    combine_scale.bits = scale_bits(&c[COMBINE_SHIFT]) | (FIELD(c, COMBINE, SHIFT) & ENGINE_SCALE_SHIFT_MAX);
    addends_are_made = 0;
}

void set_table(command c)
{
    if (!HAS_TABLE)
        fail(UNIT_DRAIN, LOOMWORK_ERROR_ILLEGAL_OPERAND);
    int8_t *place = table + ENTRIES_PER_COMMAND * FIELD(c, TABLE, INDEX);
    for (u32 entry = 0; entry < ENTRIES_PER_COMMAND; entry++)
        *place++ = (int8_t)c[TABLE_ENTRY_0 + entry];
}

void reset_stages(void)
{
    static const i32 zeros[MAX_OPERANDS];
    set_requant(zeros);
    set_combine(zeros);
}

void set_scale(i32 bias, struct scale scale)
{
    ENGINE(BIAS) = (u32)bias;
    ENGINE(MULTIPLIER) = scale.multiplier;
    ENGINE(SCALE) = scale.bits;
}

/* Requantization of a channel of a half. */
void set_channel(const struct half *half, u32 channel)
{
    struct scale scale = requant_scale;
    i32 bias = requant_bias;
    if (half->params != LOOMWORK_PARAMS_UNIFORM)
        bias = half->words[channel];
    if (half->params == LOOMWORK_PARAMS_PER_CHANNEL) {
        scale.multiplier = (u32)half->words[ARRAY_ROWS + channel];
        const uint8_t *shifts = (const uint8_t *)(half->words + 2 * ARRAY_ROWS);
        scale.bits = (scale.bits & ~ENGINE_SCALE_SHIFT_MAX) | (shifts[channel] & ENGINE_SCALE_SHIFT_MAX);
    }
    set_scale(bias, scale);
}

i32 finish(i32 value)
{
    ENGINE(VALUE) = (u32)value;
    wait_for_engine();
    return (i32)RESULT(FINISHED);
}

void make_requantized(void)
{
    if (requantized_are_made)
        return;
    requantized_are_made = 1;
    set_scale(requant_bias, requant_scale);
    for (i32 value = 0; value < VALUES; value++)
        requantized[value] = (int8_t)finish(value - VALUES / 2);
}

/* What ADD adds of each value: first of the value that REQUANT has made, then of the operand. */
void make_addends(void)
{
    if (addends_are_made)
        return;
    addends_are_made = 1;
    const i32 *operand = &combine[COMBINE_MULTIPLIER_A];
    for (u32 index = 0; index < 2; index++, operand += COMBINE_MULTIPLIER_B - COMBINE_MULTIPLIER_A) {
        struct scale scale = {
            (u32)operand[0],
            ((u32)operand[1] & ENGINE_SCALE_SHIFT_MAX) | PART(SCALE, ROUNDING, combine[COMBINE_ROUNDING]),
        };
        set_scale(0, scale);
        for (i32 value = 0; value < VALUES; value++) {
            finish((i32)((u32)(value - VALUES / 2 - operand[2]) << ADD_LEFT_SHIFT));
            addends[index][value] = (i32)RESULT(SCALED);
        }
    }
}

/* The second stage; for ADD and MULTIPLY the engine has COMBINE's scale. */
i32 second_stage(u32 kind, i32 value, i32 operand)
{
    if (kind == LOOMWORK_COMBINE_NONE)
        return value;
    if (kind == LOOMWORK_COMBINE_TABLE)
        return table[value + VALUES / 2];
    if (kind == LOOMWORK_COMBINE_ADD)
        return finish(addends[0][value + VALUES / 2] + addends[1][operand + VALUES / 2]);
    i32 a = value - combine[COMBINE_ZERO_A], b = operand - combine[COMBINE_ZERO_B];
    return finish(a * b);
}

/* ADD for a line: while the engine rescales a sum, the next one is made. */
static void add_line(struct line line, u32 count, const int8_t *first_stage)
{
    const i32 *of_value = addends[0] + VALUES / 2, *of_operand = addends[1] + VALUES / 2;
    int8_t *out = 0;
    for (; count; count--) {
        i32 value = *line.value;
        if (first_stage)
            value = first_stage[value];
        i32 sum = of_value[value] + of_operand[*line.operand];
        line.value += line.value_step;
        line.operand += line.operand_step;
        if (out) {
            wait_for_engine();
            *out = (int8_t)RESULT(FINISHED);
        }
        ENGINE(VALUE) = (u32)sum;
        out = line.out;
        line.out += line.out_step;
    }
    wait_for_engine();
    *out = (int8_t)RESULT(FINISHED);
}

/* Second stage without pooling. `first_stage`: REQUANT for values of the scratchpad, otherwise 0. */
void finish_line(u32 kind, struct line line, u32 count, const int8_t *first_stage)
{
    if (kind == LOOMWORK_COMBINE_ADD) {
        add_line(line, count, first_stage);
        return;
    }
    for (; count; count--) {
        i32 value = *line.value;
        if (first_stage)
            value = first_stage[value];
        *line.out = (int8_t)second_stage(kind, value, *line.operand);
        line.value += line.value_step;
        line.operand += line.operand_step;
        line.out += line.out_step;
    }
}
