"""YAML files that the tests of migration share."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from confit import Config

from gliner_pipe.migration import Migrated
from gliner_pipe.pipeline.build import make_pipeline
from gliner_pipe.registry import registry
from gliner_pipe.train import train

SAMPLE = Path(__file__).parent.parent.parent / "data" / "sample"

#: Every key of GLiNER's file with sections, with our own values.
UNIFIED = """
model:
  model_name: "{backbone}"
  fine_tune: true
  span_mode: "token_level"
  ent_token: "<<ENT>>"
  sep_token: "<<SEP>>"
  embed_ent_token: true
  max_len: 120
  max_width: 50
  max_types: 30
  max_neg_type_ratio: 2
  words_splitter_type: "whitespace"
  subtoken_pooling: "mean"
  hidden_size: 32
  dropout: 0.2
  num_rnn_layers: 1
  fuse_layers: false
  post_fusion_schema: ""
  num_post_fusion_layers: 1
  represent_spans: false
  neg_spans_ratio: 1.0
  token_loss_coef: 0.9
  span_loss_coef: 0.8
  labels_decoder: null
  decoder_mode: "span"
  blank_entity_prob: 0.2
  decoder_loss_coef: 0.4
  relations_layer: null
  triples_layer: null
  rel_token: "<<REL>>"
  embed_rel_token: true
  rel_token_index: -1
  adjacency_loss_coef: 1.0
  relation_loss_coef: 1.0
  encoder_config: null
peft:
  enabled: true
  method: "lora"
  r: 4
  lora_alpha: 8
  lora_dropout: 0.1
  target_modules: null
  bias: "none"
data:
  train_data: "{sample}/train.jsonl"
  val_data: "{sample}/dev.jsonl"
  format: "json"
  fields:
    tokens: "tokenized_text"
    ner: "ner"
    relations: "relations"
  long_doc_chunking:
    enabled: true
    max_words: 60
    stride: 12
training:
  output_dir: "{out}"
  overwrite_output_dir: true
  num_train_epochs: 3
  max_steps: -1
  per_device_train_batch_size: 6
  per_device_eval_batch_size: 16
  gradient_accumulation_steps: 2
  learning_rate: 2e-5
  others_lr: 1e-3
  weight_decay: 0.02
  others_weight_decay: 0.03
  optim: "adamw_torch"
  adam_beta1: 0.9
  adam_beta2: 0.98
  adam_epsilon: 1e-6
  lr_scheduler_type: "cosine"
  warmup_ratio: 0.08
  warmup_steps: 0
  max_grad_norm: 5.0
  bf16: false
  fp16: false
  gradient_checkpointing: false
  group_by_length: true
  length_column_name: "length"
  seed: 7
  data_seed: null
  report_to: ["tensorboard"]
  run_name: null
  logging_steps: 5
  evaluation_strategy: "steps"
  eval_steps: 20
  eval_on_start: false
  save_strategy: "steps"
  save_steps: 40
  save_total_limit: 2
  load_best_model_at_end: true
  push_to_hub: false
  hub_model_id: "someone/model"
  hub_strategy: "end"
  hub_token: "<HUB_TOKEN>"
  hub_private_repo: true
  hub_always_push: true
  resume_from_checkpoint: null
  ignore_data_skip: false
  full_determinism: false
  focal_loss_alpha: 0.7
  focal_loss_gamma: 2.0
  focal_loss_prob_margin: 0.0
  label_smoothing: 0.05
  loss_reduction: "sum"
  negatives: 0.9
  masking: "global"
"""

#: A flat file, with older names.
FLAT = """
model_name: "{backbone}"
labels_encoder: null
name: "span level"
max_width: 8
hidden_size: 32
dropout: 0.3
fine_tune: true
subtoken_pooling: first
span_mode: markerV0
max_types: 20
max_len: 100
num_steps: 3e2
train_batch_size: 4
eval_every: 50
warmup_ratio: 0.1
scheduler_type: "cosine"
loss_alpha: -1
loss_gamma: 0
label_smoothing: 0
loss_reduction: "sum"
lr_encoder: 1e-5
lr_others: 5e-5
weight_decay_encoder: 0.01
weight_decay_other: 0.02
max_grad_norm: 1.0
train_data: "{sample}/train.jsonl"
prev_path: null
save_total_limit: 3
"""


def written(folder: Path, text: str, backbone: Path | str = "some/encoder", name: str = "old.yaml") -> Path:
    """Write a YAML file with its placeholders filled in."""
    path = folder / name
    for key, value in {"backbone": backbone, "sample": SAMPLE, "out": folder / "out"}.items():
        text = text.replace(f"{{{key}}}", str(value))
    path.write_text(text.lstrip("\n"), encoding="utf-8")
    return path


def resolved(migrated: Migrated) -> Any:
    """Save and read a configuration, and build its pipeline; all options must be those of ``train``."""
    config = Config.from_cfg_str(migrated.to_cfg())
    assert set(config["train"]) <= set(inspect.signature(train).parameters)
    return make_pipeline(**Config(config["nlp"]).resolve(registry=registry, root=config))
