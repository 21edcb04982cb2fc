/* SPDX-License-Identifier: Apache-2.0 */
/* Fetches commands, checks their operands, and puts them into the queues of their units. */
#include "firmware.h"

#define ROOM (1 + QUEUE_DEPTH) /* a command that runs, and those that wait */

struct queue queues[UNITS];
static struct entry entries[ROOM * TICKET_UNITS + 1]; /* a STREAM does not wait, but in front of its own list */
u32 next_offset, has_ended;
static u32 finished[TICKET_UNITS];
static u32 has_begun[UNITS]; /* whether the tickets of a unit's first command have come */

static const struct instruction instructions[] = INSTRUCTIONS;
static const uint8_t fields[] = FIELDS;
static const struct limit limits[] = LIMITS;

/* Reads the fields of a command, each from where the one before ends. */
static void decode(const u32 *words, const struct instruction *instruction, i32 *operands)
{
    const u32 *end = words + LOOMWORK_COMMAND_BYTES / 4;
    const uint8_t *shape = &fields[instruction->first_field];
    u32 word = 0, left = 0, count;
    for (count = instruction->fields; count; count--) {
        u32 width = *shape & FIELD_WIDTH, value = word;
        if (left < width) {
            u32 next = *words++, taken = width - left;
            value |= next << left;
            word = taken == 32 ? 0 : next >> taken;
            left += 32;
        } else {
            word >>= width;
        }
        left -= width;
        u32 unused = 32 - width;
        *operands++ = *shape++ & FIELD_SIGNED ? (i32)(value << unused) >> unused : (i32)(value << unused >> unused);
    }
    u32 rest = word;
    while (words < end)
        rest |= *words++;
    if (rest)
        fail_at(next_offset, LOOMWORK_ERROR_ILLEGAL_OPERAND);
}

static void check(const struct instruction *instruction, command c)
{
    const struct limit *limit = &limits[instruction->first_limit];
    for (u32 count = instruction->limits; count; count--, limit++)
        if (c[limit->field] < limit->minimum || (limit->maximum != NO_MAXIMUM && c[limit->field] > limit->maximum))
            fail_at(next_offset, LOOMWORK_ERROR_ILLEGAL_OPERAND);
}

int fetch(void)
{
    if (has_ended)
        return 0;
    u32 size = REGISTER(LOOMWORK_REG_WINDOW_SIZE(LOOMWORK_WINDOW_COMMANDS));
    if (next_offset > size || LOOMWORK_COMMAND_BYTES > size - next_offset)
        fail_at(next_offset, LOOMWORK_ERROR_WINDOW);
    u32 base = REGISTER(LOOMWORK_REG_WINDOW_BASE_LOW(LOOMWORK_WINDOW_COMMANDS));
    if (base > EXTERNAL_BYTES || next_offset + LOOMWORK_COMMAND_BYTES > EXTERNAL_BYTES - base)
        fail_at(next_offset, LOOMWORK_ERROR_BUS_READ);
    const u32 *words = (const u32 *)(MEMORY_BASE + base + next_offset);
    u32 opcode = words[0] & ((1u << LOOMWORK_LOAD_OPCODE_WIDTH) - 1);
    const struct instruction *instruction = &instructions[opcode];
    if (opcode >= OPCODES || !instruction->fields)
        fail_at(next_offset, LOOMWORK_ERROR_ILLEGAL_OPCODE);
    struct queue *queue = &queues[instruction->unit];
    if (queue->count == queue->room)
        return 0;
    u32 place = queue->first + queue->count;
    struct entry *entry = &queue->entries[place < queue->room ? place : place - queue->room];
    decode(words, instruction, entry->operands);
    check(instruction, entry->operands);
    entry->offset = next_offset;
    if (opcode == LOOMWORK_OPCODE_END)
        has_ended = 1;
    else
        queue->count++;
    COUNTER(READ_BEATS) += LOOMWORK_COMMAND_BYTES / BUS_BYTES;
    next_offset += LOOMWORK_COMMAND_BYTES;
    return 1;
}

static int has_tickets(command c)
{
    for (u32 unit = 0; unit < TICKET_UNITS; unit++) {
        u32 wait = (u32)c[LOAD_WAIT_LOAD + 2 * unit], ticket = (u32)c[LOAD_LOAD_TICKET + 2 * unit];
        if (wait && (finished[unit] - ticket) & 1u << (LOOMWORK_LOAD_LOAD_TICKET_WIDTH - 1))
            return 0;
    }
    return 1;
}

command current(enum unit unit)
{
    struct queue *queue = &queues[unit];
    if (!queue->count)
        return 0;
    command c = queue->entries[queue->first].operands;
    if (!has_begun[unit])
        has_begun[unit] = (u32)has_tickets(c);
    return has_begun[unit] ? c : 0;
}

u32 offset_of(enum unit unit)
{
    return queues[unit].entries[queues[unit].first].offset;
}

void done(enum unit unit)
{
    struct queue *queue = &queues[unit];
    queue->count--;
    if (++queue->first == queue->room)
        queue->first = 0;
    has_begun[unit] = 0;
    if (unit < TICKET_UNITS)
        finished[unit]++;
}

void reset_program(void)
{
    struct entry *place = entries;
    for (u32 unit = 0; unit < UNITS; unit++) {
        queues[unit] = (struct queue){.entries = place, .room = unit == UNIT_STREAM ? 1 : ROOM};
        has_begun[unit] = 0;
        place += ROOM;
    }
    for (u32 unit = 0; unit < TICKET_UNITS; unit++)
        finished[unit] = 0;
    next_offset = 0;
    has_ended = 0;
    reset_stream();
    reset_execute();
    reset_drain();
}
