/* SPDX-License-Identifier: Apache-2.0 */
/* DRAIN. What every network does most, requantization of sums, is left to the engine. */
#include "stages.h"

static int8_t column[ACCUMULATOR_DEPTH]; /* one channel of a half, requantized */
static u32 block;                        /* of the current command */
static struct settings settings;

void reset_drain(void)
{
    reset_stages();
    block = 0;
}

static int8_t *byte_of(const struct rows *rows, u32 byte)
{
    return (int8_t *)(MEMORY_BASE + (rows->address << ROW_SHIFT) + byte);
}

/* What all values of a DRAIN have in common. */
struct job {
    u32 kind, pool, width, height, pool_width, pool_height, x_step, y_step, in_step, out_step, number_step;
    struct rows in, operand, out;
    u32 in_byte, out_byte, number;
    const struct half *half;
    u32 channels; /* that are drained together */
};

/* Sum or maximum of one window. */
static i32 pool(const struct job *job, u32 byte, u32 number)
{
    i32 sum = 0, most = INT32_MIN;
    u32 sums = job->pool == LOOMWORK_POOL_SUM, kind = job->kind, step = job->half ? 1 : job->in_step;
    const struct rows *in = &job->in, *operand = &job->operand;
    struct rows next_in, next_operand;
    for (u32 y = job->pool_height;;) {
        const int8_t *place = job->half ? column + number : byte_of(in, byte);
        const int8_t *second = byte_of(operand, byte);
        u32 pixel = settings.pixel + number;
        for (u32 x = job->pool_width; x; x--) {
            i32 value;
            if (sums && job->half) {
                ENGINE(PIXEL) = pixel++;
                value = (i32)RESULT(ACCUMULATOR);
            } else {
                value = *place;
                place += step;
            }
            if (sums) {
                sum += value;
                continue;
            }
            if (!job->half)
                value = requantized[value + VALUES / 2];
            if (kind != LOOMWORK_COMBINE_NONE) {
                value = second_stage(kind, value, HAS_OPERAND(kind) ? *second : 0);
                second += job->in_step;
            }
            if (value > most)
                most = value;
        }
        if (!--y)
            break;
        number += job->number_step;
        if (!job->half) {
            next_in = *in;
            next_row(&next_in);
            in = &next_in;
        }
        if (HAS_OPERAND(kind)) {
            next_operand = *operand;
            next_row(&next_operand);
            operand = &next_operand;
        }
    }
    return sums ? second_stage(kind, finish(sum), 0) : most;
}

/* Value by value, in the order of the command. What `job` says of lines is used up. */
static void drain_values(struct job *job)
{
    u32 byte_step = job->x_step * job->in_step;
    const int8_t *first_stage = job->half ? 0 : requantized + VALUES / 2;
    for (u32 lines = job->height; lines; lines--) {
        u32 byte = job->in_byte, number = job->number;
        int8_t *out = byte_of(&job->out, job->out_byte);
        if (job->pool == LOOMWORK_POOL_NONE && job->half) {
            const int8_t *operand = byte_of(&job->operand, byte);
            struct line line = {column + number, operand, out, job->x_step, byte_step, job->out_step};
            finish_line(job->kind, line, job->width, 0);
        } else {
            for (u32 left = job->width; left; left--) {
                if (job->pool == LOOMWORK_POOL_NONE) {
                    struct line line = {byte_of(&job->in, byte), byte_of(&job->operand, byte), out, 1, 1, 1};
                    finish_line(job->kind, line, job->channels, first_stage);
                } else {
                    for (u32 channel = 0; channel < job->channels; channel++)
                        out[channel] = (int8_t)pool(job, byte + channel, number);
                }
                byte += byte_step;
                number += job->x_step;
                out += job->out_step;
            }
        }
        for (u32 row = job->y_step; row; row--) {
            next_row(&job->in);
            next_row(&job->operand);
            job->number += job->number_step;
        }
        next_row(&job->out);
    }
}

/* One channel of a half, by the engine. */
static void drain_column(const struct half *half, u32 channel, const struct rows *out, u32 byte)
{
    wait_for_engine();
    ENGINE(PAD) = PART(PAD, COLUMN, channel);
    set_channel(half, channel);
    point_engine(out, (i32)byte);
    ENGINE(DRAIN) = 0;
}

