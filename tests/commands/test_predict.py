"""predict.py: what it says of an example is what evaluation computes of it."""

import csv
import functools
import json
import shutil

import jax
import numpy as np
import PIL.Image
import pytest

import files
from commands.predict_run import Request, places, predict_run
from commands.prediction_table import cell
from data.spec import InputColumn, Spec
from data.text import tokenization
from data.tfds import catalog
from engine import restore
from engine.checksum import with_sum
from engine.session import open_session
from errors import UserError
from tests import runs
from tests.commands.predictions import (
  BATCH,
  arrays,
  evaluated,
  piped,
  refusal,
  table,
  write_pictures,
)
from tests.golden import tiny
from tests.marks import slow_where

# A table of three rows that scikit-learn's diabetes run takes.
HEADER = 'age,sex,bmi,bp,s1,s2,s3,s4,s5,s6'
ROWS = ['59,2,32.1,101,157,93.2,38,4,4.8598,87', '48,1,21.6,87,183,103.2,70,3,3.8918,69']


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """`made(name, data, seeds)`: the folder of a run at its start, made once."""

  @functools.cache
  def make(name, data, seeds=1):
    config = tiny.config_of(name, data)
    config.seeds = seeds
    config.data.test_split = 'test[:80]'
    if name == 'cnn':
      config.modules.model.update(channels=(2, 4), widths=(8,))
    if name in tiny.TEXT:
      # The sources of the standard library take a while to be read.
      config.data.name = 'names'
      config.data.text.tokenizer, config.data.text.vocabulary = 'byte', 0
      config.data.text.kinds = False
    return runs.saved_run(tmp_path_factory.mktemp(name) / 'run', config)

  return make


@pytest.fixture(scope='module')
def tagger(tmp_path_factory):
  """A run that tells two kinds of tokens apart, made without data that says them."""
  config = tiny.config_of('bert_tag', '')
  description = tiny.spec_of_text(config)._replace(class_names=('name', 'other'))
  workdir = tmp_path_factory.mktemp('tag') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    open_session = runs.open_session
    patch.setattr(runs, 'open_session', lambda config: open_session(config, description))
    return runs.saved_run(workdir, config)


def model_of(restored):
  """The run's module, applied as its own, on rows of any length."""
  model, variables = restored.session.objective.modules['model'], restored.variables()['model']
  return jax.jit(functools.partial(model.apply, variables, train=False))


# --- the same as evaluation


