# SPDX-License-Identifier: Apache-2.0
"""cocotb test benches of the core: registers, programs under random bus behaviour, errors and recovery."""
