/* SPDX-License-Identifier: Apache-2.0 */
/* LOAD and STORE: image rows between external memory and scratchpad. Their commands have the same operands. */
#include "firmware.h"

int transfer(enum unit unit)
{
    command c = current(unit);
    if (!c)
        return 0;
    u32 window = FIELD(c, LOAD, WINDOW);
    if (unit == UNIT_STORE && !(WRITABLE_WINDOWS >> window & 1))
        fail(unit, LOOMWORK_ERROR_WINDOW);
    u32 offset = FIELD(c, LOAD, OFFSET), stride = FIELD(c, LOAD, ROW_STRIDE);
    u32 row = FIELD(c, LOAD, ROW), bytes = FIELD(c, LOAD, WORDS) << ROW_SHIFT;
    u32 count = FIELD(c, LOAD, ROWS);
    if (stride % BUS_BYTES)
        fail(unit, LOOMWORK_ERROR_WINDOW);
    struct rows rows = rows_of(unit, FIELD(c, LOAD, BASE), FIELD(c, LOAD, PITCH), 0, (i32)row, (i32)(row + count - 1),
                               bytes - 1);
    u32 bus_error = unit == UNIT_LOAD ? LOOMWORK_ERROR_BUS_READ : LOOMWORK_ERROR_BUS_WRITE;
    for (; count; count--) {
        u32 *outside = (u32 *)external(unit, window, offset, bytes, bus_error);
        u32 *inside = (u32 *)(MEMORY_BASE + (rows.address << ROW_SHIFT));
        u32 *from = unit == UNIT_LOAD ? outside : inside, *to = unit == UNIT_LOAD ? inside : outside;
        for (u32 left = bytes; left; left -= 4)
            *to++ = *from++;
        offset += stride;
        next_row(&rows);
        if (unit == UNIT_LOAD)
            COUNTER(READ_BEATS) += bytes / BUS_BYTES;
        else
            COUNTER(WRITE_BEATS) += bytes / BUS_BYTES;
    }
    done(unit);
    return 1;
}
