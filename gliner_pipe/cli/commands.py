"""The commands, their ``--help`` and the completion of shells. A command is imported only when it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from textwrap import wrap
from typing import NoReturn

import click

from gliner_pipe import __version__
from gliner_pipe.cli.signals import ended_by_signals
from gliner_pipe.cli.signatures import OptionInfo, Signature, signature_of, title_of

#: Endings of a positional value that is a config.
CONFIGS = (".cfg", ".yaml", ".yml")
_CONFIG = "File with options of this command, in a section [{}]. May be repeated."
_TRAINING = "Config of a training: a .cfg file, or a YAML file of GLiNER or AutoTrain. May be repeated."


@dataclass(frozen=True)
class CommandInfo:
    """A command: a module of this package with a documented function and ``main``.

    Parameters
    ----------
    name
        Of the module.
    usage, example
        Arguments, for the help.
    positional
        Options whose values may be written without their names, in this order.
    groups
        Headings of the options in the help, each with the first option below it.
    config
        What ``--config`` is.
    configs_by_ending
        Whether a value without a name that ends in .cfg, .yaml or .yml is a config.
    source
        Module and name of the function, or dataclass, with its options; by default both have the name of the command.
    """

    name: str
    usage: str
    example: str
    positional: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    config: str = _CONFIG
    configs_by_ending: bool = True
    source: tuple[str, str] | None = None

    @property
    def trains(self) -> bool:
        """Whether its config is that of a training, with all options of ``train``."""
        return self.config == _TRAINING

    @cached_property
    def signature(self) -> Signature:
        """Description and own options."""
        return signature_of(*(self.source or (self.name, self.name)))

    @cached_property
    def options(self) -> dict[str, OptionInfo]:
        """All options by name."""
        own = self.signature.options
        train = signature_of("train", "train").options if self.trains else {}
        config = OptionInfo("config", "Path", "None", self.config.format(self.name))
        return {**({"config": config} if self.config else {}), **own, **train, **own}


_DEVICE = "Speed and precision"
COMMANDS = {
    info.name: info
    for info in (
        CommandInfo(
            "train",
            "CONFIG",
            "configs/config.cfg --max_steps 500",
            groups={
                "nlp": "Pipeline and data",
                "max_steps": "Length and batches",
                "transformer_lr": "Learning rates and optimizer",
                "validation_interval": "Validation",
                "seed": "Seeds",
                "output_path": "Models and checkpoints",
                "loggers": "Logs",
                "mixed_precision": "Hardware",
                "push_to_hub": "Hugging Face hub",
                "trust_remote_code": "Other options",
            },
            config=_TRAINING,
        ),
        CommandInfo(
            "evaluate",
            "PIPELINE DATA",
            "artifacts/model-best data/dev.jsonl --labels person city",
            ("pipeline", "data"),
            {
                "pipeline": "Pipeline and data",
                "labels": "Labels and scores",
                "find_threshold": "Threshold search",
                "span_getter": "Spans and words",
                "output": "Output",
                "batch_size": _DEVICE,
                "seed": "Other options",
            },
        ),
        CommandInfo(
            "predict",
            "PIPELINE (INPUT | --text TEXT)",
            'artifacts/model-best --text "Ada met Charles in London." --labels person city',
            ("pipeline", "input"),
            {
                "pipeline": "Pipeline and texts",
                "labels": "Labels",
                "format": "Output",
                "text_column": "Columns and shards",
                "span_getter": "Spans",
                "batch_size": _DEVICE,
                "trust_remote_code": "Other options",
            },
        ),
        CommandInfo(
            "serve",
            "PIPELINE",
            "artifacts/model-best --port 8000 --labels person city",
            ("pipeline",),
            {
                "pipeline": "Pipelines",
                "host": "Address and access",
                "max_body_bytes": "Limits",
                "log_texts": "Other options",
                "engine": "Several processes",
                "device": _DEVICE,
                "trust_remote_code": "Code of others",
            },
        ),
        CommandInfo(
            "package",
            "PIPELINE",
            "artifacts/model-best --name my_ner_model --version 1.0.0",
            ("pipeline",),
        ),
        CommandInfo(
            "convert",
            "SOURCE TARGET",
            "path/to/checkpoint pipelines/ner --labels person city",
            ("source", "target"),
            configs_by_ending=False,
        ),
        CommandInfo(
            "export",
            "PIPELINE OUTPUT --onnx",
            "artifacts/model-best artifacts/onnx --onnx",
            ("pipeline", "output"),
        ),
        CommandInfo("push", "SOURCE REPO", "artifacts/model-best user/name", ("source", "repo")),
        CommandInfo(
            "distill",
            "CONFIG --teacher PIPELINE --texts TEXTS",
            "configs/tagger.cfg --teacher artifacts/model-best --texts texts.txt",
            config=_TRAINING,
        ),
        CommandInfo(
            "autotrain",
            "token-classification DATA_PATH",
            "token-classification --train --model MODEL --data-path FOLDER",
            ("data_path",),
            config="",
            configs_by_ending=False,
            source=("migration.autotrain", "TokenClassificationParams"),
        ),
        CommandInfo("check", "(CONFIG | DATA)", "data/train.jsonl", ("data",), config=_TRAINING),
    )
}


class Command(click.Command):
    """A command that gets its arguments as they are; its options are read from the source when they are shown."""

    def __init__(self, info: CommandInfo) -> None:
        self.info = info
        super().__init__(info.name, context_settings={"max_content_width": 120})

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, for the completion."""
        return [_parameter(one) for one in self.info.options.values()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep all arguments; show the help if they ask for it."""
        if not ctx.resilient_parsing and {"--help", "-h"} & set(args):
            click.echo(self.get_help(ctx))
            ctx.exit()
        ctx.args = args
        return args

    def invoke(self, ctx: click.Context) -> None:
        """Import the command and run it."""
        with ended_by_signals():
            import_module(f"gliner_pipe.{self.info.name}").main(ctx.args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write usage, description, example, and the options in groups."""
        info = self.info
        formatter.write_usage(ctx.command_path, f"{info.usage} [OPTIONS]")
        for text in info.signature.paragraphs:
            formatter.write_paragraph()
            formatter.write_text(text)
        with formatter.section("Example"):
            lines = wrap(f"{ctx.command_path} {info.example}", formatter.width - 8, break_on_hyphens=False)
            formatter.write("  " + " \\\n      ".join(lines) + "\n")
        groups: dict[str, list[tuple[str, str]]] = {}
        heading = "Options"
        for name, option in info.options.items():
            if name not in info.signature.options and name != "config":
                heading = "Options of the training"
            heading = info.groups.get(name, heading)
            groups.setdefault(heading, []).append(_row(option, info))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


class Commands(click.Group):
    """All commands, by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names, in the order of a project."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None if there is none of this name."""
        return Command(COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; an error suggests a similar name."""
        if args and args[0] not in COMMANDS and (close := get_close_matches(args[0], COMMANDS, 1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write names and summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, title_of(name)) for name in COMMANDS])


@click.command(
    cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["--help", "-h"]}
)
@click.version_option(__version__, package_name="gliner_pipe")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Named entity recognition composed from registered blocks, as one spaCy component."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def start(name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``python -m gliner_pipe.<name>`` and end the process."""
    arguments = None if arguments is None else list(arguments)
    Command(COMMANDS[name]).main(arguments, prog_name=f"python -m gliner_pipe.{name}")
    raise SystemExit(0)


def _row(option: OptionInfo, info: CommandInfo) -> tuple[str, str]:
    """Return an option and what it does, for the help."""
    written = (
        option.name.replace("_", "-") if info.name == "autotrain" else option.name
    )  # as AutoTrain writes it
    name = f"--{written} {option.value}".strip()
    if option.name in info.positional or (option.name == "config" and info.trains):
        name = f"{option.name.upper()}, {name}"
    text = option.text
    if option.default is None and not info.trains:
        text += "  [required]"
    elif option.shown_default:
        text += f"  [default: {option.shown_default}]"
    return name, text


def _parameter(option: OptionInfo) -> click.Option:
    """Return an option for the completion."""
    kind = (
        click.Choice(option.choices) if option.choices else click.Path() if option.value == "PATH" else None
    )
    if option.is_switch:
        return click.Option([f"--{option.name}"], is_flag=True, help=option.text)
    return click.Option([f"--{option.name}"], type=kind, help=option.text)
