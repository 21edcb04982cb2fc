# SPDX-License-Identifier: Apache-2.0
"""The compact core: the same commands with a processor in place of the units, for FPGAs too small for the large core.

One memory, one array, one requantizer. What repeats for every pixel is hardware (`engine.py`); what happens once per
command, block or pass is a program (`firmware/`) on a small RISC-V processor. See docs/compact-core.md.
"""
