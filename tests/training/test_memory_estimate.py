"""The memory that a training will take, by hand."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from lightning_mem1.training.memory_estimate import GIB, Estimate, Shape, estimate, memory_line

PAPER = Path(__file__).parents[2] / "experiments" / "paper"
SHAPE = Shape(width=4, inner=8, vocabulary=10, layers=2, kv_width=2, query_width=4, tied=True)
SETTINGS = {
    "compute": {"dtype": "float32", "quantization": "none", "gradient_checkpointing": False},
    "optim": {"name": "adamw"},
    "algorithm": "grpo",
    "lora": {"r": 1},
    "max_tokens_per_microbatch": 10,
    "engine": {"num_slots": 3, "max_context_tokens": 5},
}


def of(**changed):
    return estimate(SHAPE, {**SETTINGS, **changed})


def computed(**changed):
    return of(compute={**SETTINGS["compute"], **changed})


def test_each_part_is_counted_in_bytes():
    found = of()
    # a layer's linear maps: q 16, k 8, v 8, o 16, gate, up and down 32 each: 144 weights; the embedding: 40
    assert found.weights == (2 * 144 + 40) * 4
    # inputs and outputs of a layer's maps: 8 + 6 + 6 + 8 + 12 + 12 + 12; weight, gradient and two moments: 16 bytes
    assert found.trained == 2 * 64 * 16
    # per layer 10 tokens x (8 x 4 + 4 x 8) numbers; 10 x 10 logits three times
    assert found.activations == 2 * 10 * 64 * 4 + 10 * 10 * 4 * 3
    # the pool, and the linear maps once more, with the adapter in them
    assert found.engine == 3 * 5 * 2 * 2 * 2 * 4 + 2 * 144 * 4


QWEN25 = Shape(3584, 18944, 152064, layers=28, kv_width=512, query_width=3584, tied=False)
QWEN3 = Shape(4096, 12288, 151936, layers=36, kv_width=1024, query_width=4096, tied=False)
QWEN35 = Shape(4096, 12288, 248320, layers=32, kv_width=1024, query_width=4096, tied=False, kv_layers=8)


@pytest.mark.parametrize(
    ("name", "shape", "gib", "said"),
    [
        ("qa_qwen2.5-7b", QWEN25, 80, "weights 14.2, trained 1.2, activations 8.0, engine 28.0"),
        ("qa_qwen2.5-7b_80gb", QWEN25, 80, "weights 14.2, trained 0.6, activations 8.0, engine 14.0"),
        ("qa_qwen2.5-7b_24gb", QWEN25, 24, "weights 5.2, trained 0.4, activations 4.9, engine 5.2"),
        ("webshop_qwen2.5-7b_qlora", QWEN25, 24, "weights 5.2, trained 0.4, activations 4.9, engine 7.0"),
        ("qa_qwen3-8b", QWEN3, 80, "weights 15.3, trained 1.3, activations 8.7, engine 36.0"),
        ("qa_qwen3.5-9b_80gb", QWEN35, 80, "weights 15.3, trained 0.6, activations 9.3, engine 8.0"),
    ],
)
def test_the_configs_of_the_paper_fit_the_gpus_that_they_name(name, shape, gib, said):
    settings = yaml.safe_load((PAPER / f"{name}.yaml").read_text())["model"]
    groups = {name: {**SETTINGS[name], **settings.get(name, {})} for name in ("compute", "optim", "engine")}
    found = estimate(shape, {**SETTINGS, **settings, **groups})
    assert found.line(gib) == f"needs about {found.gib:.0f} GiB, you have {gib}: {said}"  # and nothing to lower
    assert (
        settings["compute"]["gradient_checkpointing"] and settings["lr"] == 1e-5
    )  # of an adapter, not of full weights
    estimated = re.findall(r"estimate: (\d+) GiB", (PAPER / f"{name}.yaml").read_text())
    assert estimated in ([], [f"{found.gib:.0f}"])


def test_weights_that_train_and_are_shared_out_are_whole_only_while_this_process_plays():
    every, layer = (2 * 144 + 40) * 4, 144 * 4
    alone, shared = of(lora=None), estimate(SHAPE, {**SETTINGS, "lora": None}, num_shards=4)
    assert shared.trained == alone.trained / 4  # gradients and moments
    assert shared.weights == every * (1 + 1 / 4)  # each device's part, and the whole of it while it plays
    away = shared.weights - (every / 4 + 2 * layer + 40 * 4)
    assert shared.activations == alone.activations - away
    served = {**SETTINGS, "lora": None, "engine": {**SETTINGS["engine"], "kind": "server"}}
    found = estimate(SHAPE, served, num_shards=4)
    assert found.weights == every / 4 + 2 * layer + 40 * 4  # two layers and what is outside of layers are whole
    assert found.activations == alone.activations and found.engine == 0


def test_vllm_shares_the_device_or_sleeps_during_updates():
    def engine(**more):
        return SETTINGS["engine"] | {"kind": "vllm", "vllm": {"gpu_memory_utilization": 0.5, **more}}

    share, sleep = (
        estimate(SHAPE, {**SETTINGS, "engine": engine(**more)}, device_bytes=20_000)
        for more in ({"sleep": False}, {"sleep": True})
    )
    assert share.engine == 10_000
    assert sleep.activations + sleep.engine == max(share.activations, share.engine)


def test_what_saves_memory_is_counted_where_it_does():
    assert computed(quantization="nf4").weights == pytest.approx(2 * 144 * (0.5 + 0.127 / 8) + 40 * 4)
    assert of(optim={"name": "paged_adamw_8bit"}).trained == 2 * 64 * 10
    assert computed(gradient_checkpointing=True).activations == 2 * 10 * 4 * 4 + 10 * 64 * 4 + 1200
    assert of(algorithm="ppo").trained == 2 * of().trained
    assert of(lora=None).trained == (2 * 144 + 40) * (4 + 8)
    apart = SETTINGS["engine"] | {"merge_lora": False}
    assert of(engine=apart).engine == computed(quantization="nf4").engine == of(lora=None).engine == 480
    assert computed(dtype="bfloat16").engine == 240
    deep = Shape(width=4, inner=8, vocabulary=10, layers=10, kv_width=2, query_width=4, tied=True)
    whole, shared = estimate(deep, SETTINGS), estimate(deep, SETTINGS, num_shards=2)
    assert whole.weights == shared.weights  # in rollouts every device holds all of it
    assert whole.activations - shared.activations == 10 * 144 * 4 * (1 - 1 / 2 - 2 / 10)


def test_qwen_2_5_7b_in_4_bits_fits_into_24_gib_and_not_into_16():
    config = SimpleNamespace(
        hidden_size=3584,
        intermediate_size=18944,
        vocab_size=152064,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    shape = Shape.of(config)
    assert shape.linear_weights == 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    settings = {
        **SETTINGS,
        "compute": {"dtype": "bfloat16", "quantization": "nf4", "gradient_checkpointing": True},
        "optim": {"name": "paged_adamw_8bit"},
        "lora": {"r": 16},
        "max_tokens_per_microbatch": 8192,
        "engine": {"num_slots": 32, "max_context_tokens": 4096},
    }
    found = estimate(shape, settings)
    assert found.line(24) == "needs about 17 GiB, you have 24: weights 5.2, trained 0.4, activations 4.9, engine 7.0"
    assert found.line(16).startswith("needs about 17 GiB, you have 16: weights 5.2")
    assert "; lower model.engine.num_slots" in found.line(16)


def test_of_a_hybrid_model_of_text_and_images_the_layers_for_text_that_keep_keys_are_counted():
    from transformers import Qwen3_5Config

    text = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 8, "num_attention_heads": 2, "head_dim": 2}
    shape = Shape.of(Qwen3_5Config(text_config={**text, "num_key_value_heads": 1, "vocab_size": 10}))
    assert (shape.layers, shape.kv_layers, shape.kv_width) == (8, 2, 2)
    assert estimate(shape, SETTINGS).engine == 3 * 5 * 2 * 2 * 2 * 4 + shape.linear_weights * 4


def test_a_line_is_printed_only_for_what_is_large_or_does_not_fit(tiny_folder):
    assert memory_line({**SETTINGS, "policy": str(tiny_folder)}, on_cpu=True) is None
    large = {**SETTINGS, "policy": str(tiny_folder), "engine": {"num_slots": 10**6, "max_context_tokens": 10**6}}
    line = memory_line(large, on_cpu=True)
    assert line.startswith("needs about ") and "lower model.engine.num_slots" in line
    assert memory_line({**SETTINGS, "policy": "no/such-model"}, on_cpu=True) is None


def test_the_sum_is_reported_in_gib():
    assert Estimate(GIB, GIB, GIB / 2, GIB / 2).line(8).startswith("needs about 3 GiB, you have 8: weights 1.0")