def test_pictures_of_the_test_split_get_the_bits_of_evaluation(made, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr('commands.predict_run._COUNTED', 80)
  workdir = made('cnn', 'mnist5k')
  expected, examples = evaluated(workdir)
  folder = write_pictures(tmp_path / 'test', examples['image'])
  found = arrays(workdir, tmp_path, folder, batch_size=BATCH)
  np.testing.assert_array_equal(found['probability'], expected['probability'])
  np.testing.assert_array_equal(found['prediction'], expected['prediction'])
  assert found['input'][3] == f'{folder}/00003.png' and found['class_names'].tolist()[7] == '7'
  shown = capsys.readouterr()
  assert '00019.png' in shown.out and '00020.png' not in shown.out
  assert f'{len(examples["image"]):,} inputs' in shown.out and 'predict 0/' in shown.err


@pytest.mark.parametrize(
  'data', slow_where(lambda data: data == 'breast_cancer', ['breast_cancer', 'diabetes'])
)
def test_tables_get_the_bits_of_evaluation(made, tmp_path, data):
  workdir = made('tabular', data)
  expected, examples = evaluated(workdir)
  # The shortest decimals that are these floats.
  rows = [','.join(map(str, row)) for row in examples['inputs']]
  (tmp_path / 'x.csv').write_text('\n'.join(rows))
  found = arrays(workdir, tmp_path, f'{tmp_path}/x.csv', batch_size=BATCH)
  name = 'probability' if data == 'breast_cancer' else 'prediction'
  np.testing.assert_array_equal(found[name].reshape(expected[name].shape), expected[name])


def test_documents_get_the_bits_of_evaluation(made, tmp_path, monkeypatch):
  """Names, one a line, are the rows of the test split."""
  workdir = made('bert_classify', '')
  expected, examples = evaluated(workdir)
  spec = restore.restore_run(workdir, '').session.spec
  tokenizer = tokenization.from_json(spec.tokenizer)
  roles = {id for id in tokenizer.specials.values()}
  texts = [tokenizer.decode([t for t in row if t not in roles]) for row in examples['tokens']]
  # Longer names are cut off there, too.
  piped(monkeypatch, '\n'.join(texts).encode())
  found = arrays(workdir, tmp_path, '-', batch_size=BATCH)
  np.testing.assert_array_equal(found['tokens'], examples['tokens'])
  np.testing.assert_array_equal(found['length'], examples['length'])
  np.testing.assert_array_equal(found['probability'], expected['probability'])
  assert found['input'].tolist() == texts and found['class_names'].tolist() == ['female', 'male']


def test_losses_of_a_text_are_those_of_the_model_in_windows(made, tmp_path, capsys):
  """By hand: after the token that begins a text, windows of 8 with every token predicted once."""
  workdir = made('gpt', 'python_stdlib')
  text = 'Größe and more'
  found = arrays(workdir, tmp_path, texts=(text,))
  restored = restore.restore_run(workdir, '')
  end = restored.session.objective.specials['end']
  tokens = [end, *text.encode(), end]
  forward, losses = model_of(restored), []
  for first in range(0, len(tokens) - 1, 8):
    row = np.array(tokens[first : first + 9])
    padded = np.pad(row[:-1], (0, 9 - len(row)))
    shares = np.asarray(jax.nn.log_softmax(forward(padded[None])[0]))
    losses += [-float(shares[place, target]) for place, target in enumerate(row[1:])]
  assert len(losses) == len(tokens) - 1 and found['loss'].shape == (3, 8)
  given = [loss for row, n in zip(found['loss'], found['length']) for loss in row[: n - 1]]
  np.testing.assert_allclose(given, losses, rtol=2e-5)
  out = capsys.readouterr().out
  assert f'{len(losses)} tokens, {np.mean(losses):.4f} nats per token' in out
  assert '<|endoftext|>' in out and '\\xc3' in out


@pytest.mark.slow
def test_a_text_without_an_entry_that_begins_it_has_no_first_loss(made, tmp_path):
  workdir = made('gpt_shakespeare_cpu', 'names')
  assert not restore.restore_run(workdir, '').session.objective.specials
  found = arrays(workdir, tmp_path, texts=('Anna',))
  assert found['tokens'][0, :4].tolist() == [*b'Anna'] and found['length'].tolist() == [4]
  assert 'one token' in refusal(workdir, texts=('A',))


def test_masks_are_filled_by_the_likeliest_tokens(made, tmp_path, capsys):
  """Of the model on the text with the mask's id; also behind the first window."""
  workdir = made('bert', 'python_stdlib')
  rows = table(capsys, workdir, texts=('M[MASK]ry is a [MASK]',), options={'top': 2})
  restored = restore.restore_run(workdir, '')
  specials = restored.session.objective.specials
  tokens = [*b'M', specials['mask'], *b'ry is a ', specials['mask'], specials['end']]
  forward = model_of(restored)
  for row, (first, place) in zip(rows, [(0, 1), (8, 2)], strict=True):
    window = np.array(tokens[first : first + 8])
    length = np.array([len(window)])
    padded = np.pad(window, (0, 8 - len(window)))
    shares = np.asarray(jax.nn.softmax(forward(padded[None], lengths=length)[0, place]))
    second, first = (f'{share:.4f}' for share in np.sort(shares)[-2:])
    assert row[-2] == first and row[-1].endswith(f' {second}')
  assert [row[-4] for row in rows] == ['1', '2']
  predict_run(Request(workdir, texts=('[MASK]',), out=f'{tmp_path}/x.jsonl'))
  (line,) = (tmp_path / 'x.jsonl').read_text().splitlines()
  assert {'mask', 'token', 'probability', 'token 5', 'probability 5'} <= json.loads(line).keys()
  assert 'token 6' not in json.loads(line)


def test_every_token_of_a_text_is_tagged(tagger, capsys):
  text = 'def f(): return 12'
  rows = table(capsys, tagger, texts=(text,))
  # The name of the input stands once; then a row for each byte, none for the end.
  assert rows[0][0] == text and len(rows) == len(text)
  assert [row[-4] for row in rows[:4]] == ['d', 'e', 'f', "' '"]
  assert {row[-3] for row in rows} <= {'name', 'other'}
  for row in rows:
    assert float(row[-2]) + float(row[-1].split()[1]) == pytest.approx(1, abs=2e-4)


def test_several_lanes_give_the_mean_of_their_probabilities(made, tmp_path):
  workdir = made('mlp', 'mnist5k', seeds=2)
  images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
  folder = write_pictures(tmp_path / 'x', images)
  of_lanes = [arrays(workdir, tmp_path, folder, lane=i)['probability'] for i in range(2)]
  assert np.abs(of_lanes[0] - of_lanes[1]).max() > 1e-3
  found = arrays(workdir, tmp_path, folder)
  np.testing.assert_allclose(found['probability'], np.mean(of_lanes, axis=0), atol=1e-6)
  assert '--lane=2 is none of the 2 lanes' in refusal(workdir, folder, lane=2)


def test_no_prediction_depends_on_the_batch(made, tmp_path):
  workdir = made('cnn', 'mnist5k')
  images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
  folder = write_pictures(tmp_path / 'x', images)
  whole, single = (arrays(workdir, tmp_path, folder, batch_size=size) for size in (5, 2))
  np.testing.assert_allclose(whole['probability'], single['probability'], rtol=1e-5)


# --- inputs


def test_pictures_of_every_mode_and_size(made, tmp_path, monkeypatch, capsys):
  """Folders below a folder, and what Pillow reads; a name with a comma is one file."""
  workdir = made('cnn', 'mnist5k')
  gray = PIL.Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28))
  (tmp_path / 'x' / 'below').mkdir(parents=True)
  gray.save(tmp_path / 'x' / 'a,b.png')
  PIL.Image.fromarray(np.asarray(gray).astype(np.uint16) * 257).save(tmp_path / 'x' / 'deep.png')
  for mode in ('P', 'RGBA', 'LA'):
    gray.convert(mode).save(tmp_path / 'x' / 'below' / f'{mode}.png')
  (tmp_path / 'x' / 'notes.md').write_text('no picture')
  found = arrays(workdir, tmp_path, f'{tmp_path}/x')
  assert len(found['input']) == 5 and (found['probability'] == found['probability'][0]).all()
  assert 'no pictures (1)' in capsys.readouterr().err
  with pytest.raises(UserError, match='--input= names no file'):
    places([''])
  assert places([f'{tmp_path}/x/a,b.png', 'c.png,d.png', '-']) == (
    f'{tmp_path}/x/a,b.png',
    'c.png',
    'd.png',
    '-',
  )
  piped(monkeypatch, f'{tmp_path}/x/deep.png\n\n{tmp_path}/x/a,b.png\n'.encode())
  assert [row[0] for row in table(capsys, workdir, '-')] == [
    cell(f'{tmp_path}/x/{name}', 40) for name in ('deep.png', 'a,b.png')
  ]


