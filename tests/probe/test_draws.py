"""What a model on the meta device would draw, against models that were drawn."""

import pytest
import torch
from torch import nn

from unitygain._case import Case
from unitygain.probe.draws import draw, on_meta
from unitygain.probe.survey import survey
from unitygain.stats import mean, rms


class Doubled(nn.Module):
    """Draws its part's weights anew, after the part did."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(64, 64)
        self.scale = nn.Parameter(torch.empty(64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.orthogonal_(self.map.weight, 2.0)
        nn.init.constant_(self.scale, 0.5)


class Told(nn.Module):
    """Initialises every module below, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.map = nn.Embedding(200, 64), nn.Linear(64, 64)
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.trunc_normal_(module.weight, std=0.02)


MODELS = {
    "linear": lambda: nn.Linear(300, 200),
    "convolution": lambda: nn.Conv2d(16, 32, 3),
    "table": lambda: nn.Embedding(100, 64, padding_idx=0),
    "norms": lambda: nn.Sequential(nn.LayerNorm(64), nn.BatchNorm1d(64), nn.GroupNorm(4, 64), nn.RMSNorm(64)),
    "transformer": lambda: nn.TransformerEncoderLayer(64, 4, 128),
    "lstm": lambda: nn.LSTM(64, 64),
    "of its part": Doubled,
    "from above": Told,
}


@pytest.mark.parametrize("name", MODELS)
def test_moments_are_those_of_a_model_that_was_drawn(name):
    torch.manual_seed(7)
    real = MODELS[name]()
    with torch.device("meta"):
        found = draw(MODELS[name]())
    assert not found.missing
    for path, tensor in (*real.named_parameters(), *real.named_buffers()):
        if tensor.is_floating_point():
            square, middle = found.moments[path]
            # Five standard deviations of a mean over as many draws, of a square that is twice its square.
            several = 5 * (2 * 2 / tensor.numel()) ** 0.5
            assert square == pytest.approx(float(rms(tensor)) ** 2, rel=several, abs=0), path
            assert abs(middle - float(mean(tensor))) <= several * square**0.5 + 1e-12, path


def test_what_nothing_draws_is_said():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.Module())
        model[1].weight = nn.Parameter(torch.empty(3))
    found = draw(model)
    assert found.missing == {"1.weight": "Module has no reset_parameters"}
    assert "0.weight" in found.moments


def test_an_initialisation_that_raises_is_quoted():
    class Broken(nn.Linear):
        def reset_parameters(self) -> None:
            if not self.weight.is_meta:
                raise ValueError("no weights today")

    found = draw(Broken(4, 4, device="meta"))
    assert found.missing["weight"] == "Broken.reset_parameters raised ValueError: no weights today"


def test_what_has_numbers_is_read():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))
    nn.init.constant_(model[0].weight, 3.0)
    assert on_meta(model)
    assert draw(model).moments["0.weight"] == pytest.approx((9.0, 3.0))
    assert not on_meta(nn.Sequential(nn.LazyLinear(3)))


def test_a_seed_gives_the_same_and_leaves_the_random_state():
    before = torch.get_rng_state()
    model = nn.Linear(32, 32, device="meta")
    assert draw(model, 1).moments == draw(model, 1).moments != draw(model, 2).moments
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("kind", "said"), [(nn.Linear, 0), (nn.Embedding, 1)])
def test_a_shared_weight_that_its_modules_draw_differently_is_said(kind, said):
    """Which of the two a constructor kept cannot be seen: a Linear's of 1/√(3·48), or an Embedding's of 1."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(48, 96, bias=False)
            self.first = nn.Linear(48, 96) if kind is nn.Linear else nn.Embedding(96, 48)
            self.first.weight = self.last.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x)[..., :48].float())

    with torch.device("meta"):
        model = Shared()
    given = torch.zeros(4, 48) if kind is nn.Linear else torch.zeros(4, 3, dtype=torch.long)
    record = survey(Case(model, lambda m, x: m(x).square().mean(), [given]), ["entry.rms"])
    notes = [skip for skip in record.skipped if "shared with" in skip.reason]
    assert len(notes) == said
    if said:
        assert notes[0].what == "weight first.weight"
        assert "shared with last.weight, whose draw is taken, of rms 0.08" in notes[0].reason