/* One block of a half to the scratchpad. `last` is the last pixel that is needed. */
static void drain_half(const struct job *job, u32 channels, u32 last)
{
    u32 first_pixel = halves_taken & 1 ? ACCUMULATOR_DEPTH : 0;
    u32 byte = block << ROW_SHIFT;
    int by_engine = job->kind == LOOMWORK_COMBINE_NONE && job->pool == LOOMWORK_POOL_NONE;
    settings.wrap = job->out.wrap & ENGINE_WRAP_USUAL_MAX;
    settings.height = PART(HEIGHT, STEP, 1);
    if (by_engine) {
        settings.x_step = job->out_step;
        settings.size = job->width | PART(SIZE, HEIGHT, job->height);
        settings.pixel =
            first_pixel | PART(PIXEL, STEP, job->x_step) | PART(PIXEL, ROW, job->y_step * job->number_step);
    } else {
        settings.x_step = 1;
        settings.size = (last + 1) | PART(SIZE, HEIGHT, 1);
        settings.pixel = first_pixel | PART(PIXEL, STEP, 1);
    }
    set_engine(&settings);
    if (by_engine) {
        for (u32 channel = 0; channel < channels; channel++)
            drain_column(job->half, channel, &job->out, job->out_byte + byte + channel);
        return;
    }
    struct rows place = {.address = ((u32)column - MEMORY_BASE) >> ROW_SHIFT};
    for (u32 channel = 0; channel < channels; channel++) {
        struct job own = *job;
        own.in_byte += byte + channel;
        own.out_byte += byte + channel;
        if (job->pool == LOOMWORK_POOL_SUM) {
            ENGINE(PAD) = PART(PAD, COLUMN, channel);
            set_channel(job->half, channel);
        } else {
            drain_column(job->half, channel, &place, (u32)column & (ARRAY_ROWS - 1));
            wait_for_engine();
            set_scale(0, combine_scale);
        }
        drain_values(&own);
    }
}

static void check(command c)
{
    u32 kind = FIELD(c, DRAIN, COMBINE), pool_kind = FIELD(c, DRAIN, POOL);
    u32 window = FIELD(c, DRAIN, POOL_HEIGHT) | FIELD(c, DRAIN, POOL_WIDTH);
    int is_bad = (FIELD(c, DRAIN, SOURCE) == LOOMWORK_SOURCE_SCRATCHPAD &&
                  FIELD(c, DRAIN, PARAMS) != LOOMWORK_PARAMS_UNIFORM) ||
                 (pool_kind == LOOMWORK_POOL_NONE && window != 1) ||
                 (HAS_OPERAND(kind) && pool_kind == LOOMWORK_POOL_SUM) ||
                 (kind == LOOMWORK_COMBINE_ADD && !HAS_ADD) || (kind == LOOMWORK_COMBINE_MULTIPLY && !HAS_MULTIPLY) ||
                 (kind == LOOMWORK_COMBINE_TABLE && !HAS_TABLE);
    if (is_bad)
        fail(UNIT_DRAIN, LOOMWORK_ERROR_ILLEGAL_OPERAND);
}

static struct job job; /* of the current command */
static u32 last_pixel;

