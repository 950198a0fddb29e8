#include "config/job_internal.h"

/* Keys of other systems that no key here equals in meaning and unit: what to write in their place.
 * Those that do equal one stand with it, in `also` (job_table.c). */
const ConfigForeign job_foreign[] = {
    {"batch_size per_device_train_batch_size train_batch_size",
     "It may mean samples on one device or in a whole step. Here train.global_batch_size is "
     "samples "
     "in an optimizer step over all ranks, train.micro_batch_size those that a rank takes at a "
     "time"},
    {"gradient_accumulation_steps",
     "It follows: a step runs as many micro-batches as train.global_batch_size needs, each of "
     "train.max_tokens_per_gpu tokens or train.micro_batch_size samples"},
    {"world_size num_gpus num_processes nproc_per_node",
     "Train workers are train.tp_size times train.dp_size"},
    {"rollout_num_gpus", "Write rollout.num_workers: a number of processes"},
    {"rollout_batch_size",
     "It follows: a rollout is train.num_steps_per_rollout times train.global_batch_size answers, "
     "rollout.n_samples_per_prompt of them to each prompt"},
    {"num_rollout", "Write train.num_steps: a step learns from what was rolled out for it"},
    {"ppo_mini_batch_size mini_batch_size",
     "Write train.global_batch_size: answers of an optimizer step; train.num_steps_per_rollout is "
     "how many of these a rollout is for"},
    {"steps_per_generation num_iterations ppo_epochs num_ppo_epochs",
     "A rollout is trained on once, in train.num_steps_per_rollout optimizer steps of "
     "train.global_batch_size answers each"},
    {"warmup_ratio lr_warmup_fraction warmup",
     "Write train.warmup_steps: a number of steps, not a share of them"},
    {"lr_decay_iters lr_decay_steps", "The schedule ends with the last step; train.decay_steps is "
                                      "the falling part of lr_schedule wsd"},
    {"betas adam_betas", "Write train.adam_beta1 and train.adam_beta2"},
    {"optimizer optim", "The optimizer is AdamW; there is no other to choose"},
    {"bf16", "Write model.dtype: bf16"},
    {"fp16", "There is no fp16; write model.dtype: bf16 or f32"},
    {"gradient_checkpointing activation_checkpointing recompute_granularity",
     "It is chosen by itself: as little is recomputed as fits the memory that is there"},
    {"packing sample_packing use_dynamic_batch_size",
     "Samples are always packed, up to train.max_tokens_per_gpu, without seeing each other; "
     "train.micro_batch_size limits their number"},
    {"load ref_ckpt resume_from_checkpoint",
     "A run resumes from its own run_dir by itself; model.path names the folder with the first "
     "weights, which may be another run's"},
    {"save",
     "Everything of a run, checkpoints too, is below run_dir; checkpoint.interval says when"},
    {"rollout_seed data_seed shuffle_seed",
     "One seed decides everything: write seed at the top of the file"},
    {"interleave_probs interleave_probabilities dataset_weights data_weights blending_weights "
     "mix_weights data.weights data.probabilities interleave_weights",
     "Write data.sources: a name for each, with its path and weight"},
    {"eval_prompt_data", "Write data.eval: paths alone; or eval.sets, with a name "
                         "before each"},
    {"hf_dataset_buffer_size buffer_size", "Samples are made ahead of training by whole batches: "
                                           "write rollout.prefetch_steps. The records "
                                           "of a shuffle buffer are data.hf_buffer_size"},
    {"max_samples max_train_samples data.limit",
     "For the first N records write a slice behind the path: data.train: data.jsonl@[:N]"},
    {"test_size val_split val_size validation_split eval_split_size",
     "Nothing is split off by itself: write slices, data.train: data.jsonl@[:-500] and data.eval: "
     "data.jsonl@[-500:]"},
    {"data.split train_split dataset_split",
     "A split stands behind the folder or the name: data.train: my_folder@train"},
    {"streaming", "Files are always streamed, none is loaded into memory: leave it out. To begin "
                  "without an index of all files write data.order: window"},
    {"cache_dir hf_cache_dir", "Where the cache of the Hub lies, the environment says: HF_HOME or "
                               "HF_HUB_CACHE"},
    {"data.repeat", "Write train.num_epochs: passes over the data; a source of data.sources has "
                    "repeat"},
    {"rollout_max_prompt_len max_prompt_length",
     "data.max_length limits prompt and answer together; rollout.max_response_length the answer"},
    {"data.apply_chat_template", "The chat template is always applied: leave it out. What it is "
                                 "told is data.apply_chat_template_kwargs"},
    {"loss_mask_type", "The chat template tells what is trained: leave it out"},
    {"rollout_global_dataset", "There is one stream for all rollout workers: leave it out"},
    {"balance_data", "Batches are balanced over the ranks by tokens: leave it out"},
    {"dataset_text_field text_field", "Records are conversations, not plain text; data.input_key "
                                      "names the field of the conversation"},
    {"train_on_inputs train_on_prompt train_on_input",
     "Only what the assistant says is trained, and never the prompt: leave it out"},
    {"mask_history mask_prompt completion_only_loss assistant_only_loss train_on_responses_only",
     "What the assistant says is trained, and nothing else; a prompt with a completion trains the "
     "completion. In one message, \"step_loss_mask\": 0 leaves it out"},
    {"response_key answer_field output_key completion_key",
     "The shape of a record tells where the answer stands (docs/data.md); data.label_key names "
     "the reference answer of RL"},
    {"response_template instruction_template",
     "The chat template tells where an answer begins and ends: leave it out"},
    {"loss_type",
     "What is learned follows from rollout.function and, with rewards, algorithm.policy_loss and "
     "algorithm.loss_normalization"},
    {"rollout_function_path custom_generate_function_path",
     "Write rollout.function: process:COMMAND, a program in any language, as "
     "docs/rollout-function.md tells"},
    {"algorithm.type algorithm.name",
     "Write algorithm.advantage_estimator, what a token is pushed by (grpo, ppo ...), and "
     "algorithm.policy_loss; docs/algorithms.md has the keys of each method"},
    {"gspo", "Write algorithm.policy_loss: gspo"},
    {"cispo", "Write algorithm.policy_loss: cispo"},
    {"importance_sampling_level", "For `sequence` write algorithm.policy_loss: gspo"},
    {"disable_grpo_std_normalization",
     "It says the opposite: write algorithm.std_normalization: false to disable it"},
    {"scale_rewards", "Write algorithm.std_normalization: true or false"},
    {"calculate_per_token_loss", "For true write algorithm.loss_normalization: token"},
    {"use_kl_loss", "Write algorithm.kl_loss_coef: a number above 0 for true, 0 for false"},
    {"init_kl_coef kl_ctrl", "The coefficient is constant: write algorithm.kl_coef"},
    {"use_rollout_logprobs bypass_mode", "For true write algorithm.old_log_probs: rollout"},
    {"use_tis vllm_importance_sampling_correction", "For true write algorithm.correction: tis"},
    {"rollout_is", "Write algorithm.correction: tis and algorithm.correction_level"},
    {"dynamic_sampling dynamic_sampling_filter_path filter_groups",
     "To drop groups whose rewards are all equal write algorithm.dynamic_filter: zero_variance"},
    {"skip_eval_before_train",
     "It says the opposite: write eval.before_train: true to evaluate before the first step"},
    {"nodes num_nodes hosts nnodes",
     "cluster.agents takes the sockets of node agents of this machine; others come later"},
    {"distributed_timeout_minutes", "Write cluster.collective_timeout_s, in seconds: times 60"},
};

const int num_job_foreign = sizeof job_foreign / sizeof *job_foreign;
