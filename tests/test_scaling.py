"""What a diagnosis costs grows with the model as the model does, counted in calls: no clock decides."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unitygain as ug
from unitygain._case import Case
from unitygain._diagnose import choose_rules, judge, measure_all
from unitygain._registry import MEASURES
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.probe.operators import JacobianOperator


class Swish(nn.Module):
    """An activation made of two operations, so that the module stands for both."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Block(nn.Module):
    """A branch beside a skip path, with an activation that is a module and one that is none."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.act, self.down = nn.Linear(width, width), Swish(), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.01 * self.down(torch.tanh(self.act(self.up(self.norm(x)))))


def chain(blocks: int, width: int = 4) -> Case:
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(width) for _ in range(blocks)))
    return Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.randn(4, width)])


def calls(run: Callable[[], object]) -> Counter[str]:
    """How often each function of the library ran, steps of generators and comparisons of sites included."""
    counts: Counter[str] = Counter()

    def seen(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and ("unitygain" in code.co_filename or code.co_filename == "<string>"):
            counts[f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}"] += 1

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(before)
    return counts


def passively(blocks: int) -> ug.Report:
    """Everything but the active measures, and the report in all its forms."""
    chosen = [item for item in MEASURES.values() if not item.active]
    with isolated(chain(blocks)) as (case, _):
        profiles, record, skipped = measure_all(case, None, 8, 0, lambda *_: None, chosen)
    report = ug.Report({"name": "chain"}, profiles, judge(profiles, choose_rules((), ())), skipped, 1.0)
    assert len(record.blocks) == blocks
    assert ug.Report.from_json(report.to_json()).profiles.keys() == profiles.keys()
    assert str(report)
    assert report.to_html()
    return report


def test_work_grows_linearly_with_the_sites():
    passively(4)
    few, many = (calls(lambda n=n: passively(n)) for n in (8, 24))
    # Three times the blocks. A loop over all sites at every site would run nine times as often.
    steep = {name: (few[name], count) for name, count in many.items() if count > 4 * few[name] + 100}
    assert not steep


class Parts(nn.Module):
    """A model whose parts the loss calls one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)


def by_parts(steps: int) -> None:
    def loss(model: Any, x: Tensor) -> Tensor:
        for _ in range(steps):
            x = torch.tanh(model.cell(x))
        return x.square().mean()

    case = Case(Parts(), loss=loss, data=[torch.randn(4, 4)])
    needs = [key for item in MEASURES.values() if not item.active for key in item.needs]
    observe(case, needs)


def test_work_grows_linearly_with_the_calls_from_outside():
    by_parts(4)
    few, many = (calls(lambda n=n: by_parts(n)) for n in (40, 120))
    assert not {name: (few[name], n) for name, n in many.items() if n > 4 * few[name] + 100}


def test_a_product_with_one_block_does_not_look_through_the_model():
    # In 1500 blocks a walk through all that ran before the last one takes 100 times as long as its product.
    x = torch.randn(4, 4, requires_grad=True)
    ends = [x]
    block = Block(4)
    for _ in range(1500):
        ends.append(block(ends[-1]))

    def seconds(index: int) -> float:
        operator = JacobianOperator(ends[index + 1], ends[index])
        v = torch.ones(16)
        operator.matvec(v)
        each = []
        for _ in range(20):
            started = time.process_time()
            operator.matvec(v)
            each.append(time.process_time() - started)
        return min(each)

    assert seconds(1499) < 5 * seconds(0)


DEEP = """
import sys, threading
import torch
from test_scaling import chain
from unitygain._registry import MEASURES
from unitygain.probe.observe import observe
import unitygain.measures

def run():
    case = chain(250)
    record = observe(case, [key for item in MEASURES.values() for key in item.needs])
    MEASURES["grad_direction_stability"].compute(case, record)
    MEASURES["rms_gain"].compute(case, record)
    print("done")

torch.set_num_threads(1)
threading.stack_size(1 << 18)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def test_a_deep_graph_is_let_go_without_overflowing_the_stack():
    # As on the usual stack of 8 MB with 32 times as many blocks. An overflow ends the process.
    command = [sys.executable, "-c", DEEP]
    ended = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "done", ended.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_model_of_100_000_modules_is_diagnosed():
    case = chain(20_000)
    assert sum(1 for _ in case.model.modules()) > 100_000
    report = ug.diagnose(case)
    assert report.case["blocks"] == 20_000
    assert not [skipped for skipped in report.skipped if "failed" in skipped.reason]
    assert len(report.profiles["jacobian_sigma_max"]) == 20_000
    assert len(report.to_html()) < 5_000_000
    assert ug.Report.from_json(report.to_json()).findings == report.findings