def test_pictures_are_refused_before_anything_is_predicted(made, tmp_path, monkeypatch):
  workdir = made('cnn', 'mnist5k')
  images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
  folder = write_pictures(tmp_path / 'x', images)
  half = (tmp_path / 'x' / '00000.png').read_bytes()[:300]
  (tmp_path / 'x' / '00002.png').write_bytes(half)
  (tmp_path / 'x' / '00003.png').write_bytes(b'no picture')
  said = refusal(workdir, folder, out=f'{tmp_path}/o.csv')
  assert '2 of 4 pictures cannot be read' in said and not (tmp_path / 'o.csv').exists()
  assert '00002.png' in said and '00003.png' in said and '00001.png' not in said
  assert 'no such file' in refusal(workdir, f'{tmp_path}/nowhere.png')
  (tmp_path / 'empty').mkdir()
  assert 'has no pictures' in refusal(workdir, f'{tmp_path}/empty')
  piped(monkeypatch, half)
  assert 'names of pictures' in refusal(workdir, '-')


def test_pictures_of_another_size_are_resized_on_request(made, tmp_path):
  workdir = made('cnn', 'mnist5k')
  wide = np.zeros((28, 56), np.uint8)
  wide[:, 14:42] = np.random.default_rng(0).integers(0, 256, (28, 28))
  PIL.Image.fromarray(wide).save(tmp_path / 'wide.png')
  PIL.Image.fromarray(wide[:, 14:42]).save(tmp_path / 'middle.png')
  PIL.Image.fromarray(wide).resize((28, 28), PIL.Image.LANCZOS).save(tmp_path / 'narrow.png')
  wide, middle, narrow = (f'{tmp_path}/{name}.png' for name in ('wide', 'middle', 'narrow'))
  said = refusal(workdir, wide, middle)
  assert '1 of 2' in said and 'wide.png is 28 × 56' in said and '--resize=center' in said
  for resize, same in (('center', middle), ('stretch', narrow)):
    a, b = arrays(workdir, tmp_path, wide, same, resize=resize)['probability']
    np.testing.assert_array_equal(a, b)
  assert 'did you mean "stretch"' in refusal(workdir, wide, resize='strech')


