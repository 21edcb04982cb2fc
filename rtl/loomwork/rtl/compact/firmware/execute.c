/* SPDX-License-Identifier: Apache-2.0 */
/* CONVOLVE, DEPTHWISE and SKIP: passes through the array, a block at a time. */
#include "firmware.h"

struct half halves[2];
u32 halves_filled, halves_taken;
static u32 skips, last_pass; /* whether a SKIP is in force; with which pass each block ends */
static i32 mask[MASK_PASSES / 32];

static u32 block; /* of the current command */
static u32 pass, overwrites, pixels;
static u32 runs; /* of all pixels through the array, in this block */
static struct settings settings;
static struct rows first_rows;

void reset_execute(void)
{
    block = halves_filled = halves_taken = 0;
    skips = 0;
}

/* Start the array when it is free. `lanes`: array rows whose weights count. */
static void start(const struct rows *rows, i32 x, u32 weights, u32 passes, u32 lanes, u32 diagonal)
{
    wait_for_engine();
    if (engine_settings != &settings)
        set_engine(&settings); /* a drain came between */
    point_engine(rows, x);
    ENGINE(WEIGHTS) = (weights - MEMORY_BASE) >> ROW_SHIFT;
    runs += passes;
    ENGINE(PASS) =
        passes | PART(PASS, LANES, lanes) | PART(PASS, DIAGONAL, diagonal) | PART(PASS, OVERWRITES, overwrites);
    overwrites = 0;
}

/* Whether the pass is executed, and the block goes on behind it. */
static int is_executed(void)
{
    if (!skips || pass == last_pass || pass >= MASK_PASSES)
        return 1;
    return !((u32)mask[pass / 32] >> pass % 32 & 1);
}

static int is_last(void)
{
    return skips && pass == last_pass;
}

/* Kernel rows, so many image rows apart, that lie in different banks: arch/reduction.py. */
static u32 rows_in_parallel(u32 row_step)
{
    return row_step & 1 ? 4 : row_step & 2 ? 2 : 1;
}

static void step_rows(struct rows *rows, u32 count)
{
    for (; count; count--)
        next_row(rows);
}

/* The passes of one tap; returns whether the block has ended. */
static int convolve_tap(command c, struct rows rows, i32 x)
{
    u32 length = FIELD(c, CONVOLVE, LENGTH), row_step = FIELD(c, CONVOLVE, ROW_STEP);
    u32 most = rows_in_parallel(row_step), kernel_rows = FIELD(c, CONVOLVE, KERNEL_ROWS), begin = 0, words;
    while (kernel_rows) {
        u32 whole = (length - begin) >> ROW_SHIFT;
        if (whole && !skips) {
            /* Passes within one kernel row follow each other without the processor. */
            u32 most_words = (whole < MAX_PASSES ? whole : MAX_PASSES) << ROW_SHIFT;
            u32 weights = take(ARRAY_ROWS, most_words, &words);
            u32 passes = words >> ROW_SHIFT;
            start(&rows, x + (i32)begin, weights, passes, ALL_LANES, 0);
            begin += passes << ROW_SHIFT;
            pass += passes;
            if (begin == length) {
                begin = 0;
                kernel_rows--;
                step_rows(&rows, row_step);
            }
            continue;
        }
        int executed = is_executed(), last = is_last();
        u32 weights = executed ? take(ARRAY_ROWS, ARRAY_ROWS, &words) : 0;
        u32 row = 0;
        for (u32 segments = 0; row < ARRAY_ROWS && kernel_rows && segments < most; segments++) {
            u32 taken = ARRAY_ROWS - row < length - begin ? ARRAY_ROWS - row : length - begin;
            if (executed)
                start(&rows, x + (i32)begin - (i32)row, weights, 1, ((1u << taken) - 1) << row, 0);
            row += taken;
            begin += taken;
            if (begin == length) {
                begin = 0;
                kernel_rows--;
                step_rows(&rows, row_step);
            }
        }
        pass++;
        if (last)
            return 1;
    }
    return 0;
}

static int depthwise_tap(command c, struct rows rows, i32 x)
{
    u32 row_step = FIELD(c, DEPTHWISE, ROW_STEP), kernel_rows = FIELD(c, DEPTHWISE, KERNEL_ROWS);
    u32 taps = FIELD(c, DEPTHWISE, TAPS), x_step = FIELD(c, DEPTHWISE, X_STEP), words;
    u32 most = rows_in_parallel(row_step);
    if (most > KERNEL_GROUPS)
        most = KERNEL_GROUPS;
    while (kernel_rows) {
        int executed = is_executed(), last = is_last();
        u32 weights = executed ? take(ARRAY_ROWS, ARRAY_ROWS, &words) : 0;
        for (u32 group = 0; group < most && kernel_rows; group++, kernel_rows--) {
            i32 tap_x = x;
            u32 tap_weights = weights + (group * TAPS_PER_GROUP << ROW_SHIFT);
            for (u32 tap = 0; tap < taps && executed; tap++, tap_x += (i32)x_step, tap_weights += 1u << ROW_SHIFT)
                start(&rows, tap_x, tap_weights, 1, 0, 1);
            step_rows(&rows, row_step);
        }
        pass++;
        if (last)
            return 1;
    }
    return 0;
}

