"""A run made of a Hugging Face model says what transformers says of the same model."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from commands import cli
from engine import loop
from engine.restore import restore_run
from errors import UserError
from objectives.base import numbered_keys
from tests.conftest import ROOT
from tests.tools import hugging_face as hf
from tools.hugging_face.folder import INDEX, WEIGHTS, find_tensors, read_tensor
from tools.hugging_face.import_folder import import_folder


@pytest.fixture(scope='module')
def gpt2(tmp_path_factory):
  """(model, folder, run) of a GPT-2."""
  model, place = hf.random_model('GPT2LMHeadModel'), tmp_path_factory.mktemp('gpt2')
  hf.save(model, place / 'folder')
  import_folder(str(place / 'folder'), str(place / 'run'), scan=False)
  return model, place / 'folder', place / 'run'


@pytest.fixture(scope='module')
def bert(tmp_path_factory):
  """Likewise of a BERT."""
  model, place = hf.random_model('BertForMaskedLM'), tmp_path_factory.mktemp('bert')
  hf.save(model, place / 'folder')
  import_folder(str(place / 'folder'), str(place / 'run'), scan=False)
  return model, place / 'folder', place / 'run'


@pytest.fixture
def folder(gpt2, tmp_path):
  """A copy of the folder of the GPT-2, to be spoiled."""
  return shutil.copytree(gpt2[1], tmp_path / 'folder')


def change_tensors(folder, change):
  tensors = load_file(folder / WEIGHTS)
  tensors = change(tensors) or tensors
  save_file(tensors, folder / WEIGHTS, metadata={'format': 'pt'})


def refused(folder, tmp_path):
  """The sentence that an import ends with; nothing is left behind."""
  with pytest.raises(UserError) as error:
    import_folder(str(folder), str(tmp_path / 'run'), scan=False)
  assert not (tmp_path / 'run').exists() and not list(tmp_path.glob('*.part'))
  assert '\n' not in str(error.value)
  return str(error.value)


def assert_says_the_same(model, workdir):
  tokens = hf.some_tokens(model.config.vocab_size)
  theirs = hf.logits_of(model, tokens)
  assert np.abs(theirs).max() > 1
  np.testing.assert_allclose(hf.our_logits(workdir, tokens), theirs, atol=1e-4)


# --- the same logits ------------------------------------------------------------------------------


def test_a_gpt2_says_the_same(gpt2):
  model, _, run = gpt2
  assert_says_the_same(model, run)


@pytest.mark.parametrize(
  ('kind', 'options', 'scan'),
  [
    (
      'GPT2LMHeadModel',
      dict(
        tie_word_embeddings=False,
        n_inner=40,
        activation_function='relu',
        layer_norm_epsilon=0.1,
      ),
      True,
    ),
    ('GPT2LMHeadModel', dict(activation_function='gelu'), False),
    ('BertForMaskedLM', dict(hidden_act='gelu_new', layer_norm_eps=0.1), True),
    ('BertForMaskedLM', dict(tie_word_embeddings=False, type_vocab_size=3), False),
    ('BertForPreTraining', {}, False),
  ],
)
def test_every_option_says_the_same(kind, options, scan, tmp_path, monkeypatch):
  model = hf.random_model(kind, **options)
  import_folder(str(hf.save(model, tmp_path / 'folder')), str(tmp_path / 'run'), scan)
  assert any('/blocks/' in name for name in hf.params_of(tmp_path / 'run')) == scan
  if kind == 'BertForPreTraining':
    model.forward = lambda tokens, run=model.forward: _Logits(run(tokens).prediction_logits)
  assert_says_the_same(model, tmp_path / 'run')


class _Logits:
  def __init__(self, logits):
    self.logits = logits


def test_a_bert_does_not_see_padding(bert):
  model, _, run = bert
  tokens, lengths = hf.some_tokens(model.config.vocab_size), np.array([24, 9, 1], np.int32)
  mask = hf.torch.tensor(np.arange(24) < lengths[:, None])
  theirs = hf.logits_of(model, tokens, attention_mask=mask.long())
  ours = hf.our_logits(run, tokens, lengths=lengths)
  for row, length in enumerate(lengths):
    np.testing.assert_allclose(ours[row, :length], theirs[row, :length], atol=1e-4)


def test_it_writes_what_transformers_writes(gpt2):
  model, _, run = gpt2
  restored = restore_run(str(run), '')
  tokenizer = hf.gpt2_tokenizer()
  prompt = np.array(tokenizer.encode('import os').ids, np.int32)
  sampler, number = restored.session.objective.sampler, np.arange(1)
  options = dict(temperature=0.0, top_k=0, top_p=1.0)
  keys = numbered_keys(restored.key(), number)
  ours = sampler.sample(
    restored.variables(), keys, number, prompt=prompt.tolist(), length=hf.CONTEXT, **options
  )
  theirs = model.generate(
    hf.torch.tensor(prompt[None]).long(),
    max_length=hf.CONTEXT,
    do_sample=False,
    eos_token_id=None,
    pad_token_id=0,
  )
  np.testing.assert_array_equal(ours, theirs.numpy())


def test_the_tokenizer_and_its_special_entries_are_the_folders(gpt2):
  _, _, run = gpt2
  session = restore_run(str(run), '').session
  assert session.objective.specials == {'end': 0}
  stored = json.loads((run / 'tokenizer.json').read_text())
  assert stored['tokenizer']['model']['type'] == 'BPE'
  assert session.config.data.text.length == hf.CONTEXT


# --- other forms of the same model ----------------------------------------------------------------


def same_run(folder, tmp_path, gpt2):
  """Imports `folder` and compares every parameter with the import of the original."""
  import_folder(str(folder), str(tmp_path / 'run'), scan=False)
  ours, original = hf.params_of(tmp_path / 'run'), hf.params_of(gpt2[2])
  assert ours.keys() == original.keys()
  for name, value in original.items():
    np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_files_in_pieces_are_the_same(gpt2, folder, tmp_path):
  (folder / WEIGHTS).unlink()
  gpt2[0].save_pretrained(folder, safe_serialization=True, max_shard_size='10KB')
  assert (folder / INDEX).exists() and len(list(folder.glob('*.safetensors'))) > 2
  same_run(folder, tmp_path, gpt2)


def test_the_bare_model_of_an_old_release_is_the_same(gpt2, folder, tmp_path, capsys):
  def bare(tensors):
    buffers = {'h.0.attn.bias': np.ones((1, 1, 24, 24), bool), 'h.1.attn.masked_bias': np.ones(1)}
    return {name.removeprefix('transformer.'): x for name, x in tensors.items()} | buffers

  change_tensors(folder, bare)
  hf.change_json(folder / 'config.json', architectures=['GPT2Model'])
  same_run(folder, tmp_path, gpt2)
  assert 'unused   2: transformer.h.0.attn.bias' in capsys.readouterr().out


@pytest.mark.parametrize('stored', ['both', 'head'])
def test_tied_weights_may_be_stored_twice_or_under_the_other_name(stored, gpt2, folder, tmp_path):
  def twice(tensors):
    tensors['lm_head.weight'] = tensors['transformer.wte.weight'].copy()
    if stored == 'head':
      del tensors['transformer.wte.weight']

  change_tensors(folder, twice)
  same_run(folder, tmp_path, gpt2)


def test_weights_that_differ_are_not_tied(gpt2, folder, tmp_path, capsys):
  def untied(tensors):
    tensors['lm_head.weight'] = 2 * tensors['transformer.wte.weight']

  change_tensors(folder, untied)
  import_folder(str(folder), str(tmp_path / 'run'), scan=False)
  assert 'not tied' in capsys.readouterr().out
  tokens = hf.some_tokens(280)
  theirs = 2 * hf.logits_of(gpt2[0], tokens)
  np.testing.assert_allclose(hf.our_logits(tmp_path / 'run', tokens), theirs, atol=1e-4)


def test_half_precision_becomes_float32(gpt2, folder, tmp_path):
  model = hf.random_model('GPT2LMHeadModel').to(hf.torch.bfloat16)
  model.save_pretrained(folder)
  import_folder(str(folder), str(tmp_path / 'run'), scan=False)
  entries = find_tensors(folder)
  assert {entry.dtype for entry in entries.values()} == {'BF16'}
  assert read_tensor('transformer.ln_f.bias', entries['transformer.ln_f.bias']).dtype == np.float32
  ours = hf.params_of(tmp_path / 'run')
  assert {value.dtype for value in ours.values()} == {np.dtype('float32')}
  assert_says_the_same(model.float(), tmp_path / 'run')


def test_berts_norms_by_their_old_names(bert, tmp_path):
  model, original, _ = bert
  folder = shutil.copytree(original, tmp_path / 'folder')
  ends = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}

  def old(tensors):
    for new, before in ends.items():
      for name in [name for name in tensors if name.endswith(new)]:
        tensors[name.replace(new, before)] = tensors.pop(name)

  change_tensors(folder, old)
  import_folder(str(folder), str(tmp_path / 'run'), scan=False)
  assert_says_the_same(model, tmp_path / 'run')


def test_a_bare_bert_has_a_fresh_head_and_the_rest(tmp_path, capsys):
  model = hf.random_model('BertModel')
  import_folder(str(hf.save(model, tmp_path / 'folder')), str(tmp_path / 'run'), scan=False)
  said = capsys.readouterr().out
  assert 'fresh    5: cls.predictions.transform.dense.weight' in said
  assert 'unused   2: bert.pooler' in said
  params = hf.params_of(tmp_path / 'run')
  table = model.embeddings.word_embeddings.weight.detach().numpy()
  np.testing.assert_array_equal(params['model/embedding/embedding'], table)
  kernel = params['model/transform/kernel']
  assert 0.015 < kernel.std() < 0.025 and not params['model/output/bias'].any()
  assert (params['model/transform_norm/scale'] == 1).all()


def test_entries_beyond_the_tokenizers_are_kept(tmp_path, capsys):
  model = hf.random_model('GPT2LMHeadModel', vocab_size=300)
  import_folder(str(hf.save(model, tmp_path / 'folder')), str(tmp_path / 'run'), scan=False)
  assert 'the last 20 of 300 tokens have no text' in capsys.readouterr().out
  assert_says_the_same(model, tmp_path / 'run')


# --- what it is good for --------------------------------------------------------------------------


def test_it_is_fine_tuned_from_where_it_was(gpt2, tmp_path, capsys):
  _, _, run = gpt2
  config = cli.load(f'{ROOT}/configs/finetune.py:{run}')
  config.data.update(name='names', split='train[:200]', test_split='validation[:50]')
  config.train.steps = 2
  config.optimizer.model.learning_rate = 1e-3
  loop.train(config, str(tmp_path / 'run'))
  before, after = hf.params_of(run), hf.params_of(tmp_path / 'run')
  assert f'loaded {len(before)}:' in capsys.readouterr().out
  # An update of Adam moves nothing by more than the rate, and its decay by a tenth of it.
  moved = [np.abs(after[name] - value).max() for name, value in before.items()]
  assert 1e-4 < min(moved) and max(moved) < 3e-3
  assert (tmp_path / 'run' / 'tokenizer.json').read_text() == (run / 'tokenizer.json').read_text()


def test_a_bert_is_fine_tuned_as_what_it_is(bert):
  config = cli.load(f'{ROOT}/configs/finetune.py:{bert[2]}')
  assert config.objective.name == 'masked_lm' and not config.modules.model.causal
  text = config.data.text
  assert (text.rows, text.next_token, text.length) == ('windows', False, hf.CONTEXT)


def test_the_command_says_what_is_next_and_sample_draws(gpt2, tmp_path, script):
  done = script('-m', 'tools.import_hf', f'--folder={gpt2[1]}', f'--workdir={tmp_path}/run')
  assert done.returncode == 0, done.stderr
  assert f'configs/finetune.py:{tmp_path}/run' in done.stdout
  done = script(
    'sample.py', f'--workdir={tmp_path}/run', '--prompt=import os', f'--out={tmp_path}/a.txt'
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'a.txt').read_text().startswith('import os')
  done = script('-m', 'tools.import_hf', f'--folder={gpt2[1]}', f'--workdir={tmp_path}/run')
  assert (done.returncode, done.stdout) == (2, '')
  assert 'holds something already' in done.stderr and done.stderr.count('\n') == 1


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'model.pt', 'weights.ckpt'])
def test_pickles_are_refused(name, folder, tmp_path):
  (folder / WEIGHTS).rename(folder / name)
  said = refused(folder, tmp_path)
  assert name in said and 'pickle' in said and 'save_pretrained' in said
  assert 'pickle' in refused(folder / name, tmp_path)


def test_a_pickle_beside_safetensors_is_not_looked_at(gpt2, folder, tmp_path):
  (folder / 'pytorch_model.bin').write_bytes(b'anything')
  same_run(folder, tmp_path, gpt2)


@pytest.mark.parametrize('share', [0.0, 0.001, 0.1, 0.99])
def test_a_file_that_was_cut_off_is_named(share, folder, tmp_path):
  whole = (folder / WEIGHTS).read_bytes()
  (folder / WEIGHTS).write_bytes(whole[: int(share * len(whole))])
  said = refused(folder, tmp_path)
  assert WEIGHTS in said and 'cut off' in said


def test_a_missing_folder_config_weights_tokenizer(folder, tmp_path):
  assert 'nowhere' in refused(tmp_path / 'nowhere', tmp_path)
  (folder / 'tokenizer.json').unlink()
  assert 'tokenizer.json' in refused(folder, tmp_path)
  (folder / WEIGHTS).unlink()
  assert f'no {WEIGHTS}' in refused(folder, tmp_path)
  (folder / 'config.json').write_text('{"model_type"')
  assert 'unreadable' in refused(folder, tmp_path)
  (folder / 'config.json').unlink()
  assert 'no config.json' in refused(folder, tmp_path)


def test_an_index_that_names_what_is_not_there(gpt2, folder, tmp_path):
  (folder / WEIGHTS).rename(tmp_path / 'outside.safetensors')
  index = {'weight_map': {'transformer.wte.weight': '../outside.safetensors'}}
  (folder / INDEX).write_text(json.dumps(index))
  assert '../outside.safetensors' in refused(folder, tmp_path)
  (tmp_path / 'outside.safetensors').rename(folder / 'a.safetensors')
  index = {'weight_map': {'transformer.wte.weight': 'a.safetensors', 'lost': 'a.safetensors'}}
  (folder / INDEX).write_text(json.dumps(index))
  assert 'the tensor lost' in refused(folder, tmp_path)


@pytest.mark.parametrize(
  ('entries', 'named'),
  [
    (dict(model_type='llama', architectures=['LlamaForCausalLM']), 'llama'),
    (dict(architectures=['GPT2ForSequenceClassification']), 'GPT2ForSequenceClassification'),
    (dict(scale_attn_by_inverse_layer_idx=True), 'scale_attn_by_inverse_layer_idx'),
    (dict(activation_function='quick_gelu'), 'quick_gelu'),
    (dict(n_embd=None), 'n_embd'),
    (dict(n_layer='2'), 'n_layer'),
    (dict(n_positions=0), 'n_positions'),
    (dict(vocab_size=279), '280 tokens'),
  ],
)  # fmt: skip
def test_another_architecture_is_named(entries, named, folder, tmp_path):
  if 'vocab_size' in entries:
    change_tensors(
      folder,
      lambda tensors: tensors.update(
        {'transformer.wte.weight': tensors['transformer.wte.weight'][:279].copy()}
      ),
    )
  hf.change_json(folder / 'config.json', **entries)
  said = refused(folder, tmp_path)
  assert named in said
  if 'architectures' in entries:
    assert 'GPT2LMHeadModel' in said and 'BertForMaskedLM' in said


def test_missing_unknown_and_misshapen_tensors_are_named(folder, tmp_path):
  def spoil(tensors):
    del tensors['transformer.h.1.mlp.c_fc.bias']
    tensors['transformer.h.2.ln_1.bias'] = np.zeros(16, np.float32)
    tensors['transformer.wpe.weight'] = np.zeros((23, 16), np.float32)

  change_tensors(folder, spoil)
  said = refused(folder, tmp_path)
  assert 'missing: transformer.h.1.mlp.c_fc.bias;' in said
  assert 'unknown: transformer.h.2.ln_1.bias;' in said
  assert 'of another shape: transformer.wpe.weight (23, 16) instead of (24, 16)' in said


def test_half_a_head_is_damage(bert, tmp_path):
  folder = shutil.copytree(bert[1], tmp_path / 'folder')
  change_tensors(folder, lambda t: {n: x for n, x in t.items() if 'transform.dense' not in n})
  assert 'missing: cls.predictions.transform.dense.weight' in refused(folder, tmp_path)


def test_whole_numbers_are_no_weights(folder, tmp_path):
  change_tensors(folder, lambda t: t.update({'transformer.ln_f.bias': np.zeros(16, np.int64)}))
  assert 'transformer.ln_f.bias' in refused(folder, tmp_path)


def test_finetune_needs_a_run(tmp_path):
  for argument in ('', f':{tmp_path}'):
    with pytest.raises(UserError, match='no run to start from'):
      cli.load(f'{ROOT}/configs/finetune.py{argument}')