def test_pictures_are_decoded_again_where_memory_is_short(made, tmp_path, monkeypatch):
  workdir = made('cnn', 'mnist5k')
  images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
  folder = write_pictures(tmp_path / 'x', images)
  kept = arrays(workdir, tmp_path, folder)['probability']
  monkeypatch.setattr('data.unlabelled.pictures._KEPT', 784)
  np.testing.assert_array_equal(arrays(workdir, tmp_path, folder)['probability'], kept)


def test_columns_are_matched_by_name_where_those_of_training_are_known(made, tmp_path):
  names = HEADER.split(',')
  unnamed = made('tabular', 'diabetes')
  (tmp_path / 'plain.csv').write_text('\n'.join(ROWS))
  expected = arrays(unnamed, tmp_path, f'{tmp_path}/plain.csv')['prediction']
  run = tmp_path / 'run'
  shutil.copytree(unnamed, run)
  description = json.loads((run / 'run.json').read_text())
  description['data']['input_columns'] = [{'name': name} for name in names]
  (run / 'run.json').write_text(json.dumps(with_sum(description)))
  backwards = [
    ['id', *reversed(names)],
    *([i, *reversed(r.split(','))] for i, r in enumerate(ROWS)),
  ]
  with open(tmp_path / 'x.csv', 'w', newline='') as file:
    csv.writer(file, delimiter=';').writerows(backwards)
  found = arrays(str(run), tmp_path, f'{tmp_path}/x.csv')
  np.testing.assert_array_equal(found['prediction'], expected)
  assert found['input'].tolist() == [f'{tmp_path}/x.csv:2', f'{tmp_path}/x.csv:3']
  (tmp_path / 'y.csv').write_text(f'{HEADER.replace("bmi", "bmj")}\n{ROWS[0]}')
  assert 'lacks columns that the run was trained on: bmi (did you mean "bmj"?)' in refusal(
    str(run), f'{tmp_path}/y.csv'
  )


def test_categories_and_missing_values_are_those_of_training(made, tmp_path):
  """Ten inputs of five columns: a category of three words, one of four, a truth and numbers."""
  plain = made('tabular', 'diabetes')
  columns = [
    {'name': 'colour', 'words': ['blue', 'none', 'red'], 'fill': 0.0},
    {'name': 'size', 'fill': 2.5},
    {'name': 'kind', 'words': ['a', 'b', 'c', 'd']},
    {'name': 'old', 'is_truth': True},
    {'name': 'weight'},
  ]
  run = tmp_path / 'run'
  shutil.copytree(plain, run)
  description = json.loads((run / 'run.json').read_text())
  description['data']['input_columns'] = columns
  (run / 'run.json').write_text(json.dumps(with_sum(description)))
  rows = ['red;1,5;b;TRUE;-3', 'NA;;d;false;4', 'none;2;a;true;5']
  (tmp_path / 'x.csv').write_text('\n'.join(['colour;size;kind;old;weight', *rows]))
  inputs = ['0,0,1,1.5,0,1,0,0,1,-3', '0,0,0,2.5,0,0,0,1,0,4', '0,1,0,2,1,0,0,0,1,5']
  (tmp_path / 'y.csv').write_text('\n'.join(inputs))
  found = arrays(str(run), tmp_path, f'{tmp_path}/x.csv')['prediction']
  expected = arrays(plain, tmp_path, f'{tmp_path}/y.csv')['prediction']
  np.testing.assert_array_equal(found, expected)
  (tmp_path / 'x.csv').write_text('colour;size;kind;old;weight\nrde;1;b;2;\n')
  said = refusal(str(run), f'{tmp_path}/x.csv')
  assert 'column colour: "rde" is none of the words of training (did you mean "red"?)' in said
  assert 'column weight: is empty' in said


