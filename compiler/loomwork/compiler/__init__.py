# SPDX-License-Identifier: Apache-2.0
"""The compiler: from a trained network to a program of commands."""
