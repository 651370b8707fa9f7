"""``hf:DIR``: what is refused before anything heavy is imported, and what is built from a folder."""

import json
import sys
from pathlib import Path

import pytest

from unitygain.report import Report

GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 2,
    "n_positions": 64,
    "vocab_size": 97,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
    "vocab_size": 120,
}
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "num_layers": 2,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_heads": 2,
    "vocab_size": 90,
    "decoder_start_token_id": 0,
    "is_encoder_decoder": True,
}


@pytest.fixture
def folder(tmp_path):
    def _folder(config: object, name: str = "model") -> Path:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return path

    return _folder


def test_no_folder(call, folder):
    folder(GPT2, "gpt2-small")
    answer = call("diagnose", "hf:gpt2-smal")
    assert (answer.code, answer.first) == (3, "error: no folder 'gpt2-smal'; did you mean 'gpt2-small'?")
    answer = call("diagnose", "hf:openai/gpt2")
    assert (answer.code, answer.first) == (3, "error: no folder 'openai/gpt2'")
    assert "nothing is downloaded" in answer.err


def test_no_name(call):
    answer = call("diagnose", "hf:")
    assert (answer.code, answer.first) == (2, "error: hf: names no folder")


def test_no_config(call, tmp_path):
    (tmp_path / "model").mkdir()
    answer = call("diagnose", "hf:model")
    assert (answer.code, answer.first) == (3, "error: no config.json in 'model'")


@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"model_type": 3}', "[" * 99_999])
def test_damaged_config(call, folder, config):
    folder(config)
    answer = call("diagnose", "hf:model")
    assert answer.code == 3
    assert "config.json" in answer.first


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"])
def test_pickle_is_refused(call, folder, name):
    (folder(GPT2) / name).write_bytes(b"\x80\x02.")
    answer = call("diagnose", "hf:model")
    expected = f"error: '{name}' is a pickle, which runs code when it is read; refused"
    assert (answer.code, answer.first) == (3, expected)


def test_weights_of_another_kind_are_refused(call, folder):
    (folder(GPT2) / "tf_model.h5").write_bytes(b"")
    answer = call("diagnose", "hf:model")
    assert (answer.code, answer.first) == (3, "error: 'tf_model.h5' is not safetensors; refused")


