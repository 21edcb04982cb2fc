# SPDX-License-Identifier: Apache-2.0
"""The contract between hardware and software: configuration, commands, registers, arithmetic, program files.

Everything that the RTL, the compiler, the golden model and the driver must agree on is declared here once.
This package imports nothing else of Loomwork.
"""
