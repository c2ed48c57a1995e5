"""Checkpoints as the first format had them: flat settings, the critic's weights among the policy's."""

import torch

PLAYED = {"max_new_tokens": 6, "max_information_tokens": 40, "prompt": "brief"}
FIRST = {  # and as format 1 had them, flat
    "memory": "mem1",
    "window": 2,
    "layout": "tree",
    "lr": 0.02,
    "weight_decay": 0.0,
    "warmup_steps": 3,
    "max_grad_norm": 1.0,
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"},
    "num_epochs": 1,
    "num_minibatches": 2,
    "max_tokens_per_microbatch": 16384,
    "epsilon": 0.1,
    "epsilon_high": None,
    "beta": 0.05,
    "kl_in": "loss",
    "kl_estimator": None,
    "entropy_coef": 0.0,
    "loss_unit": "token",
    "state_loss_weight": 1.0,
    "scale_rewards": "std",
    "credit": {"gamma": 1.0, "lam": 1.0, "unit": "token", "step_weight": 1.0, "keep": 1, "threshold": None},
    "critic": {"r": 2, "alpha": 32.0, "dropout": 0.0, "target_modules": "all-linear", "policy": None, "lr": 5e-3}
    | {"value_clip": 0.5, "warmup_steps": 0},
    "shaping": {"overlong_buffer_tokens": 0, "overlong_penalty": 1.0, "state_budget_tokens": 0, "state_penalty": 0.0},
    "mismatch": {"correction": "none", "cap": 2.0, "level": "token"},
    "resample_rounds": 0,
    "dtype": "float32",
    "quantization": "none",
    "optimizer": "adamw",
    "attention": "auto",
    "kernels": "torch",
    "gradient_checkpointing": False,
    "engine": {"num_slots": 8, "max_context_tokens": 160},
    "rollout": PLAYED,
    "seed": 0,
}


def into_format_1(content, policy, algorithm, own_base):
    """A checkpoint as the first format had it: flat settings, the critic's weights among the policy's."""
    del content["hyper_parameters"]
    entry = content["lightning_mem1"]
    assert entry.pop("format") == 2
    critic = {**FIRST["critic"], "policy": policy if own_base else None}
    entry["settings"] = {**FIRST, "policy": policy, "algorithm": algorithm, "critic": critic}
    first = {"critic.head.": "policy.value_head.", "critic.own_base.": "policy.critic_model."}
    content["state_dict"] = {
        next((old + name.removeprefix(new) for new, old in first.items() if name.startswith(new)), name): weight
        for name, weight in content["state_dict"].items()
    }
    if behind := content["callbacks"]["RolloutCallback"]["behind"]:
        behind["weights"]["value_head.weight"] = torch.zeros(1, 32)
        behind["weights"]["causal_lm.x.lora_A.critic.weight"] = torch.zeros(2, 32)
    return content
