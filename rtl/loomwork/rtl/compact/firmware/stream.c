/* SPDX-License-Identifier: Apache-2.0 */
/* STREAM: where the next words of weights and parameters lie. */
#include "firmware.h"

static u32 next_word, words_left;
/* Words that come from two STREAMs, one behind the other. */
static u32 gathered[PARAMETER_WORDS(LOOMWORK_PARAMS_PER_CHANNEL) << ROW_SHIFT >> 2];

void reset_stream(void)
{
    words_left = 0;
}

int stream_is_empty(void)
{
    return !words_left && !queues[UNIT_STREAM].count;
}

/* Whether there are words, of the next STREAM if need be. */
static void refill(void)
{
    while (!words_left) {
        command c = current(UNIT_STREAM);
        if (c) {
            u32 words = FIELD(c, STREAM, WORDS), bytes = words << ROW_SHIFT;
            /* Whole bus beats are read. */
            u32 whole = (bytes + BUS_BYTES - 1) & ~(u32)(BUS_BYTES - 1);
            if (bytes >> ROW_SHIFT != words)
                fail(UNIT_STREAM, LOOMWORK_ERROR_WINDOW);
            u32 offset = FIELD(c, STREAM, OFFSET);
            next_word = external(UNIT_STREAM, FIELD(c, STREAM, WINDOW), offset, whole, LOOMWORK_ERROR_BUS_READ);
            words_left = words;
            COUNTER(READ_BEATS) += whole / BUS_BYTES;
            done(UNIT_STREAM);
        } else if (!run_others()) {
            stuck();
        }
    }
}

u32 take(u32 least, u32 most, u32 *words)
{
    refill();
    u32 address = next_word;
    u32 count = words_left >= most ? most : words_left & ~(u32)(ARRAY_ROWS - 1);
    if (count >= least) {
        next_word += count << ROW_SHIFT;
        words_left -= count;
        *words = count;
        return address;
    }
    wait_for_engine(); /* which may still need what was gathered before */
    u32 *place = gathered;
    for (u32 word = 0; word < least; word++) {
        refill();
        u32 *from = (u32 *)next_word;
        for (u32 byte = 0; byte < 1u << ROW_SHIFT; byte += 4)
            *place++ = *from++;
        next_word += 1u << ROW_SHIFT;
        words_left--;
    }
    *words = least;
    return (u32)gathered;
}