def test_pickle_named_itself_is_refused(call, folder):
    (folder(GPT2) / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    answer = call("diagnose", "hf:model/pytorch_model.bin")
    assert answer.code == 3
    assert answer.first.startswith("error: 'pytorch_model.bin' is a pickle")


def test_damaged_safetensors(call, folder):
    (folder(GPT2) / "model.safetensors").write_bytes((400 * 2**20).to_bytes(8, "little") + b"{}")
    answer = call("diagnose", "hf:model")
    expected = "error: model.safetensors declares a header of 400 MiB in 10 bytes; refused"
    assert (answer.code, answer.first) == (3, expected)


@pytest.mark.parametrize(
    "names", [["../model.safetensors"], ["/etc/passwd"], [], [3], ["a.bin"], ["missing.safetensors"]]
)
def test_an_index_names_files_of_its_folder(call, folder, names):
    path = folder(GPT2)
    (path / "a.bin").write_bytes(b"")
    listed = {f"w{k}": name for k, name in enumerate(names)}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    answer = call("diagnose", "hf:model")
    assert answer.code == 3
    assert "model.safetensors.index.json names" in answer.first


def test_transformers_missing(call, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    folder(GPT2)
    answer = call("diagnose", "hf:model")
    assert (answer.code, answer.first) == (3, "error: hf:DIR needs transformers, which is not installed")
    assert answer.fix == "  fix: pip install 'unitygain[hf]'"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file or directory"), (b"\xff\xfe\x00", "is not UTF-8 text")]
)
def test_text_that_cannot_be_read(call, folder, tmp_path, content, said):
    folder(GPT2)
    if content is not None:
        (tmp_path / "prose.txt").write_bytes(content)
    answer = call("diagnose", "hf:model", "--text", "prose.txt")
    assert answer.code == 3
    assert said in answer.first


@pytest.mark.parametrize("option", ["--batch-size=0", "--sequence-length=1", "--sequence-length=x"])
def test_sizes_out_of_range(call, folder, option):
    folder(GPT2)
    answer = call("diagnose", "hf:model", option)
    assert answer.code == 2
    assert answer.first.startswith(f"error: {option.partition('=')[0]} must be an integer >= ")


def tokenizer_for(path: Path) -> None:
    """Put a word-level tokenizer into the folder, with the files that transformers expects."""
    words = {"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "the": 3, "gain": 4, "is": 5, "one": 6}
    tree = {
        "version": "1.0",
        "added_tokens": [
            {"id": k, "content": w, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for w, k in words.items()
            if w.startswith("[")
        ],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }
    (path / "tokenizer.json").write_text(json.dumps(tree))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "[MASK]", "unk_token": "[UNK]"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.real
class TestWithTransformers:
    @pytest.mark.parametrize(
        ("config", "head", "length"),
        [
            (GPT2, "causal language model (GPT2LMHeadModel)", 64),
            (
                BERT,
                "masked language model with a head that was chosen here (config.json names BertModel)",
                48,
            ),
            (BERT | {"architectures": ["BertForMaskedLM"]}, "masked language model (BertForMaskedLM)", 48),
            (
                BERT | {"architectures": ["BertForSequenceClassification"]},
                "sequence classifier (BertForSequenceClassification)",
                48,
            ),
            (
                BERT | {"architectures": ["BertForSequenceClassification"], "num_labels": 1},
                "sequence classifier (BertForSequenceClassification)",
                48,
            ),
            (
                BERT
                | {
                    "architectures": ["BertForSequenceClassification"],
                    "num_labels": 3,
                    "problem_type": "multi_label_classification",
                },
                "sequence classifier (BertForSequenceClassification)",
                48,
            ),
            (T5, "sequence-to-sequence model (T5ForConditionalGeneration)", 128),
        ],
    )
    def test_config_alone_gives_random_weights_and_drawn_ids(
        self, call, folder, stand_in, config, head, length
    ):
        folder(config)
        answer = call("diagnose", "hf:model", "--seed", "3", "--json", "-")
        assert answer.code == 0, answer.err
        said = Report.from_json(answer.out).case
        assert said["head"] == head
        assert said["weights"] == "random, seed 3: the folder has a config alone"
        drawn = f"token ids drawn uniformly from the vocabulary of {config['vocab_size']}, seed 3"
        assert str(said["input"]).startswith(drawn)
        assert f"note: input: {drawn}" in answer.err
        case = stand_in.asked["case"]
        assert case.batches[0]["input_ids"].shape == (2, length)
        assert len(case.batches) == 4
        loss = case.compute_loss(case.batches[0])
        assert loss.requires_grad
        assert case.model.training

    def test_the_loss_of_a_causal_model_predicts_the_next_token(self, call, folder, stand_in):
        from torch.nn import functional

        folder(GPT2 | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0})
        assert call("diagnose", "hf:model").code == 0
        case = stand_in.asked["case"]
        ids = case.batches[0]["input_ids"]
        logits = case.model(input_ids=ids).logits
        twin = functional.cross_entropy(logits[:, :-1].double().flatten(0, 1), ids[:, 1:].flatten())
        # The model's loss is a float32 mean of 126 terms, good to a few times 2**-24.
        assert case.compute_loss(case.batches[0]).double().item() == pytest.approx(twin.item(), rel=1e-6)

    def test_seed_draws_weights_and_ids(self, call, folder, stand_in):
        folder(GPT2)
        cases = []
        for seed in (1, 1, 2):
            assert call("diagnose", "hf:model", "--seed", seed).code == 0
            cases.append(stand_in.asked["case"])
        weights = [case.model.transformer.h[0].attn.c_attn.weight for case in cases]
        ids = [case.batches[0]["input_ids"] for case in cases]
        assert weights[0].equal(weights[1])
        assert ids[0].equal(ids[1])
        assert not weights[0].equal(weights[2])
        assert not ids[0].equal(ids[2])

    def test_checkpoint_is_loaded(self, call, folder, stand_in, tmp_path):
        folder(GPT2)
        assert call("diagnose", "hf:model", "--seed", "5").code == 0
        model = stand_in.asked["case"].model
        model.save_pretrained(tmp_path / "saved")
        answer = call("diagnose", "hf:saved", "--json", "-")
        assert answer.code == 0, answer.err
        assert Report.from_json(answer.out).case["weights"] == "from the folder's safetensors"
        loaded = stand_in.asked["case"].model
        assert loaded.transformer.wte.weight.equal(model.transformer.wte.weight)

    def test_a_fresh_head_is_said(self, call, folder, stand_in, tmp_path):
        folder(BERT)
        assert call("diagnose", "hf:model").code == 0
        stand_in.asked["case"].model.bert.save_pretrained(tmp_path / "saved")
        answer = call("diagnose", "hf:saved", "--json", "-")
        assert answer.code == 0, answer.err
        assert (
            "parameters are not in it and were drawn with seed 0"
            in Report.from_json(answer.out).case["weights"]
        )

    def test_checkpoint_of_another_shape(self, call, folder, stand_in, tmp_path):
        folder(GPT2)
        assert call("diagnose", "hf:model").code == 0
        stand_in.asked["case"].model.save_pretrained(tmp_path / "saved")
        config = json.loads((tmp_path / "saved" / "config.json").read_text())
        (tmp_path / "saved" / "config.json").write_text(json.dumps(config | {"n_embd": 64}))
        answer = call("diagnose", "hf:saved")
        assert answer.code == 3
        assert answer.first.startswith("error: transformers cannot read the folder: ")

    def test_text_is_tokenised_with_the_folders_tokenizer(self, call, folder, stand_in, write):
        tokenizer_for(folder(BERT))
        write("prose.txt", "the gain is one gain the " * 400)
        answer = call("diagnose", "hf:model", "--text", "prose.txt", "--sequence-length", "12", "--json", "-")
        assert answer.code == 0, answer.err
        said = Report.from_json(answer.out).case["input"]
        assert said == "prose.txt, the folder's tokenizer, 4 batches of 2 x 12"
        batch = stand_in.asked["case"].batches[0]
        shown = batch["input_ids"].where(batch["labels"] == -100, batch["labels"])
        assert shown[0].tolist() == [3, 4, 5, 6, 4, 3] * 2
        masked = batch["labels"] != -100
        assert masked.any(-1).all()
        assert (batch["input_ids"][masked] == 2).all()

    def test_short_text_is_repeated_and_said(self, call, folder, stand_in, write):
        tokenizer_for(folder(GPT2))
        write("prose.txt", "the gain is one")
        answer = call("diagnose", "hf:model", "--text", "prose.txt", "--json", "-")
        assert "its 4 tokens repeated" in Report.from_json(answer.out).case["input"]

    def test_text_without_a_tokenizer_is_said(self, call, folder, stand_in, write):
        folder(GPT2)
        write("prose.txt", "the gain is one")
        answer = call("diagnose", "hf:model", "--text", "prose.txt", "--json", "-")
        said = Report.from_json(answer.out).case
        assert said["text"] == "prose.txt was not used: the folder has no tokenizer"
        assert str(said["input"]).endswith("not real text")

    def test_tokenizer_of_another_model(self, call, folder, stand_in, write):
        tokenizer_for(folder(GPT2 | {"vocab_size": 5}))
        write("prose.txt", "the gain is one")
        answer = call("diagnose", "hf:model", "--text", "prose.txt")
        expected = "error: the tokenizer gives id 6, but the model's vocabulary has 5"
        assert (answer.code, answer.first) == (3, expected)

    def test_sequence_longer_than_the_model(self, call, folder, stand_in):
        folder(GPT2)
        answer = call("diagnose", "hf:model", "--sequence-length", "65")
        assert (answer.code, answer.first) == (
            2,
            "error: --sequence-length 65 exceeds the model's 64 positions",
        )

    def test_code_in_the_folder_is_not_run(self, call, folder, stand_in, tmp_path):
        path = folder({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}})
        (path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        answer = call("diagnose", "hf:model")
        assert answer.code == 3
        assert answer.first.startswith("error: transformers cannot read the folder: ")
        assert not (tmp_path / "ran").exists()

    def test_a_model_of_images(self, call, folder, stand_in):
        folder({"model_type": "vit", "architectures": ["ViTForImageClassification"]})
        answer = call("diagnose", "hf:model")
        expected = "error: 'ViTForImageClassification' is no language model that hf: knows"
        assert (answer.code, answer.first) == (3, expected)

    def test_a_config_that_cannot_be(self, call, folder, stand_in):
        folder(GPT2 | {"n_head": 5})
        answer = call("diagnose", "hf:model")
        assert answer.code == 3
        assert answer.first.startswith("error: transformers cannot read the folder: ")

    def test_a_report_names_no_absolute_path(self, call, folder, stand_in):
        path = folder(GPT2)
        answer = call("diagnose", f"hf:{path}", "--json", "-")
        assert Report.from_json(answer.out).case["target"] == "hf:model"
        assert str(path.parent) not in answer.out

    def test_gpt2_is_diagnosed_for_real(self, call, folder):
        folder(GPT2)
        answer = call("diagnose", "hf:model", "--sequence-length", "16", "--json", "-", "--quiet")
        assert answer.code == 0, answer.err
        report = Report.from_json(answer.out)
        assert report.case["blocks"] == 2
        assert {"act_rms", "grad_rms", "param_rms"} <= set(report.profiles)
        assert report.case["target"] == "hf:model"
