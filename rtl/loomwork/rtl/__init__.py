# SPDX-License-Identifier: Apache-2.0
"""The accelerator in Amaranth: units joined by streams, assembled in `core`, turned into Verilog by `generate`."""
