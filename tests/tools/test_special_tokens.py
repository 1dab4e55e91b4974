"""The special tokens of a folder: where a text ends and begins, and what of it is exported."""

import io
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from commands import generate_text
from commands.sample_run import Opened, Request
from data.text import tokenization
from engine.restore import restore_run
from tests.data.text.test_hugging_face import GPT2, NAMED, WORDS, added
from tests.tools import folders
from tools.hugging_face.export_run import export_run
from tools.hugging_face.folder import WEIGHTS
from tools.hugging_face.import_folder import import_folder

END, START = 261, 262


def gpt2(tmp_path, likely, model, files):
  """The run of a GPT-2 whose likeliest token is always `likely`."""
  place = tmp_path / 'folder'
  folders.write_model(place, 'gpt2', 264, **model)
  folders.write_files(place, {name: GPT2[name] for name in ('vocab.json', 'merges.txt')} | files)
  tensors = load_file(place / WEIGHTS)
  tensors['transformer.ln_f.weight'][:] = 0
  tensors['transformer.ln_f.bias'][:] = 9 * tensors['transformer.wte.weight'][likely]
  save_file(tensors, place / WEIGHTS, metadata={'format': 'pt'})
  import_folder(str(place), str(tmp_path / 'run'), scan=False)
  return str(tmp_path / 'run')


def written(workdir, prompt):
  """(tokens, text) of the likeliest text of at most 12 tokens, as it is printed."""
  restored, screen = restore_run(workdir, ''), io.StringIO()
  options = {'prompt': prompt, 'length': 12, 'temperature': 0.0, 'top_k': 0, 'top_p': 1.0}
  opened = Opened(Request(workdir), restored, restored.variables(), options)
  (text,) = generate_text.texts(opened, screen)
  assert screen.getvalue() == text.text + '\n'
  return text.tokens.tolist(), text.text


@pytest.mark.parametrize(
  ('model', 'files', 'stops'),
  [
    ({'eos_token_id': END}, {}, True),
    ({'eos_token_id': [7, END]}, {}, True),
    ({'eos_token_id': 7}, {'generation_config.json': {'eos_token_id': [END, 9]}}, True),
    ({'eos_token_id': 50256}, {'tokenizer_config.json': {'eos_token': added('</s>')}}, True),
    ({}, {'special_tokens_map.json': {'eos_token': '</s>'}}, True),
    ({'eos_token_id': 7}, {'tokenizer_config.json': {'eos_token': '</s>'}}, False),
    ({}, {}, False),
  ],
)
def test_writing_stops_at_the_end_token(model, files, stops, tmp_path, capsys):
  run = gpt2(tmp_path, END, model, files)
  tokens, text = written(run, 'hello')
  assert tokens == ([258, 78] if stops else [258, 78] + [END] * 10)
  assert text == ('hello' if stops else 'hello' + '</s>' * 10)
  disagree = 'texts end at 7, the eos_token_id of the model, and not at 261'
  said = capsys.readouterr().out
  assert (disagree in said) == (not stops and bool(files))
  lost = 'left out eos_token_id=50256 (config.json): no token has this number'
  assert (lost in said) == (model == {'eos_token_id': 50256})


def test_a_text_begins_as_the_folder_says(tmp_path):
  files = {'tokenizer_config.json': {**NAMED, 'add_bos_token': True, 'add_eos_token': True}}
  run = gpt2(tmp_path, 66, {}, files)
  assert written(run, 'hello') == ([258, 78] + [66] * 9, 'hello' + 'c' * 9)
  assert written(run, '') == ([66] * 11, 'c' * 11)
  objective = restore_run(run, '').session.objective
  assert objective.document_start == (START,) and objective.specials['end'] == END


@pytest.mark.parametrize(('model', 'files'), [
  ({'eos_token_id': [END, 9], 'bos_token_id': START, 'pad_token_id': 8}, {}),
  ({}, {'tokenizer_config.json': {**NAMED, 'pad_token': '</s>', 'add_bos_token': True,
                                  'add_prefix_space': True}}),
  ({}, {'added_tokens.json': {'<x>': 263},
        'special_tokens_map.json': {**NAMED, 'additional_special_tokens': ['<x>']}}),
])  # fmt: skip
def test_there_and_back_is_the_same_tokenizer(model, files, tmp_path):
  run = gpt2(tmp_path, END, model, files)
  out = tmp_path / 'out'
  export_run(run, '', str(out))
  stored = json.loads((out / 'config.json').read_text())
  ends = model.get('eos_token_id', END)
  pad = model.get('pad_token_id', END if 'tokenizer_config.json' in files else None)
  wanted = {'eos_token_id': ends, 'bos_token_id': START, 'pad_token_id': pad}
  assert {name: stored[name] for name in wanted} == wanted
  generation = json.loads((out / 'generation_config.json').read_text())
  assert generation == {name: value for name, value in wanted.items() if value is not None}
  if files:
    for name in ('tokenizer_config.json', 'special_tokens_map.json'):
      said = json.loads((out / name).read_text())
      assert {key: said[key] for key in NAMED} == NAMED
  before, after = (tokenization.read(str(tmp_path / name)) for name in ('folder', 'out'))
  for text in ('hello world', 'a <x> b</s>'):
    np.testing.assert_array_equal(before.encode(text), after.encode(text))
  assert (before.ends, before.template) == (after.ends, after.template)
  assert before.specials == after.specials and before.size == after.size


def test_a_bert_of_other_special_tokens(tmp_path):
  words = [*WORDS, '<cls>', '<sep>', '<mask>']
  named = {'cls_token': '<cls>', 'sep_token': '<sep>', 'mask_token': '<mask>'}
  place = tmp_path / 'folder'
  folders.write_model(place, 'bert', len(words))
  folders.write_files(place, {'vocab.txt': '\n'.join(words), 'tokenizer_config.json': named})
  import_folder(str(place), str(tmp_path / 'run'), scan=False)
  export_run(str(tmp_path / 'run'), '', str(tmp_path / 'out'))
  assert restore_run(str(tmp_path / 'run'), '').session.objective.specials['mask'] == 21
  for name in ('folder', 'out'):
    tokenizer = tokenization.read(str(tmp_path / name))
    roles = {'pad': 0, 'unknown': 1, 'class': 19, 'separator': 20, 'mask': 21}
    assert dict(tokenizer.specials) == roles and tokenizer.template == ((19,), (20,))
  assert not (tmp_path / 'out' / 'generation_config.json').exists()
