"""The summary and the examples of every verb in `--help`."""

VERBS = {
  'train': 'train a prompt on a frozen model',
  'population': 'train many prompts at once on one frozen model',
  'sweep': 'train every combination of models, methods, learning rates, seeds, ...',
  'eval': 'evaluate a prompt on a task or a file',
  'compare': 'compare two prompts on the same examples, with significance tests',
  'infer': 'apply a prompt to texts',
  'serve': 'answer requests over HTTP with many prompts on one model',
  'report': 'summarize runs: tables, learning curves, an HTML page',
  'pretrain': 'train a model from text: span corruption, then prefix LM',
  'inspect': 'describe a prompt file, or list the arrays of a model',
  'import': 'convert a prompt of another library to a prompt file',
  'edit': 'make a prompt of finished ones: average, task arithmetic, rows',
  'export': 'write prompts for other software: transformers, CTranslate2, NumPy, PEFT, T5X',
  'tasks': 'list the known tasks and show their examples',
  'methods': 'list the prompt methods: papers, numbers that train, what they read and export to',
  'plan': 'memory and time of a step on a TPU slice (needs no TPU) or on this machine',
  'convert': 'write a model in another format: ours, T5X, Hugging Face',
}

EXAMPLES = {
  'train': """
  prompt-jax train --task docstrings_iid --output out/
  prompt-jax train --data reviews.tsv --model embedded --output out/
  prompt-jax train --data train.jsonl --validation dev.jsonl --prompt prefix --steps 500
  prompt-jax train --task docstrings_iid --seeds 0,1,2 --length 50
  prompt-jax train --task rte cb --folder data --prompt task_prompts      (a prompt for each)
  prompt-jax train --task sib200.eng_Latn:all --folder data     (one language, evaluated on all)
  prompt-jax train --task docstrings_iid --train all --learning_rate 0.001    (model tuning)
  prompt-jax train --gin_file=my_run.gin --gin.BATCH_SIZE=16""",
  'population': """
  prompt-jax population --task docstrings_iid --seeds 0,1,2,3,4 --output out/
  prompt-jax population --task docstrings_iid --learning_rates 0.3,1,3 --lengths 20,100
  prompt-jax population --data reviews.tsv --inits class_labels,sampled_vocabulary --seeds 0,1
  prompt-jax population --task docstrings_iid --learning_rates 0.1,0.3,1,3 --halving 200,400
  prompt-jax population --data reviews.tsv '--grid={"adafactor.weight_decay":[0.0,0.1]}'
  prompt-jax population --task docstrings_iid --seeds 0,1,2,3 --mesh 4x1      (on four devices)""",
  'sweep': """
  prompt-jax sweep my_sweep.gin --dry-run             (the plan and every command; runs nothing)
  prompt-jax sweep my_sweep.gin                       (again: resumes, and retries what failed)
  prompt-jax sweep my_sweep.gin --topology v5e-16 --dry-run    (does every run fit such a slice)
  prompt-jax sweep my_sweep.gin --together            (seeds and rates as one population)
  prompt-jax sweep my_sweep.gin --cluster slurm '--slurm={"partition": "gpu"}'
  prompt-jax sweep my_sweep.gin --cluster xpk                    (XPK in the file: a slice each)""",
  'eval': """
  prompt-jax eval --prompt_file out/prompt.safetensors --task docstrings_iid --split test
  prompt-jax eval --prompt_file out/prompt.safetensors --data test.tsv --output out/test/
  prompt-jax eval --prompt_file a.safetensors b.safetensors --task docstrings_iid    (their vote)
  prompt-jax eval --prompt_file out/prompt.safetensors --data test.tsv --method constrained
  prompt-jax eval --prompt_file out/prompt.safetensors --data test.tsv --mesh 1x4 --layout tensor
  prompt-jax eval --task docstrings_iid                        (the model without a prompt)""",
  'compare': """
  prompt-jax compare out/ other/
  prompt-jax compare out/test/ other/test/ --examples 5
  prompt-jax compare both/predictions-1.jsonl both/vote.jsonl""",
  'infer': """
  prompt-jax infer --prompt_file out/prompt.safetensors 'a line of text' 'another'
  prompt-jax infer --prompt_file out/prompt.safetensors --input texts.txt --output answers.jsonl
  prompt-jax infer --prompt_file out/prompt.safetensors --mesh 1x4 --layout tensor 'a line'
  cat texts.txt | prompt-jax infer --prompt_file out/prompt.safetensors""",
  'pretrain': """
  prompt-jax pretrain --corpus text.txt.xz --gin_file=models/t5_1_1/tiny.gin --output model/
  prompt-jax train --model model/ --data reviews.tsv --output out/
  prompt-jax pretrain --model model/ --steps 0 --corpus text.txt --output adapted/""",
  'inspect': """
  prompt-jax inspect out/prompt.safetensors
  prompt-jax inspect out/prompt.safetensors --plots out/
  prompt-jax inspect t5x/checkpoint_1100000                (names, shapes and dtypes)""",
  'import': """
  prompt-jax import sst2.npy sst2.safetensors --model t5_base/ --labels negative,positive
  prompt-jax import run/numpy_checkpoints rte.safetensors --model t5_base/     (its last step)
  prompt-jax import run/checkpoint_1130000 prompt.safetensors --model t5_base/      (of T5X)
  prompt-jax import peft_folder/ prompt.safetensors --model t5_base/""",
  'export': """
  prompt-jax export sst2/prompt.safetensors trec/prompt.safetensors served/ --to=hf
  prompt-jax export runs/my_sweep served/ --to=ctranslate2 --quantize=int8    (all prompts below)
  prompt-jax export runs/ served/ --to=stablehlo             (every method, for JAX alone)
  prompt-jax export runs/ served/ --to=savedmodel            (every method, for TensorFlow)
  prompt-jax export out/prompt.safetensors peft_folder/ --to=peft
  prompt-jax export out/prompt.safetensors prompt.npy --to=npy
  prompt-jax export out/prompt.safetensors run/ --to=numpy_checkpoints
  prompt-jax export out/prompt.safetensors run/ --to=t5x       (with the model, one checkpoint)""",
  'serve': """
  prompt-jax serve runs/sst2.safetensors runs/trec.safetensors
  prompt-jax serve a.safetensors b.safetensors --names sst2,trec --port 9000
  prompt-jax serve a.safetensors --host 0.0.0.0 --token_file token.txt
  prompt-jax serve --watch runs/                     (prompts come and go with their files)
  prompt-jax serve --watch runs/ --ray --replicas 1-4 (on a cluster of Ray)
  prompt-jax serve served/ --engine ctranslate2      (an export, without JAX)""",
  'report': """
  prompt-jax report runs/                                     (a table of all runs below)
  prompt-jax report runs/ --output report/                    (and a page, Markdown, CSV, PNG)
  prompt-jax report a/ b/ --sort=-accuracy --columns folder,method,accuracy,WARMUP_STEPS
  prompt-jax report runs/ --group_by method,PROMPT_LENGTH --output report/""",
  'tasks': """
  prompt-jax tasks
  prompt-jax tasks --filter nli
  prompt-jax tasks docstrings_iid --examples 5
  prompt-jax tasks check sib200.eng_Latn --folder data
  prompt-jax tasks glue_sst2 --record sst2.npz      (then train --data sst2.npz needs no seqio)""",
  'edit': """
  prompt-jax edit average a.safetensors b.safetensors both.safetensors
  prompt-jax edit average a.safetensors b.safetensors near_a.safetensors --weights 3,1
  prompt-jax edit add sst2.safetensors trec.safetensors sum.safetensors     (task vectors)
  prompt-jax edit add sst2.safetensors toxic.safetensors less.safetensors --weights 1,-0.5
  prompt-jax edit concatenate a.safetensors b.safetensors long.safetensors
  prompt-jax edit keep a.safetensors short.safetensors --rows 0,1,2,3""",
  'methods': """
  prompt-jax methods
  prompt-jax methods --filter task_id                        (those for mixtures of tasks)
  prompt-jax methods --markdown""",
  'plan': """
  prompt-jax plan --model t5_1_1/xl --topology v5e-4 --microbatches 2
  prompt-jax plan --model t5_1_1/xxl --topology v5e-16 --batch 32 --inputs 512 --weights int8
  prompt-jax plan --model t5_1_1/base --topology v5e-1,v4-8 --step train,eval,decode
  prompt-jax plan --model t5_1_1/xxl --topology v5e-16 --search --output plan.md
  prompt-jax plan --model t5_1_1/large --topology here               (does it fit this machine?)""",
  'convert': """
  prompt-jax convert google/t5-v1_1-small/ model/             (Hugging Face to ours)
  prompt-jax convert t5x/checkpoint_1100000 model/ --vocabulary spiece.model
  prompt-jax convert gs://BUCKET/t5x/checkpoint_1100000 model/ --vocabulary spiece.model
  prompt-jax convert model/ exported/ --to hf
  prompt-jax convert model/ exported/ --to t5x --dtype float32""",
}

OVERVIEW = """examples:
  prompt-jax train --task docstrings_iid --output out/     train a prompt on the embedded model
  prompt-jax train --data reviews.tsv --output out/        the same on your own file
  prompt-jax infer --prompt_file out/prompt.safetensors 'a line of text'
  prompt-jax train --help                                  every flag, and more examples"""
