# SPDX-License-Identifier: Apache-2.0
"""`loomwork demo`: the whole path, with an embedded network and real images."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress

from loomwork.arch.config import load_config
from loomwork.cli.options import ConfigOption
from loomwork.cli.output import UsageError, console, make_folder, status, write_file, write_json

MODEL = Path("examples/digits/digits_int8.tflite")
IMAGES = Path("examples/digits/digits_test.npz")


def demo(
    directory: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for all that is made.")] = (
        Path("build/demo")
    ),
    config: ConfigOption = "small",
    images: Annotated[int, typer.Option(min=1, help="Test images to run through the RTL.")] = 128,
) -> None:
    """Compile a small pruned digits classifier, generate the Verilog, run test images through it, compare every bit.

    Run it from the repository. Exit code 1 when one bit differs from tflite-micro.

    Example: `loomwork demo --config small --images 16 -o build/demo`
    """
    from loomwork.arch.program_file import program_fingerprint, write_program
    from loomwork.cli.benchmark import reference_outputs
    from loomwork.cli.report_data import Measurement, gather
    from loomwork.cli.report_page import page
    from loomwork.compiler import driver, report
    from loomwork.compiler.disasm import disassemble
    from loomwork.rtl.generate import write_core
    from loomwork.sim.backend import run_program
    from loomwork.sim.golden import GoldenBackend
    from loomwork.sim.library import build_library
    from loomwork.sim.trace import chrome_trace
    from loomwork.sim.verilator import VerilatorBackend

    if not MODEL.is_file():
        raise UsageError(f"{MODEL} is not here: run `loomwork demo` in a checkout of the repository")
    shape = load_config(config)
    make_folder(directory)
    data = np.load(IMAGES)
    pictures, labels = data["images"][:images], data["labels"][:images]

    console.print(f"1. generating Verilog of {shape.name} ({shape.rows}x{shape.cols})")
    core = write_core(shape, directory)
    console.print(f"2. compiling {MODEL}")
    model = MODEL.read_bytes()
    program = driver.compile_model(model, shape, name=MODEL.stem)
    write_file(directory / "digits.lwb", write_program(program))
    write_file(directory / "digits.disasm", disassemble(program))
    write_json(directory / "report.json", program.report)
    console.print(report.summary(program))
    console.print("3. building the Verilator model")
    build_library(shape, report=status.print)
    console.print(f"4. running {len(pictures)} test images through the RTL")
    inputs = {program.inputs[0]: pictures}
    with Progress(console=status, transient=True, disable=not status.is_terminal) as progress:
        task = progress.add_task("images", total=len(pictures))
        on_rtl = run_program(
            program, inputs, VerilatorBackend(), progress=lambda done, _: progress.update(task, completed=done)
        )
    first = {name: value[:1] for name, value in inputs.items()}
    traced = run_program(program, first, VerilatorBackend(trace=True))
    write_json(directory / "timeline.json", chrome_trace(program, traced.statistics[0]))
    origin = f"measured on the RTL in Verilator, {len(pictures)} test images"
    measurement = Measurement(cycles=on_rtl.cycles_per_image, steps=traced.statistics[0], origin=origin)
    write_file(directory / "report.html", page(gather(program, measurement, name="digits.lwb")))
    made_by = {"backend": "verilator", "program": program_fingerprint(program)}
    write_json(directory / "statistics.json", {**made_by, **on_rtl.to_dict(shape)})
    console.print("5. comparing with tflite-micro and the golden model")
    name = program.outputs[0]
    expected = reference_outputs(model, program, inputs)[name].reshape(len(pictures), -1)
    golden = run_program(program, inputs, GoldenBackend()).outputs[name].reshape(len(pictures), -1)
    actual = on_rtl.outputs[name].reshape(len(pictures), -1)
    differing = int((actual != expected).any(axis=1).sum()), int((actual != golden).any(axis=1).sum())

    cycles = int(np.median(on_rtl.cycles_per_image))
    macs = program.report["totals"]["macs"]
    console.print(f"\naccuracy        {np.mean(actual.argmax(axis=1) == labels):.1%} on {len(pictures)} images")
    console.print(f"bit-exactness   {len(pictures) - differing[0]} of {len(pictures)} images equal tflite-micro's")
    console.print(f"                {len(pictures) - differing[1]} of {len(pictures)} images equal the golden model's")
    console.print(f"cycles          {cycles:,} per image")
    console.print(f"utilization     {macs / (cycles * shape.macs_per_cycle):.1%} of {shape.macs_per_cycle} MAC/cycle")
    files = ("digits.lwb", "digits.disasm", "report.json", "report.html", "timeline.json", "statistics.json")
    console.print("made            " + ", ".join(str(path) for path in (*core, *(directory / name for name in files))))
    if any(differing):
        status.print("the RTL does not compute what tflite-micro computes", style="bold red")
        raise typer.Exit(1)
