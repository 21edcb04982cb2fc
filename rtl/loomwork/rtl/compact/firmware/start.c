/* SPDX-License-Identifier: Apache-2.0 */
/* Where the processor begins, and where it goes on after an error. */
#include "firmware.h"

__attribute__((naked, section(".start"))) void _start(void)
{
    __asm__ volatile("li sp, %0\n"
                     "call power_on\n"
                     ".globl restart\n"
                     "restart:\n"
                     "li sp, %0\n"
                     "j run" ::"i"(REGISTERS));
}