@pytest.mark.parametrize(
  'content, part',
  [
    ('a,b\n1,2\n', 'has 2 columns (a, b), and the run was trained on 10'),
    (
      f'{HEADER}\n{ROWS[0]}\n1,2,,4,x,6,7,8,9,1e99\n',
      'line 3, column bmi: is empty, line 3, column',
    ),
    (f'{HEADER}\n{ROWS[0]}\n1,2,3,4,x,6,7,8,9,1\n', 'column s1: "x" is no finite number'),
    (f'{HEADER}\n1,2,3,4,5,6,7,8,9,nan\n', '"nan" is no finite number'),
    (f'{HEADER}\n1,2,3\n', 'line 2 has 3 cells and the first line 10'),
    (f'{HEADER}\n', 'has no rows'),
    ('', 'has no rows'),
  ],
)
def test_tables_are_refused(made, monkeypatch, content, part):
  piped(monkeypatch, content.encode())
  assert part in refusal(made('tabular', 'diabetes'), '-')


def test_an_answer_among_the_columns_is_left_out(made, tmp_path, monkeypatch, capsys):
  workdir = made('tabular', 'diabetes')
  piped(monkeypatch, f'{HEADER},target\n{ROWS[0]},151\n'.encode())
  ((name, value),) = table(capsys, workdir, '-')
  piped(monkeypatch, f'{HEADER}\n{ROWS[0]}\n'.encode('utf-8-sig'))
  assert [[name, value]] == table(capsys, workdir, '-')


def test_texts_from_everywhere(made, tmp_path, monkeypatch, capsys):
  workdir = made('bert_classify', '')
  (tmp_path / 'a.txt').write_text('Anna\nMaria\n')
  (tmp_path / 'b.jsonl').write_text('{"text": "Otto"}\n\n{"text": "Ida", "n": 1}\n')
  (tmp_path / 'c.csv').write_text('n,word\n1,"Ann, Sue"\n2,Tom\n')
  inputs = (f'{tmp_path}/a.txt', f'{tmp_path}/b.jsonl')

  def names(*inputs, **options):
    return [row[0] for row in table(capsys, workdir, *inputs, batch_size=1, **options)]

  assert names(*inputs, texts=('Bo',)) == ['Bo', cell(inputs[0], 40), 'Otto', 'Ida']
  assert names(inputs[0], lines=True) == ['Anna', 'Maria']
  assert names(f'{tmp_path}/c.csv', column='word') == ['Ann, Sue', 'Tom']
  assert len(names(str(tmp_path))) == 3
  piped(monkeypatch, b'Anna\nMaria\n')
  assert names('-', lines=False) == ['-']


@pytest.mark.parametrize(
  'name, options, part',
  [
    ('x.txt', {}, 'has no text'),
    ('bytes.txt', {}, 'is not UTF-8 at byte 1'),
    ('x.jsonl', {}, 'x.jsonl:1 has no text "text" (did you mean "texts"?)'),
    ('bad.jsonl', {}, 'line 2 is no JSON'),
    ('x.csv', {'column': 'c'}, 'choose one of its columns with --column: a, b'),
    ('nowhere.txt', {}, 'no such file'),
    ('x.csv', {'lines': True}, '--lines has no effect'),
    ('x.txt', {'column': 'a'}, '--column=a has no effect'),
    ('x.txt', {'resize': 'pad'}, '--resize has no effect here'),
  ],
)
def test_texts_are_refused(made, tmp_path, name, options, part):
  (tmp_path / 'x.txt').write_text(' \n')
  (tmp_path / 'bytes.txt').write_bytes(b'a\xff')
  (tmp_path / 'x.jsonl').write_text('{"texts": "a"}')
  (tmp_path / 'bad.jsonl').write_text('{"text": "a"}\n{')
  (tmp_path / 'x.csv').write_text('a,b\n1,2')
  assert part in refusal(made('bert_classify', ''), f'{tmp_path}/{name}', **options)


def test_long_texts_are_cut_off_as_in_evaluation(made, capsys):
  predict_run(Request(made('bert_classify', ''), texts=('Maximilian', 'Ida')))
  said = capsys.readouterr().err
  assert '1 of 2 texts are longer than the 6 tokens' in said and 'Maximilian' in said


def test_a_text_without_a_mask_is_refused(made):
  said = refusal(made('bert', 'python_stdlib'), texts=('a [MASK]', 'a [mask]'))
  assert '1 of 2 texts have no [MASK]: a [mask]' in said


# --- the command


