# SPDX-License-Identifier: Apache-2.0
"""What is read from Liberty files: cells, macros, corners; and what is said of bad ones."""

import pytest

from loomwork.fpga.liberty import Buffer, read_library
from loomwork.fpga.yosys import SynthesisError
from tests.fpga.round_library import macro, standard_cells, write_library


def test_a_library_is_read(tmp_path):
    library = write_library(tmp_path)
    assert library.cells.name == "cells.lib"
    assert library.names == {"INV", "BUF", "NAND2", "DFF"}
    assert (library.flip_flops, library.flip_flop_area) == (("DFF",), 100.0)
    assert library.buffer == Buffer("BUF", "A", "Y", frozenset())
    found = [(one.name, one.words, one.width, one.ports, one.masked, one.area, one.access) for one in library.macros]
    assert found == [
        ("ONE", 64, 8, ("A",), True, 1000.0, 10.0),
        ("TWO", 64, 8, ("A", "B"), True, 2000.0, 10.0),
        ("WIDE", 64, 32, ("A", "B"), True, 5000.5, 10.0),
    ]


def test_a_macro_may_be_written_in_other_ways(tmp_path):
    write_library(tmp_path)
    text = macro("OTHER", 7, 16, "A", 0, masked=False).replace("cell(OTHER)", 'cell ( "OTHER" )')
    text = text.replace("  area : 0;\n", "").replace("  memory() {", "  area : 1.25e+03;\n  memory() {")
    (tmp_path / "other.lib").write_text(text)
    other = next(one for one in read_library(tmp_path).macros if one.name == "OTHER")
    assert (other.words, other.width, other.masked, other.area) == (128, 16, False, 1250.0)


def test_of_the_buffers_one_four_times_as_strong_as_the_weakest_is_taken(tmp_path):
    cells = "".join(
        f"  cell (B{drive}) {{ area : {drive + 1}; pin (A) {{ direction : input; }}\n"
        f'    pin (X) {{ direction : output; function : "(A)"; max_capacitance : 0.{drive}; }} }}\n'
        for drive in (8, 4, 2, 1)
    )
    text = standard_cells().replace("max_capacitance : 9", "max_capacitance : 0.1").rstrip().removesuffix("}")
    (tmp_path / "cells.lib").write_text(f"{text}{cells}}}\n")
    assert read_library(tmp_path).buffer == Buffer("B4", "A", "X", frozenset({"B1", "B2"}))


def test_corners_are_told_by_names_of_files_or_conditions(tmp_path):
    (tmp_path / "x_typ_1p20V_25C.lib").write_text(standard_cells())
    (tmp_path / "x_fast_1p32V_m55C.lib").write_text(standard_cells())
    (tmp_path / "other.lib").write_text(
        standard_cells().replace("nom_voltage", "operating_conditions (x_ss_125C) { }\n  nom_voltage")
    )
    (tmp_path / "ram_typ.lib").write_text(macro("RAM", 6, 8, "A", 7))
    (tmp_path / "ram_slow.lib").write_text(macro("RAM", 6, 8, "A", 7))
    (tmp_path / "new_typ.lib").write_text(macro("NEW", 6, 8, "A", 7))
    typical, slow = read_library(tmp_path).corners
    assert (typical.name, typical.cells.name) == ("typical", "x_typ_1p20V_25C.lib")
    assert (slow.name, slow.cells.name) == ("slow", "other.lib")
    assert {name: path.name for name, path in typical.macros.items()} == {"RAM": "ram_typ.lib", "NEW": "new_typ.lib"}
    assert {name: path.name for name, path in slow.macros.items()} == {"RAM": "ram_slow.lib"}


def test_bad_folders_are_named(tmp_path):
    (tmp_path / "one.lib").write_text(macro("ONE", 6, 8, "A", 1000))
    with pytest.raises(SynthesisError, match=r"no \.lib file with flip-flops"):
        read_library(tmp_path)
    (tmp_path / "cells.lib").write_text(standard_cells().replace('function : "A"', 'function : "!A"'))
    with pytest.raises(SynthesisError, match=r"cells\.lib has no buffer"):
        read_library(tmp_path)
    (tmp_path / "cells.lib").write_text(standard_cells())
    (tmp_path / "more.lib").write_text(standard_cells())
    with pytest.raises(SynthesisError, match=r"cells\.lib and more\.lib are both standard cells, typical"):
        read_library(tmp_path)


def test_a_macro_without_its_size_is_an_error(tmp_path):
    write_library(tmp_path)
    (tmp_path / "one.lib").write_text(macro("ONE", 6, 8, "A", 1000).replace("word_width", "other"))
    with pytest.raises(SynthesisError, match=r"one\.lib: no word_width found"):
        read_library(tmp_path)