/* What is the same for all blocks of a DRAIN. */
static void prepare(command c)
{
    u32 from_scratchpad = FIELD(c, DRAIN, SOURCE) == LOOMWORK_SOURCE_SCRATCHPAD;
    job.kind = FIELD(c, DRAIN, COMBINE);
    job.pool = FIELD(c, DRAIN, POOL);
    job.width = FIELD(c, DRAIN, WIDTH);
    job.height = FIELD(c, DRAIN, HEIGHT);
    job.pool_width = FIELD(c, DRAIN, POOL_WIDTH);
    job.pool_height = FIELD(c, DRAIN, POOL_HEIGHT);
    job.x_step = FIELD(c, DRAIN, POOL_X_STEP);
    job.y_step = FIELD(c, DRAIN, POOL_Y_STEP);
    job.in_step = FIELD(c, DRAIN, IN_STEP);
    job.out_step = FIELD(c, DRAIN, OUT_STEP);
    job.number_step = FIELD(c, DRAIN, IN_PITCH);
    job.in_byte = FIELD(c, DRAIN, IN_OFFSET);
    job.out_byte = FIELD(c, DRAIN, OUT_OFFSET);
    job.number = 0;
    job.channels = 1;
    u32 channels = FIELD(c, DRAIN, CHANNELS);
    u32 highest = (job.height - 1) * job.y_step + job.pool_height - 1;
    u32 last = (job.width - 1) * job.x_step + job.pool_width - 1;
    last_pixel = highest * job.number_step + last;
    if (!from_scratchpad && last_pixel >= ACCUMULATOR_DEPTH)
        fail(UNIT_DRAIN, LOOMWORK_ERROR_SCRATCHPAD);
    u32 in_last = job.in_byte + last * job.in_step + channels - 1;
    i32 in_row = SIGNED_FIELD(c, DRAIN, IN_ROW), out_row = SIGNED_FIELD(c, DRAIN, OUT_ROW);
    if (from_scratchpad)
        job.in = rows_of(UNIT_DRAIN, FIELD(c, DRAIN, IN_BASE), job.number_step, 0, in_row, in_row + (i32)highest,
                         in_last);
    if (HAS_OPERAND(job.kind))
        job.operand = rows_of(UNIT_DRAIN, FIELD(combine, COMBINE, OPERAND_BASE),
                              FIELD(combine, COMBINE, OPERAND_PITCH), 0, in_row, in_row + (i32)highest, in_last);
    u32 out_last = job.out_byte + (job.width - 1) * job.out_step + channels - 1;
    job.out = rows_of(UNIT_DRAIN, FIELD(c, DRAIN, OUT_BASE), FIELD(c, DRAIN, OUT_PITCH), 0, out_row,
                      out_row + (i32)job.height - 1, out_last);
}

static void drain_scratchpad(u32 channels)
{
    job.half = 0;
    job.channels = channels;
    if (job.pool == LOOMWORK_POOL_SUM) {
        set_scale(requant_bias, requant_scale);
    } else {
        make_requantized();
        set_scale(0, combine_scale);
    }
    drain_values(&job);
    done(UNIT_DRAIN);
}

/* A DRAIN from the scratchpad, or one block of one from the accumulators. */
static int drain_block(command c)
{
    u32 from_scratchpad = FIELD(c, DRAIN, SOURCE) == LOOMWORK_SOURCE_SCRATCHPAD;
    u32 channels = FIELD(c, DRAIN, CHANNELS);
    if (!block)
        check(c);
    if (!from_scratchpad && halves_filled == halves_taken)
        return 0;
    if (!block)
        prepare(c);
    wait_for_engine();
    engine_settings = 0;
    if (job.kind == LOOMWORK_COMBINE_ADD)
        make_addends();
    if (from_scratchpad) {
        drain_scratchpad(channels);
        return 1;
    }
    job.half = &halves[halves_taken & 1];
    if (job.half->params != FIELD(c, DRAIN, PARAMS))
        fail(UNIT_DRAIN, LOOMWORK_ERROR_ILLEGAL_OPERAND);
    u32 left = channels - (block << ROW_SHIFT);
    drain_half(&job, left < ARRAY_ROWS ? left : ARRAY_ROWS, last_pixel);
    wait_for_engine();
    engine_settings = 0;
    halves_taken++;
    block++;
    if (left <= ARRAY_ROWS) {
        block = 0;
        done(UNIT_DRAIN);
    }
    return 1;
}

int drain(void)
{
    command c = current(UNIT_DRAIN);
    if (!c)
        return 0;
    switch (FIELD(c, DRAIN, OPCODE)) {
    case LOOMWORK_OPCODE_REQUANT:
        set_requant(c);
        break;
    case LOOMWORK_OPCODE_COMBINE:
        set_combine(c);
        break;
    case LOOMWORK_OPCODE_TABLE:
        set_table(c);
        break;
    default:
        return drain_block(c);
    }
    done(UNIT_DRAIN);
    return 1;
}
