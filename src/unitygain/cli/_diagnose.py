"""The commands ``diagnose`` and ``treat``: from the words on the command line to a Report and exit code."""

import contextlib
import dataclasses
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unitygain.cli import _catalogue, _options
from unitygain.cli._blame import user_fault
from unitygain.cli._faults import ExitCode, Fault, first_line, plain, usage
from unitygain.cli._output import STDOUT, Output, outputs, wants_colour
from unitygain.cli._progress import Voice
from unitygain.cli._request import Request
from unitygain.cli._source import Code, Folder
from unitygain.cli._target import HF

if TYPE_CHECKING:
    from unitygain.report import Report

OLDEST_TORCH = (2, 6)
MOST_WORKERS = 256
RANKS = ("info", "warning", "error")


@dataclass(frozen=True)
class Arguments:
    """The command line of ``diagnose`` or ``treat`` as it was given, nothing checked."""

    target: str | None
    html: str | None = None
    json: str | None = None
    sites: Sequence[str] = ()
    probes: str = "8"
    dtype: str | None = None
    device: str | None = None
    seed: str = "0"
    fail_on: str = "never"
    only: str | None = None
    skip: str | None = None
    text: str | None = None
    batch_size: str | None = None
    sequence_length: str | None = None
    quiet: bool = False
    budget: str | None = None
    steps: str | None = None
    seeds: str | None = None
    also: Sequence[str] = ()
    workers: str = "1"


def command(given: Arguments) -> int:
    """Diagnose the target, or treat it where a budget is given; write and print the report.

    Returns:
        The exit code; that of an interruption also where it came during the trials, whose report is kept.

    Raises:
        Fault: With its exit code, whatever goes wrong that is not our fault.
    """
    voice = Voice(given.quiet)
    level = _options.level(given.fail_on)
    settings = _settings(given)
    source = _source(given, settings["seed"])
    page, data = outputs(given.html, given.json)
    try:
        require_torch()
        _options.available_device(settings.get("device"))
        with contextlib.redirect_stdout(sys.stderr), source.importable():
            report = _diagnose(source, voice, settings)
    except KeyboardInterrupt:
        message = f"interrupted while {voice.doing}; no report was written"
        raise Fault(message, name="E-INTERRUPTED", exit_code=ExitCode.INTERRUPTED) from None
    _write(report, page, data, voice)
    return ExitCode.INTERRUPTED if _was_interrupted(report) else exit_code(report, level)


def require_torch() -> None:
    """Import torch.

    Raises:
        Fault: If it is missing, cannot be loaded, or is older than we can work with.
    """
    fix = "pip install 'torch>=2.6'"
    try:
        import torch
    except ImportError as error:
        raise Fault(f"torch cannot be imported: {first_line(error)}", name="E-TORCH", fix=fix) from error
    oldest = ".".join(map(str, OLDEST_TORCH))
    parts = torch.__version__.split(".")[:2]
    if all(part.isdigit() for part in parts) and tuple(map(int, parts)) < OLDEST_TORCH:
        raise Fault(f"needs torch >= {oldest}, found {plain(torch.__version__)}", name="E-TORCH", fix=fix)


def exit_code(report: "Report", level: str) -> ExitCode:
    """Return whether the report holds a finding at or above `level`."""
    if level == "never" or report.worst is None:
        return ExitCode.FINE
    return ExitCode.FINDINGS if RANKS.index(report.worst) >= RANKS.index(level) else ExitCode.FINE


def print_report(report: "Report") -> None:
    """Print the report on stdout, with colours and a width where a terminal reads it."""
    from unitygain.report import render_text

    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100
    sys.stdout.write(render_text(report, color=wants_colour(), width=width).rstrip("\n") + "\n")


def _settings(given: Arguments) -> dict[str, Any]:
    """The arguments of ``unitygain.diagnose``, or of ``treat`` where a budget is given; no torch yet."""
    known = _catalogue.rules()
    shared = {
        "sites": tuple(given.sites) or None,
        "probes": _options.whole_number("--probes", given.probes),
        "seed": _options.whole_number("--seed", given.seed, least=0, most=_options.LARGEST_SEED),
    }
    if given.budget is not None:
        return shared | {
            "budget": _options.duration("--budget", given.budget),
            "steps": None if given.steps is None else _options.whole_number("--steps", given.steps),
            "seeds": _options.whole_number("--seeds", given.seeds or "3"),
            "also": tuple(given.also),
            "workers": _options.whole_number("--workers", given.workers, most=MOST_WORKERS),
        }
    return shared | {
        "only": _options.codes("--only", given.only, known),
        "skip": _options.codes("--skip", given.skip, known),
        "dtype": _options.dtype_name(given.dtype),
        "device": _options.device_name(given.device),
    }


def _source(given: Arguments, seed: int) -> Code | Folder:
    input_options = {
        "--text": given.text,
        "--batch-size": given.batch_size,
        "--sequence-length": given.sequence_length,
    }
    if given.target is None or not given.target.startswith(HF):
        source = Code(given.target)
        for option, value in input_options.items():
            if value is not None:
                raise usage(f"{option} is for hf:DIR; the Case of {plain(given.target)} brings its own data")
        return source
    length = given.sequence_length
    request = Request(
        text=given.text,
        batch_size=_options.whole_number("--batch-size", given.batch_size or "2"),
        sequence_length=None
        if length is None
        else _options.whole_number("--sequence-length", length, least=2),
        seed=seed,
    )
    return Folder(given.target.removeprefix(HF), request)


def _diagnose(source: Code | Folder, voice: Voice, settings: Mapping[str, Any]) -> "Report":
    """Load the case and diagnose or treat it; what fails is sorted by whose fault it is."""
    voice.doing = "loading torch"
    from unitygain._diagnose import diagnose
    from unitygain._treat import treat
    from unitygain.cli import _replay

    work = treat if "budget" in settings else diagnose
    given = {key: value for key, value in settings.items() if key != "workers"}
    case, facts = source.load(voice)
    owned = source.owned()
    _replay.prepare(case, owned)
    try:
        with voice.bar() as step, _processes(settings.get("workers", 1)) as pool:
            report = work(case, **given, **pool, progress=step)
    except Exception as error:
        fault = _replay.failure(error, case, owned, settings.get("device"), settings.get("dtype"))
        if fault is None:
            raise
        raise fault from error
    except SystemExit as error:
        raise user_fault(error, doing="the model or the loss", owned=owned) from error
    return dataclasses.replace(report, case={**report.case, **facts})


@contextlib.contextmanager
def _processes(count: int) -> Iterator[dict[str, Any]]:
    """The argument of ``treat`` that hands its trials to that many processes; none for one."""
    if count == 1:
        yield {}
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Ctrl-C reaches every process of the terminal; this one decides what is kept.
    quiet = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), signal.signal, quiet)
    try:
        yield {"executor": pool}
    finally:
        # Whatever still runs was interrupted: nobody waits for it.
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def _was_interrupted(report: "Report") -> bool:
    from unitygain._treat import INTERRUPTED

    return any(item.what == "trials" and item.reason == INTERRUPTED for item in report.skipped)


def _write(report: "Report", page: Output | None, data: Output | None, voice: Voice) -> None:
    for output, render in ((page, report.to_html), (data, report.to_json)):
        if output is not None:
            output.write(render() if output is page else f"{render()}\n")
            if output.given != STDOUT:
                voice.say(f"wrote {plain(output.given)}")
    if data is None or data.given != STDOUT:
        print_report(report)
