"""transformers loads what is exported, and says what the run says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from configs import bert, bert_tag, gpt, rnn
from configs.defaults import average
from data.spec import Spec
from data.text import tokenization
from engine import run
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.session import open_session
from errors import UserError
from tests.tools import hugging_face as hf
from tools.hugging_face import tokenizer as tokenizers
from tools.hugging_face.export_run import export_run
from tools.hugging_face.import_folder import import_folder
from tools.hugging_face.layout import FAMILIES

TEXT = 'import os\n\tdef é(x): return "∀ 👍"  # <0x41>\n' * 4
ROLES = ('end', 'pad', 'unknown', 'class', 'separator', 'mask')


def make_run(workdir, config, tokenizer, **features):
  """A run of `config` at step 0 with random parameters and averages of 0, made without data."""
  config.data.batch_size = 1
  config.checkpoint.best = ''
  row = ((config.data.text.length + config.data.text.next_token,), 'int32')
  features = {'tokens': row, 'length': ((), 'int32'), **{name: row for name in features}}
  spec = Spec('none', 'train', 0, features, 3, 'none', tokenizer=tokenizer.to_json())
  session = open_session(config, spec)
  rng = np.random.default_rng(1)

  def random(path, leaf):
    centre = path[-1].key == 'scale'
    return jnp.asarray(rng.normal(centre, 0.3, leaf.shape), leaf.dtype)

  shapes = session.abstract.replace(key=None)
  state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  params = jax.tree_util.tree_map_with_path(random, shapes.params)
  run.claim(str(workdir), config, spec)
  checkpoints = Checkpoints(str(workdir), **to_plain(config.checkpoint))
  checkpoints.save(0, state.replace(params=params, key=jax.random.key(0)), {}, {})
  checkpoints.close()
  return workdir


def small(config, **options):
  config.modules.model.update(
    width=16, layers=2, heads=2, hidden=0, context=hf.CONTEXT, dropout=0.0, **options
  )
  config.data.text.length = hf.CONTEXT
  return config


def small_gpt(**options):
  """A GPT of ours that is a GPT-2 but for `options`."""
  usual = dict(norm='layer', positions='learned', mlp='gelu')
  return small(gpt.get_config(), **{**usual, **options})


def exported(workdir, out):
  export_run(str(workdir), '', str(out))
  return out


def loads_without_complaint(kind, folder):
  model, said = getattr(hf.transformers, kind).from_pretrained(folder, output_loading_info=True)
  assert not any(said.values()), said
  return model.eval()


def assert_says_the_same(workdir, model):
  tokens = hf.some_tokens(model.config.vocab_size)
  ours = hf.our_logits(workdir, tokens)
  assert np.abs(ours).max() > 1
  np.testing.assert_allclose(hf.logits_of(model, tokens), ours, atol=1e-4)


@pytest.mark.parametrize(
  ('kind', 'options'),
  [
    ('GPT2LMHeadModel', {}),
    ('GPT2LMHeadModel', dict(tie_word_embeddings=False, activation_function='relu', n_inner=40)),
    ('BertForMaskedLM', {}),
    ('BertForMaskedLM', dict(tie_word_embeddings=False, type_vocab_size=3)),
  ],
)
@pytest.mark.parametrize('scan', [False, True])
def test_there_and_back_is_the_same_to_the_bit(kind, options, scan, tmp_path):
  model = hf.random_model(kind, **options)
  folder = hf.save(model, tmp_path / 'folder')
  import_folder(str(folder), str(tmp_path / 'run'), scan)
  out = exported(tmp_path / 'run', tmp_path / 'out')
  before, after = load_file(folder / 'model.safetensors'), load_file(out / 'model.safetensors')
  unused = {'cls.predictions.bias'} if options and kind.startswith('Bert') else set()
  for name in before.keys() - unused:
    assert before[name].tobytes() == after[name].tobytes(), name
  import_folder(str(out), str(tmp_path / 'again'), scan)
  first, second = hf.params_of(tmp_path / 'run'), hf.params_of(tmp_path / 'again')
  assert first.keys() == second.keys()
  assert all(first[name].tobytes() == second[name].tobytes() for name in first)
  loaded = loads_without_complaint(kind, out)
  theirs = {name: getattr(model.config, name) for name in (*hf.GPT2, *hf.BERT, *options)
            if hasattr(model.config, name) and 'token_id' not in name}  # fmt: skip
  assert {name: getattr(loaded.config, name) for name in theirs} == theirs


@pytest.mark.parametrize('options', [
  dict(scan=True),
  dict(biases=True, mlp='gelu_tanh', norm_epsilon=0.1),
  dict(tied=False, mlp='silu', key_value_heads=2),
])  # fmt: skip
def test_a_gpt_of_ours(options, tmp_path):
  tokenizer = tokenization.train('bpe', [TEXT], 270, ('end',))
  workdir = make_run(tmp_path / 'run', small_gpt(**options), tokenizer)
  out = exported(workdir, tmp_path / 'out')
  assert_says_the_same(workdir, loads_without_complaint('AutoModelForCausalLM', out))
  theirs = hf.transformers.AutoTokenizer.from_pretrained(out)
  assert theirs(TEXT)['input_ids'] == tokenizer.encode(TEXT).tolist()
  assert theirs.eos_token_id == tokenizer.specials['end'] == 270
  stored = json.loads((out / 'config.json').read_text())
  assert stored['eos_token_id'] == 270 and stored['n_positions'] == hf.CONTEXT


@pytest.mark.parametrize('types', [0, 1])
def test_a_bert_of_ours(types, tmp_path):
  tokenizer = tokenization.train('wordpiece', [TEXT], 60, ROLES)
  workdir = make_run(tmp_path / 'run', small(bert.get_config(), types=types), tokenizer)
  out = exported(workdir, tmp_path / 'out')
  model = loads_without_complaint('AutoModelForMaskedLM', out)
  assert_says_the_same(workdir, model)
  assert model.config.pad_token_id == tokenizer.specials['pad']
  theirs = hf.transformers.AutoTokenizer.from_pretrained(out)
  assert theirs.mask_token_id == tokenizer.specials['mask']


@pytest.mark.parametrize(
  ('kind', 'size', 'specials'),
  [
    ('byte', 0, ('end', 'pad')),
    ('byte', 0, ()),
    ('character', 0, ('end',)),
    ('character', 0, ('end', 'unknown')),
    ('bpe', 300, ('end', 'pad')),
    ('wordpiece', 60, ROLES),
  ],
)
def test_every_tokenizer_gives_the_same_ids_and_text(kind, size, specials, tmp_path):
  ours = tokenization.train(kind, [TEXT], size, specials)
  for name, content in tokenizers.files(ours.to_json(), 64).items():
    (tmp_path / name).write_text(json.dumps(content))
  theirs = hf.transformers.AutoTokenizer.from_pretrained(tmp_path)
  text = TEXT + ('ß' if kind == 'byte' or 'unknown' in specials else '')
  ids = ours.encode(text).tolist()
  assert theirs(text)['input_ids'] == ids
  assert theirs.decode(ids) == ours.decode(ids)
  assert len(theirs) == ours.size and theirs.model_max_length == 64
  names = dict(end='eos_token_id', pad='pad_token_id', unknown='unk_token_id', mask='mask_token_id')
  for role, name in names.items():
    assert getattr(theirs, name) == ours.specials.get(role)


def test_averaged_parameters_are_exported(tmp_path):
  config = small_gpt()
  config.ema.model = average('model', 0.9)
  workdir = make_run(tmp_path / 'run', config, tokenization.train('byte', [], 0, ('end',)))
  out = exported(workdir, tmp_path / 'out')
  assert not load_file(out / 'model.safetensors')['transformer.wte.weight'].any()


@pytest.mark.parametrize(
  ('family', 'options', 'named'),
  [
    ('gpt2', dict(positions='rotary'), 'positions=rotary'),
    ('gpt2', dict(mlp='swiglu'), 'mlp=swiglu'),
    ('gpt2', dict(norm='rms'), 'norm=rms'),
    ('gpt2', dict(norm_place='post'), 'norm_place=post'),
    ('gpt2', dict(key_value_heads=1), 'key_value_heads=1'),
    ('gpt2', dict(types=2), 'types=2'),
    ('gpt2', dict(embedding_norm=True), 'embedding_norm=True'),
    ('gpt2', dict(head='transform'), 'head=transform'),
    ('bert', dict(norm='rms'), 'norm=rms'),
    ('bert', dict(norm_place='pre'), 'norm_place=pre'),
    ('bert', dict(embedding_norm=False), 'embedding_norm=False'),
    ('bert', dict(positions='sinusoidal'), 'positions=sinusoidal'),
    ('bert', dict(head='linear'), 'head=linear'),
  ],
)
def test_an_option_that_cannot_be_expressed_is_named(family, options, named):
  config = small_gpt() if family == 'gpt2' else small(bert.get_config())
  whole = {**config.modules.model, 'vocabulary': 9}
  FAMILIES[family].config(whole)
  with pytest.raises(UserError, match=f'config.modules.model.{named}, and'):
    FAMILIES[family].config({**whole, **options})


def test_a_bias_that_gpt2_lacks_may_only_be_zero():
  whole = {**small_gpt(tied=False, biases=True).modules.model, 'vocabulary': 9}
  bias = next(leaf for leaf in FAMILIES['gpt2'].leaves(whole) if leaf.path == 'output/bias')
  assert bias.unpack(np.zeros(9, np.float32)) == ()
  with pytest.raises(UserError, match='output/bias that is not 0'):
    bias.unpack(np.ones(9, np.float32))


def test_other_runs_and_full_folders_are_refused(tmp_path):
  tokenizer = tokenization.train('byte', [], 0, ROLES)
  out = tmp_path / 'out'
  workdir = make_run(tmp_path / 'rotary', small_gpt(positions='rotary'), tokenizer)
  with pytest.raises(UserError, match='positions=rotary'):
    export_run(str(workdir), '', str(out))
  workdir = make_run(tmp_path / 'rnn', rnn.get_config(), tokenizer)
  with pytest.raises(UserError, match=r'rnn\.RNN, and only a language model of the module'):
    export_run(str(workdir), '', str(out))
  workdir = make_run(tmp_path / 'tag', small(bert_tag.get_config()), tokenizer, kind=True)
  with pytest.raises(UserError, match='only language models'):
    export_run(str(workdir), '', str(out))
  with pytest.raises(UserError, match='is no run'):
    export_run(str(tmp_path / 'nowhere'), '', str(out))
  assert not out.exists()
  out.mkdir()
  (out / 'mine').write_text('kept')
  with pytest.raises(UserError, match=r'--out=.* holds something'):
    export_run(str(workdir), '', str(out))
  assert (out / 'mine').read_text() == 'kept'


def test_the_command_writes_the_checkpoint_asked_for(tmp_path, script):
  tokenizer = tokenization.train('byte', [], 0, ('end',))
  workdir = make_run(tmp_path / 'run', small_gpt(), tokenizer)
  command = ('-m', 'tools.export_hf', f'--workdir={workdir}', f'--out={tmp_path}/out')
  done = script(*command, '--checkpoint=7')
  assert done.returncode == 2 and '--checkpoint=7 must be latest, best or' in done.stderr
  done = script(*command)
  assert done.returncode == 0, done.stderr
  assert 'GPT2LMHeadModel' in done.stdout
  loads_without_complaint('AutoModelForCausalLM', tmp_path / 'out')
  # Releases before the fifth read no other.
  with safe_open(tmp_path / 'out' / 'model.safetensors', framework='numpy') as handle:
    assert handle.metadata() == {'format': 'pt'}
