"""Makes a Hugging Face model a run: python -m tools.import_hf --folder=FOLDER --workdir=runs/gpt2

FOLDER is a local GPT-2 (GPT2LMHeadModel, GPT2Model) or BERT (BertForMaskedLM, BertForPreTraining,
BertModel) with `config.json`, safetensors and the tokenizer's files, as `save_pretrained` writes
and the hub serves them. Nothing is fetched, and no pickle is opened. The run has one checkpoint, at
step 0: sample.py and evaluate.py take it, and configs/finetune.py starts from it.
"""

import sys

from absl import flags

from commands import cli
from errors import UserError


def main() -> None:
  values = flags.FLAGS
  if not values.folder or not values.workdir:
    raise UserError(
      'give --folder and --workdir, e.g. python -m tools.import_hf --folder=downloads/gpt2 '
      '--workdir=runs/gpt2'
    )
  # Imports jax, which must come after the process was prepared.
  from tools.hugging_face.to_run import import_folder

  import_folder(values.folder, values.workdir, values.scan)


if __name__ == '__main__':
  flags.DEFINE_string('folder', None, 'The local folder of the Hugging Face model.')
  flags.DEFINE_string('workdir', None, "The run's folder, which must be new or empty.")
  flags.DEFINE_bool(
    'scan', False, 'Whether the run scans over its blocks: compiles sooner, and runs slower.'
  )
  cli.launch(main, sys.argv)