@pytest.mark.parametrize(
  'options, part',
  [
    ({'out': 'x.txt'}, '--out=x.txt must end in .csv, .jsonl or .npz'),
    ({'out': '/proc/nowhere/x.csv'}, 'cannot write --out=/proc/nowhere/x.csv'),
    ({'batch_size': 0}, '--batch_size=0 must be at least 1'),
    ({'average': 'slow'}, 'slow'),
    ({'checkpoint': '9'}, '9'),
    ({'options': {'top': 0}}, '--top=0 must be at least 1'),
    ({'texts': ('a',)}, '--text has no effect here'),
    ({'lines': True}, '--lines has no effect here'),
  ],
)
def test_requests_are_refused(made, tmp_path, options, part):
  folder = write_pictures(tmp_path / 'x', np.zeros((1, 28, 28), np.uint8))
  assert part in refusal(made('cnn', 'mnist5k'), folder, **options)


def test_what_predicts_nothing_names_sample_py(made, monkeypatch):
  workdir = made('cnn', 'mnist5k')
  assert 'give --input' in refusal(workdir)
  config = runs.small(tiny.config_of('gan', 'mnist5k'))
  gan = open_session(config, tiny.spec('mnist5k'))
  restored = restore.restore_run(workdir, '')._replace(session=gan)
  monkeypatch.setattr('commands.predict_run.restore_run', lambda *_: restored)
  said = refusal(workdir, 'a.png')
  assert 'a run of gan, which predicts nothing' in said and 'sample.py' in said


def test_files_hold_every_class(made, tmp_path, capsys):
  workdir = made('cnn', 'mnist5k')
  folder = write_pictures(tmp_path / 'x', np.zeros((2, 28, 28), np.uint8))
  for out in ('y.csv', 'y.jsonl'):
    predict_run(Request(workdir, (folder,), out=f'{tmp_path}/{out}'))
  with open(tmp_path / 'y.csv', newline='') as file:
    rows = [*csv.DictReader(file)]
  lines = [json.loads(line) for line in (tmp_path / 'y.jsonl').read_text().splitlines()]
  assert [row['input'] for row in rows] == [f'{folder}/{n:05d}.png' for n in range(2)]
  shares = [float(rows[0][f'probability of {name}']) for name in range(10)]
  assert sum(shares) == pytest.approx(1) and float(rows[0]['probability']) == max(shares)
  assert rows[0]['class'] == str(np.argmax(shares))
  assert {k: str(v) for k, v in lines[1].items()} == rows[1]


def test_the_script(made, tmp_path, script):
  workdir = made('cnn', 'mnist5k')
  folder = write_pictures(tmp_path / 'x', np.zeros((2, 28, 28), np.uint8))
  done = script('predict.py', f'--workdir={workdir}', '--top=2', f'{folder}/00001.png')
  assert done.returncode == 0, done.stderr
  head, row = done.stdout.splitlines()
  assert head.split()[-2:] == ['class', '2'] and 'class 3' not in head
  assert row.startswith('…') and row.split()[0].endswith('00001.png')


@pytest.mark.slow
def test_the_flags_of_the_script(made, script):
  workdir = made('cnn', 'mnist5k')
  listed = script('predict.py', f'--workdir={workdir}', '--help').stdout
  assert '--top' in listed and '--resize' in listed and '--input' in listed
  done = script('predict.py', f'--workdir={workdir}', '--tpo=2')
  assert done.returncode == 2 and 'did you mean "--top"' in done.stderr
  assert done.stderr.count('\n') == 1


def test_cells():
  assert cell(0.123456) == '0.1235' and cell(1e-7) == '1e-07' and cell(np.float32(0)) == '0.0000'
  assert cell('a\nb') == "'a\\nb'" and cell(' a') == "' a'" and cell('') == "''" and cell(3) == '3'
  assert cell('/long/way/a.png', 8) == '…y/a.png' and cell('many words here', 8) == 'many wo…'


def test_a_data_set_can_say_what_its_inputs_are_made_of(tmp_path):
  """In a file beside its records; a run keeps it."""
  prepared = catalog.Prepared(files.path(tmp_path), {}, {})
  assert prepared.input_columns() == ()
  columns = (InputColumn('a', fill=1.5), InputColumn('b', ('x', 'y')))
  written = [column._asdict() for column in columns]
  (tmp_path / catalog.COLUMNS).write_text(json.dumps(written))
  assert prepared.input_columns() == columns
  (tmp_path / catalog.COLUMNS).write_text('["a"]')
  with pytest.raises(UserError, match=r'inputs\.columns\.json'):
    prepared.input_columns()
  spec = Spec('t', 'train', 1, {'inputs': ((3,), 'float32')}, 0, '', input_columns=columns)
  assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
