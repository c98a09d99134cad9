"""The names of GLiNER, transformers, EDS-NLP and AutoTrain: one row a name, in the order of the documentation.

``python scripts/migration_tables.py docs/migrating.md`` writes the tables of the documentation from these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain

from gliner_pipe.checkpoints import gliner_names
from gliner_pipe.migration.names import Name, ignored, refused, renamed
from gliner_pipe.migration.values import (
    OPTIMIZERS,
    RELATION_LAYERS,
    STRATEGIES,
    TOKEN,
    adapter_modules,
    anything,
    checkpoint,
    choice,
    clipping,
    flag,
    folder,
    fusion_pattern,
    greater,
    logging_steps,
    mapping,
    metric,
    no_smoothing,
    not_streaming,
    number,
    placeholder,
    samples,
    schedule,
    span_mode,
    steps_or_endless,
    steps_or_share,
    text,
    texts,
    tokens,
    trackers,
    two_shares,
    whole,
)

NETWORK = "components.gliner.model"
ENCODER = f"{NETWORK}.encoder"
BACKBONE = f"{ENCODER}.backbone"
ADAPTER = f"{BACKBONE}.adapter"
LOSS, RELATION_LOSS = f"{NETWORK}.loss", f"{NETWORK}.relation_loss"
SPANS, GENERATOR = f"{NETWORK}.span_rep", f"{NETWORK}.decoder"
SAMPLING, RELATIONS = "components.gliner.label_sampling", "components.gliner.relation_sampling"
EMBEDDING = "components.token_classifier.embedding"
TRAIN_READER, VAL_READER = "train.train_data.reader", "train.val_data.reader"

_share = number(0, 1)
_at_most_1 = number(-math.inf, 1)
_positive = number(0, above=True)

# fmt: off

#: Section ``model`` of a GLiNER file.
MODEL: tuple[Name, ...] = (
    Name("model_name", f"{BACKBONE}.model", text, "Encoder of the text."),
    Name("fine_tune", f"{BACKBONE}.freeze", flag, "false freezes the encoder (GLiNER never reads it)."),
    Name("span_mode", SPANS, span_mode, "How spans are scored; token_level scores words."),
    Name("ent_token", f"{ENCODER}.ent_token", text, "Special token before each label."),
    Name("sep_token", f"{ENCODER}.sep_token", text, "Special token between the labels and the text."),
    Name("embed_ent_token", f"{ENCODER}.embed_ent_token", flag,
         "Whether a label's vector is that of the special token before it; false if not given (GLiNER: true)."),
    Name("max_len", f"{BACKBONE}.window", whole(),
         "Maximum words of a training text, longer ones are split; "
         "the window is twice as many subword tokens, up to the encoder's limit."),
    Name("max_width", f"{SPANS}.max_width", whole(), "Maximum words of an entity; not used with token_level."),
    Name("max_types", f"{SAMPLING}.max_types", whole(), "Maximum labels of a training text."),
    Name("max_neg_type_ratio", f"{SAMPLING}.negative_ratio", number(),
         "Negative labels that are sampled for each positive one."),
    Name("words_splitter_type", "components.gliner.word_splitter", choice(gliner_names.WORD_SPLITTERS),
         "whitespace (GLiNER's own rule), spacy for the tokens of the document, or one of a language, such as jieba."),
    Name("subtoken_pooling", f"{BACKBONE}.pooling", choice(("first", "last", "mean", "max")),
         "How the subword tokens of a word are pooled into its vector."),
    Name("hidden_size", f"{BACKBONE}.hidden_size", whole(), "Size of the word vectors."),
    Name("dropout", f"{NETWORK}.dropout", _share, "Dropout of all new layers."),
    Name("num_rnn_layers", f"{ENCODER}.rnn_layers", whole(0), "LSTM layers over the words; none in bi-encoders."),
    Name("fuse_layers", f"{BACKBONE}.fuse_layers", flag, "Combine the outputs of all layers of the encoder."),
    Name("post_fusion_schema", f"{NETWORK}.fusion.pattern", fusion_pattern,
         "Attention between labels and words after the encoders, in bi-encoders."),
    Name("num_post_fusion_layers", f"{NETWORK}.fusion.n_layers", whole(), "How often that pattern is repeated."),
    Name("represent_spans", f"{SPANS}.represent_spans", flag,
         "token_level only: score the spans found a second time."),
    Name("neg_spans_ratio", f"{SPANS}.neg_spans_ratio", number(),
         "Random spans per gold span, to train that second score."),
    Name("token_loss_coef", f"{SPANS}.token_loss_coef", number(), "Weight of the token loss."),
    Name("span_loss_coef", f"{NETWORK}.span_loss_coef", number(), "Weight of the span loss."),
    Name("labels_encoder", f"{ENCODER}.label_model", text, "Encoder of the labels: makes the model a bi-encoder."),
    Name("labels_decoder", f"{GENERATOR}.model", text, "Language model that generates labels."),
    Name("decoder_mode", f"{GENERATOR}.mode", choice(("span", "prompt")),
         "What labels are generated for: span or prompt."),
    Name("full_decoder_context", f"{GENERATOR}.full_context", flag,
         "Whether the label generator also reads the entity's words."),
    Name("blank_entity_prob", f"{GENERATOR}.blank_entity_prob", _share,
         "Share of batches in which each label is replaced by entity."),
    Name("decoder_loss_coef", f"{NETWORK}.decoder_loss_coef", number(), "Weight of the label generation loss."),
    Name("relations_layer", f"{NETWORK}.relation_layer",
         choice({**{name: name for name in RELATION_LAYERS}, "attn": "attention"}),
         "Proposes related entity pairs.", literal=True),
    Name("triples_layer", f"{NETWORK}.triple", choice(gliner_names.TRIPLES), "Classifies the relation of a pair."),
    Name("rel_token", f"{ENCODER}.rel_token", text, "Special token before each relation label."),
    Name("embed_rel_token", f"{ENCODER}.embed_rel_token", flag,
         "As `embed_ent_token`, for relation labels; false if not given (GLiNER: true)."),
    Name("adjacency_loss_coef", f"{NETWORK}.adjacency_loss_coef", number(), "Weight of the pair (adjacency) loss."),
    Name("relation_loss_coef", f"{NETWORK}.relation_loss_coef", number(), "Weight of the relation loss."),
    Name("span_encoder_config", f"{NETWORK}.context", mapping,
         "A second encoder over the word vectors, run before spans are built."),
    Name("_attn_implementation", f"{BACKBONE}.attn_implementation", text, "Attention implementation."),
    Name("augment_data_prob", f"{RELATIONS}.vary", _share, "Share of relation examples that are augmented."),
    Name("augment_ent_drop_prob", f"{RELATIONS}.drop_entities", two_shares,
         "Lowest and highest share of entity labels that augmentation drops."),
    Name("augment_rel_drop_prob", f"{RELATIONS}.drop_relations", two_shares,
         "Lowest and highest share of relation labels that augmentation drops."),
    Name("augment_add_other_prob", f"{RELATIONS}.other", _share,
         "Share of augmented examples in which related entities of a dropped label are labelled other."),
    Name("shuffle_types", f"{SAMPLING}.shuffle", flag, "Shuffle the labels of each example.", older=True),
    *ignored("rel_token_index class_token_index sep_token_index vocab_size",
             "It is computed when the special tokens are added to the tokenizer.", whole(-1)),
    *ignored("name", "A pipeline is named by its folder.", text),
    *ignored("model_type", "The other keys determine the architecture.", not_streaming),
    *ignored("size_sup random_drop", "GLiNER does not read it any more.", older=True),
    Name("encoder_config", f"{BACKBONE}.config", mapping,
         "Configuration of the encoder, in place of that of model_name."),
    Name("labels_encoder_config", f"{ENCODER}.label_config", mapping,
         "Configuration of the encoder of the labels, in place of its own."),
    Name("labels_decoder_config", f"{GENERATOR}.config", mapping,
         "Configuration of the label generator, in place of its own."),
    *refused("precomputed_prompts_mode id_to_classes rel_id_to_classes", "It belongs to a trained model.",
             "Name the model as prev_path; compress prompts with the component's compress_prompt"),
    *refused("max_cache_length right_context_width label_token decoder_config",
             "It belongs to GLiNER's streaming models, whose files are not translated.",
             "Name a streaming checkpoint as prev_path, or write a config with @encoders = causal_encoder"),
    *refused("rnn_type sparse_prediction sparse_pred_ignore_index", "This package has no such feature.",
             "Leave it out"),
)

#: Section ``peft`` of a GLiNER file.
PEFT: tuple[Name, ...] = (
    Name("enabled", ADAPTER, flag, "Whether the encoder gets an adapter.", part="adapter"),
    Name("method", ADAPTER, text, "lora, or another method of the package peft.", part="adapter_method"),
    Name("r", f"{ADAPTER}.r", whole(), "Rank of the update."),
    Name("lora_alpha", f"{ADAPTER}.alpha", number(), "Scale of the update; it is divided by the rank."),
    Name("lora_dropout", f"{ADAPTER}.dropout", _share, "Dropout before the update."),
    Name("target_modules", f"{ADAPTER}.target_modules", adapter_modules,
         "Layers that get an adapter; null or all-linear for all of them."),
    Name("bias", f"{ADAPTER}.bias", choice(("none", "all", "lora_only")), "Which biases are trained.", literal=True),
    Name("use_dora", f"{ADAPTER}.use_dora", flag, "Train the magnitude of the columns separately (DoRA)."),
    Name("use_rslora", f"{ADAPTER}.use_rslora", flag, "Divide the scale by the square root of the rank."),
    *ignored("task_type", "An encoder inside a model has no task of its own.", text),
    *ignored("modules_to_save", "All layers on top of the encoder are trained and saved."),
)

#: Section ``data`` of a GLiNER file.
DATA: tuple[Name, ...] = (
    Name("train_data", f"{TRAIN_READER}.path", text, "Training data: a file or a folder."),
    Name("val_data", f"{VAL_READER}.path", text, "Validation data: a file or a folder."),
    Name("val_data_dir", f"{VAL_READER}.path", text, "Older name of val_data.", older=True),
    Name("format", f"{TRAIN_READER}.@readers",
         choice(("json", "jsonl", "conll", "csv", "tsv", "parquet", "bio", "standoff", "brat", "spacy")),
         "json and jsonl (GLiNER's, or text with offsets if fields names a text), conll, csv, parquet, bio, standoff, "
         "spacy."),
    Name("fields", f"{TRAIN_READER}.fields", mapping, "Names of the fields of a record."),
    Name("long_doc_chunking", "train.train_data.chunk", mapping,
         "Splits long texts; keys: enabled, max_words, stride (words that two neighbours share)."),
    Name("root_dir", "train.output_path", folder, "Older name of output_dir.", older=True),
    Name("prev_path", NETWORK, text,
         "GLiNER model whose training is continued; other keys of the model are not read then."),
)

_OPTIONS: tuple[Name, ...] = (
    Name("learning_rate", "train.transformer_lr", number(), "Peak learning rate of the encoder."),
    Name("others_lr", "train.task_lr", number(),
         "Peak learning rate of everything else; by default that of the encoder."),
    Name("weight_decay", "train.weight_decay", number(), "Weight decay of the encoder."),
    Name("others_weight_decay", "train.task_weight_decay", number(), "Weight decay of everything else."),
    Name("optim", "train.optimizer", choice(OPTIMIZERS),
         "adamw (all of transformers' plain variants), sgd or adafactor.", part="optim"),
    Name("adam_beta1", "train.optimizer.beta1", _share, "Decay of the running mean of the gradient.", part="beta1"),
    Name("adam_beta2", "train.optimizer.beta2", _share, "Decay of the running mean of its square.", part="beta2"),
    Name("adam_epsilon", "train.optimizer.eps", _positive, "Added to Adam's denominator.", part="eps"),
    Name("lr_scheduler_type", "train.schedule", schedule, "How the learning rates fall.", part="schedule"),
    Name("warmup_ratio", "train.warmup_rate", _share, "Share of the steps during which the learning rates rise."),
    Name("warmup_steps", "train.warmup_steps", steps_or_share(0),
         "Steps during which the learning rates rise; below 1 a share of all steps; 0 uses warmup_ratio.",
         part="warmup_steps"),
    Name("max_grad_norm", "train.max_grad_norm", clipping,
         "Maximum norm of the gradients; 0 disables clipping.", null=True),
    Name("num_train_epochs", "train.max_epochs", _positive, "Passes over the data, unless max_steps is above 0."),
    Name("max_steps", "train.max_steps", steps_or_endless, "Number of steps; -1 uses num_train_epochs."),
    Name("per_device_train_batch_size", "train.batch_size", samples,
         "Examples per batch; batch_size can also count words."),
    Name("per_device_eval_batch_size", "components.gliner.batch_size", whole(), "Documents per batch in prediction."),
    Name("gradient_accumulation_steps", "train.gradient_accumulation_steps", whole(), "Batches per step."),
    Name("auto_find_batch_size", "train.auto_find_batch_size", flag,
         "Split batches when memory runs out; the result is the same."),
    Name("bf16", "train.mixed_precision", flag, "Train in bfloat16.", part="bf16"),
    Name("fp16", "train.mixed_precision", flag, "Train in float16.", part="fp16"),
    Name("gradient_checkpointing", f"{BACKBONE}.gradient_checkpointing", flag, "Less memory for more time."),
    Name("seed", "train.seed", whole(0), "Seed of new weights, dropout and the order of the data."),
    Name("data_seed", "train.data_seed", whole(0), "Seed of the order of the data alone."),
    Name("full_determinism", "train.full_determinism", flag, "Use only operations whose results repeat bit-for-bit."),
    Name("report_to", "train.loggers", trackers,
         "Trackers in addition to the console and the files.", part="loggers"),
    Name("run_name", "train.run_name", text, "Name of the run in trackers."),
    Name("logging_steps", "train.logging_interval", logging_steps, "Steps between two log lines; -1 logs every step.",
         part="logging_steps"),
    Name("logging_strategy", "train.logging_interval", choice(("no", "steps")),
         "no or steps.", part="logging_strategy"),
    *(Name(name, "train.validation_interval", choice(STRATEGIES), "no (once, after the last step), steps or epoch.",
           part="eval_strategy") for name in ("eval_strategy", "evaluation_strategy")),
    Name("eval_steps", "train.validation_interval", steps_or_share(),
         "Steps between two validations; below 1 a share of all steps.", part="eval_steps"),
    Name("eval_on_start", "train.validate_at_start", flag, "Validate before the first step."),
    Name("save_strategy", "train.checkpoint_interval", choice((*STRATEGIES, "best")), "no, steps, epoch or best.",
         part="save_strategy"),
    Name("save_steps", "train.checkpoint_interval", steps_or_share(),
         "Steps between two checkpoints; below 1 a share of all steps.", part="save_steps"),
    Name("save_total_limit", "train.save_total_limit", whole(),
         "Maximum number of checkpoints; null keeps all.", null=True),
    Name("load_best_model_at_end", "train.load_best_model_at_end", flag,
         "Return the best model instead of the last one; both are saved."),
    Name(
        *("metric_for_best_model", "train.best_metric", metric),
        "f1, precision, recall, loss, or the full name of a score.",
    ),
    Name("early_stopping_patience", "train.patience", whole(),
         "Validations without a better score after which training stops."),
    Name("early_stopping_threshold", "train.patience_threshold", number(),
         "Minimum improvement that counts as better."),
    Name("push_to_hub", "train.push_to_hub", flag, "Upload the model to the Hugging Face hub."),
    Name("hub_model_id", "train.hub_model_id", text, "Name of the model on the hub: user/model."),
    Name("hub_strategy", "train.hub_strategy", choice(("end", "every_save", "checkpoint", "all_checkpoints")),
         "When the model is uploaded."),
    Name("hub_private_repo", "train.hub_private_repo", flag, "Whether the repository is private."),
    Name("hub_always_push", "train.hub_always_push", flag, "Upload every save, even during another upload."),
    Name("resume_from_checkpoint", "train.resume_from_checkpoint", checkpoint,
         "Resume from a checkpoint: its folder, or true for the last one."),
    Name("ignore_data_skip", "train.ignore_data_skip", flag,
         "Start the data from the beginning when training resumes."),
    Name("output_dir", "train.output_path", folder, "Folder of the training."),
    Name("overwrite_output_dir", "train.overwrite", flag,
         "Whether an earlier training in the folder is replaced; false refuses it."),
    Name("freeze_components", "train.freeze_components", texts,
         "Blocks that are not trained: text_encoder, labels_encoder, decoder."),
    *(Name(name, "train.compile", flag, "Compile the model.") for name in ("compile_model", "torch_compile")),
    *(Name(name, "train.cpu", flag, "Train on the CPU even if there is a GPU.") for name in ("use_cpu", "no_cuda")),
    Name("dataloader_num_workers", "train.num_workers", whole(0), "Processes that prefetch batches."),
    Name("loss_type", f"{LOSS}.@losses", choice({name: f"gliner_pipe.{name}" for name in ("focal", "bce", "dice")}),
         "focal, bce or dice."),
    Name("focal_loss_alpha", f"{LOSS}.alpha", _at_most_1, "Weight of positives; below 0 for no weighting."),
    Name("focal_loss_gamma", f"{LOSS}.gamma", number(), "How strongly easy elements are down-weighted."),
    Name("focal_loss_prob_margin", f"{LOSS}.prob_margin", _share, "Negatives below this probability have no loss."),
    Name("rel_focal_loss_alpha", f"{RELATION_LOSS}.alpha", _at_most_1, "focal_loss_alpha of the relation loss."),
    Name("rel_focal_loss_gamma", f"{RELATION_LOSS}.gamma", number(), "focal_loss_gamma of the relation loss."),
    Name("dice_gamma", f"{LOSS}.gamma", number(), "Exponent of the Dice loss.", part="dice_gamma"),
    Name("label_smoothing", f"{LOSS}.label_smoothing", _share, "Moves targets towards one half."),
    Name("loss_reduction", f"{LOSS}.reduction", choice(("none", "sum", "mean")), "sum or mean; none is sum.",
         literal=True),
    Name("negatives", f"{LOSS}.negatives", _share, "Share of the negatives allowed by masking that is kept."),
    Name("masking", f"{LOSS}.masking", choice(("none", "global", "label", "span")), "Which negatives can be masked.",
         literal=True),
    Name("use_span_width_weight", f"{LOSS}.width_weight", flag, "Give wider entities a higher weight."),
)

#: Options that EDS-NLP has and GLiNER has not.
EDSNLP: tuple[Name, ...] = (
    Name("grad_max_norm", "train.max_grad_norm", clipping, "Same as max_grad_norm."),
    Name("output_model_dir", "train.output_path", folder, "Folder of the training, or its last model."),
    Name("sub_batch_size", "train.grad_accumulation_max_tokens", tokens,
         'Maximum tokens per part of a batch, e.g. "1000 tokens".'),
    Name("logger", "train.loggers", anything, "Names of loggers, or blocks."),
)

#: Section ``training`` of a GLiNER file, the fields of transformers' ``TrainingArguments``, and EDS-NLP's options.
TRAINING: tuple[Name, ...] = (
    *_OPTIONS,
    *renamed(
        _OPTIONS,
        "loss_alpha=focal_loss_alpha loss_gamma=focal_loss_gamma loss_prob_margin=focal_loss_prob_margin "
        "lr_encoder=learning_rate lr_others=others_lr weight_decay_encoder=weight_decay "
        "weight_decay_other=others_weight_decay weight_decay_others=others_weight_decay num_steps=max_steps "
        "train_batch_size=per_device_train_batch_size eval_batch_size=per_device_eval_batch_size "
        "scheduler_type=lr_scheduler_type",
        older=True,
    ),
    Name("eval_every", "train.validation_interval", whole(),
         "Steps between two validations, which also save.", older=True),
    Name("freeze_token_rep", f"{BACKBONE}.freeze", flag, "Freeze the encoder.", older=True),
    *EDSNLP,
    *ignored("hub_token", f"{TOKEN}; a real token is refused.", placeholder),
    *ignored("group_by_length", "Batches are drawn uniformly: grouping by length would bias the sample.", flag),
    *ignored("train_sampling_strategy", "Batches are drawn uniformly: grouping by length would bias the sample.",
             choice(("random", "group_by_length"))),
    *ignored("length_column_name", "The length of a text is its number of words.", text),
    *ignored("greater_is_better", "The metric says it: lower is better for the loss, higher for every score.", greater),
    *ignored("label_smoothing_factor", "GLiNER's loss reads label_smoothing.", no_smoothing),
    *ignored("average_tokens_across_devices", "Losses are always summed over all devices.", flag),
    *ignored("tf32 fp16_full_eval bf16_full_eval", "Precision is set by mixed_precision alone."),
    *ignored("logging_first_step logging_dir log_level log_level_replica log_on_each_node logging_nan_inf_filter "
             "disable_tqdm include_num_input_tokens_seen",
             "Logs are written beside the models, and each logger decides what it logs."),
    *ignored("do_train do_eval do_predict remove_unused_columns label_names past_index prediction_loss_only "
             "include_for_metrics include_inputs_for_metrics batch_eval_metrics eval_do_concat_batches "
             "eval_use_gather_object eval_accumulation_steps eval_delay skip_memory_metrics torch_empty_cache_steps "
             "cache_dir use_cache",
             "It configures the Trainer class of transformers, which is not used."),
    *ignored("dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor dataloader_in_order "
             "dataloader_multiprocessing_context",
             "It changes the speed of loading, not the batches."),
    *ignored("save_safetensors save_on_each_node restore_callback_states_from_checkpoint",
             "Models are always saved completely, as safetensors."),
    *refused("lr_scheduler_kwargs", "Settings of a schedule belong in its block.",
             'Write a block: [train.schedule] @schedules = "cosine"'),
    *refused("optim_args", "Settings of an optimizer belong in its block.",
             'Write a block: [train.optimizer] @optimizers = "adamw"'),
    *refused("optim_target_modules", "Parameters with their own settings are listed in param_groups.",
             'Write [train] param_groups = [{"selector": "...", "lr": 1e-5}]'),
    *refused("gradient_checkpointing_kwargs", "Gradient checkpointing has no settings.", "Leave it out"),
    *refused("dataloader_drop_last", "Every example is used.", "Leave it out"),
    *refused("save_only_model", "Checkpoints hold everything that is needed to resume.",
             "Set checkpoint_interval to a large number to have none"),
    *refused("hub_revision", "Models are uploaded to the main branch.", "Leave it out"),
    *refused("neftune_noise_alpha", "Noise on embeddings is not supported.", "Leave it out"),
    *refused("fsdp fsdp_config deepspeed parallelism_config accelerator_config ddp_backend ddp_timeout "
             "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph local_rank",
             "Distributed training is configured in accelerate.",
             "Start with: accelerate launch -m gliner_pipe.train"),
    *refused("use_liger_kernel liger_kernel_config torch_compile_backend torch_compile_mode "
             "enable_jit_checkpoint debug",
             "This package has no such feature.", "Leave it out"),
    *refused("project trackio_space_id trackio_bucket_id trackio_static_space_id",
             "Settings of a tracker belong in its block.",
             'Write a block: [train.loggers.trackio] @loggers = "trackio"'),
)

#: Parameters of AutoTrain's token classification.
AUTOTRAIN: tuple[Name, ...] = (
    Name("data_path", f"{TRAIN_READER}.path", text, "File, folder, or data set of the hub."),
    Name("model", f"{EMBEDDING}.model", text,
         "The encoder; or a token classification model of transformers or a GLiNER model, to continue its training."),
    Name("project_name", "train.output_path", folder,
         "Folder of the trained model for transformers; it also holds the pipelines model-last and model-best."),
    Name("tokens_column", f"{TRAIN_READER}.tokens_column", text, "Column of the words."),
    Name("tags_column", f"{TRAIN_READER}.tags_column", text, "Column of the tags."),
    Name("tag_names", f"{TRAIN_READER}.tag_names", texts,
         "Tag names by number, if the data does not name them (AutoTrain has no such parameter)."),
    Name("train_split", f"{TRAIN_READER}.split", text, "Split of the data for training."),
    Name("valid_split", f"{VAL_READER}.split", text,
         "Split of the data for validation; without it a fifth of local data is held out."),
    Name("max_samples", f"{TRAIN_READER}.max_samples", whole(),
         "Maximum training rows, spread evenly; validation takes a fifth as many."),
    Name("lr", "train.transformer_lr", number(), "Peak learning rate."),
    Name("epochs", "train.max_epochs", _positive, "Passes over the data."),
    Name("batch_size", "train.batch_size", samples, "Examples per batch."),
    Name("max_seq_length", f"{EMBEDDING}.window", whole(16),
         "Subword tokens per window; longer texts are read in several windows, none is truncated."),
    *renamed(_OPTIONS, "warmup_ratio gradient_accumulation=gradient_accumulation_steps"),
    Name("optimizer", "train.optimizer", choice(OPTIMIZERS),
         "adamw_torch, adamw_hf, sgd or adafactor.", part="optim"),
    Name("scheduler", "train.schedule", schedule, "linear, cosine, constant or polynomial.", part="schedule"),
    Name("weight_decay", "train.weight_decay", number(), "Weight decay."),
    *renamed(_OPTIONS, "max_grad_norm"),
    Name("seed", "train.seed", whole(0), "Seed of new weights and the order of the data (AutoTrain never reads it)."),
    Name("mixed_precision", "train.mixed_precision", choice(("fp16", "bf16", "no")), "fp16, bf16 or none.",
         part="mixed_precision"),
    *renamed(_OPTIONS, "auto_find_batch_size logging_steps"),
    Name("eval_strategy", "train.validation_interval", choice(STRATEGIES),
         "When to validate and save: no (once, after the last step), steps or epoch.", part="eval_strategy"),
    *renamed(_OPTIONS, "early_stopping_patience early_stopping_threshold push_to_hub"),
    Name("username", "train.hub_model_id", text, "Owner of the model on the hub; its name is that of the project.",
         part="username"),
    *ignored("token", f"{TOKEN}; a real token in a file is refused.", placeholder),
    Name("save_total_limit", "train.save_total_limit", whole(), "Maximum number of checkpoints."),
    Name("log", "train.loggers", trackers, "Tracker in addition to the console and the files.", part="loggers"),
)

#: Options of the component of gliner-spacy.
GLINER_SPACY: tuple[Name, ...] = (
    Name("gliner_model", "components.gliner.model", text, "The checkpoint: a folder or a hub id."),
    Name("labels", "components.gliner.labels", texts, "The labels to find."),
    Name("threshold", "components.gliner.threshold", _share, "Minimum score of an entity."),
    Name("style", "components.gliner.flat_ner", choice(("ent", "span")),
         'ent: entities that do not overlap, in doc.ents. span: flat_ner = false, spans_key = "sc" and '
         "annotate_ents = false, so that entities are in doc.spans[\"sc\"].", part="style"),
    Name("map_location", "components.gliner.device", text, "The device."),
    *ignored("chunk_size", "Texts of any length are read in overlapping windows; no entity is cut.", whole()),
    *refused("load_onnx_model", "ONNX graphs of other packages are not read.",
             "Load the checkpoint itself, and export it: python -m gliner_pipe.export --onnx"),
    *ignored("onnx_model_file", "It is read with load_onnx_model only.", text),
)

# fmt: on


def _by_name(*tables: tuple[Name, ...]) -> Mapping[str, Name]:
    return {row.name: row for row in chain(*tables)}


#: Sections of a GLiNER file, and their keys.
SECTIONS: Mapping[str, Mapping[str, Name]] = {
    "model": _by_name(MODEL),
    "peft": _by_name(PEFT),
    "data": _by_name(DATA),
    "training": _by_name(TRAINING),
}

#: Parameters of AutoTrain.
PARAMETERS: Mapping[str, Name] = _by_name(AUTOTRAIN)

#: Names that ``train()`` accepts, or refuses with the section they belong to.
OPTIONS: Mapping[str, Name] = _by_name(
    AUTOTRAIN,
    DATA,
    MODEL,
    TRAINING,
    (*refused("username", "It is part of the model's name on the hub.", 'Give hub_model_id = "user/model"'),),
)
