"""What the settings of other tools are called here: HF TrainingArguments, TRL, verl, OpenRLHF and Lightning.

Only the names are translated. Units may differ, so a hint says what the key means here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lightning_mem1.cli.help_pages import SETTINGS

# A key here, with a value where the other tool's name stands for one: the names elsewhere. verl's have as much of their
# path as distinguishes them.
_NAMES = {
    "model.policy": "model_name_or_path model_name model_id pretrain pretrain_model actor_rollout_ref.model.path "
    "base_model model.path model.partial_pretrain",
    "model.algorithm": "adv_estimator advantage_estimator rl_algorithm importance_sampling_level",
    "model.lr": "learning_rate actor_learning_rate actor_lr actor.optim.lr optim.lr peak_lr",
    "model.optim.name": "optim optimizer optimizer_name",
    "model.optim.weight_decay": "weight_decay l2 optim.weight_decay",
    "model.optim.max_grad_norm": "max_grad_norm gradient_clip_val gradient_clipping grad_clip max_norm clip_grad",
    "model.optim.warmup_steps": "warmup_steps lr_warmup_steps num_warmup_steps warmup_ratio lr_warmup_ratio "
    "lr_warmup_steps_ratio",
    "model.optim.schedule": "lr_scheduler_type lr_scheduler lr_schedule scheduler lr_decay_style warmup_style",
    "model.optim.schedule_args": "lr_scheduler_kwargs min_lr_ratio min_lr",
    "model.optim.num_epochs": "num_iterations ppo_epochs num_ppo_epochs actor.ppo_epochs",
    "model.optim.num_minibatches": "num_mini_batches ppo_mini_batch_size steps_per_generation "
    "mini_batch_size train_batch_size",
    "model.max_tokens_per_microbatch": "per_device_train_batch_size gradient_accumulation_steps "
    "accumulate_grad_batches micro_train_batch_size micro_batch_size ppo_micro_batch_size "
    "ppo_micro_batch_size_per_gpu ppo_max_token_len_per_gpu max_tokens_per_gpu train_max_tokens_per_gpu",
    "model.loss.clip": "epsilon cliprange clip_range clip_ratio clip_ratio_low eps_clip eps_clip_low clip_eps",
    "model.loss.clip_high": "epsilon_high clip_ratio_high eps_clip_high eps_clip_low_high",
    "model.loss.kl_coef": "beta kl_coef kl_loss_coef init_kl_coef kl_beta kl_ctrl.kl_coef use_kl_loss",
    "model.loss.kl_in": "use_kl_in_reward kl_in_reward",
    "model.loss.kl_estimator": "kl_estimator kl_loss_type kl_penalty",
    "model.loss.entropy_coef": "entropy_coef entropy_coeff ent_coef entropy_loss_coef",
    "model.loss_unit": "loss_type loss_agg_mode token_level_loss",
    "model.credit.gamma": "gamma discount algorithm.gamma",
    "model.credit.lam": "lam lambd gae_lambda algorithm.lam",
    "model.credit.scale": "scale_rewards whiten_rewards norm_adv_by_std_in_grpo no_advantage_std_norm",
    "model.critic.lr": "critic_learning_rate critic_lr critic.optim.lr",
    "model.critic.policy": "critic_pretrain critic.model.path value_model_path",
    "model.critic.value_clip": "cliprange_value value_clip",
    "model.mismatch.correction": "vllm_importance_sampling_correction tis rollout_is enable_vllm_is_correction",
    "model.mismatch.cap": "vllm_importance_sampling_cap tis_imp_ratio_cap rollout_is_threshold "
    "vllm_is_truncated_threshold",
    "model.lora.r": "lora_r lora_rank rank peft_r",
    "model.lora.alpha": "lora_alpha",
    "model.lora.dropout": "lora_dropout",
    "model.lora.target_modules": "lora_target_modules target_modules",
    "model.compute.dtype": "torch_dtype model_dtype param_dtype mixed_precision",
    "model.compute.dtype bfloat16": "bf16",
    "model.compute.dtype float16": "fp16",
    "model.compute.quantization nf4": "load_in_4bit use_4bit bnb_4bit_quant_type",
    "model.compute.attention": "attn_implementation flash_attn use_flash_attention use_flash_attention_2",
    "model.compute.gradient_checkpointing": "gradient_checkpointing enable_gradient_checkpointing",
    "model.rollout.temperature": "temperature rollout.temperature sampling_temperature",
    "model.rollout.top_p": "top_p",
    "model.rollout.max_new_tokens": "max_completion_length max_new_tokens response_length max_response_length "
    "generate_max_len max_tokens",
    "model.rollout.env_timeout_s": "env_timeout tool_timeout",
    "model.engine.max_context_tokens": "max_prompt_length prompt_max_len max_seq_length max_length max_model_len "
    "vllm_max_model_length model_max_length max_len",
    "model.engine.num_slots": "max_num_seqs generation_batch_size micro_rollout_batch_size per_device_eval_batch_size",
    "model.engine.kind": "rollout.name inference_backend",
    "model.engine.kind vllm": "use_vllm vllm_mode vllm_num_engines",
    "model.engine.server.urls": "vllm_server_base_url vllm_server_host server_url base_url",
    "model.engine.vllm.gpu_memory_utilization": "vllm_gpu_memory_utilization gpu_memory_utilization",
    "model.rollout.workers.max_staleness": "max_async_level async_level staleness_threshold max_head_offpolicyness",
    "model.engine.one_step_off": "async_training async_train one_step_off_policy",
    "model.shaping.overlong_buffer_tokens": "overlong_buffer.len overlong_buffer_len soft_punish_cache",
    "model.shaping.overlong_penalty": "overlong_buffer.penalty_factor overlong_penalty_factor",
    "data.questions": "dataset_name dataset prompt_data train_files train_file data_path data.path",
    "data.val_questions": "val_files eval_dataset validation_file eval_dataset_name",
    "data.group_size": "num_generations n_samples_per_prompt num_samples_per_prompt rollout.n rollouts_per_example "
    "num_rollouts_per_prompt group_size",
    "data.tasks_per_step": "rollout_batch_size num_prompts_per_step tasks_per_step data.train_batch_size "
    "per_device_train_batch_size prompts_per_step global_batch_size batch_size",
    "data.num_rl_steps": "num_train_epochs num_epochs epochs total_epochs num_episodes total_episodes max_steps "
    "max_epochs total_training_steps total_steps train_steps num_train_steps",
    "data.max_turns": "max_turns max_assistant_turns max_tool_calling_iterations max_steps_per_episode",
    "data.top_k": "search_top_k topk retriever_top_k",
    "data.num_val_tasks": "eval_samples val_batch_size max_eval_samples num_eval_examples",
    "seed_everything": "seed random_seed",
    "ckpt_path": "resume_from_checkpoint resume_from_path resume load_checkpoint resume_mode",
    "experiment": "run_name experiment_name project_name exp_name wandb_run_name",
    "tracking_uri": "mlflow_tracking_uri",
    "trainer.default_root_dir": "output_dir save_path default_local_dir save_dir logging_dir",
    "trainer.logger": "report_to use_wandb wandb_project use_tensorboard log_with",
    "trainer.devices": "n_gpus_per_node num_gpus num_processes nproc_per_node actor_num_gpus_per_node n_gpus",
    "trainer.num_nodes": "nnodes actor_num_nodes",
    "trainer.strategy": "deepspeed fsdp zero_stage fsdp_config ddp_backend",
    "trainer.val_check_interval": "eval_steps test_freq eval_interval eval_every val_interval",
    "trainer.enable_progress_bar": "disable_tqdm",
    "warmstart.optim.lr": "learning_rate lr",
    "warmstart.optim.max_tokens": "per_device_train_batch_size gradient_accumulation_steps",
    "warmstart.optim.max_grad_norm": "max_grad_norm gradient_clip_val",
    "warmstart.seed": "seed seed_everything",
    "warmstart.output": "output_dir",
    "warmstart.init_from": "model_name_or_path pretrain",
    "warmstart.save_every": "save_steps",
}  # fmt: skip

FOREIGN: dict[str, list[str]] = {}  # a name elsewhere: the keys here
for _here, _elsewhere in _NAMES.items():
    for _name in _elsewhere.split():
        FOREIGN.setdefault(_name, []).append(_here)


def foreign_key(key: str, known: Collection[str]) -> str:
    """``; here it is 'model.lr' (learning rate)`` for a key that another tool has, or nothing.

    Args:
        key: The unknown key, dotted, as it was given.
        known: The keys that exist: dotted, or top-level ones alone.
    """
    heads = {each.partition(".")[0] for each in known}
    whole = any("." in each for each in known)
    named = [each for each in _targets(key) if (each.split()[0] in known if whole else each.partition(".")[0] in heads)]
    return f"; here it is {' or '.join(map(_meaning, named))}" if named else ""


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse settings of Lightning's trainer that work on its own optimisation only, and name the keys here.

    Raises:
        ValueError: one of them is set.
    """
    for name, unset in (("gradient_clip_val", (None,)), ("accumulate_grad_batches", (None, 1))):
        if trainer[name] not in unset:
            hint = " or ".join(map(_meaning, FOREIGN[name][:1]))
            raise ValueError(f"trainer.{name} has no effect here: expected null, got {trainer[name]}; set {hint}")


def _targets(key: str) -> list[str]:
    """The keys of the longest end of a dotted key that the table has: ``a.critic.optim.lr`` -> that of the critic."""
    parts = key.lower().replace("-", "_").split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    return next((FOREIGN[end] for end in ends if end in FOREIGN), [])


def _meaning(target: str) -> str:
    name, _, value = target.partition(" ")
    meaning = SETTINGS[name][1] if name in SETTINGS and not value else ""
    return f"'{target}'" + (f" ({meaning})" if meaning else "")
