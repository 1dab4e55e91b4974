"""Imports a model from Hugging Face: python -m tools.import_hf --folder=FOLDER --workdir=runs/gpt2

FOLDER is a local GPT-2 (GPT2LMHeadModel, GPT2Model) or BERT (BertForMaskedLM, BertForPreTraining,
BertModel) with `config.json`, safetensors and the tokenizer's files, as written by
`save_pretrained` or downloaded from the hub. Nothing is downloaded, and no pickle is opened. The
result is a run with one checkpoint, at step 0, for sample.py, evaluate.py and configs/finetune.py.
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
  # Imported here because it imports jax, which must come after `cli.launch` set up the process.
  from tools.hugging_face.import_folder import import_folder

  import_folder(values.folder, values.workdir, values.scan)


if __name__ == '__main__':
  flags.DEFINE_string('folder', None, 'The local folder of the Hugging Face model.')
  flags.DEFINE_string('workdir', None, "The run's folder, which must be new or empty.")
  flags.DEFINE_bool(
    'scan', False, 'Whether the model scans over its blocks: it compiles faster and runs slower.'
  )
  cli.launch(main, sys.argv)
