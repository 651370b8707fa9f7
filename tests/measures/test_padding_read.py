"""padding_read: what attention and the loss read of padded texts."""

import pytest
import torch
from measures.reading import measured
from zoo import texts
from zoo.patient import classify

from unitygain._case import Case
from unitygain._registry import RULES
from unitygain._types import Profile

SICK = {
    "encoder": lambda: texts.Encoder(texts.pads),
    "encoder with a mean over words": lambda: texts.Encoder(texts.pads, 16, 3, pooled=True),
    "mean": lambda: texts.Averaged(texts.pads),
    "mean without an index of padding": lambda: texts.Averaged(texts.pads, 32, None),
    "scores": lambda: texts.Scored(texts.pads),
    "scores with a small mask": lambda: texts.Scored(texts.pads, fill=-1e4),
}
HEALTHY = {
    "encoder": (lambda: texts.Encoder(texts.words), classify),
    "encoder without a mask": (lambda: texts.Encoder(None), classify),
    "encoder with a mean over words": (lambda: texts.Encoder(texts.words, pooled=True), classify),
    "mean": (lambda: texts.Averaged(texts.words), classify),
    "mean over all": (lambda: texts.Averaged(lambda text: text >= 0), classify),
    "scores": (lambda: texts.Scored(texts.words), classify),
    "next words": (texts.Causal, texts.next_word),
    "last token": (lambda: texts.Causal(last=True), classify),
    "hidden words": (texts.Tagged, texts.hidden_words),
    "packed": (texts.Packed, classify),
    "last step": (texts.LastStep, classify),
}


def read(model, loss=classify, data=None) -> Profile | None:
    """Return the profile, if there is one."""
    return measured(Case(model, loss, data=data or texts.texts()), "padding_read").get("padding_read")


def told(profile: Profile | None) -> list[str]:
    """Codes of what the rule says."""
    profiles = {} if profile is None else {"padding_read": profile}
    return [f.code for f in RULES["UG707"].judge(profiles)] if profiles else []


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SICK)
def test_a_mask_the_wrong_way_round_is_told(name, seed):
    torch.manual_seed(seed)
    assert told(read(SICK[name]())) == ["UG707"]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", HEALTHY)
def test_what_reads_words_is_left_alone(name, seed):
    torch.manual_seed(seed)
    build, loss = HEALTHY[name]
    assert told(read(build(), loss)) == []


def test_attention_without_a_mask_reads_padding_as_it_reads_words():
    torch.manual_seed(0)
    profile = read(texts.Encoder(None))
    assert profile is not None
    assert profile.labels == ("attention", "attention", "embedding")
    assert [str(site) for site in profile.sites[1:]] == ["encoder.layers.1.self_attn.(softmax)", "embedding"]
    assert profile.values == pytest.approx([0.5, 0.5, 0.5], abs=0.1)


def test_the_weights_are_those_of_the_formula():
    torch.manual_seed(0)
    model, data = texts.Scored(texts.words), texts.texts()
    model.keep = lambda text: text > -1
    text = data[0][0]
    weights = model.score(torch.tanh(model.hidden(model.embedding(text)))).squeeze(-1).softmax(-1).detach()
    at_padding, at_words = (float(weights[where].double().mean()) for where in (text == 0, text != 0))
    profile = read(model, data=data)
    assert profile is not None
    assert profile.rows[0] == pytest.approx((at_padding, at_words), rel=1e-5)


def test_texts_of_one_length_have_no_padding():
    torch.manual_seed(0)
    whole = [(torch.randint(1, texts.VOCAB, (24, 14)), torch.arange(24) % texts.CLASSES)]
    assert read(texts.Encoder(None), data=whole) is None


def test_a_blank_that_ends_every_sequence_alike_is_no_padding():
    torch.manual_seed(0)
    [(text, labels)] = texts.texts()
    text[text == 0] = 5
    text[:, 9:] = 0
    text[:, 8] = 7
    assert read(texts.Averaged(texts.pads, 16, None), data=[(text, labels)]) is None


def test_a_model_without_embeddings_has_none():
    model = torch.nn.Linear(4, 3)
    assert read(model, data=[(torch.ones(6, 4), torch.arange(6) % 3)]) is None
