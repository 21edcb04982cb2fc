/* SPDX-License-Identifier: Apache-2.0 */
/* STREAM: where the next words of weights and parameters lie. */
#include "firmware.h"

#define PARTS 8 /* a power of two */

/* What the STREAMs so far have left, in order. */
static struct {
    u32 address, words;
} parts[PARTS];
static u32 first, count;
/* Words that come from two parts, one behind the other. */
static u32 gathered[PARAMETER_WORDS(LOOMWORK_PARAMS_PER_CHANNEL) << ROW_SHIFT >> 2];

void reset_stream(void)
{
    first = count = 0;
}

int stream_is_empty(void)
{
    return !count;
}

int stream(void)
{
    command c = current(UNIT_STREAM);
    if (!c || count == PARTS)
        return 0;
    u32 words = FIELD(c, STREAM, WORDS), bytes = words << ROW_SHIFT;
    if (bytes >> ROW_SHIFT != words)
        fail(UNIT_STREAM, LOOMWORK_ERROR_WINDOW);
    u32 address = external(UNIT_STREAM, FIELD(c, STREAM, WINDOW), FIELD(c, STREAM, OFFSET), bytes,
                           LOOMWORK_ERROR_BUS_READ);
    u32 last = (first + count - 1) % PARTS;
    if (count && parts[last].address + (parts[last].words << ROW_SHIFT) == address) {
        parts[last].words += words; /* it goes on where the one before ends */
    } else {
        last = (first + count++) % PARTS;
        parts[last].address = address;
        parts[last].words = words;
    }
    COUNTER(READ_BEATS) += words;
    done(UNIT_STREAM);
    return 1;
}

/* Wait until there are words. */
static void refill(void)
{
    while (!count)
        if (!run_others())
            stuck();
}

/* Take words of the first part. */
static u32 advance(u32 words)
{
    u32 address = parts[first].address;
    parts[first].address += words << ROW_SHIFT;
    parts[first].words -= words;
    if (!parts[first].words) {
        first = (first + 1) % PARTS;
        count--;
    }
    return address;
}

u32 take(u32 least, u32 most, u32 *words)
{
    refill();
    u32 there = parts[first].words;
    *words = there >= most ? most : there & ~(u32)(ARRAY_ROWS - 1);
    if (*words >= least)
        return advance(*words);
    wait_for_engine(); /* which may still need what was gathered before */
    u32 *place = gathered;
    for (u32 word = 0; word < least; word++) {
        refill();
        const u32 *from = (const u32 *)advance(1);
        for (u32 byte = 0; byte < 1u << ROW_SHIFT; byte += 4)
            *place++ = *from++;
    }
    *words = least;
    return (u32)gathered;
}
