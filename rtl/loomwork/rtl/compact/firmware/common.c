/* SPDX-License-Identifier: Apache-2.0 */
/* Operands, addresses, errors. */
#include "firmware.h"

void wait_for_engine(void)
{
    while (RESULT(BUSY))
        ;
}

struct rows rows_of(enum unit unit, u32 base, u32 pitch, u32 ring, i32 row, i32 highest, u32 last)
{
    i32 group = row >> 2;
    i32 highest_group = highest >> 2;
    struct rows rows;
    rows.bank = (u32)row & (BANKS - 1);
    rows.row = row;
    rows.left = ROWS_LEFT_NEVER;
    if (ring) {
        if (highest_group >= (i32)ring) {
            /* Rows on both sides of the end: those in front of it reach furthest. */
            highest_group = group < (i32)ring ? (i32)ring - 1 : highest_group - (i32)ring;
        }
        if (group >= (i32)ring)
            group -= (i32)ring;
        else
            rows.left = ring - 1 - (u32)group;
    }
    u32 ahead = pitch * (group < 0 ? (u32)-group : (u32)group);
    if (highest_group >= 0) {
        u32 word = base + (last >> ROW_SHIFT);
        if (word >= BANK_WORDS || pitch * (u32)highest_group >= BANK_WORDS - word)
            fail(unit, LOOMWORK_ERROR_SCRATCHPAD);
    }
    rows.wrap = pitch - (BANKS - 1) * BANK_WORDS;
    rows.ring_wrap = rows.wrap - pitch * ring;
    rows.address = SCRATCHPAD_WORD + base + (group < 0 ? 0 - ahead : ahead);
    for (u32 bank = rows.bank; bank; bank--)
        rows.address += BANK_WORDS;
    return rows;
}

void next_row(struct rows *rows)
{
    rows->row++;
    if (++rows->bank < BANKS) {
        rows->address += BANK_WORDS;
        return;
    }
    rows->bank = 0;
    rows->address += rows->left ? rows->wrap : rows->ring_wrap;
    rows->left = (rows->left - 1) & ROWS_LEFT_NEVER;
}

const struct settings *engine_settings;

void set_engine(const struct settings *settings)
{
    engine_settings = settings;
    ENGINE(WRAP) = settings->wrap;
    ENGINE(HEIGHT) = settings->height;
    ENGINE(X_STEP) = settings->x_step;
    ENGINE(SIZE) = settings->size;
    ENGINE(PIXEL) = settings->pixel;
    ENGINE(PAD) = settings->pad;
}

void point_engine(const struct rows *rows, i32 x)
{
    ENGINE(ROW_ADDRESS) = rows->address;
    ENGINE(ROW) = ((u32)rows->row & ENGINE_ROW_ROW_MAX) | PART(ROW, BANK, rows->bank) | PART(ROW, LEFT, rows->left);
    ENGINE(X) = (u32)x;
}

u32 external(enum unit unit, u32 window, u32 offset, u32 bytes, u32 bus_error)
{
    u32 size = REGISTER(LOOMWORK_REG_WINDOW_SIZE(window));
    if (offset % BUS_BYTES || offset > size || bytes > size - offset)
        fail(unit, LOOMWORK_ERROR_WINDOW);
    u32 base = REGISTER(LOOMWORK_REG_WINDOW_BASE_LOW(window));
    if (base > EXTERNAL_BYTES || offset > EXTERNAL_BYTES - base || bytes > EXTERNAL_BYTES - base - offset)
        fail(unit, bus_error);
    return MEMORY_BASE + base + offset;
}

/* The processor does not multiply; the compiler does it with this. */
__attribute__((used)) u32 __mulsi3(u32 a, u32 b)
{
    if (b > a) {
        u32 swap = a;
        a = b;
        b = swap;
    }
    u32 product = 0;
    for (; b; b >>= 1, a <<= 1)
        if (b & 1)
            product += a;
    return product;
}

/* The compiler copies and clears structures with these; all of them are whole words. */
__attribute__((used)) void *memcpy(void *restrict to, const void *restrict from, unsigned bytes)
{
    u32 *place = to;
    const u32 *source = from;
    for (; bytes; bytes -= 4)
        *place++ = *source++;
    return to;
}

__attribute__((used)) void *memset(void *to, int value, unsigned bytes)
{
    u32 *place = to;
    for (; bytes; bytes -= 4)
        *place++ = (u32)value;
    return to;
}
