"""Exports a run to Hugging Face: python -m tools.export_hf --workdir=runs/gpt2 --out=FOLDER

Writes `config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json` to FOLDER,
for transformers' AutoModelForCausalLM (a GPT-2), AutoModelForMaskedLM (a BERT) and AutoTokenizer. A
run of another transformer (rotary positions, SwiGLU, …) is refused, and the message names the
option.
"""

import sys

from absl import flags

from commands import cli
from errors import UserError


def main() -> None:
  values = flags.FLAGS
  if not values.workdir or not values.out:
    raise UserError(
      'give --workdir and --out, e.g. python -m tools.export_hf --workdir=runs/gpt2 '
      '--out=exports/gpt2'
    )
  # Imported here because it imports jax, which must come after `cli.launch` set up the process.
  from tools.hugging_face.export_run import export_run

  export_run(values.workdir, values.checkpoint, values.out)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, "The run's folder, as train.py left it.")
  flags.DEFINE_string(
    'checkpoint',
    '',
    '"latest", "best", or a step; by default "best" for a run with config.train.patience, else '
    '"latest".',
  )
  flags.DEFINE_string('out', None, 'The folder to write to, which must be new or empty.')
  cli.launch(main, sys.argv)
