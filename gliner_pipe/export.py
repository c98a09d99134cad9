"""Export a pipeline to ONNX: ``python -m gliner_pipe.export --help``."""

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("export")

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gliner_pipe.pipeline.gliner.component  # noqa: F401 (registers the blocks)
from gliner_pipe.cli.application import Cli
from gliner_pipe.cli.options import command_line
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import check_writable
from gliner_pipe.util.console import says_what_is_unwritten
from gliner_pipe.util.ranges import Count

logger = logging.getLogger("gliner_pipe.export")
app = Cli()


@app.command(name="export", registry=registry)
@says_what_is_unwritten("output")
def export(
    pipeline: Any,
    output: Path,
    onnx: bool = False,
    layout: Literal["pipeline", "gliner"] = "pipeline",
    int8: bool = False,
    threads: Count | None = None,
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime",
    component: str | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Export a trained pipeline: its models become ONNX graphs, which onnxruntime or OpenVINO runs.

    The output is a spaCy pipeline like any other: ``spacy.load``, ``predict``, ``evaluate`` and ``package`` accept it.
    It contains no torch weights and cannot be trained. With ``--layout gliner`` it is the folder of one model that
    runtimes in Rust, C++, JavaScript and Java and the package ``gliner`` read. Requires
    ``pip install "gliner_pipe[onnx]"``.

    Parameters
    ----------
    pipeline : str
        A trained pipeline: its folder, package or hub id.
    output : Path
        Output folder, written atomically.
    onnx : bool
        Export ONNX graphs. Required, as it is the only format.
    layout : str
        ``pipeline`` for a spaCy pipeline, or ``gliner`` for ``gliner_config.json``, ``tokenizer.json`` and
        ``onnx/model.onnx``, without windows, thresholds and labels.
    int8 : bool
        Quantise the matrix products of the encoder to 8 bits: faster and smaller, with slightly different scores. The
        difference is reported; measure its effect with ``python -m gliner_pipe.evaluate``.
    threads : int, optional
        Number of threads of the new pipeline; that of torch by default. Not with ``--layout gliner``.
    runtime : str
        What runs the graphs of the new pipeline: ``onnxruntime``, or ``openvino`` (``pip install
        "gliner_pipe[openvino]"``), on the CPU. Not with ``--layout gliner``.
    component : str, optional
        Name of the component that ``--layout gliner`` exports, if the pipeline has several.
    trust_remote_code : bool
        Consent to run Python code that comes with the pipeline's models. Read that code first.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        If a block cannot be exported; nothing is written then.
    """
    if not onnx:
        raise ConfigError("onnx", "is not set", do="Add --onnx: it is the only format")
    from gliner_pipe.onnx.export import write_gliner, write_onnx

    of_pipeline = {"threads": threads, "runtime": None if runtime == "onnxruntime" else runtime}
    for option, value in (of_pipeline if layout == "gliner" else {"component": component}).items():
        if value is not None:
            raise ConfigError(option, f"is {value!r}, and is not used with layout = {layout!r}", "nothing")
    check_writable(output)
    nlp = pipeline_of(pipeline, trust_remote_code)
    if layout == "gliner":
        report = write_gliner(nlp, output, int8=int8, component=component)
    else:
        report = write_onnx(nlp, output, int8=int8, threads=threads, runtime=runtime)
    for name, difference in report.items():
        logger.info(
            "%s: scores differ by %.2g on average and by %.2g at most (%d scores of sample sentences)",
            name,
            difference.mean,
            difference.largest,
            difference.scores,
        )
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    logger.info("%s: %.1f MB", output, size / 1e6)
    return output


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the arguments of the process by default."""
    command_line("export", app, export, argv, logs=True)