/* What is the same for all blocks of a command. */
static void prepare(command c, int depthwise)
{
    u32 width = FIELD(c, CONVOLVE, TILE_WIDTH), height = FIELD(c, CONVOLVE, TILE_HEIGHT);
    u32 x_step = FIELD(c, CONVOLVE, X_STEP), base = FIELD(c, CONVOLVE, BASE), pitch = FIELD(c, CONVOLVE, PITCH);
    u32 row_bytes = FIELD(c, CONVOLVE, ROW_BYTES), ring = FIELD(c, CONVOLVE, RING);
    i32 image_height = SIGNED_FIELD(c, CONVOLVE, HEIGHT), y_start = SIGNED_FIELD(c, CONVOLVE, Y_START);
    i32 x_start = SIGNED_FIELD(c, CONVOLVE, X_START), highest, last;
    pixels = width * height;
    if (pixels > ACCUMULATOR_DEPTH)
        fail(UNIT_EXECUTE, LOOMWORK_ERROR_SCRATCHPAD);
    if (depthwise)
        x_step = x_step * FIELD(c, DEPTHWISE, X_STRIDE);
    highest = y_start + (i32)((height - 1) * FIELD(c, CONVOLVE, Y_STEP) +
                              (FIELD(c, CONVOLVE, KERNEL_ROWS) - 1) * FIELD(c, CONVOLVE, ROW_STEP));
    last = x_start + (i32)(FIELD(c, CONVOLVE, BLOCK_STEP) * (FIELD(c, CONVOLVE, BLOCKS) - 1) +
                           FIELD(c, CONVOLVE, TAP_STEP) * (FIELD(c, CONVOLVE, TAP_COUNT) - 1) + x_step * (width - 1));
    last += depthwise ? (i32)(FIELD(c, DEPTHWISE, X_STEP) * (FIELD(c, DEPTHWISE, TAPS) - 1)) + ARRAY_ROWS - 1
                      : (i32)FIELD(c, CONVOLVE, LENGTH) - 1;
    if (highest > LAST_ROW || last > LAST_BYTE || x_step > LAST_STEP)
        fail(UNIT_EXECUTE, LOOMWORK_ERROR_ILLEGAL_OPERAND);
    /* Of the image, all that lies in front of the last row and byte must be in the scratchpad. */
    highest = highest < image_height ? highest : image_height - 1;
    last = last < (i32)row_bytes ? last : (i32)row_bytes - 1;
    if (last < 0 || y_start >= image_height || x_start >= (i32)row_bytes)
        highest = last = -1;
    first_rows = rows_of(UNIT_EXECUTE, base, pitch, ring, y_start, highest, (u32)last);
    settings.wrap = (first_rows.wrap & ENGINE_WRAP_USUAL_MAX) | PART(WRAP, RING, first_rows.ring_wrap);
    settings.height = (u32)image_height | PART(HEIGHT, STEP, FIELD(c, CONVOLVE, Y_STEP));
    settings.x_step = x_step | PART(X_STEP, ROW_BYTES, row_bytes);
    settings.size = width | PART(SIZE, HEIGHT, height);
    settings.pixel = PART(PIXEL, STEP, 1) | PART(PIXEL, ROW, width);
    settings.pad = FIELD(c, CONVOLVE, PAD);
}

static void take_parameters(u32 params)
{
    struct half *half = &halves[halves_filled & 1];
    half->params = params;
    u32 words = PARAMETER_WORDS(params);
    if (!words)
        return;
    const i32 *from = (const i32 *)take(words, words, &words);
    i32 *place = half->words;
    for (u32 bytes = words << ROW_SHIFT; bytes; bytes -= 4)
        *place++ = *from++;
}

int execute(void)
{
    command c = current(UNIT_EXECUTE);
    if (!c || halves_filled - halves_taken == 2)
        return 0;
    u32 opcode = FIELD(c, CONVOLVE, OPCODE);
    if (opcode == LOOMWORK_OPCODE_SKIP) {
        if (!HAS_SKIP)
            fail(UNIT_EXECUTE, LOOMWORK_ERROR_ILLEGAL_OPERAND);
        skips = 1;
        last_pass = FIELD(c, SKIP, LAST);
        for (u32 word = 0; word < MASK_PASSES / 32; word++)
            mask[word] = c[SKIP_MASK_0 + word];
        done(UNIT_EXECUTE);
        return 1;
    }
    int depthwise = opcode == LOOMWORK_OPCODE_DEPTHWISE;
    if (depthwise && (!HAS_DEPTHWISE || FIELD(c, DEPTHWISE, TAPS) > TAPS_PER_GROUP ||
                      FIELD(c, DEPTHWISE, SHARED) >= FIELD(c, DEPTHWISE, TAPS)))
        fail(UNIT_EXECUTE, LOOMWORK_ERROR_ILLEGAL_OPERAND);
    if (!block)
        prepare(c, depthwise);
    settings.pixel = (settings.pixel & ~ENGINE_PIXEL_FIRST_MAX) | (halves_filled & 1 ? ACCUMULATOR_DEPTH : 0);
    engine_settings = 0;
    i32 x = SIGNED_FIELD(c, CONVOLVE, X_START);
    for (u32 index = block; index; index--)
        x += (i32)FIELD(c, CONVOLVE, BLOCK_STEP);
    pass = runs = 0;
    overwrites = 1;
    u32 tap_step = FIELD(c, CONVOLVE, TAP_STEP);
    int ended = 0;
    for (u32 taps = FIELD(c, CONVOLVE, TAP_COUNT); taps && !ended; taps--, x += (i32)tap_step)
        ended = depthwise ? depthwise_tap(c, first_rows, x) : convolve_tap(c, first_rows, x);
    if (skips && !ended)
        fail(UNIT_EXECUTE, LOOMWORK_ERROR_ILLEGAL_OPERAND);
    COUNTER(ARRAY_ACTIVE) += pixels * runs;
    take_parameters(FIELD(c, CONVOLVE, PARAMS));
    wait_for_engine();
    halves_filled++;
    if (++block == FIELD(c, CONVOLVE, BLOCKS)) {
        block = 0;
        skips = 0;
        done(UNIT_EXECUTE);
    }
    return 1;
}
