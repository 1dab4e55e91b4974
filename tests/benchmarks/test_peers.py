"""The PyTorch peers compute what our models compute, so that ratios of speed mean something."""

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.rnn import RNN
from models.transformer import Transformer

torch = pytest.importorskip('torch')
PEERS = Path(__file__).parents[2] / 'benchmarks' / 'peers'
LAYERS, HEADS, WIDTH, CONTEXT, VOCABULARY = 2, 4, 32, 16, 65


@pytest.fixture
def peer(monkeypatch):
  """Imports a peer as it is when it runs as a script."""
  monkeypatch.syspath_prepend(str(PEERS))
  return importlib.import_module


def gpt(torch_gpt: ModuleType, *flags: str):
  """A small peer whose gains and biases are not those it begins with."""
  sizes = f'--layers {LAYERS} --heads {HEADS} --width {WIDTH} --context {CONTEXT}'.split()
  torch.manual_seed(0)
  model = torch_gpt.GPT(torch_gpt.size_of(torch_gpt.parse(['steps', *sizes, *flags]), VOCABULARY))
  for param in model.parameters():
    if param.dim() == 1:
      torch.nn.init.normal_(param, mean=1.0)
  return model.eval()


def ours(model, biases: bool) -> tuple[Transformer, dict]:
  """Our transformer and its parameters, taken from the peer."""
  module = Transformer(
    width=WIDTH, layers=LAYERS, heads=HEADS, key_value_heads=0, hidden=0, context=CONTEXT,
    causal=True, norm='layer', norm_place='pre', norm_epsilon=1e-5, positions='learned', mlp='gelu',
    biases=biases, tied=True, types=0, embedding_norm=False, head='linear', dropout=0.0, scan=False,
    remat=False, vocabulary=VOCABULARY, outputs=VOCABULARY,
  )  # fmt: skip

  def array(param) -> np.ndarray:
    return param.detach().numpy()

  def dense(layer, by_head: bool = False) -> dict:
    found = {'kernel': array(layer.weight).T}
    if biases:
      found['bias'] = array(layer.bias)
    return {name: heads_first(part) for name, part in found.items()} if by_head else found

  def heads_first(columns: np.ndarray) -> np.ndarray:
    """Columns [q of all heads, k of all, v of all] to [q, k, v of the first head, …]."""
    apart = columns.reshape(*columns.shape[:-1], 3, HEADS, WIDTH // HEADS)
    return apart.swapaxes(-3, -2).reshape(columns.shape)

  def norm(layer) -> dict:
    return {'scale': array(layer.weight), **({'bias': array(layer.bias)} if biases else {})}

  blocks = {
    f'block_{i}': {
      'attention_norm': norm(block.norm_1),
      'attention': {
        'query_key_value': dense(block.attention.query_key_value, by_head=True),
        'output': dense(block.attention.projection),
      },
      'mlp_norm': norm(block.norm_2),
      'mlp': {'up': dense(block.up), 'down': dense(block.projection)},
    }
    for i, block in enumerate(model.blocks)
  }
  embeddings = {
    'embedding': {'embedding': array(model.tokens.weight)},
    'positions': {'embedding': array(model.positions.weight)},
  }
  return module, {**embeddings, **blocks, 'norm': norm(model.norm)}


@pytest.mark.parametrize('flags', [('--no-bias',), ('--bias', '--attention', 'plain')])
def test_gpt_gives_the_logits_of_our_transformer(peer, flags):
  model = gpt(peer('torch_gpt'), *flags)
  tokens = np.random.default_rng(0).integers(0, VOCABULARY, (3, CONTEXT), np.int32)
  module, params = ours(model, biases='--bias' in flags)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens, train=False))['params']
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
  logits = module.apply({'params': params}, tokens, train=False)
  with torch.no_grad():
    theirs = model(torch.tensor(tokens))
    last = model(torch.tensor(tokens), last=True)
  np.testing.assert_allclose(logits, theirs, atol=1e-5)
  np.testing.assert_allclose(logits[:, -1:], last, atol=1e-5)


