"""A checkpoint as a folder: what transformers and peft read from it is what the module's policy says."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM, PeftModel

from lightning_mem1.cli import export
from lightning_mem1.policy.loading import BUNDLED
from lightning_mem1.policy.policy import LoraSettings, Policy
from tiny import tiny_policy

IDS = torch.tensor([[5, 6, 7, 8, 9, 200, 31]])
LAST = "runs/tiny/0/checkpoints/last.ckpt"


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def trained(make_module, path=LAST, **overrides):
    """Writes a checkpoint of a module whose adapter matters; returns the logits of its policy."""
    module = make_module(**overrides).eval()
    torch.manual_seed(1)
    for parameter in module.policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    module.rl_step, checkpoint = 7, {}
    module.on_save_checkpoint(checkpoint)
    checkpoint["hyper_parameters"] = dict(module.hparams)  # as Lightning does
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    return logits(module.policy.model)


def failure(capsys, *arguments: str) -> str:
    assert export.main(list(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_the_scale_of_the_adapter_is_the_checkpoints_whatever_the_config_says(config, make_module):
    expected = trained(make_module)  # alpha 8, where the config leaves the default of 32
    assert export.main([config, "--output=out", "--model.lora.alpha=2"]) == 0
    assert json.loads(Path("out/adapter_config.json").read_text())["lora_alpha"] == 8
    torch.testing.assert_close(logits(Policy.load("out").model), expected, atol=1e-5, rtol=0)


def test_merged_weights_load_with_plain_transformers_and_say_the_same(config, make_module, capsys, tiny_folder):
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    expected = trained(make_module)
    capsys.readouterr()
    assert export.main([config, "--output=out", "--merged"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"wrote the merged weights of {LAST} (rl_step 7) to out" and err == ""
    model = AutoModelForCausalLM.from_pretrained("out")
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tiny_folder)), expected, atol=1e-2)
    assert PreTrainedTokenizerFast.from_pretrained("out").encode("red shoes") == tiny_policy().tokenizer.encode(
        "red shoes"
    )
    assert {p.name for p in Path("out").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    }
    assert not Path("out/adapter_config.json").exists()


def test_the_adapter_loads_with_peft_on_its_base_and_says_the_same(config, make_module, tiny_folder):
    from transformers import AutoModelForCausalLM

    expected = trained(make_module)
    assert export.main([config, "--output=out"]) == 0
    torch.testing.assert_close(logits(AutoPeftModelForCausalLM.from_pretrained("out")), expected, atol=1e-5, rtol=0)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), "out")
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)
    assert json.loads(Path("out/adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_folder)
    assert not Path("out/config.json").exists() and not Path("out/policy").exists()


def test_a_base_beside_the_adapter_is_found_from_any_folder(config, make_module, tiny_folder, tmp_path, monkeypatch):
    expected = trained(make_module)
    assert export.main([config, "--output=moved/out"]) == 0
    shutil.copytree(tiny_folder, "moved/out/base")
    file = Path("moved/out/adapter_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "base"}))
    torch.testing.assert_close(logits(Policy.load("moved/out").model), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("merged", [[], ["--merged"]])
def test_an_exported_folder_is_a_policy_to_go_on_from(config, make_module, merged):
    expected = trained(make_module)
    assert export.main([config, "--output=out", *merged]) == 0
    module = make_module(policy="out", lora=LoraSettings(r=2)).eval()
    torch.testing.assert_close(logits(module.policy.model), expected, atol=1e-5, rtol=0)  # a fresh adapter adds nothing
    with module.policy.reference():
        torch.testing.assert_close(logits(module.policy.model), expected, atol=1e-5, rtol=0)
    assert module.policy.tokenizer.encode("red shoes") == tiny_policy().tokenizer.encode("red shoes")
    expected = trained(make_module, "second.ckpt", policy="out", lora=LoraSettings(r=2))
    assert export.main(["--ckpt_path=second.ckpt", "--output=again"]) == 0  # an adapter on what was exported
    torch.testing.assert_close(logits(Policy.load("again").model), expected, atol=1e-5, rtol=0)


def test_a_checkpoint_alone_is_enough_and_a_critic_stays_behind(config, make_module, capsys):
    expected = trained(make_module, "critic.ckpt", algorithm="ppo")
    capsys.readouterr()
    assert export.main(["--ckpt_path", "critic.ckpt", "--output", "out"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "loading critic.ckpt ...",
        "wrote the adapter of critic.ckpt (rl_step 7) to out",
    ]
    torch.testing.assert_close(logits(Policy.load("out").model), expected, atol=1e-5, rtol=0)
    assert export.main([config, "--ckpt_path=critic.ckpt", "--output=merged", "--merged"]) == 0
    torch.testing.assert_close(logits(Policy.load("merged").model), expected, atol=1e-5, rtol=0)


def test_without_an_adapter_the_whole_model_is_written(config, make_module):
    expected = trained(make_module, "full.ckpt", lora=None)
    assert export.main(["--ckpt_path", "full.ckpt", "--output", "out"]) == 0
    torch.testing.assert_close(logits(Policy.load("out").model), expected, atol=1e-5, rtol=0)


def test_an_adapter_on_the_bundled_policy_is_found_by_peft_here_and_by_this_package_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy = Policy.load("bundled", lora=LoraSettings(r=2))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = logits(policy.model)
    folder = export.save(policy, Path("out"), merged=False)
    torch.testing.assert_close(logits(AutoPeftModelForCausalLM.from_pretrained(folder)), expected, atol=1e-4, rtol=0)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    assert config["base_model_name_or_path"] == str(BUNDLED)
    for elsewhere in ("/opt/venv/lib/python3.12/site-packages/lightning_mem1/policy/assets/policy", "bundled"):
        file.write_text(json.dumps(config | {"base_model_name_or_path": elsewhere}))
        loaded = Policy.load(str(folder))
        torch.testing.assert_close(logits(loaded.model), expected, atol=1e-4, rtol=0)
    assert loaded.tokenizer.encode("Red SHOES") == Policy.load(str(BUNDLED)).tokenizer.encode("Red SHOES")


def test_the_card_states_base_settings_and_rl_step(config, make_module, tiny_folder):
    trained(make_module, memory={"mode": "window", "window": 3})
    assert export.main(["--ckpt_path", LAST, "--output", "out"]) == 0
    text = Path("out/README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lightning_mem1", "reinforcement-learning", "agent"],
    }
    rows = dict(
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and " | " in line[2:]
    )
    assert rows["base"].startswith(f"{tiny_folder} (")
    assert (rows["rl_step"], rows["memory"], rows["window"], rows["LoRA"]) == ("7", "window", "3", "r 4, alpha 8")
    assert rows["tags"] == "internal_state <summary>, action <answer>, information <state>"
    assert "PreTrainedTokenizerFast" in text


def test_a_checkpoint_from_before_memory_was_one_value_is_exported_with_the_same_card(
    make_module, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    expected = trained(make_module, memory={"mode": "window", "window": 3})
    assert export.main(["--ckpt_path", LAST, "--output", "today"]) == 0
    checkpoint = torch.load(LAST, weights_only=True)
    today = checkpoint.pop("hyper_parameters")
    flat = {name: today[name] for name in ("layout", "lr", "lora", "policy", "algorithm", "engine", "critic", "credit")}
    rollout = {**today["rollout"], "wire": today["rollout"]["format"], "note_embedding": ""}
    del rollout["format"]
    flat |= {"memory": "window", "window": 3, "rollout": rollout, "dtype": "float32", "quantization": "none"}
    del checkpoint["lightning_mem1"]["format"]
    checkpoint["lightning_mem1"]["settings"] = flat
    torch.save(checkpoint, LAST)
    assert export.main(["--ckpt_path", LAST, "--output", "before"]) == 0
    assert Path("before/README.md").read_text() == Path("today/README.md").read_text()
    torch.testing.assert_close(logits(Policy.load("before").model), expected, atol=1e-5, rtol=0)


def test_a_folder_that_holds_something_is_only_written_by_force(config, make_module, capsys):
    trained(make_module)
    assert export.main([config, "--output=out"]) == 0
    Path("out/notes.txt").write_text("mine")
    capsys.readouterr()
    expected = "output is not empty: expected no or an empty folder, got 'out' with 7 entries ('README.md')"
    assert failure(capsys, "--ckpt_path", LAST, "--output=out").startswith(expected)
    assert failure(capsys, config, "--output=out", "--merged").startswith(expected)
    assert export.main([config, "--output=out", "--merged", "--force"]) == 0
    names = {path.name for path in Path("out").iterdir()}
    assert "notes.txt" in names and "model.safetensors" in names and "adapter_config.json" not in names
    assert {path.name for path in Path().iterdir()} == {"out", "runs", "tiny.yaml"}  # nothing beside it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["tiny.yaml", "--output=out"],
            "no checkpoint to resume from: expected one under 'runs/tiny', got none; train",
        ),
        (["tiny.yaml"], "no output: expected a folder to write, got none; set --output"),
        (["--output=out"], "no checkpoint: expected CONFIG, or --ckpt_path with a file, got neither"),
        (["--ckpt_path=last", "--output=out"], "no checkpoint: expected CONFIG, or --ckpt_path with a file, got last"),
        (["--ckpt_path=no.ckpt", "--output=out"], "no such checkpoint: expected a file, got 'no.ckpt'"),
        (["--ckpt_path=no.ckpt", "--merge"], "unknown option '--merge': expected --ckpt_path, --output, --merged"),
        (["tiny.yaml", "--output=tiny.yaml"], "cannot write 'tiny.yaml': expected a folder, got a file; set --output"),
        ([], "no config: expected a YAML file"),
    ],
)
def test_a_mistake_is_one_line(config, capsys, arguments, message):
    assert failure(capsys, *arguments).startswith(message)


def test_a_checkpoint_of_another_base_is_refused(config, make_module, capsys, tmp_path):
    trained(make_module)
    tiny_policy(seed=3).save("other")
    capsys.readouterr()
    message = failure(capsys, config, "--output=out", "--model.policy=other")
    assert message.startswith("checkpoint belongs to another base policy: expected 'other' (")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "cannot use adapter '.*out': expected LORA on a named base, got IA3"),
        ({"base_model_name_or_path": "./gone"}, "cannot load the base of adapter '.*out': no such policy"),
        ({"base_model_name_or_path": "out"}, "adapter 'out' is its own base: repair base_model_name_or_path"),
        ({"r": 3}, "adapter 'out' does not fit its base '.*': .*size mismatch"),
        (None, "corrupt adapter: expected JSON in 'out/adapter_config.json'"),
    ],
)
def test_an_adapter_that_cannot_be_used_says_why(tmp_path, monkeypatch, tiny_folder, change, message):
    monkeypatch.chdir(tmp_path)
    policy = tiny_policy(LoraSettings(r=4))
    policy.source = str(tiny_folder)
    export.save(policy, Path("saved"), merged=False).rename("out")
    file = Path("out/adapter_config.json")
    file.write_text("{" if change is None else json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        Policy.load("out")


def test_an_adapter_without_safetensors_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = export.save(tiny_policy(LoraSettings(r=4)), Path("saved"), merged=False)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"expected adapter_model.safetensors, got none"):
        Policy.load(str(folder))


def small(module):
    """Makes an adapter add about a hundredth of what bfloat16 tells apart."""
    for name, parameter in module.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=2e-5)


def test_merged_in_16_bits_a_small_adapter_is_said_to_be_lost_and_in_float32_is_kept(config, make_module, capsys):
    module = make_module(compute={"dtype": "bfloat16"}).eval()
    small(module)
    with module.policy.reference():
        base = Policy.load(module.policy.source, dtype="bfloat16").causal_lm.float().model.layers[0].mlp.up_proj.weight
    adapted = module.policy.causal_lm.model.layers[0].mlp.up_proj
    exact = base + adapted.get_delta_weight("policy").detach()
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    checkpoint["hyper_parameters"] = dict(module.hparams)
    Path("runs/tiny/0/checkpoints").mkdir(parents=True)
    torch.save(checkpoint, LAST)
    capsys.readouterr()
    assert export.main(["--ckpt_path", LAST, "--output=out", "--merged"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the adapter: ")
    assert line.endswith("of what it adds is lost to rounding in bfloat16; --dtype float32 keeps it")
    assert int(line.removeprefix("the adapter: ").partition("%")[0]) > 90
    assert export.main(["--ckpt_path", LAST, "--output=kept", "--merged", "--dtype=float32"]) == 0
    assert capsys.readouterr().err == ""
    kept = Policy.load("kept").causal_lm.model.layers[0].mlp.up_proj.weight
    torch.testing.assert_close(kept, exact, atol=1e-9, rtol=1e-6)
    assert "| dtype | float32 |" in Path("kept/README.md").read_text()
    assert failure(capsys, "--ckpt_path", LAST, "--output=no", "--dtype=float32").startswith("--dtype is for merged")
    wrong = failure(capsys, config, "--output=no", "--merged", "--dtype=int8")
    assert wrong == "unknown dtype: expected one of float32, bfloat16, float16, got 'int8'; set --dtype"
