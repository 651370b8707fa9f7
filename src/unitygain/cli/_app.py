"""The commands and their options, and the one place where a fault becomes an exit code."""

import itertools
import shutil
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from unitygain.cli._faults import ExitCode, Fault, did_you_mean, nearest, quote, tell, usage
from unitygain.cli._output import STDOUT, guard_stdout, steady_streams
from unitygain.cli._theory import theory_app

# Typer has its own copy of click or uses the installed one, by version; this is the right class in both.
USAGE_ERROR: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")
EPILOGUE = (
    "Exit codes: 0 fine, 1 findings at or above --fail-on, 2 usage, 3 input unreadable or invalid, "
    "4 your code raised, 5 a fault of unitygain, 130 interrupted."
)


class Commands(TyperGroup):
    """The group of commands, which has a guess when a command is not known."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that `args` names; a Fault with a guess where there is none."""
        if args and args[0] not in self.commands:
            guess = nearest(args[0], self.commands)
            raise usage(
                f"unknown command {quote(args[0])}{did_you_mean(args[0], self.commands)}",
                fix=f"unitygain {guess}" if guess else "unitygain --help",
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    name="unitygain",
    help="Measure where the gradient of a PyTorch model explodes or vanishes, by how much, and why.",
    epilog=EPILOGUE,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        import unitygain

        sys.stdout.write(f"unitygain {unitygain.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog=EPILOGUE)
def diagnose(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="package.module:callable or path/file.py:callable, which returns a unitygain.Case; "
            "or hf:DIR, a folder with a Hugging Face config and perhaps safetensors.",
        ),
    ] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write the report as one page.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")] = None,
    sites: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Modules to report, such as 'encoder.layers.*'; repeatable."),
    ] = None,
    probes: Annotated[str, typer.Option(metavar="N", help="Random vectors per block for estimates.")] = "8",
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help="Measure in float32, bfloat16, float16 or float64.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Measure on cpu, cuda, cuda:1, mps.")
    ] = None,
    seed: Annotated[str, typer.Option(metavar="N", help="Seed of estimates, dropout and drawn input.")] = "0",
    fail_on: Annotated[
        str, typer.Option(metavar="LEVEL", help="Exit with 1 on findings of error, warning, or never.")
    ] = "never",
    only: Annotated[str | None, typer.Option(metavar="CODES", help="Rules to run: UG101,UG102.")] = None,
    skip: Annotated[str | None, typer.Option(metavar="CODES", help="Rules not to run.")] = None,
    text: Annotated[
        str | None, typer.Option(metavar="FILE", help="hf: text to read; else token ids are drawn.")
    ] = None,
    batch_size: Annotated[str | None, typer.Option(metavar="N", help="hf: sequences in a batch (2).")] = None,
    sequence_length: Annotated[
        str | None, typer.Option(metavar="N", help="hf: tokens in a sequence (128, or what the model takes).")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress bar.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
) -> int:
    """Diagnose a model.

    Says where the gradient explodes or vanishes, by how much, why, and how sure that is.
    """
    from unitygain.cli._diagnose import Arguments, command

    given = {key: value for key, value in locals().items() if key in Arguments.__annotations__}
    return command(Arguments(**{**given, "sites": tuple(sites or ())}))


@app.command(epilog=EPILOGUE)
def treat(
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="As for diagnose; the Case must declare an optimizer."),
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="For all trainings together: 60s, 2m, 1h.")
    ] = "60s",
    steps: Annotated[
        str | None, typer.Option(metavar="N", help="Steps of each training; chosen by the budget.")
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="N", help="Seeds of a verdict; 3 for 'verified'.")] = "3",
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="REMEDY", help="A further remedy to try, with its defaults; repeatable."),
    ] = None,
    workers: Annotated[
        str, typer.Option(metavar="N", help="Processes that run the trials, to the same numbers.")
    ] = "1",
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write the report as one page.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")] = None,
    sites: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Modules to report, such as 'encoder.layers.*'; repeatable."),
    ] = None,
    probes: Annotated[str, typer.Option(metavar="N", help="Random vectors per block for estimates.")] = "8",
    seed: Annotated[str, typer.Option(metavar="N", help="The first seed.")] = "0",
    fail_on: Annotated[
        str, typer.Option(metavar="LEVEL", help="Exit with 1 on findings of error, warning, or never.")
    ] = "never",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress bar.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
) -> int:
    """Diagnose a model, try the remedies of what was found, and rank them.

    Every remedy is applied to a copy, measured again, and trained for a short budget beside the untreated
    model. Ctrl-C keeps what is done.
    """
    from unitygain.cli._diagnose import Arguments, command

    given = {key: value for key, value in locals().items() if key in Arguments.__annotations__}
    return command(Arguments(**{**given, "sites": tuple(sites or ()), "also": tuple(also or ())}))


