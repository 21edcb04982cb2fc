# SPDX-License-Identifier: Apache-2.0
"""The board's end of the host link (arch/link.py): from UART pins to registers and memory."""