def test_gpt_begins_as_gpt2_does(peer):
  """N(0, 0.02²), divided by √(2·layers) where a product writes to the residual stream."""
  torch_gpt = peer('torch_gpt')
  block = gpt(torch_gpt).blocks[0]
  for layer in (block.up, block.attention.query_key_value):
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
  for layer in (block.projection, block.attention.projection):
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize('cell', ['tanh', 'gru', 'lstm'])
@pytest.mark.parametrize('embedding', [0, 6])
def test_rnn_gives_the_logits_of_our_rnn(peer, cell, embedding):
  torch_rnn = peer('torch_rnn')
  flags = f'{cell} --width 8 --embedding {embedding}'.split()
  torch.manual_seed(0)
  model = torch_rnn.CharacterRNN(torch_rnn.parse(flags))
  params = {name: param.detach().numpy() for name, param in model.named_parameters()}
  bias, inner = params['cells.bias_ih_l0'], params['cells.bias_hh_l0']
  recurrent = {'kernel': params['cells.weight_hh_l0'].T}
  if cell == 'gru':
    recurrent['bias'], inner = inner[16:], np.concatenate([inner[:16], np.zeros(8)])
  tree = {
    'layer_0': {
      'input': {'kernel': params['cells.weight_ih_l0'].T, 'bias': bias + inner},
      'recurrent': recurrent,
    },
    'output': {'kernel': params['head.weight'].T, 'bias': params['head.bias']},
  }
  if embedding:
    tree['embedding'] = {'embedding': params['embedding.weight']}
  module = RNN(
    cell=cell, width=8, embedding=embedding, layers=1, tied=False, dropout=0.0,
    vocabulary=VOCABULARY, outputs=VOCABULARY,
  )  # fmt: skip
  tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, 5), np.int32)
  logits = module.apply({'params': tree}, tokens, train=False)
  with torch.no_grad():
    theirs = model(torch.tensor(tokens.T, dtype=torch.int64)).swapaxes(0, 1)
  np.testing.assert_allclose(logits, theirs, atol=1e-5)


def test_whole_loss_predicts_every_token_but_the_first_once(peer):
  """Windows side by side and a short last one, each from its own beginning."""
  torch_gpt = peer('torch_gpt')
  model = gpt(torch_gpt)
  text = torch.randint(VOCABULARY, (2 * CONTEXT + 6,))
  nats = []
  for start in range(0, len(text) - 1, CONTEXT):
    window = text[start : start + CONTEXT + 1]
    with torch.no_grad():
      shares = model(window[None, :-1])[0].log_softmax(-1)
    nats += [-shares[i, token].item() for i, token in enumerate(window[1:])]
  assert len(nats) == len(text) - 1
  assert torch_gpt.whole_loss(model, text) == pytest.approx(np.mean(nats), rel=1e-5)


def test_the_text_is_split_like_nanogpt(peer, tmp_path):
  path = tmp_path / 'text.txt'
  path.write_text('the quick fox jumps.')
  training, validation, vocabulary = peer('torch_gpt').read_text(str(path))
  assert (len(training), len(validation), vocabulary) == (18, 2, 17)
  assert validation.tolist() == [13, 1]  # 's.', of the sorted characters ' .cefhijkmopqstux'


def test_the_schedule_is_nanogpts(peer):
  """Warm-up over 100 steps, then half a cosine from 1e-3 to 1e-4."""
  rates = [peer('torch_gpt').learning_rate(step, 2000) for step in (0, 50, 100, 1050, 2000, 2500)]
  assert rates == pytest.approx([0.0, 5e-4, 1e-3, 5.5e-4, 1e-4, 1e-4])


def test_weight_decay_is_for_matrices(peer):
  torch_gpt = peer('torch_gpt')
  model = gpt(torch_gpt, '--bias')
  decayed, kept = torch_gpt.make_optimizer(model, 'fused').param_groups
  assert decayed['weight_decay'] == 0.1 and {p.dim() for p in decayed['params']} == {2}
  assert kept['weight_decay'] == 0.0 and {p.dim() for p in kept['params']} == {1}
  assert len(decayed['params']) + len(kept['params']) == len(list(model.parameters()))


def test_generate_shows_the_model_the_end_of_the_text(peer):
  """At most `context` tokens of it, the last of which decides: here each is one more."""

  class Counting:
    size = SimpleNamespace(context=4)
    seen: list[int] = []

    def __call__(self, tokens, last):
      self.seen.append(tokens.shape[1])
      after = torch.nn.functional.one_hot(tokens[:, -1:] + 1, 10)
      return torch.where(after == 1, 0.0, -torch.inf)

  text = peer('torch_gpt').generate(Counting(), rows=2, length=7)
  assert text.tolist() == 2 * [[0, 1, 2, 3, 4, 5, 6]]
  assert Counting.seen == [1, 2, 3, 4, 4, 4]


def test_windows_are_the_text_and_what_follows(peer):
  tokens, targets = peer('torch_peer').windows(torch.arange(20), batch_size=50, length=7)
  assert tokens.shape == targets.shape == (50, 7)
  assert torch.equal(targets, tokens + 1) and targets.max() <= 19
  assert torch.equal(tokens, tokens[:, :1] + torch.arange(7))
  assert tokens[:, 0].min() == 0 and tokens[:, 0].max() == 12


def test_an_update_clips_the_gradient(peer):
  """Plain descent on ‖w‖²/2·100 from (3, 4): a gradient of norm 500 is cut to 1."""
  weight = torch.tensor([3.0, 4.0], requires_grad=True)
  optimizer = torch.optim.SGD([weight], lr=1.0)
  loss = peer('torch_peer').update(50 * weight.square().sum(), optimizer, clip=1.0)
  assert loss.item() == 1250 and not loss.requires_grad
  np.testing.assert_allclose(weight.detach(), [2.4, 3.2], atol=1e-5)