@app.command()
def report(
    file: Annotated[str, typer.Argument(metavar="REPORT", help="What --json wrote; - is stdin.")],
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write it as one page.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
) -> int:
    """Print a saved report, or write it as a page."""
    from unitygain.cli._diagnose import print_report
    from unitygain.cli._output import outputs
    from unitygain.cli._reading import read

    page, _ = outputs(html, None)
    saved = read(file)
    if page is None:
        print_report(saved)
    else:
        page.write(saved.to_html())
        sys.stderr.write(f"wrote {page.given!a}\n")
    return ExitCode.FINE


@app.command()
def rules(
    measures: Annotated[bool, typer.Option("--measures", help="List the measures and their cost.")] = False,
) -> int:
    """List the rules, or the measures and their cost."""
    from unitygain.cli import _catalogue

    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100
    if measures:
        heads = ("measure", "passes", "what, and its unit")
        rows = [(m.name, m.passes, f"{m.summary} [{m.unit}]") for m in _catalogue.measures()]
    else:
        heads = ("code", "name", "severity", "what it sees")
        rows = [(r.code, r.name, r.severity, _catalogue.summary(r)) for r in _catalogue.rules().values()]
    sys.stdout.write(_catalogue.table(heads, rows, width))
    if measures:
        sys.stdout.write("\npasses: forward and backward passes besides the one that all measures share.\n")
    return ExitCode.FINE


@app.command()
def explain(code: Annotated[str, typer.Argument(metavar="CODE", help="Code or name of a rule.")]) -> int:
    """Print the page of a rule."""
    from unitygain.cli import _catalogue

    sys.stdout.write(_catalogue.explain(code))
    return ExitCode.FINE


app.add_typer(theory_app)


def invoke(argv: Sequence[str]) -> int:
    """Run the command line `argv` and return its exit code; nothing is raised."""
    steady_streams()
    debug = "--debug" in argv
    as_json = f"--json={STDOUT}" in argv or ("--json", STDOUT) in itertools.pairwise(argv)
    try:
        return guard_stdout(lambda: _call(argv))
    except Fault as fault:
        found: Fault = fault
        trace: BaseException = fault
    except KeyboardInterrupt as error:
        found, trace = Fault("interrupted", name="E-INTERRUPTED", exit_code=ExitCode.INTERRUPTED), error
    except Exception as error:
        from unitygain.cli._blame import our_fault

        found, trace = our_fault(error), error
    if debug:
        traceback.print_exception(trace)
    return guard_stdout(lambda: _told(found, as_json))


def _told(fault: Fault, as_json: bool) -> int:
    tell(fault, as_json=as_json)
    return fault.exit_code


def _call(argv: Sequence[str]) -> int:
    command = get_command(app)
    try:
        with command.make_context("unitygain", list(argv) or ["--help"]) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except USAGE_ERROR as error:
        raise _from_usage(error) from error


def _from_usage(error: Any) -> Fault:
    """A misread command line in our own words: what is wrong with which option, and a guess."""
    context = getattr(error, "ctx", None)
    named = context.command_path if context is not None else "unitygain"
    option = getattr(error, "option_name", None)
    if option and type(error).__name__ == "NoSuchOption":
        known = [name for parameter in context.command.params for name in parameter.opts] if context else []
        guess = nearest(option, known)
        return usage(
            f"unknown option {quote(option)}{did_you_mean(option, known)}", fix=f"{named} {guess or '--help'}"
        )
    message = error.format_message().rstrip(".")
    return usage(message[:1].lower() + message[1:], fix=f"{named} --help")
